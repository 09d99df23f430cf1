//! Reading: the newest frame, the next in order, in place or copied.

mod copying;
mod following;
mod frame;
mod options;
mod sight;

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shm_core::Namespace;
use shm_lock::Wait;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::word::{Ctl, Phase};
use crate::ring::{Found, RingLoads, leased_mask};
use crate::stream::Stream;
use crate::stream::attachment::{Attachment, Role};
use crate::stream::counters::add;
use crate::stream::description::Publication;
use crate::stream::lease::{Attempt, Lease, OnFull, revoke_oldest, try_lease};
use crate::stream::wait::{Moved, OVERTAKEN, Since, Spinner, check_patience, wait_once};
use crate::sync::Ordering;
use crate::tensor::{DType, Shape};
pub(in crate::stream) use copying::Sink;
use sight::Sight;

pub use frame::Frame;
pub use options::{OnAbort, OnEmpty, OnWriting, ReaderOptions};

/// How often a reader that fails on a dead writer asks after a living one: asking costs system
/// calls.
const PROBE_EVERY: Duration = Duration::from_millis(1);

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
    sight: Sight,
    /// Highest count that this reader has seen; what it attached at before its first read.
    seen: u64,
    missed_total: u64,
    /// When it last asked whether a writer lives.
    probed: Option<Instant>,
}

impl Reader {
    pub(crate) fn new(
        attachment: Arc<Attachment>,
        namespace: Namespace,
        options: ReaderOptions,
    ) -> Self {
        let seen = attachment.ctl(Ordering::Acquire).count();
        let spinner = Spinner::new(options.spin);
        let sight = Sight::of_host(&attachment);
        Self { attachment, namespace, options, spinner, sight, seen, missed_total: 0, probed: None }
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

    /// The stream that is read: after a re-attachment the successor.
    pub fn stream(&self) -> Stream {
        Stream {
            attachment: Arc::clone(&self.attachment),
            namespace: self.namespace.clone(),
            read_only: self.attachment.member().is_err(),
        }
    }

    /// Which creation of the name is read.
    pub fn generation(&self) -> shm_core::Generation {
        self.attachment.segment.generation()
    }

    /// How many frames were published so far: one load, no system call.
    pub fn count(&self) -> u64 {
        self.attachment.ctl(Ordering::Acquire).count()
    }

    /// Highest count that this reader has read; before that, how many frames there were when it was made.
    pub fn last_count(&self) -> u64 {
        self.seen
    }

    /// Frames that were published between this reader's reads and never seen by it.
    pub fn missed_total(&self) -> u64 {
        self.missed_total
    }

    /// The newest complete frame, copied. Never waits for a writer; of a
    /// [mirrored](crate::stream::StreamOptions::mirror) stream for a GPU, while none of the frames that the
    /// ring still has has come to the file.
    ///
    /// # Errors
    /// [`ErrorKind::Empty`] if nothing was published yet, [`ErrorKind::Inconsistent`] as the
    /// reader's options say, [`ErrorKind::Corrupt`] if the control page was overwritten.
    pub fn latest(&mut self) -> Result<Frame> {
        let mut bytes = self.attachment.room_for_a_frame()?;
        let publication = self.copy_newest(&mut Sink::Growing(&mut bytes), &Wait::forever())?;
        Ok(Frame { bytes, dtype: self.dtype(), publication })
    }

    /// The newest complete frame, copied into `out`. Never waits for a writer, allocates nothing.
    ///
    /// # Errors
    /// As [`latest`](Self::latest); also [`ErrorKind::InvalidArgument`] if `out` has not exactly
    /// the bytes of a frame.
    pub fn read_into(&mut self, out: &mut [u8]) -> Result<Publication> {
        self.check_destination(out.len())?;
        self.copy_newest(&mut Sink::Slice(out), &Wait::forever())
    }

    /// As [`latest`](Self::latest), where that may have to wait: with [`OnWriting::Wait`], in a ring of
    /// one slot, and for readers that a faster writer can overtake for ever (in a ring of two, or
    /// without write permission).
    ///
    /// # Errors
    /// As [`latest`](Self::latest); [`ErrorKind::Timeout`] and [`ErrorKind::Interrupted`].
    pub fn latest_with(&mut self, wait: &Wait<'_>) -> Result<Frame> {
        let mut bytes = self.attachment.room_for_a_frame()?;
        let publication = self.copy_newest(&mut Sink::Growing(&mut bytes), wait)?;
        Ok(Frame { bytes, dtype: self.dtype(), publication })
    }

    /// As [`read_into`](Self::read_into), where that may have to wait: see
    /// [`latest_with`](Self::latest_with).
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into) and [`latest_with`](Self::latest_with).
    pub fn read_into_with(&mut self, out: &mut [u8], wait: &Wait<'_>) -> Result<Publication> {
        self.check_destination(out.len())?;
        self.copy_newest(&mut Sink::Slice(out), wait)
    }

    /// As [`read_into_with`](Self::read_into_with), into memory that need not be initialised. Every
    /// byte of it is, when the call succeeds.
    ///
    /// # Errors
    /// As [`read_into_with`](Self::read_into_with).
    pub fn read_uninit(
        &mut self,
        out: &mut [MaybeUninit<u8>],
        wait: &Wait<'_>,
    ) -> Result<Publication> {
        self.check_destination(out.len())?;
        self.copy_newest(&mut Sink::Uninitialised(out), wait)
    }

    /// The newest complete frame, in place: no copy at any size.
    ///
    /// # Errors
    /// As [`latest`](Self::latest); [`ErrorKind::Timeout`] with [`OnFull::Wait`].
    pub fn lease(&mut self, on_full: OnFull) -> Result<Lease> {
        self.lease_with(on_full, &Wait::forever())
    }

    /// As [`lease`](Self::lease), where that may have to wait: see [`latest_with`](Self::latest_with).
    /// The time of [`OnFull::Wait`] counts from now on, and ends before `wait` if it is shorter.
    ///
    /// # Errors
    /// As [`lease`](Self::lease); [`ErrorKind::Timeout`] and [`ErrorKind::Interrupted`].
    pub fn lease_with(&mut self, on_full: OnFull, wait: &Wait<'_>) -> Result<Lease> {
        self.attachment.readable()?;
        let wait = on_full.patience(wait);
        match self.lease_slot(on_full, &wait)? {
            Some((lease, _)) => Ok(lease),
            None => self.private_copy(&wait),
        }
    }

    /// Leases the slot of the newest frame. `None`: the ring has none to spare, and a copy is wanted then.
    pub(in crate::stream) fn lease_slot(
        &mut self,
        on_full: OnFull,
        wait: &Wait<'_>,
    ) -> Result<Option<(Lease, Found)>> {
        let started = Since::now(wait);
        loop {
            let found = self.find_newest(wait, started)?;
            let Role::Member(member) = &self.attachment.role else { return Ok(None) };
            let me = member.me()?;
            let leases_max = self.attachment.layout.leases_max();
            if leases_max == 0 {
                // Nothing to wait for and nothing to take away.
                add(&member.counters(me).lease_copies, 1);
                return Ok(None);
            }
            match try_lease(member, me, leases_max, &found) {
                Attempt::Leased => {
                    add(&member.counters(me).leases, 1);
                    let description = self.attachment.description(found.slot);
                    let missed = self.advance(&found, self.seen);
                    let count = found.seq.frame();
                    let publication = description.publication(count, missed, found.ctl.phase());
                    let attachment = Arc::clone(&self.attachment);
                    let lease = Lease::of_slot(attachment, me, &found, publication);
                    self.count_frame(0)?;
                    return Ok(Some((lease, found)));
                }
                Attempt::Gone => check_patience(&self.attachment, wait, started, OVERTAKEN)?,
                Attempt::Full => match on_full {
                    OnFull::Revoke if revoke_oldest(member) => {}
                    OnFull::Copy | OnFull::Revoke => {
                        add(&member.counters(me).lease_copies, 1);
                        return Ok(None);
                    }
                    OnFull::Wait(_) => {
                        // Leases end without a wake-up, by design: look again after the next
                        // publication or slice.
                        let seen = found.ctl.count();
                        let moved = wait_once(
                            &self.attachment,
                            &mut self.spinner,
                            self.sight.signal(),
                            wait,
                            started,
                            |ctl| ctl.count() != seen,
                        );
                        if let Err(error) = moved {
                            return Err(no_slot_to_lease(&self.attachment, started, error));
                        }
                    }
                },
            }
        }
    }

    /// The next frame in order, copied: the oldest that was published since this reader was made and
    /// that it has not seen. [`latest`](Self::latest) returns what was there before,
    /// [`next_after`](Self::next_after) with a count of 0 the oldest that there is. Frames that the ring
    /// no longer has are counted in [`Publication::missed`].
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
        let mut bytes = self.attachment.room_for_a_frame()?;
        let publication = self.copy_next(after, &mut Sink::Growing(&mut bytes), wait)?;
        Ok(Frame { bytes, dtype: self.dtype(), publication })
    }

    /// As [`next`](Self::next), into `out`.
    ///
    /// # Errors
    /// As [`next`](Self::next) and [`read_into`](Self::read_into).
    pub fn next_into(&mut self, out: &mut [u8], wait: &Wait<'_>) -> Result<Publication> {
        self.check_destination(out.len())?;
        let after = self.seen;
        self.copy_next(after, &mut Sink::Slice(out), wait)
    }

    /// As [`next_into`](Self::next_into), into memory that need not be initialised. Every byte of it
    /// is, when the call succeeds.
    ///
    /// # Errors
    /// As [`next_into`](Self::next_into).
    pub fn next_uninit(
        &mut self,
        out: &mut [MaybeUninit<u8>],
        wait: &Wait<'_>,
    ) -> Result<Publication> {
        self.check_destination(out.len())?;
        let after = self.seen;
        self.copy_next(after, &mut Sink::Uninitialised(out), wait)
    }

    /// Waits until more than `after` frames were published. Returns how many were; of a
    /// [mirrored](crate::stream::StreamOptions::mirror) stream, up to the newest one that is in its file.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], [`ErrorKind::Interrupted`]; [`ErrorKind::Unlinked`] if the stream is
    /// unlinked and nothing newer is there; [`ErrorKind::Inconsistent`] with [`OnAbort::Raise`];
    /// [`ErrorKind::Changed`] if the name was created anew with another shape or type.
    pub fn wait(&mut self, after: u64, wait: &Wait<'_>) -> Result<u64> {
        let started = Since::now(wait);
        let mut now = self.attachment.ctl(Ordering::Acquire);
        if self.awaits_writer(now) {
            self.wait_for_writer(now, wait, started)?;
            now = self.attachment.ctl(Ordering::Acquire);
        }
        self.check_phase(now)?;
        if self.reaches_beyond(after, now) {
            return Ok(self.sight.reach(&self.attachment, now));
        }
        if let Role::Member(member) = &self.attachment.role {
            add(&member.counters(member.me()?).waits, 1);
        }
        let mut after = after;
        loop {
            let raises = self.options.on_abort == OnAbort::Raise;
            let (sight, attachment) = (self.sight, &self.attachment);
            let arrived = |ctl: Ctl| {
                sight.reaches_beyond(attachment, after, ctl)
                    || ctl.is_unlinked()
                    || (raises && matches!(ctl.phase(), Phase::Aborted | Phase::Crashed))
            };
            let signal = sight.signal();
            let moved = wait_once(attachment, &mut self.spinner, signal, wait, started, arrived)?;
            match moved {
                Moved::Arrived(ctl) if self.reaches_beyond(after, ctl) => {
                    return Ok(self.sight.reach(&self.attachment, ctl));
                }
                Moved::Arrived(ctl) => {
                    self.check_phase(ctl)?;
                    if self.follow(wait, started)? {
                        after = 0;
                    }
                }
                Moved::Slice(ctl) => {
                    if raises && self.sight.awaits_the_dead(&self.attachment, ctl) {
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

    /// Counts a lease that is answered with a private copy.
    pub(in crate::stream) fn count_lease_copy(&self) -> Result<()> {
        if let Role::Member(member) = &self.attachment.role {
            add(&member.counters(member.me()?).lease_copies, 1);
        }
        Ok(())
    }

    fn check_destination(&self, given: usize) -> Result<()> {
        let layout = &self.attachment.layout;
        if given == layout.payload_bytes {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "a frame of stream `{}` has {} bytes ({}{}), the destination {given}",
                self.attachment.name(),
                layout.payload_bytes,
                layout.dtype,
                layout.shape,
            ),
        ))
    }

    fn private_copy(&mut self, wait: &Wait<'_>) -> Result<Lease> {
        let mut bytes = self.attachment.room_for_a_frame()?;
        let publication = self.copy_newest(&mut Sink::Growing(&mut bytes), wait)?;
        Ok(Lease::of_copy(bytes.into_boxed_slice(), self.dtype(), publication))
    }

    /// Whether the frame that `ctl` shows on its way will never come, as far as that was asked lately.
    fn writer_is_dead(&mut self, ctl: Ctl) -> bool {
        if !self.is_behind(ctl) {
            return false;
        }
        let now = Instant::now();
        if self.probed.is_some_and(|last| now - last < PROBE_EVERY) {
            return false;
        }
        self.probed = Some(now);
        self.sight.awaits_the_dead(&self.attachment, ctl)
    }

    /// Whether an aborted or unfinished write makes this reader fail now.
    pub(crate) fn is_failed(&self, ctl: Ctl) -> bool {
        self.options.on_abort == OnAbort::Raise
            && matches!(ctl.phase(), Phase::Aborted | Phase::Crashed)
    }

    /// Whether this reader would fail on a writer that died during its write.
    pub(crate) fn is_failed_by_death(&self, ctl: Ctl) -> bool {
        self.options.on_abort == OnAbort::Raise
            && self.is_behind(ctl)
            && self.sight.awaits_the_dead(&self.attachment, ctl)
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
}

/// What a wait for a slot to lease ends with: that frames may have come meanwhile is beside the point.
#[cold]
fn no_slot_to_lease(attachment: &Attachment, started: Since, error: Error) -> Error {
    if !error.is_timeout() {
        return error;
    }
    let (name, layout) = (attachment.name(), &attachment.layout);
    let leased = attachment.member().map_or(0, |it| leased_mask(&*it.memory).count_ones());
    let what = format!(
        "stream `{name}`: no slot came free to lease; its ring of {} slots lends {} at once, and \
         {leased} are leased: drop a lease, take a copy, or create it with more slots",
        layout.slots,
        layout.leases_max(),
    );
    Error::timeout(&what, started.elapsed())
}
