//! Birth of a file: it is made without its name, and given the name when it is whole.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::attach;
use crate::identity::Identity;
use crate::namespace::Namespace;
use crate::sys::file;

/// How the file gets its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// It has none; it is linked by its descriptor.
    Descriptor,
    /// It has none; it is linked through `/proc/self/fd`, on kernels before 6.10.
    Proc,
    /// It has a temporary one, where the file system or the absence of `/proc` allows nothing
    /// better.
    Temporary { path: PathBuf, by_rename: bool },
}

/// Which routes may be taken: all in production, fewer in tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Routes {
    /// Files without a name.
    pub(crate) anonymous: bool,
    /// Naming them by their descriptor.
    pub(crate) by_descriptor: bool,
    /// Giving a temporary file its name by moving it, in one step.
    pub(crate) by_rename: bool,
}

impl Routes {
    pub(crate) const ALL: Routes = Routes { anonymous: true, by_descriptor: true, by_rename: true };
}

/// A file on its way to a name. Dropped before [`publish`](Stage::publish), it leaves nothing.
#[derive(Debug)]
pub(crate) struct Stage {
    route: Route,
    published: bool,
}

impl Stage {
    /// Makes an empty, attached file, mode 0600.
    pub(crate) fn open(namespace: &Namespace, routes: Routes) -> io::Result<(Stage, OwnedFd)> {
        if routes.anonymous
            && let Some((route, fd)) = open_anonymous(namespace.directory(), routes)?
        {
            // Nobody else can know the file, so nobody can exclude us.
            attach::attach(fd.as_fd())?;
            return Ok((Stage { route, published: false }, fd));
        }
        loop {
            if let Some(staged) = open_temporary(namespace, routes)? {
                return Ok(staged);
            }
        }
    }

    /// Gives the file its name, in one step; fails with `AlreadyExists` when the name is taken.
    pub(crate) fn publish(mut self, fd: &OwnedFd, path: &Path) -> io::Result<()> {
        match &self.route {
            Route::Descriptor => file::link_descriptor(fd.as_fd(), path),
            Route::Proc => file::link_proc(fd.as_fd(), path),
            Route::Temporary { path: temporary, by_rename } => {
                publish_temporary(temporary, path, *by_rename)
            }
        }?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let (Route::Temporary { path, .. }, false) = (&self.route, self.published) {
            // What cannot be removed now is removed by a later purge.
            let _ = file::unlink(path);
        }
    }
}

fn open_anonymous(directory: &Path, routes: Routes) -> io::Result<Option<(Route, OwnedFd)>> {
    let fd = match file::open_anonymous(directory) {
        Ok(fd) => fd,
        // A file system without anonymous files, or a kernel that ignores the flag and sees an
        // attempt to write a directory.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if routes.by_descriptor && file::can_link_descriptor(fd.as_fd(), directory) {
        return Ok(Some((Route::Descriptor, fd)));
    }
    let shown = file::inode_of(&file::proc_path(fd.as_fd())).ok();
    let own = file::status(fd.as_fd())?.identity.inode;
    Ok((shown == Some(own)).then_some((Route::Proc, fd)))
}

/// `None`: a purge took the file in the instant before it was attached.
fn open_temporary(namespace: &Namespace, routes: Routes) -> io::Result<Option<(Stage, OwnedFd)>> {
    let path = namespace.temporary_path(u128::from_ne_bytes(file::random()?));
    let fd = file::open_exclusive(&path)?;
    let route = Route::Temporary { path: path.clone(), by_rename: routes.by_rename };
    let stage = Stage { route, published: false };
    // Attached first, looked up second: a purge excludes first and removes second, so one of the
    // two sees the other.
    let own = attach::attach(fd.as_fd())? && leads_to(&path, file::status(fd.as_fd())?.identity)?;
    Ok(own.then_some((stage, fd)))
}

fn publish_temporary(temporary: &Path, path: &Path, by_rename: bool) -> io::Result<()> {
    if by_rename {
        match file::rename_new(temporary, path) {
            // A file system that cannot refuse to replace.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {}
            done => return done,
        }
    }
    file::link_name(temporary, path)?;
    // The segment is published; a temporary name left over is removed by a later purge.
    let _ = file::unlink(temporary);
    Ok(())
}

/// Whether `path` names the file `identity`.
pub(crate) fn leads_to(path: &Path, identity: Identity) -> io::Result<bool> {
    match file::status_at(path) {
        Ok(status) => Ok(status.identity == identity),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Kind;
    use crate::{Access, CreateError, PurgeOptions, Segment, SegmentName, SegmentOptions};

    const KIND: Kind = Kind { magic: *b"stagetst", version: 1 };

    /// The kernel of this machine offers the best route, so the fall-backs are forced here.
    fn on_every_route(check: impl Fn(Routes, &Namespace, SegmentOptions)) {
        for (index, routes) in [
            Routes::ALL,
            Routes { by_descriptor: false, ..Routes::ALL },
            Routes { anonymous: false, ..Routes::ALL },
            Routes { anonymous: false, by_rename: false, ..Routes::ALL },
        ]
        .into_iter()
        .enumerate()
        {
            let directory = format!(
                "/dev/shm/shm-core-stage-{}-{index}-{:?}",
                std::process::id(),
                std::thread::current().id()
            );
            std::fs::create_dir(&directory).expect("a fresh directory");
            let namespace = Namespace::new(&directory, "s.").expect("a plain prefix");
            let mut options = SegmentOptions::new(KIND, 4096);
            options.routes = routes;
            check(routes, &namespace, options);
            std::fs::remove_dir(&directory).expect("nothing left behind");
        }
    }

    fn files(namespace: &Namespace) -> Vec<String> {
        let mut names: Vec<_> = file::names_in(namespace.directory())
            .expect("readable")
            .into_iter()
            .map(|name| name.into_string().expect("ASCII"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn every_route_names_a_whole_segment_and_nothing_else() {
        on_every_route(|routes, namespace, options| {
            let name = SegmentName::new("a").expect("a name");
            let made = options
                .create(namespace, &name, |_| {
                    let there = files(namespace);
                    let hidden = there.iter().all(|name| name.starts_with("s.%tmp."));
                    assert!(hidden && there.len() == usize::from(!routes.anonymous), "{there:?}");
                    assert_eq!(namespace.scan().expect("scanned").segments, []);
                    Ok(())
                })
                .expect("created");
            assert_eq!(files(namespace), ["s.a"]);
            let opened = Segment::open(namespace, &name, Access::ReadWrite, KIND).expect("opened");
            assert_eq!(opened.identity(), made.identity());

            let again = options.create(namespace, &name, |_| Ok(()));
            assert!(matches!(again, Err(CreateError::AlreadyExists { .. })), "{again:?}");
            assert_eq!(files(namespace), ["s.a"], "{routes:?}");
            namespace.unlink(&name).expect("removed");
        });
    }

    #[test]
    fn every_route_tells_a_lost_race_at_the_last_step() {
        on_every_route(|routes, namespace, options| {
            let name = SegmentName::new("a").expect("a name");
            let lost = options.create(namespace, &name, |_| {
                SegmentOptions::new(KIND, 512).create(namespace, &name, |_| Ok(())).expect("first");
                Ok(())
            });
            assert!(matches!(lost, Err(CreateError::AlreadyExists { .. })), "{routes:?}: {lost:?}");
            assert_eq!(files(namespace), ["s.a"]);
            namespace.unlink(&name).expect("removed");
        });
    }

    #[test]
    fn an_unfinished_file_is_spared_while_its_creator_lives_and_purged_after() {
        let directory = format!("/dev/shm/shm-core-unfinished-{}", std::process::id());
        std::fs::create_dir(&directory).expect("a fresh directory");
        let namespace = Namespace::new(&directory, "s.").expect("a plain prefix");
        let routes = Routes { anonymous: false, ..Routes::ALL };
        let (stage, fd) = Stage::open(&namespace, routes).expect("staged");
        for dry_run in [true, false] {
            let options = PurgeOptions::new().dry_run(dry_run).include_live(true);
            let report = namespace.purge(&options).expect("purged");
            assert_eq!(report.unfinished, [] as [&Path; 0], "its creator lives");
        }
        // A killed creator drops nothing but its descriptors.
        std::mem::forget(stage);
        drop(fd);
        let dry = namespace.purge(&PurgeOptions::new().dry_run(true)).expect("a dry run");
        assert_eq!((dry.unfinished.len(), files(&namespace).len()), (1, 1));
        let report = namespace.purge(&PurgeOptions::new()).expect("purged");
        assert_eq!(report.unfinished, dry.unfinished);
        std::fs::remove_dir(&directory).expect("nothing left behind");
    }
}
