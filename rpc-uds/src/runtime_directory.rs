//! A directory for sockets that nobody else can enter.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::address::{LOCK, remove_what_died};
use crate::error::RuntimeDirectoryError;
use crate::peer::own_uid;

/// A private directory: this user's, mode 0700, no symbolic link.
///
/// In a directory that others may write to, somebody else could put a socket where a client expects
/// its server. So everything about the directory is checked on the open directory itself, not on its
/// name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeDirectory {
    path: PathBuf,
}

impl RuntimeDirectory {
    /// `$XDG_RUNTIME_DIR/<application>`, or `/tmp/<application>-<uid>` where the variable names no
    /// directory of this user; made if it is not there.
    pub fn of(application: &str) -> Result<Self, RuntimeDirectoryError> {
        let is_plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_');
        if application.is_empty()
            || application.starts_with('.')
            || !application.chars().all(is_plain)
        {
            return Err(RuntimeDirectoryError::Name { name: application.to_owned() });
        }
        let own = |path: &PathBuf| {
            let status = rustix::fs::stat(path);
            path.is_absolute() && status.is_ok_and(|status| status.st_uid == own_uid())
        };
        match env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(own) {
            Some(base) => Self::at(base.join(application)),
            None => Self::at(Path::new("/tmp").join(format!("{application}-{}", own_uid()))),
        }
    }

    /// The directory at `path`, made if it is not there; its parent must be.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self, RuntimeDirectoryError> {
        let path = path.into();
        let failed = |step, errno: Errno| RuntimeDirectoryError::Kernel {
            step,
            path: path.clone(),
            source: errno.into(),
        };
        match rustix::fs::mkdir(&path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("make the directory", errno)),
        }
        let opened = open(&path).map_err(|errno| match errno {
            Errno::NOTDIR | Errno::LOOP => {
                RuntimeDirectoryError::NotADirectory { path: path.clone() }
            }
            errno => failed("open the directory", errno),
        })?;
        let status = rustix::fs::fstat(&opened).map_err(|errno| failed("look at", errno))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
            return Err(RuntimeDirectoryError::NotADirectory { path });
        }
        if status.st_uid != own_uid() {
            let (owner, own) = (status.st_uid, own_uid());
            return Err(RuntimeDirectoryError::Owner { path, owner, own });
        }
        let mode = status.st_mode & 0o777;
        if mode & 0o077 != 0 {
            return Err(RuntimeDirectoryError::Mode { path, mode });
        }
        Ok(Self { path })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what servers left behind that were killed: their sockets and locks, if `is_meant` says yes to
    /// the name of the socket. Those of servers that live stay, and so does what no server of this crate
    /// left. Returns how many there were.
    ///
    /// For sockets whose names are drawn: a path that has a successor is taken over by it. A server
    /// that is being set up just then may be [refused](crate::BindError::Taken).
    pub fn remove_dead(&self, is_meant: impl Fn(&OsStr) -> bool) -> usize {
        let Ok(entries) = fs::read_dir(&self.path) else { return 0 };
        let is_dead = |entry: fs::DirEntry| {
            let lock = entry.file_name();
            let name = lock.as_bytes().strip_suffix(LOCK.as_bytes()).map(OsStr::from_bytes);
            name.is_some_and(|name| is_meant(name) && remove_what_died(&self.path.join(name)))
        };
        entries.flatten().filter_map(|entry| is_dead(entry).then_some(())).count()
    }

    /// The path of a socket in it.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::PATH;
    rustix::fs::open(path, flags, Mode::empty())
}
