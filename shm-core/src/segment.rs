//! A named segment that is open in this process.

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::attach;
use crate::creator::Creator;
use crate::error::{MapError, OpenError, ReserveError, UnlinkError};
use crate::header::Header;
use crate::headroom::{self, Shortage};
use crate::identity::{Access, Generation, Identity, Kind};
use crate::name::SegmentName;
use crate::namespace::Namespace;
use crate::options::{footprint, on_pages};
use crate::patience::Patience;
use crate::probe::{self, Found, os};
use crate::removal::{self, Unlinked};
use crate::stage::leads_to;
use crate::sys::file::{self, FileStatus};
use crate::sys::{self, Mapping, Stores};
use crate::view::SharedBytes;

/// An open segment: its checked header, and the right to map its bytes.
///
/// Bytes 0 to 511 hold the object header, the caller's area follows. Dropping a segment closes
/// the handle; mappings live on, and the name stays until it is [unlinked](Segment::unlink).
pub struct Segment {
    header: Header,
    fd: OwnedFd,
    identity: Identity,
    access: Access,
    namespace: Namespace,
    path: PathBuf,
}

/// Who may do what with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl From<FileStatus> for Owner {
    fn from(status: FileStatus) -> Owner {
        Owner { uid: status.uid, gid: status.gid, mode: status.mode }
    }
}

/// Where a segment's name leads now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Current {
    /// To this segment.
    Yes,
    /// Nowhere.
    Gone,
    /// To another file.
    Replaced(Identity),
}

impl Segment {
    /// Opens the segment `name`, of the format `kind`.
    ///
    /// Every field of its header is checked, and that the file is exactly as long as the header
    /// says. A name that leads to no segment (a directory, a FIFO, a link, any other file) is an
    /// error and is not waited for.
    pub fn open(
        namespace: &Namespace,
        name: &SegmentName,
        access: Access,
        kind: Kind,
    ) -> Result<Segment, OpenError> {
        let path = namespace.path_of(name);
        let mut patience = Patience::new();
        loop {
            let found = probe::open(&path, access)?;
            found.expect_name(&path, name)?;
            found.expect_kind(&path, kind)?;
            // Attached first, looked up second: a purge excludes first and removes second, so it
            // never takes the name of a segment that this function returns.
            if attach::attach(found.fd.as_fd()).map_err(os(&path, "fcntl"))?
                && leads_to(&path, found.status.identity).map_err(os(&path, "lstat"))?
            {
                let Found { fd, header, status } = found;
                return Ok(Segment::assemble(namespace, header, fd, status.identity, access));
            }
            // It was removed meanwhile, or is about to be: what the name leads to next is what we
            // were asked for.
            drop(found);
            if !patience.wait() {
                return Err(OpenError::Busy { path });
            }
        }
    }

    /// Puts together what has been checked, and is attached.
    pub(crate) fn assemble(
        namespace: &Namespace,
        header: Header,
        fd: OwnedFd,
        identity: Identity,
        access: Access,
    ) -> Segment {
        let path = namespace.path_of(&header.name);
        Segment { header, fd, identity, access, namespace: namespace.clone(), path }
    }

    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.fd
    }

    /// The name.
    pub fn name(&self) -> &SegmentName {
        &self.header.name
    }

    /// The generation drawn when the segment was created.
    pub fn generation(&self) -> Generation {
        self.header.generation
    }

    /// The caller's format.
    pub fn kind(&self) -> Kind {
        self.header.kind
    }

    /// The size in bytes, object header included.
    pub fn total_bytes(&self) -> u64 {
        self.header.total_bytes
    }

    /// Who made the segment, and when, by its own account.
    pub fn creator(&self) -> Creator {
        self.header.creator
    }

    /// The file behind the segment.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Who owns the file, by the kernel's account: unlike [`creator`](Self::creator), nobody can
    /// forge it. In a directory where everybody may create files, compare it with the user that
    /// you expect before you rely on what the segment says.
    pub fn owner(&self) -> io::Result<Owner> {
        file::status(self.fd.as_fd()).map(Owner::from)
    }

    /// What this handle may do.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The namespace in which the segment was found or created.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Maps `range` of the file, shared with everybody who maps it.
    ///
    /// The range starts at a page, is not empty, and ends within the segment. The mapping does not
    /// need the segment afterwards.
    pub fn map(&self, range: Range<u64>, access: Access) -> Result<SharedBytes, MapError> {
        if !self.access.allows(access) {
            return Err(MapError::ReadOnly);
        }
        map(self.fd.as_fd(), self.total_bytes(), sys::page_bytes(), range, access.stores())
    }

    /// Reserves memory for `range`, so that touching it can no longer fail.
    ///
    /// What is reserved already stays so and keeps its contents. After an error, a first part of
    /// the range may have been reserved.
    pub fn reserve(&self, range: Range<u64>) -> Result<(), ReserveError> {
        if range.start > range.end || range.end > self.total_bytes() {
            return Err(ReserveError::Range { range, total_bytes: self.total_bytes() });
        }
        if !self.access.is_writable() {
            return Err(ReserveError::ReadOnly);
        }
        if range.is_empty() {
            return Ok(());
        }
        let pages = on_pages(&range, self.total_bytes());
        let fd = self.fd.as_fd();
        let directory = self.namespace.directory();
        let no_space = |shortage| ReserveError::NoSpace { path: self.path.clone(), shortage };
        let os =
            |source| ReserveError::Os { path: self.path.clone(), range: range.clone(), source };
        // Part of the range may be reserved already; the kernel tells how much of the file is, not
        // where. A full file system is an error that leaves no harm, so there the request is
        // refused at once only if it cannot fit in any case. A memory limit kills, so there it
        // must fit in every case.
        let asked = footprint(std::slice::from_ref(&pages));
        let whole = footprint(std::slice::from_ref(&(0..self.total_bytes())));
        let taken = file::status(fd).map_err(os)?.allocated_bytes;
        let (at_least, at_most) =
            (asked.saturating_sub(taken), asked.min(whole.saturating_sub(taken)));
        let short = headroom::filesystem_shortage(fd, directory, at_least)
            .map_err(os)?
            .or_else(|| headroom::memory_shortage(at_most));
        if let Some(shortage) = short {
            return Err(no_space(Shortage { needed_bytes: asked, ..shortage }));
        }
        file::allocate(fd, pages).map_err(|source| {
            headroom::ran_out(&source, fd, directory, asked).map_or_else(|| os(source), no_space)
        })
    }

    /// A new open file description of this very file, with this handle's access: for locks that
    /// must not be shared with it, or to be used after a fork.
    ///
    /// Taken through `/proc/self/fd`, or, where that is not mounted, by the path, if it still leads
    /// to this file. The description is not attached.
    pub fn reopen(&self) -> io::Result<OwnedFd> {
        let writable = self.access.is_writable();
        file::reopen(self.fd.as_fd(), writable).or_else(|error| {
            let fd = file::open_existing(&self.path, writable).map_err(|_| error)?;
            if file::status(fd.as_fd())?.identity == self.identity {
                return Ok(fd);
            }
            Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!(
                    "`{}` leads to another file now and `/proc/self/fd` is not readable",
                    self.path.display()
                ),
            ))
        })
    }

    /// Where the name leads now: one `stat`, about 0.3 us.
    pub fn is_current(&self) -> io::Result<Current> {
        match file::status_at(&self.path) {
            Ok(status) if status.identity == self.identity => Ok(Current::Yes),
            Ok(status) => Ok(Current::Replaced(status.identity)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Current::Gone),
            Err(error) => Err(error),
        }
    }

    /// Whether any *other* handle, or a mapping made through one, exists: in this process or in
    /// another.
    ///
    /// This handle, its mappings and the copies of it that forked children inherited count as one
    /// and are not seen. A process that dies is attached until the kernel has torn its memory
    /// down.
    pub fn is_attached(&self) -> io::Result<bool> {
        attach::is_attached_elsewhere(self.fd.as_fd())
    }

    /// Removes the name if it still leads to this segment. Everybody who has it open keeps it.
    pub fn unlink(&self) -> Result<Unlinked, UnlinkError> {
        removal::unlink(&self.path, self.name(), Some(self.generation()))
    }
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("path", &self.path)
            .field("generation", &self.header.generation)
            .field("kind", &self.header.kind)
            .field("total_bytes", &self.header.total_bytes)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// Maps `range` of a file of `total_bytes`, whose pages have `page` bytes.
pub(crate) fn map(
    fd: BorrowedFd<'_>,
    total_bytes: u64,
    page: usize,
    range: Range<u64>,
    stores: Stores,
) -> Result<SharedBytes, MapError> {
    let bytes = range
        .end
        .checked_sub(range.start)
        .filter(|&bytes| bytes > 0 && range.end <= total_bytes)
        .and_then(|bytes| usize::try_from(bytes).ok());
    let Some(bytes) = bytes else {
        return Err(MapError::Range { range, total_bytes });
    };
    if !range.start.is_multiple_of(page as u64) {
        return Err(MapError::Misaligned { start: range.start, page_bytes: page as u64 });
    }
    match Mapping::new(fd, range.start, bytes, page, stores) {
        Ok(mapping) => Ok(SharedBytes::whole(mapping)),
        Err(source) => Err(MapError::Os { range, source }),
    }
}
