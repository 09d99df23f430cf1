//! Socket paths: long ones, taken ones, and those that a dead server left behind.
//!
//! A server holds `<path>.lock` locked (flock) from before it looks at the path until after it has
//! removed its socket. Whoever gets the lock may remove whatever dead socket is there; whoever does
//! not is told that the path is taken, unless the process that it names is gone: its lock is waited for, a
//! second at most. The lock hangs on a mapping that forked children do not get, so it ends
//! with the server and not with the last of its children.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Pid;

use crate::error::BindError;
use crate::fault;
use crate::peer::own_uid;
use crate::sys::{Pin, UnsharedFd, still};

/// How long the lock of a process that is gone may outlast it: whoever was reading its maps when it died
/// gives back its memory.
const DYING: Duration = Duration::from_secs(1);

/// What the name of a lock adds to that of its socket.
pub(crate) const LOCK: &str = ".lock";

/// How many bytes of a path fit into a socket address, which ends with a zero.
const ADDRESS_BYTES_MAX: usize = 107;

/// The directory of a socket, opened, and its name in there.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    directory: OwnedFd,
    name: OsString,
}

/// Why a path leads nowhere.
#[derive(Debug)]
pub(crate) enum PlaceError {
    Form(&'static str),
    Directory(Errno),
}

impl Place {
    pub(crate) fn new(path: &Path) -> Result<Self, PlaceError> {
        let name = path.file_name().ok_or(PlaceError::Form("it names no file"))?;
        if path.as_os_str().as_bytes().contains(&0) {
            return Err(PlaceError::Form("it holds a zero byte"));
        }
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH;
        let directory =
            fault::point("open").and_then(|()| rustix::fs::open(parent, flags, Mode::empty()));
        let directory = directory.map_err(PlaceError::Directory)?;
        Ok(Self { path: path.to_owned(), directory, name: name.to_owned() })
    }

    /// An address for the socket. A path that is too long goes by way of the open directory.
    pub(crate) fn address(&self) -> Result<SocketAddrUnix, PlaceError> {
        if self.path.as_os_str().len() <= ADDRESS_BYTES_MAX {
            return SocketAddrUnix::new(&self.path).map_err(PlaceError::Directory);
        }
        let directory = Path::new("/proc/self/fd").join(self.directory.as_raw_fd().to_string());
        let short = directory.join(&self.name);
        if short.as_os_str().len() > ADDRESS_BYTES_MAX {
            return Err(PlaceError::Form("its last part is too long, about 85 bytes fit"));
        }
        if !directory.exists() {
            return Err(PlaceError::Form("it has more than 107 bytes, and /proc is not there"));
        }
        SocketAddrUnix::new(short).map_err(PlaceError::Directory)
    }

    /// What is there instead of a socket, links followed; `None` for a socket, or nothing.
    pub(crate) fn found(&self) -> Option<&'static str> {
        let status = rustix::fs::statat(&self.directory, &self.name, AtFlags::empty());
        kind(status.ok()?.st_mode)
    }

    fn inode(&self, name: &OsStr) -> Result<(u64, u64), Errno> {
        fault::point("fstatat")?;
        let status = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((status.st_dev, status.st_ino))
    }
}

/// What stands at a path instead of a socket, with its article; `None` for a socket.
fn kind(mode: rustix::fs::RawMode) -> Option<&'static str> {
    Some(match FileType::from_raw_mode(mode) {
        FileType::Socket => return None,
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a pipe",
        _ => "a device",
    })
}

pub(crate) fn socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    fault::point("socket")?;
    let flags = flags | SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// A listening socket, the path that leads to it, and the lock that makes it this server's.
#[derive(Debug)]
pub(crate) struct Listening {
    place: Place,
    socket: UnsharedFd,
    inode: (u64, u64),
    lock: Lock,
}

impl Listening {
    pub(crate) fn bind(path: &Path, backlog: i32) -> Result<Self, BindError> {
        let kernel =
            |step, source: io::Error| BindError::Kernel { step, path: path.to_owned(), source };
        let place_error = |error| match error {
            PlaceError::Form(reason) => BindError::Path { path: path.to_owned(), reason },
            PlaceError::Directory(errno) => kernel("open the directory", errno.into()),
        };
        let place = Place::new(path).map_err(place_error)?;
        let address = place.address().map_err(place_error)?;
        let lock = Lock::take(&place, DYING)?;
        let bound = || -> Result<(UnsharedFd, (u64, u64)), BindError> {
            remove_dead(&place, &address)?;
            let socket = UnsharedFd::make(|| socket(SocketFlags::NONBLOCK))
                .map_err(|errno| kernel("make a socket", errno.into()))?;
            let own = socket.get().map_err(|error| kernel("make a socket", error.into()))?;
            fault::point("bind")
                .and_then(|()| rustix::net::bind(own, &address))
                .map_err(|errno| kernel("bind the socket", errno.into()))?;
            // Nobody can connect before `listen`, so the mode is in place in time.
            let listen = || -> Result<(u64, u64), BindError> {
                let inode = place.inode(&place.name).map_err(Errno::into);
                let inode = inode.map_err(|error| kernel("look at the socket", error))?;
                let mode = Mode::RUSR | Mode::WUSR;
                fault::point("fchmodat")
                    .and_then(|()| {
                        let flags = AtFlags::empty();
                        rustix::fs::chmodat(&place.directory, &place.name, mode, flags)
                    })
                    .map_err(|errno| kernel("set the mode of the socket", errno.into()))?;
                fault::point("listen")
                    .and_then(|()| rustix::net::listen(own, backlog))
                    .map_err(|errno| kernel("listen on the socket", errno.into()))?;
                Ok(inode)
            };
            let inode = listen().inspect_err(|_| {
                // Bound a moment ago, under the lock: it is ours.
                let _ = rustix::fs::unlinkat(&place.directory, &place.name, AtFlags::empty());
            })?;
            Ok((socket, inode))
        };
        match bound() {
            Ok((socket, inode)) => Ok(Self { place, socket, inode, lock }),
            Err(error) => {
                lock.release(&place);
                Err(error)
            }
        }
    }

    pub(crate) fn socket(&self) -> &UnsharedFd {
        &self.socket
    }

    pub(crate) fn path(&self) -> &Path {
        &self.place.path
    }

    /// Removes the path, if it still leads to this socket, and then the lock.
    pub(crate) fn close(self) {
        if self.socket.get().is_err() {
            return;
        }
        if self.place.inode(&self.place.name) == Ok(self.inode) && fault::point("unlinkat").is_ok()
        {
            // Under the lock nobody else replaces it.
            let _ = rustix::fs::unlinkat(&self.place.directory, &self.place.name, AtFlags::empty());
        }
        drop(self.socket);
        self.lock.release(&self.place);
    }
}

/// Removes what a server left at `path` that is no more; `false` if one lives, or that cannot be shown.
pub(crate) fn remove_what_died(path: &Path) -> bool {
    let Ok(place) = Place::new(path) else { return false };
    let Ok(address) = place.address() else { return false };
    let Ok(lock) = Lock::take(&place, Duration::ZERO) else { return false };
    let is_removed = remove_dead(&place, &address).is_ok();
    lock.release(&place);
    is_removed
}

/// Removes the socket of a server that is no more. The caller holds the lock.
fn remove_dead(place: &Place, address: &SocketAddrUnix) -> Result<(), BindError> {
    let path = || place.path.clone();
    let kernel =
        |step, errno: Errno| BindError::Kernel { step, path: path(), source: errno.into() };
    let status = rustix::fs::statat(&place.directory, &place.name, AtFlags::SYMLINK_NOFOLLOW);
    let status = match status {
        Ok(status) => status,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(kernel("look at what is there", errno)),
    };
    let found = match kind(status.st_mode) {
        None if status.st_uid == own_uid() => None,
        None => Some("a socket of another user"),
        found => found,
    };
    if let Some(found) = found {
        return Err(BindError::NotASocket { path: path(), found });
    }
    // A server that knows nothing of the lock may live there. No child shall keep it busy.
    let _still = still();
    let probe = socket(SocketFlags::NONBLOCK).map_err(|errno| kernel("make a socket", errno))?;
    match rustix::net::connect(&probe, address) {
        Ok(()) => {
            let pid = crate::sys::peer_credentials(probe.as_fd()).ok().and_then(|it| it.pid);
            return Err(BindError::Taken { path: path(), pid });
        }
        Err(Errno::AGAIN) => return Err(BindError::Taken { path: path(), pid: None }),
        Err(_) => {}
    }
    rustix::fs::unlinkat(&place.directory, &place.name, AtFlags::empty())
        .map_err(|errno| kernel("remove the socket of a dead server", errno))
}

fn is_gone(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let found = pid.map(rustix::process::test_kill_process);
    found == Some(Err(Errno::SRCH))
}

#[derive(Debug)]
struct Lock {
    name: OsString,
    inode: (u64, u64),
    /// Holds the lock.
    _pin: Pin,
}

impl Lock {
    /// Waits at most `dying` for the lock of a process that is gone.
    fn take(place: &Place, dying: Duration) -> Result<Self, BindError> {
        let mut name = place.name.clone();
        name.push(LOCK);
        let kernel = |step, errno: Errno| BindError::Kernel {
            step,
            path: place.path.clone(),
            source: errno.into(),
        };
        let patience = Instant::now() + dying;
        loop {
            // A child that has the file open has the lock.
            let still = still();
            let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let mode = Mode::RUSR | Mode::WUSR;
            let file = fault::point("openat")
                .and_then(|()| rustix::fs::openat(&place.directory, &name, flags, mode))
                .map_err(|errno| kernel("open the lock file", errno))?;
            let mut file = File::from(file);
            let operation = FlockOperation::NonBlockingLockExclusive;
            match fault::point("flock").and_then(|()| rustix::fs::flock(&file, operation)) {
                Ok(()) => {}
                Err(Errno::AGAIN) => {
                    let mut pid = String::new();
                    // Only to tell a person: a holder that has not written yet is no error.
                    let _ = file.take(32).read_to_string(&mut pid);
                    let pid = pid.trim().parse().ok();
                    if pid.is_some_and(is_gone) && Instant::now() < patience {
                        std::thread::sleep(Duration::from_millis(1));
                        continue;
                    }
                    return Err(BindError::Taken { path: place.path.clone(), pid });
                }
                Err(errno) => return Err(kernel("lock the lock file", errno)),
            }
            let status =
                rustix::fs::fstat(&file).map_err(|errno| kernel("look at the lock file", errno))?;
            let inode = (status.st_dev, status.st_ino);
            if place.inode(&name) != Ok(inode) {
                // Its holder removed it between our opening and locking it.
                continue;
            }
            let pin = Pin::new(file.as_fd(), &still).map_err(|source| BindError::Kernel {
                step: "keep the lock file",
                path: place.path.clone(),
                source,
            })?;
            let pid = format!("{}\n", std::process::id());
            let written = file.set_len(0).and_then(|()| file.write_all(pid.as_bytes()));
            written.map_err(|source| BindError::Kernel {
                step: "write the lock file",
                path: place.path.clone(),
                source,
            })?;
            return Ok(Self { name, inode, _pin: pin });
        }
    }

    fn release(self, place: &Place) {
        if place.inode(&self.name) == Ok(self.inode) && fault::point("unlinkat").is_ok() {
            // Still locked: whoever opened it meanwhile sees the removal after locking it.
            let _ = rustix::fs::unlinkat(&place.directory, &self.name, AtFlags::empty());
        }
    }
}
