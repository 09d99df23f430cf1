//! Reading: the newest frame, the next in order, in place or copied.

use std::sync::Arc;

use shm_core::{Namespace, SharedBytes, ViewError};
use shm_lock::Wait;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::word::{Ctl, Phase, lease_budget};
use crate::ring::{Found, Identity, Look, RingLoads, is_unchanged, newest, oldest_after, unpin};
use crate::stream::admin::successor;
use crate::stream::attachment::{Attachment, Role};
use crate::stream::copy;
use crate::stream::counters::add;
use crate::stream::description::{Description, Publication};
use crate::stream::lease::{
    Attempt, Lease, OnFull, out_of_bounds, revoke_oldest, try_lease, try_pin,
};
use crate::stream::wait::{
    Moved, Since, Spin, Spinner, check_patience, wait_once, writer_has_left, writer_is_dead,
};
use crate::sync::Ordering;
use crate::tensor::{DType, Element, Shape};

/// What a reader makes of a stream whose last write was aborted or crashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnAbort {
    /// Serve the last good frame and say so in [`Publication::phase`].
    #[default]
    Serve,
    /// Fail with [`ErrorKind::Inconsistent`] until the next good write.
    Raise,
}

/// What a reader makes of a stream that has published nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnEmpty {
    /// Fail with [`ErrorKind::Empty`].
    #[default]
    Raise,
    /// Serve a frame of zeros with count 0.
    Zeros,
}

/// How a [`Reader`] behaves. Start from the default and set what differs:
///
/// ```
/// use shared_tensor::stream::ReaderOptions;
///
/// let options = ReaderOptions::new().reattach(true);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReaderOptions {
    /// How long waits spin before they park.
    pub spin: Spin,
    /// After an aborted or crashed write.
    pub on_abort: OnAbort,
    /// Before the first write.
    pub on_empty: OnEmpty,
    /// When the name is unlinked and created anew with the same shape and type, go on with the new
    /// stream instead of failing. Who only asks for the newest frame goes on as soon as the new
    /// stream has one.
    pub reattach: bool,
}

impl ReaderOptions {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long waits spin before they park.
    #[must_use]
    pub fn spin(mut self, spin: Spin) -> Self {
        self.spin = spin;
        self
    }

    /// What an aborted or crashed write means to reads.
    #[must_use]
    pub fn on_abort(mut self, on_abort: OnAbort) -> Self {
        self.on_abort = on_abort;
        self
    }

    /// What reads give before the first write.
    #[must_use]
    pub fn on_empty(mut self, on_empty: OnEmpty) -> Self {
        self.on_empty = on_empty;
        self
    }

    /// Whether to go on with a successor of the same name, shape and type.
    #[must_use]
    pub fn reattach(mut self, reattach: bool) -> Self {
        self.reattach = reattach;
        self
    }
}

/// Reads one stream. Owns its position: what it has seen and what it missed.
///
/// A read never waits for a writer: the newest complete frame is always there, also while a
/// writer writes, sleeps, is stopped or dead.
#[derive(Debug)]
pub struct Reader {
    attachment: Arc<Attachment>,
    namespace: Namespace,
    options: ReaderOptions,
    spinner: Spinner,
    /// Highest count that this reader has seen; what it attached at before its first read.
    seen: u64,
    missed_total: u64,
}

/// A frame and what is known about it.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    dtype: DType,
    publication: Publication,
}

impl Frame {
    /// The frame's bytes, row-major.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The frame's bytes, without another copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Which frame this is.
    pub fn publication(&self) -> &Publication {
        &self.publication
    }

    /// The frame's elements.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if `T` is not the stream's element type.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if T::DTYPE != self.dtype {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("the frame has elements of {}, not {}", self.dtype, T::DTYPE),
            ));
        }
        let mut elements = vec![T::new_zeroed(); self.bytes.len() / size_of::<T>()];
        zerocopy::IntoBytes::as_mut_bytes(elements.as_mut_slice()).copy_from_slice(&self.bytes);
        Ok(elements)
    }
}

/// Laps before a copying reader stops hoping and leases.
const LAPS_BEFORE_LEASE: u32 = 3;

impl Reader {
    pub(crate) fn new(
        attachment: Arc<Attachment>,
        namespace: Namespace,
        options: ReaderOptions,
    ) -> Self {
        let seen = attachment.ctl(Ordering::Acquire).count();
        let spinner = Spinner::new(options.spin);
        Self { attachment, namespace, options, spinner, seen, missed_total: 0 }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.attachment.layout.dtype
    }

    /// The shape of every frame.
    pub fn shape(&self) -> &Shape {
        &self.attachment.layout.shape
    }

    /// Bytes of one frame.
    pub fn frame_bytes(&self) -> usize {
        self.attachment.layout.payload_bytes
    }

    /// How many frames were published so far: one load, no system call.
    pub fn count(&self) -> u64 {
        self.attachment.ctl(Ordering::Acquire).count()
    }

    /// Highest count that this reader has read.
    pub fn last_count(&self) -> u64 {
        self.seen
    }

    /// Frames that were published between this reader's reads and never seen by it.
    pub fn missed_total(&self) -> u64 {
        self.missed_total
    }

    /// The newest complete frame, copied. Never waits for a writer.
    ///
    /// # Errors
    /// [`ErrorKind::Empty`] if nothing was published yet, [`ErrorKind::Inconsistent`] as the
    /// reader's options say, [`ErrorKind::Corrupt`] if the control page was overwritten.
    pub fn latest(&mut self) -> Result<Frame> {
        let mut bytes = Vec::new();
        let publication = self.copy_newest(&mut Sink::Growing(&mut bytes), &Wait::forever())?;
        Ok(Frame { bytes, dtype: self.dtype(), publication })
    }

    /// The newest complete frame, copied into `out`. Never waits for a writer, allocates nothing.
    ///
    /// # Errors
    /// As [`latest`](Self::latest); also [`ErrorKind::InvalidArgument`] if `out` has not exactly
    /// the bytes of a frame.
    pub fn read_into(&mut self, out: &mut [u8]) -> Result<Publication> {
        self.check_destination(out)?;
        self.copy_newest(&mut Sink::Slice(out), &Wait::forever())
    }

    /// The newest complete frame, in place: no copy at any size.
    ///
    /// # Errors
    /// As [`latest`](Self::latest); [`ErrorKind::Timeout`] with [`OnFull::Wait`].
    pub fn lease(&mut self, on_full: OnFull) -> Result<Lease> {
        let wait = match on_full {
            OnFull::Wait(time) => Wait::for_at_most(time),
            OnFull::Copy | OnFull::Revoke => Wait::forever(),
        };
        let started = Since::now(&wait);
        loop {
            let found = self.find_newest(&wait, started)?;
            let Role::Member(member) = &self.attachment.role else {
                return self.private_copy(&wait);
            };
            let me = member.me()?;
            let slots = self.attachment.layout.slots;
            if lease_budget(slots) == 0 {
                // Nothing to wait for and nothing to take away.
                add(&member.counters(me).lease_copies, 1);
                return self.private_copy(&wait);
            }
            match try_lease(member, me, slots, &found) {
                Attempt::Leased => {
                    add(&member.counters(me).leases, 1);
                    let description = self.attachment.description(found.slot);
                    let missed = self.advance(&found, self.seen);
                    let count = found.seq.frame();
                    let publication = description.publication(count, missed, found.ctl.phase());
                    let attachment = Arc::clone(&self.attachment);
                    let lease = Lease::of_slot(attachment, me, &found, publication);
                    self.count_frame(0)?;
                    return Ok(lease);
                }
                Attempt::Gone => check_patience(&self.attachment, &wait, started)?,
                Attempt::Full => match on_full {
                    OnFull::Revoke if revoke_oldest(member) => {}
                    OnFull::Copy | OnFull::Revoke => {
                        add(&member.counters(me).lease_copies, 1);
                        return self.private_copy(&wait);
                    }
                    OnFull::Wait(_) => {
                        // Leases end without a wake-up, by design: look again after the next
                        // publication or slice.
                        let seen = found.ctl.count();
                        wait_once(&self.attachment, &mut self.spinner, &wait, started, |ctl| {
                            ctl.count() != seen
                        })?;
                    }
                },
            }
        }
    }

    /// The next frame in order, copied: the oldest that this reader has not seen. Frames that the
    /// ring no longer has are counted in [`Publication::missed`].
    ///
    /// # Errors
    /// As [`latest`](Self::latest); [`ErrorKind::Timeout`], [`ErrorKind::Interrupted`] and
    /// [`ErrorKind::Unlinked`] while waiting.
    pub fn next(&mut self, wait: &Wait<'_>) -> Result<Frame> {
        let after = self.seen;
        self.next_after(after, wait)
    }

    /// The oldest frame with a count above `after` that the ring still has, copied.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_after(&mut self, after: u64, wait: &Wait<'_>) -> Result<Frame> {
        let mut bytes = Vec::new();
        let publication = self.copy_next(after, &mut Sink::Growing(&mut bytes), wait)?;
        Ok(Frame { bytes, dtype: self.dtype(), publication })
    }

    /// As [`next`](Self::next), into `out`.
    ///
    /// # Errors
    /// As [`next`](Self::next) and [`read_into`](Self::read_into).
    pub fn next_into(&mut self, out: &mut [u8], wait: &Wait<'_>) -> Result<Publication> {
        self.check_destination(out)?;
        let after = self.seen;
        self.copy_next(after, &mut Sink::Slice(out), wait)
    }

    /// Waits until more than `after` frames were published. Returns how many were.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], [`ErrorKind::Interrupted`]; [`ErrorKind::Unlinked`] if the stream is
    /// unlinked and nothing newer is there; [`ErrorKind::Inconsistent`] with [`OnAbort::Raise`];
    /// [`ErrorKind::Changed`] if the name was created anew with another shape or type.
    pub fn wait(&mut self, after: u64, wait: &Wait<'_>) -> Result<u64> {
        let started = Since::now(wait);
        let now = self.attachment.ctl(Ordering::Acquire);
        if now.count() > after {
            return Ok(now.count());
        }
        if let Role::Member(member) = &self.attachment.role {
            add(&member.counters(member.me()?).waits, 1);
        }
        let mut after = after;
        loop {
            let raises = self.options.on_abort == OnAbort::Raise;
            let arrived = move |ctl: Ctl| {
                ctl.count() > after
                    || ctl.is_unlinked()
                    || (raises && matches!(ctl.phase(), Phase::Aborted | Phase::Crashed))
            };
            let moved = wait_once(&self.attachment, &mut self.spinner, wait, started, arrived)?;
            match moved {
                Moved::Arrived(ctl) if ctl.count() > after => return Ok(ctl.count()),
                Moved::Arrived(ctl) => {
                    self.check_phase(ctl)?;
                    if self.follow(wait, started)? {
                        after = 0;
                    }
                }
                Moved::Slice(ctl) => {
                    if raises && writer_is_dead(&self.attachment, ctl) {
                        return Err(self.inconsistent("the writer exited during a write"));
                    }
                    if self.name_is_gone()? && self.follow(wait, started)? {
                        after = 0;
                    }
                }
            }
        }
    }

    /// Waits for a frame that this reader has not seen. Returns how many were published.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_new(&mut self, wait: &Wait<'_>) -> Result<u64> {
        self.wait(self.seen, wait)
    }

    /// Takes a position: the next frame in order is the first above `count`.
    pub fn seek(&mut self, count: u64) {
        self.seen = count;
    }

    pub(crate) fn attachment(&self) -> &Arc<Attachment> {
        &self.attachment
    }

    fn check_destination(&self, out: &[u8]) -> Result<()> {
        let layout = &self.attachment.layout;
        if out.len() == layout.payload_bytes {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "a frame of stream `{}` has {} bytes ({}{}), the destination {}",
                self.attachment.name(),
                layout.payload_bytes,
                layout.dtype,
                layout.shape,
                out.len()
            ),
        ))
    }

    fn private_copy(&mut self, wait: &Wait<'_>) -> Result<Lease> {
        let mut bytes = Vec::new();
        let publication = self.copy_newest(&mut Sink::Growing(&mut bytes), wait)?;
        Ok(Lease::of_copy(bytes.into_boxed_slice(), self.dtype(), publication))
    }

    /// The newest complete frame, waiting only where a ring of one slot is being written.
    fn find_newest(&mut self, wait: &Wait<'_>, started: Since) -> Result<Found> {
        loop {
            match newest(&*self.attachment) {
                Look::Frame(found) if found.ctl.is_unlinked() && self.moves_on()? => {}
                Look::Frame(found) => {
                    self.check_phase(found.ctl)?;
                    if found.ctl.phase() == Phase::Writing
                        && self.options.on_abort == OnAbort::Raise
                        && writer_is_dead(&self.attachment, found.ctl)
                    {
                        return Err(self.inconsistent("the writer exited during a write"));
                    }
                    if found.ctl.count() == 0 && self.options.on_empty == OnEmpty::Raise {
                        return Err(Error::new(
                            ErrorKind::Empty,
                            format!(
                                "stream `{}` has published nothing yet: wait for its first frame",
                                self.attachment.name()
                            ),
                        ));
                    }
                    return Ok(found);
                }
                Look::Damaged => return Err(self.damaged()),
                Look::Moved(ctl) if self.attachment.layout.slots == 1 => {
                    self.wait_for_single_slot(ctl, wait, started)?;
                }
                Look::Moved(_) => check_patience(&self.attachment, wait, started)?,
            }
        }
    }

    /// In a ring of one slot the frame being written is the only one.
    fn wait_for_single_slot(&mut self, seen: Ctl, wait: &Wait<'_>, started: Since) -> Result<()> {
        if matches!(seen.phase(), Phase::Aborted | Phase::Crashed) {
            return Err(self.inconsistent("its only slot was left incomplete"));
        }
        let moved = wait_once(&self.attachment, &mut self.spinner, wait, started, |ctl| {
            !ctl.same_for_writer(seen) || ctl.is_unlinked() != seen.is_unlinked()
        })?;
        match moved {
            // Also before it said that it writes: it marks the slot first. The word did not move, so
            // if the slot is not whole by now, nobody is at it any more.
            Moved::Slice(ctl)
                if ctl.same_for_writer(seen)
                    && writer_has_left(&self.attachment, ctl)
                    && matches!(newest(&*self.attachment), Look::Moved(_)) =>
            {
                Err(self.inconsistent("the writer exited during a write"))
            }
            _ => Ok(()),
        }
    }

    fn copy_newest(&mut self, sink: &mut Sink<'_>, wait: &Wait<'_>) -> Result<Publication> {
        let started = Since::now(wait);
        let mut laps = 0;
        loop {
            let found = self.find_newest(wait, started)?;
            if let Some(publication) = self.copy_found(&found, self.seen, sink, &mut laps)? {
                return Ok(publication);
            }
            check_patience(&self.attachment, wait, started)?;
        }
    }

    fn copy_next(
        &mut self,
        after: u64,
        sink: &mut Sink<'_>,
        wait: &Wait<'_>,
    ) -> Result<Publication> {
        let started = Since::now(wait);
        let mut after = after;
        let mut laps = 0;
        loop {
            let generation = self.attachment.segment.generation();
            self.wait(after, wait)?;
            if self.attachment.segment.generation() != generation {
                after = 0;
            }
            let seen = self.attachment.ctl(Ordering::Acquire);
            let Some(found) = oldest_after(&*self.attachment, after) else {
                match newest(&*self.attachment) {
                    Look::Damaged => return Err(self.damaged()),
                    // It may stay incomplete for as long as its writer likes, or for ever.
                    Look::Moved(_) if self.attachment.layout.slots == 1 => {
                        self.wait_for_single_slot(seen, wait, started)?;
                    }
                    Look::Moved(_) | Look::Frame(_) => {}
                }
                check_patience(&self.attachment, wait, started)?;
                continue;
            };
            if let Some(publication) = self.copy_found(&found, after, sink, &mut laps)? {
                return Ok(publication);
            }
            check_patience(&self.attachment, wait, started)?;
        }
    }

    /// Copies a frame that was found; `None` if a writer overtook the copy.
    fn copy_found(
        &mut self,
        found: &Found,
        after: u64,
        sink: &mut Sink<'_>,
        laps: &mut u32,
    ) -> Result<Option<Publication>> {
        let Some(description) = copy_once(&self.attachment, found, sink, *laps)? else {
            *laps += 1;
            if let Role::Member(member) = &self.attachment.role {
                add(&member.counters(member.me()?).retries, 1);
            }
            return Ok(None);
        };
        let missed = self.advance(found, after);
        self.count_frame(self.attachment.layout.payload_bytes as u64)?;
        Ok(Some(description.publication(found.seq.frame(), missed, found.ctl.phase())))
    }

    /// Moves the position to a frame that was read; how many lie between it and `after`. Only those
    /// that this reader had not passed before count as missed by it.
    fn advance(&mut self, found: &Found, after: u64) -> u64 {
        let count = found.seq.frame();
        let skipped = |from: u64| count.saturating_sub(from).saturating_sub(1);
        let newly = skipped(self.seen.max(after));
        if newly != 0 {
            self.missed_total = self.missed_total.saturating_add(newly);
            if let Role::Member(member) = &self.attachment.role
                && let Ok(me) = member.me()
            {
                add(&member.counters(me).missed, newly);
            }
        }
        self.seen = self.seen.max(count);
        skipped(after)
    }

    fn count_frame(&self, bytes: u64) -> Result<()> {
        if let Role::Member(member) = &self.attachment.role {
            let counters = member.counters(member.me()?);
            add(&counters.frames, 1);
            add(&counters.bytes, bytes);
            counters.last_count.fetch_max(self.seen, Ordering::Relaxed);
        }
        Ok(())
    }

    fn check_phase(&self, ctl: Ctl) -> Result<()> {
        match (self.options.on_abort, ctl.phase()) {
            (OnAbort::Raise, Phase::Aborted) => {
                Err(self.inconsistent("the last write was given up: incomplete write"))
            }
            (OnAbort::Raise, Phase::Crashed) => {
                Err(self.inconsistent("the writer exited during a write"))
            }
            _ => Ok(()),
        }
    }

    fn inconsistent(&self, why: &str) -> Error {
        Error::new(
            ErrorKind::Inconsistent,
            format!("stream `{}`: {why}; the next good write restores it", self.attachment.name()),
        )
    }

    fn damaged(&self) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "the control page of stream `{}` was overwritten: unlink and create it anew",
                self.attachment.name()
            ),
        )
    }

    /// Whether the file was removed without a tombstone.
    fn name_is_gone(&self) -> Result<bool> {
        let current = self.attachment.segment.is_current().map_err(|source| {
            let message = format!("cannot look up stream `{}`: {source}", self.attachment.name());
            Error::with_source(ErrorKind::Os, message, source)
        })?;
        Ok(!matches!(current, shm_core::Current::Yes))
    }

    /// After the name was unlinked: attaches to its successor if the options say so. `true` when
    /// that happened; `false` when it is still awaited.
    fn follow(&mut self, wait: &Wait<'_>, started: Since) -> Result<bool> {
        let name = self.attachment.name();
        if !self.options.reattach {
            return Err(Error::new(
                ErrorKind::Unlinked,
                format!(
                    "stream `{name}` was unlinked; this handle keeps its last frame, open the name \
                     again for a successor"
                ),
            ));
        }
        let Some(successor) = successor(&self.attachment, &self.namespace)? else {
            // The old word no longer changes: this sleeps one slice, or until the deadline.
            wait_once(&self.attachment, &mut self.spinner, wait, started, |_| false)?;
            return Ok(false);
        };
        self.adopt(successor)?;
        Ok(true)
    }

    /// Whether the options say so and the unlinked stream has a successor with a frame, which is
    /// read from here on. Until then the last frame of the old one is the newest there is.
    fn moves_on(&mut self) -> Result<bool> {
        if !self.options.reattach {
            return Ok(false);
        }
        match successor(&self.attachment, &self.namespace)? {
            Some(successor) if successor.ctl(Ordering::Acquire).count() > 0 => {
                self.adopt(successor)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn adopt(&mut self, successor: Arc<Attachment>) -> Result<()> {
        let (old, new) = (&self.attachment.layout, &successor.layout);
        if (old.dtype, &old.shape) != (new.dtype, &new.shape) {
            return Err(Error::new(
                ErrorKind::Changed,
                format!(
                    "stream `{}` was {}{} and is now {}{}: open it again",
                    self.attachment.name(),
                    old.dtype,
                    old.shape,
                    new.dtype,
                    new.shape
                ),
            ));
        }
        self.attachment = successor;
        self.seen = 0;
        Ok(())
    }
}

/// One try to copy a frame; `None` if a writer overtook it.
///
/// The first try only checks afterwards. Then the slot is pinned, which writers respect while they
/// can; then it is leased, which they always respect.
fn copy_once(
    attachment: &Arc<Attachment>,
    found: &Found,
    sink: &mut Sink<'_>,
    laps: u32,
) -> Result<Option<Description>> {
    let hold = match &attachment.role {
        Role::Member(member) if laps > 0 => {
            Hold::take(member, member.me()?, attachment, found, laps)
        }
        _ => Hold::None,
    };
    if matches!(hold, Hold::Gone) {
        return Ok(None);
    }
    let layout = &attachment.layout;
    sink.fill(&attachment.readable, layout.slot_start(found.slot), layout.payload_bytes)
        .map_err(out_of_bounds)?;
    let description = attachment.description(found.slot);
    Ok(is_unchanged(&**attachment, found).then_some(description))
}

/// Where a copy goes.
enum Sink<'a> {
    Slice(&'a mut [u8]),
    /// Filled once, without zeroing it first; filled again in place after a lap.
    Growing(&'a mut Vec<u8>),
}

impl Sink<'_> {
    fn fill(&mut self, shared: &SharedBytes, start: usize, bytes: usize) -> Result<(), ViewError> {
        let out = match self {
            Self::Slice(out) => &mut **out,
            Self::Growing(out) if out.len() == bytes => out.as_mut_slice(),
            Self::Growing(out) => return crate::sys::read_vec(out, shared, start, bytes),
        };
        copy::from_shared(shared, start, copy::Destination::Initialised(out))
    }
}

/// What keeps writers off a slot while it is copied.
enum Hold<'a> {
    None,
    Gone,
    Pin { attachment: &'a Attachment, me: Identity, slot: usize },
    Lease { _lease: Lease },
}

impl<'a> Hold<'a> {
    fn take(
        member: &'a crate::stream::attachment::Member,
        me: Identity,
        attachment: &'a Arc<Attachment>,
        found: &Found,
        laps: u32,
    ) -> Self {
        if laps >= LAPS_BEFORE_LEASE {
            match try_lease(member, me, attachment.layout.slots, found) {
                Attempt::Leased => {
                    let publication =
                        attachment.description(found.slot).publication(0, 0, Phase::Idle);
                    let lease = Lease::of_slot(Arc::clone(attachment), me, found, publication);
                    return Self::Lease { _lease: lease };
                }
                Attempt::Gone => return Self::Gone,
                Attempt::Full => {}
            }
        }
        if try_pin(member, me, found) {
            add(&member.counters(me).pins, 1);
            Self::Pin { attachment, me, slot: found.slot }
        } else {
            Self::Gone
        }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if let Self::Pin { attachment, me, slot } = self
            && let Role::Member(member) = &attachment.role
        {
            unpin(&*member.memory, *me, *slot);
        }
    }
}
