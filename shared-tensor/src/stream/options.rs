//! Creating streams.

use shm_core::{CreateError, Namespace, Segment, SegmentName, SegmentOptions};
use zerocopy::IntoBytes;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::word::{Ctl, Seq};
use crate::stream::Stream;
use crate::stream::admin::stat;
use crate::stream::attachment::Attachment;
use crate::stream::layout::{
    CONTROL_OFFSET, Control, HEADER_OFFSET, KIND, Layout, PARTICIPANTS_OFFSET,
    RESERVED_AT_CREATION, flags,
};
use crate::stream::open::{OpenOptions, parse_name};
use crate::sync::Ordering;
use crate::tensor::{DType, Shape};

/// What a new stream is like.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    dtype: DType,
    shape: Vec<u64>,
    slots: Option<usize>,
    mode: u32,
    group: Option<u32>,
    namespace: Namespace,
    lock_memory: bool,
    mirror: bool,
    frames_in_file: bool,
    tag: u32,
}

impl StreamOptions {
    /// A stream of tensors of `shape` (1 to 19 dimensions, each at least 1) and `dtype`.
    pub fn new(dtype: DType, shape: impl Into<Vec<u64>>) -> Self {
        Self {
            dtype,
            shape: shape.into(),
            slots: None,
            mode: 0o600,
            group: None,
            namespace: Namespace::default(),
            lock_memory: false,
            mirror: false,
            frames_in_file: false,
            tag: 0,
        }
    }

    /// Of a stream [on a GPU](Self::create_on): keep its frames in the file as well, so that processes
    /// without CUDA read and write them. Each frame is copied there by the device, behind the work that fills
    /// it; nobody's work waits for that but the next one's in that slot. A frame whose process ends before is
    /// not there, until a process with a GPU writes again; a reader with
    /// [`OnWriting::Wait`](crate::stream::OnWriting) waits for what is on its way. Takes as much space on
    /// `/dev/shm` as on the device. Of another stream it says nothing: its frames are in the file anyway,
    /// also where a GPU's memory [cannot be shared](Self::create_on).
    #[must_use]
    pub fn mirror(mut self, mirror: bool) -> Self {
        self.mirror = mirror;
        self
    }

    /// Of a stream [on a GPU](Self::create_on): keep its frames in the file alone, as where the GPU's memory
    /// cannot be shared: for readers whose container or driver refuses memory of others that this one
    /// gives.
    #[must_use]
    pub fn frames_in_file(mut self, in_file: bool) -> Self {
        self.frames_in_file = in_file;
        self
    }

    /// Slots of the ring, 1 to [`SLOTS_MAX`](crate::stream::SLOTS_MAX). Left out: 8 up to 1 MiB a
    /// frame, 4 up to 64 MiB, 3 above, and fewer, with a warning in
    /// [`StreamInfo`](crate::stream::StreamInfo), where space is short.
    #[must_use]
    pub fn slots(mut self, slots: usize) -> Self {
        self.slots = Some(slots);
        self
    }

    /// A number for whoever opens the stream ([`StreamInfo::tag`](crate::stream::StreamInfo::tag)); it
    /// means nothing to the stream itself.
    #[must_use]
    pub fn tag(mut self, tag: u32) -> Self {
        self.tag = tag;
        self
    }

    /// Permission bits of the file, `0o600` by default. A mode that lets somebody read but not
    /// write makes every publication wake (some 150 ns), as such readers cannot say that they wait.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Group of the file, by number.
    #[must_use]
    pub fn group(mut self, gid: u32) -> Self {
        self.group = Some(gid);
        self
    }

    /// Directory and prefix of the file, `/dev/shm/st.` by default.
    #[must_use]
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = namespace;
        self
    }

    /// Keep the whole stream in memory (`mlock`), in this process's mapping of it.
    #[must_use]
    pub fn lock_memory(mut self, lock: bool) -> Self {
        self.lock_memory = lock;
        self
    }

    /// Creates the stream: the name leads to a whole stream or does not exist.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`]; [`ErrorKind::NoSpace`] naming what is short and what helps;
    /// [`ErrorKind::InvalidArgument`] for names, shapes, slots and modes that cannot be.
    pub fn create(&self, name: &str) -> Result<Stream> {
        let name = parse_name(name)?;
        self.step_down(1, |slots, flags| {
            let shape = Shape::new(self.shape.clone())?;
            self.create_with(&name, &Layout::new(self.dtype, shape, slots, flags)?)
        })
    }

    /// Creates with as many slots as were asked for, or else with the default, or with fewer, down to
    /// `least`, if that is too much: `create` takes their number and the flags.
    pub(super) fn step_down(
        &self,
        least: usize,
        create: impl Fn(usize, u32) -> Result<Stream>,
    ) -> Result<Stream> {
        let shape = Shape::new(self.shape.clone())?;
        let flags = if leaves_observers(self.mode) { flags::ALWAYS_WAKE } else { 0 };
        if let Some(slots) = self.slots {
            return create(slots, flags);
        }
        let payload = shape.elements().saturating_mul(self.dtype.bytes() as u64);
        let default = Layout::default_slots(payload);
        let mut slots = default;
        loop {
            let short = if slots < default { flags::STEPPED_DOWN } else { 0 };
            match create(slots, flags | short) {
                // What fits is better than nothing, and said in `info`.
                Err(error) if error.kind() == ErrorKind::NoSpace && slots > least => slots -= 1,
                outcome => return outcome,
            }
        }
    }

    /// The flags of a stream on a GPU, beside those of every stream.
    pub(super) fn device_flags(&self) -> u32 {
        if self.mirror { flags::MIRRORED } else { 0 }
    }

    pub(super) fn wishes_frames_in_file(&self) -> bool {
        self.frames_in_file
    }

    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(super) fn shape(&self) -> Result<Shape> {
        Shape::new(self.shape.clone())
    }

    /// Opens the stream if it exists with this shape and element type, else creates it.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`] if it exists otherwise; else as [`create`](Self::create) and
    /// [`Stream::open`].
    pub fn open_or_create(&self, name: &str) -> Result<Stream> {
        self.open_or(name, || self.create(name))
    }

    /// As [`open_or_create`](Self::open_or_create), with [`create_on`](Self::create_on) for a new one.
    ///
    /// # Errors
    /// As [`create_on`](Self::create_on) and [`open_or_create`](Self::open_or_create).
    pub fn open_or_create_on(&self, context: &cuda_ipc::Context, name: &str) -> Result<Stream> {
        self.open_or(name, || self.create_on(context, name))
    }

    fn open_or(&self, name: &str, create: impl Fn() -> Result<Stream>) -> Result<Stream> {
        let wanted = Shape::new(self.shape.clone())?;
        loop {
            match OpenOptions::new().namespace(self.namespace.clone()).open(name) {
                Ok(stream) => {
                    if stream.dtype() == self.dtype && *stream.shape() == wanted {
                        return Ok(stream);
                    }
                    return Err(Error::new(
                        ErrorKind::Changed,
                        format!(
                            "stream `{name}` exists with {}{}, not {}{wanted}: unlink it or use \
                             another name",
                            stream.dtype(),
                            stream.shape(),
                            self.dtype
                        ),
                    ));
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
            match create() {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                outcome => return outcome,
            }
        }
    }

    pub(super) fn create_with(&self, name: &SegmentName, layout: &Layout) -> Result<Stream> {
        let layout = &Layout { tag: self.tag, ..layout.clone() };
        let frames = layout.frames_in_file().map(|frames| frames.start..layout.total_bytes);
        let always = Some(0..RESERVED_AT_CREATION as u64);
        let reserved: Vec<_> = [always, layout.seats(), frames].into_iter().flatten().collect();
        let mut options =
            SegmentOptions::new(KIND, layout.total_bytes).mode(self.mode).reserve(reserved);
        if let Some(group) = self.group {
            options = options.group(group);
        }
        let segment = options
            .create(&self.namespace, name, |segment| initialise(segment, layout))
            .map_err(|source| create_error(&self.namespace, name, source))?;
        let generation = segment.generation();
        let attached = Attachment::of(segment).and_then(|attachment| {
            if self.lock_memory {
                attachment.lock_memory()?;
            }
            Ok(attachment)
        });
        match attached {
            Ok(attachment) => {
                Ok(Stream { attachment, namespace: self.namespace.clone(), read_only: false })
            }
            Err(error) => {
                // The name exists by now: what could not be had whole is not left behind.
                let _ = self.namespace.unlink_generation(name, generation);
                Err(error)
            }
        }
    }
}

/// Writes what a stream starts with, before it has a name: its header, and slot 0 as frame 0, a
/// frame of zeros that nobody published.
fn initialise(segment: &Segment, layout: &Layout) -> std::io::Result<()> {
    let bytes = segment
        .map(0..PARTICIPANTS_OFFSET as u64, shm_core::Access::ReadWrite)
        .map_err(std::io::Error::other)?;
    bytes.write_from(HEADER_OFFSET, layout.header().as_bytes()).map_err(std::io::Error::other)?;
    let control = bytes.at::<Control>(CONTROL_OFFSET).map_err(std::io::Error::other)?;
    control.slots[0].seq.store(Seq::ready(0, 0).0, Ordering::Relaxed);
    control.ctl.0.store(Ctl(0).published(0, 0).0, Ordering::Release);
    Ok(())
}

/// Whether a mode lets some class of users read but not write.
fn leaves_observers(mode: u32) -> bool {
    [0o040, 0o004].iter().any(|&read| mode & read != 0 && mode & (read >> 1) == 0)
}

#[cold]
fn create_error(namespace: &Namespace, name: &SegmentName, source: CreateError) -> Error {
    let kind = match source {
        CreateError::AlreadyExists { .. } => ErrorKind::AlreadyExists,
        CreateError::NoSpace { .. } => ErrorKind::NoSpace,
        CreateError::PermissionDenied { .. } => ErrorKind::PermissionDenied,
        CreateError::NoDirectory { .. } => ErrorKind::NotFound,
        CreateError::Size { .. }
        | CreateError::ReserveRange { .. }
        | CreateError::Mode { .. }
        | CreateError::Group { .. } => ErrorKind::InvalidArgument,
        _ => ErrorKind::Os,
    };
    let why = match source {
        CreateError::AlreadyExists { .. } => what_exists(namespace, name),
        _ => source.to_string(),
    };
    let message = format!("cannot create stream `{}`: {why}", name.as_str());
    Error::with_source(kind, message, source)
}

/// What stands where a stream was to be created, and what can be done about it.
fn what_exists(namespace: &Namespace, name: &SegmentName) -> String {
    let info = match stat(namespace, name.as_str()) {
        Ok(info) => info,
        Err(error) if error.is_not_found() => {
            return "the name was taken, and is free by now: try again".to_owned();
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return format!(
                "the name is taken by another user, whose file this one may not read ({error}): \
                 use another name"
            );
        }
        Err(error) => {
            return format!(
                "a file that is no stream of this version has that name ({error}): remove it, or \
                 use another name"
            );
        }
    };
    let creator = &info.creator;
    let lives = if creator.is_running() { "which runs" } else { "which has ended" };
    // Nobody else may have them, and then they are gone.
    let ways = if info.device.is_some() && !creator.is_running() {
        "open it, or unlink it first if its frames are gone, or choose another name"
    } else {
        "open it, use open_or_create, unlink it first, or choose another name"
    };
    format!(
        "it exists with {}{}, created by process {}, {lives}: {ways}",
        info.dtype, info.shape, creator.pid
    )
}
