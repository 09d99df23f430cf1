//! Creation of segments: whole, or not at all.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::creator::Creator;
use crate::error::{CreateError, OpenError};
use crate::header::{HEADER_BYTES, Header};
use crate::headroom;
use crate::identity::{Access, Generation, Identity, Kind};
use crate::name::SegmentName;
use crate::namespace::Namespace;
use crate::segment::Segment;
use crate::stage::{Routes, Stage};
use crate::sys::{self, file};

const MODE_DEFAULT: u32 = 0o600;

/// How a segment is to be created. Start from [`SegmentOptions::new`], end with
/// [`create`](SegmentOptions::create).
#[derive(Clone, Debug)]
pub struct SegmentOptions {
    kind: Kind,
    total_bytes: u64,
    mode: u32,
    group: Option<u32>,
    reserve: Option<Vec<Range<u64>>>,
    pub(crate) routes: Routes,
}

impl SegmentOptions {
    /// A segment of `total_bytes`, of which the first 512 are the object header; mode 0600, memory
    /// for all of it reserved at creation.
    pub fn new(kind: Kind, total_bytes: u64) -> SegmentOptions {
        SegmentOptions {
            kind,
            total_bytes,
            mode: MODE_DEFAULT,
            group: None,
            reserve: None,
            routes: forced_routes(),
        }
    }

    /// Permission bits of the file, exactly: the umask is not applied. The owner always needs
    /// 0o600, without which removal could not be ordered.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> SegmentOptions {
        self.mode = mode;
        self
    }

    /// The group that owns the file; by default what the kernel gives to new files.
    #[must_use]
    pub fn group(mut self, gid: u32) -> SegmentOptions {
        self.group = Some(gid);
        self
    }

    /// Reserves memory for these byte ranges only (and the header); the rest stays a hole until
    /// [`Segment::reserve`].
    ///
    /// Memory is promised only where it is reserved: touching a hole takes a page then, and if
    /// there is none left, the kernel ends the process with SIGBUS.
    #[must_use]
    pub fn reserve(mut self, ranges: impl IntoIterator<Item = Range<u64>>) -> SegmentOptions {
        self.reserve = Some(ranges.into_iter().collect());
        self
    }

    /// Creates the segment under `name`.
    ///
    /// The file is sized, reserved, given its header and handed to `init` while it has no name;
    /// then it is named in one step. Whoever opens the name sees all that `init` wrote. If
    /// anything fails, or the process dies, nothing is left.
    ///
    /// `init` may map the segment and keep the mappings.
    pub fn create(
        &self,
        namespace: &Namespace,
        name: &SegmentName,
        init: impl FnOnce(&Segment) -> io::Result<()>,
    ) -> Result<Segment, CreateError> {
        let draft = Draft::new(self, namespace, name)?;
        init(&draft.segment).map_err(|source| CreateError::Init { path: draft.path(), source })?;
        draft.publish()
    }

    /// Opens `name`, read and write, or creates it if it does not exist, whichever succeeds first
    /// among the processes that try. Tells whether it was created here.
    ///
    /// An existing segment is taken as it is: its size and mode may differ from these options.
    pub fn open_or_create(
        &self,
        namespace: &Namespace,
        name: &SegmentName,
        mut init: impl FnMut(&Segment) -> io::Result<()>,
    ) -> Result<(Segment, bool), OpenOrCreateError> {
        loop {
            match Segment::open(namespace, name, Access::ReadWrite, self.kind) {
                Err(OpenError::NotFound { .. }) => {}
                opened => return Ok((opened?, false)),
            }
            // Every further lap means that somebody removed or created the name meanwhile.
            match self.create(namespace, name, &mut init) {
                Err(CreateError::AlreadyExists { .. }) => {}
                created => return Ok((created?, true)),
            }
        }
    }

    fn check(&self) -> Result<(), CreateError> {
        if !(HEADER_BYTES..=i64::MAX.cast_unsigned()).contains(&self.total_bytes) {
            return Err(CreateError::Size { total_bytes: self.total_bytes });
        }
        if self.mode & !0o777 != 0 || self.mode & 0o600 != 0o600 {
            return Err(CreateError::Mode { mode: self.mode });
        }
        let outside = |range: &&Range<u64>| range.start > range.end || range.end > self.total_bytes;
        match self.reserve.iter().flatten().find(outside) {
            Some(range) => Err(CreateError::ReserveRange {
                range: range.clone(),
                total_bytes: self.total_bytes,
            }),
            None => Ok(()),
        }
    }

    /// The ranges to reserve, on whole pages, sorted and merged, header first.
    fn reservations(&self) -> Vec<Range<u64>> {
        let whole = 0..self.total_bytes;
        let asked = self.reserve.as_deref().unwrap_or(std::slice::from_ref(&whole));
        let mut ranges: Vec<_> = std::iter::once(&(0..HEADER_BYTES))
            .chain(asked)
            .filter(|range| !range.is_empty())
            .map(|range| on_pages(range, self.total_bytes))
            .collect();
        ranges.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        merged
    }
}

/// Either half of [`SegmentOptions::open_or_create`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenOrCreateError {
    /// The name exists and cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The name does not exist and cannot be created.
    #[error(transparent)]
    Create(#[from] CreateError),
}

/// `range` widened to whole pages, but not beyond `total_bytes`.
pub(crate) fn on_pages(range: &Range<u64>, total_bytes: u64) -> Range<u64> {
    let page = sys::page_bytes() as u64;
    let end = range.end.checked_next_multiple_of(page).unwrap_or(total_bytes).min(total_bytes);
    range.start - range.start % page..end
}

/// The memory that ranges on pages take.
pub(crate) fn footprint(ranges: &[Range<u64>]) -> u64 {
    let page = sys::page_bytes() as u64;
    ranges
        .iter()
        .map(|range| (range.end - range.start).div_ceil(page).saturating_mul(page))
        .fold(0, u64::saturating_add)
}

/// A segment that is whole but for what `init` adds, and has no name yet.
struct Draft {
    segment: Segment,
    stage: Stage,
}

impl Draft {
    fn new(
        options: &SegmentOptions,
        namespace: &Namespace,
        name: &SegmentName,
    ) -> Result<Draft, CreateError> {
        options.check()?;
        let path = namespace.path_of(name);
        // Before anything costly; the last step decides.
        if file::status_at(&path).is_ok() {
            return Err(CreateError::AlreadyExists { path });
        }
        let (stage, fd) = Stage::open(namespace, options.routes)
            .map_err(|source| stage_error(source, namespace, &path))?;
        let header = Header {
            total_bytes: options.total_bytes,
            generation: Generation::random().map_err(os(&path, "getrandom"))?,
            kind: options.kind,
            creator: Creator::current(),
            name: name.clone(),
        };
        let identity = furnish(options, namespace, &path, &fd, &header)?;
        let segment = Segment::assemble(namespace, header, fd, identity, Access::ReadWrite);
        Ok(Draft { segment, stage })
    }

    fn path(&self) -> PathBuf {
        self.segment.path().to_owned()
    }

    fn publish(self) -> Result<Segment, CreateError> {
        let Draft { segment, stage } = self;
        match stage.publish(segment.descriptor(), segment.path()) {
            Ok(()) => Ok(segment),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(CreateError::AlreadyExists { path: segment.path().to_owned() })
            }
            Err(source) => Err(os(segment.path(), "naming the file")(source)),
        }
    }
}

/// Sizes the file, reserves its memory, writes its header and sets its owner and mode; tells which
/// file it is.
fn furnish(
    options: &SegmentOptions,
    namespace: &Namespace,
    path: &Path,
    fd: &OwnedFd,
    header: &Header,
) -> Result<Identity, CreateError> {
    let fd = fd.as_fd();
    file::set_size(fd, options.total_bytes).map_err(os(path, "ftruncate"))?;
    let reservations = options.reservations();
    let needed = footprint(&reservations);
    let no_space = |shortage| CreateError::NoSpace { path: path.to_owned(), shortage };
    if let Some(shortage) =
        headroom::shortage(fd, namespace.directory(), needed).map_err(os(path, "fstatvfs"))?
    {
        return Err(no_space(shortage));
    }
    for range in reservations {
        file::allocate(fd, range).map_err(|source| {
            match headroom::ran_out(&source, fd, namespace.directory(), needed) {
                Some(shortage) => no_space(shortage),
                None => os(path, "fallocate")(source),
            }
        })?;
    }
    file::write_at(fd, &header.encode(), 0).map_err(os(path, "pwrite"))?;
    if let Some(gid) = options.group {
        file::set_group(fd, gid).map_err(|source| CreateError::Group {
            gid,
            path: path.to_owned(),
            source,
        })?;
    }
    // After the group, a change of which may clear bits. The umask may have cleared others.
    let status = file::status(fd).map_err(os(path, "fstat"))?;
    if status.mode != options.mode {
        file::set_mode(fd, options.mode).map_err(os(path, "fchmod"))?;
    }
    Ok(status.identity)
}

fn os(path: &Path, call: &'static str) -> impl Fn(io::Error) -> CreateError {
    move |source| CreateError::Os { path: path.to_owned(), call, source }
}

fn stage_error(source: io::Error, namespace: &Namespace, path: &Path) -> CreateError {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            CreateError::NoDirectory { directory: namespace.directory().to_owned() }
        }
        io::ErrorKind::PermissionDenied => {
            CreateError::PermissionDenied { path: path.to_owned(), source }
        }
        _ => os(path, "opening a new file")(source),
    }
}

/// The fall-back routes are rare in the field, so fault tests ask for them.
fn forced_routes() -> Routes {
    #[cfg(st_fault)]
    match std::env::var("ST_CREATE_ROUTE").as_deref() {
        Ok("proc") => return Routes { by_descriptor: false, ..Routes::ALL },
        Ok("temporary") => return Routes { anonymous: false, ..Routes::ALL },
        Ok("link") => return Routes { anonymous: false, by_rename: false, ..Routes::ALL },
        _ => {}
    }
    Routes::ALL
}
