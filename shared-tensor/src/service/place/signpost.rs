//! The symbolic link from the path of the contract to the socket.

use std::fs::{self, File, FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::PlaceError;
use crate::service::region::Id;

/// A link that this process made, and takes away.
#[derive(Debug)]
pub(crate) struct Signpost {
    path: PathBuf,
    target: PathBuf,
    process: u32,
}

impl Signpost {
    /// Makes `link` lead to the socket at `target`.
    ///
    /// One that leads to another living server is left alone, and so is whatever else is there that is
    /// not a link of this user: `None`.
    pub(crate) fn raise(link: &Path, target: &Path) -> io::Result<Option<Self>> {
        let _turn = turn(target)?;
        match fs::symlink_metadata(link) {
            Ok(found) if !is_own(&found, FileType::is_symlink) => return Ok(None),
            Ok(_) => {
                let leads_to = fs::read_link(link)?;
                if leads_to != target && is_alive(&leads_to) {
                    return Ok(None);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Beside it and then in its place: there is never none.
        let mut beside = link.as_os_str().to_owned();
        beside.push(format!(".{}", Id::random()));
        let beside = PathBuf::from(beside);
        symlink(target, &beside)?;
        if let Err(error) = fs::rename(&beside, link) {
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
        let (path, target) = (link.to_owned(), target.to_owned());
        Ok(Some(Self { path, target, process: std::process::id() }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Signpost {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        let Ok(_turn) = turn(&self.target) else { return };
        if fs::read_link(&self.path).is_ok_and(|leads_to| leads_to == self.target) {
            // Nobody else changes it during this turn; if it has gone, so much the better.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// How long another server's turn is waited for, which takes microseconds unless it was stopped in the
/// middle, and how often it is looked for. A server does without a link then.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// Whoever looks at links and changes them does so alone, among servers of one runtime directory.
fn turn(target: &Path) -> io::Result<File> {
    let directory = target.parent().unwrap_or(Path::new("."));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join("signposts.lock"))?;
    let until = Instant::now() + PATIENCE;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => thread::sleep(PAUSE),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What is said of a link that is somebody else's altogether.
pub(crate) const FOREIGN: &str = "another user made";

/// Where `link` leads; `None` if it is no link or its server is not there.
///
/// # Errors
/// [`PlaceError::Untrusted`] if what it leads to could be somebody else's.
pub(crate) fn follow(link: &Path) -> Result<Option<PathBuf>, PlaceError> {
    let Ok(found) = fs::symlink_metadata(link) else { return Ok(None) };
    let untrusted = |target: &Path, reason| {
        Err(PlaceError::Untrusted { link: link.to_owned(), target: target.to_owned(), reason })
    };
    if !found.file_type().is_symlink() {
        return Ok(None);
    }
    let Ok(target) = fs::read_link(link) else { return Ok(None) };
    if found.uid() != own_uid() {
        return untrusted(&target, FOREIGN);
    }
    let Some(directory) = target.parent().filter(|_| target.is_absolute()) else {
        return untrusted(&target, "is not a whole path");
    };
    let Ok(directory) = fs::symlink_metadata(directory) else { return Ok(None) };
    if !is_own(&directory, FileType::is_dir) {
        return untrusted(&target, "is not in a directory of this user");
    }
    if directory.mode() & 0o077 != 0 {
        return untrusted(&target, "is in a directory that others may enter");
    }
    let Ok(socket) = fs::symlink_metadata(&target) else { return Ok(None) };
    if !is_own(&socket, FileTypeExt::is_socket) {
        return untrusted(&target, "is not a socket of this user");
    }
    Ok(Some(target))
}

fn is_own(found: &Metadata, kind: impl Fn(&FileType) -> bool) -> bool {
    found.uid() == own_uid() && kind(&found.file_type())
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether somebody listens there. What cannot be found out counts as yes.
fn is_alive(socket: &Path) -> bool {
    let Ok(address) = SocketAddrUnix::new(socket) else { return true };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let Ok(probe) = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
    else {
        return true;
    };
    let refused = rustix::net::connect(&probe, &address).err();
    !matches!(refused, Some(Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR))
}
