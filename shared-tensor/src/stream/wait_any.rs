//! Waiting on several streams at once.

use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::ClockId;
use rustix::thread::futex::{self, WaitFlags, WaitPtr, WaitvFlags};
use rustix::time::Timespec;
use shm_lock::Wait;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::word::Ctl;
use crate::ring::{RingLoads, announce_parking, arrivals};
use crate::stream::attachment::{Attachment, Role};
use crate::stream::description::monotonic_ns;
use crate::stream::reader::Reader;
use crate::stream::wait::Signal;
use crate::sync::Ordering;

/// Most streams that are waited on at once: the kernel's limit (`FUTEX_WAITV_MAX`, 128), less one
/// word for a bell.
const STREAMS_MAX: usize = 127;
/// Longest uninterrupted sleep, as for a single stream.
const SLICE: Duration = Duration::from_millis(50);
/// Sleep where the kernel cannot wait on several words (before Linux 5.16), or may not.
const FALLBACK_SLICE: Duration = Duration::from_millis(1);

/// Ends a wait of [`wait_any_or_bell`] from another thread of this process.
#[derive(Debug, Default)]
pub struct Bell(AtomicU32);

impl Bell {
    /// A bell that has not been rung.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the wait that is going on, or else the next one.
    pub fn ring(&self) {
        self.0.store(1, Ordering::Release);
        // Nobody may be there, and then the next wait finds the value.
        let _ = futex::wake(&self.0, futex::Flags::PRIVATE, 1);
    }

    fn take(&self) -> bool {
        self.0.swap(0, Ordering::AcqRel) != 0
    }
}

/// Waits until one of the readers' streams has a frame that its reader has not seen, was unlinked or
/// removed, or would make the reader fail ([`OnAbort::Raise`](crate::stream::OnAbort)). Returns the
/// index of the first such reader.
///
/// # Errors
/// [`ErrorKind::Timeout`], [`ErrorKind::Interrupted`]; [`ErrorKind::InvalidArgument`] for no or
/// more than 127 readers.
pub fn wait_any(readers: &mut [&mut Reader], wait: &Wait<'_>) -> Result<usize> {
    if readers.is_empty() {
        return Err(too_many_or_none(0));
    }
    let mut reached = None;
    while reached.is_none() {
        reached = wait_for(readers, None, wait)?;
    }
    Ok(reached.unwrap_or_default())
}

/// As [`wait_any`], until `bell` is rung; `None` says that it was. Without readers only the bell is
/// waited for.
///
/// # Errors
/// As [`wait_any`].
pub fn wait_any_or_bell(
    readers: &mut [&mut Reader],
    bell: &Bell,
    wait: &Wait<'_>,
) -> Result<Option<usize>> {
    wait_for(readers, Some(bell), wait)
}

fn too_many_or_none(given: usize) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("{given} streams to wait on: use 1 to {STREAMS_MAX}"),
    )
}

fn wait_for(
    readers: &mut [&mut Reader],
    bell: Option<&Bell>,
    wait: &Wait<'_>,
) -> Result<Option<usize>> {
    if readers.len() > STREAMS_MAX {
        return Err(too_many_or_none(readers.len()));
    }
    let started = Instant::now();
    let mut looked = started;
    loop {
        if bell.is_some_and(Bell::take) {
            return Ok(None);
        }
        let mut parked = [futex::Wait::new(); STREAMS_MAX + 1];
        let mut all_announced = true;
        for (index, reader) in readers.iter().enumerate() {
            let attachment = reader.attachment();
            // Before anything is looked for.
            let arrivals = arrivals_of(attachment);
            let now = attachment.ctl(Ordering::Acquire);
            let is_over = now.is_unlinked() && !reader.awaits_successors();
            // What comes during a write is read when the write has ended, by readers that wait for that.
            let is_news =
                reader.reaches_beyond(reader.last_count(), now) && !reader.awaits_writer(now);
            if is_news || is_over || reader.is_failed(now) {
                return Ok(Some(index));
            }
            match announce(attachment, reader.signal(), now, arrivals) {
                Some((low, address)) => {
                    parked[index].val = u64::from(low);
                    parked[index].uaddr = address;
                    parked[index].flags = WaitFlags::SIZE_U32;
                }
                None => all_announced = false,
            }
        }
        // What nobody wakes for: a file removed by hand, a writer that died, a successor.
        if looked.elapsed() >= SLICE {
            looked = Instant::now();
            for (index, reader) in readers.iter_mut().enumerate() {
                let now = reader.attachment().ctl(Ordering::Acquire);
                let is_gone = now.is_unlinked() || reader.name_is_gone()?;
                let is_over = is_gone && (!reader.awaits_successors() || reader.moves_on()?);
                // The write that was waited for has ended with its writer.
                let is_news =
                    reader.reaches_beyond(reader.last_count(), now) && reader.awaits_the_dead(now);
                if is_over || reader.is_failed_by_death(now) || is_news {
                    return Ok(Some(index));
                }
            }
        }
        if wait.is_interrupted() {
            return Err(Error::new(
                ErrorKind::Interrupted,
                format!("waiting on {} streams was interrupted", readers.len()),
            ));
        }
        if wait.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
            let what = format!("any of {} streams: nothing new was published", readers.len());
            return Err(Error::timeout(&what, started.elapsed()));
        }
        if all_announced {
            let mut used = readers.len();
            if let Some(bell) = bell {
                parked[used].val = 0;
                parked[used].uaddr = WaitPtr::new(bell.0.as_ptr().cast());
                parked[used].flags = WaitFlags::SIZE_U32 | WaitFlags::PRIVATE;
                used += 1;
            }
            sleep(&parked[..used], wait);
        }
    }
}

/// Says on the stream that somebody is about to park; the futex and its expected value.
fn announce(
    attachment: &Attachment,
    signal: Signal,
    seen: Ctl,
    arrivals: u64,
) -> Option<(u32, WaitPtr)> {
    match (&attachment.role, signal) {
        (Role::Member(member), Signal::Publication) => {
            let low = announce_parking(&*member.memory, seen)?;
            let word = crate::ring::Ring::ctl_word(&*member.memory).as_ptr();
            Some((low, WaitPtr::new(word.cast())))
        }
        (Role::Member(member), Signal::Arrival) => {
            let word = member.memory.arrivals();
            let low = arrivals::announce(word, arrivals)?;
            Some((low, WaitPtr::new(word.as_ptr().cast())))
        }
        (Role::Observer(memory), signal) => {
            let low = if signal == Signal::Arrival { arrivals as u32 } else { seen.low() };
            Some((low, WaitPtr::new(memory.observed.address(signal).cast_mut().cast())))
        }
    }
}

fn arrivals_of(attachment: &Attachment) -> u64 {
    match &attachment.role {
        Role::Member(member) => arrivals::seen(member.memory.arrivals()),
        Role::Observer(memory) => memory.observed.arrivals(),
    }
}

/// Sleeps until one of the words changes, for a slice at most. Every outcome means: look again.
fn sleep(parked: &[futex::Wait], wait: &Wait<'_>) {
    let slice = wait
        .deadline()
        .map_or(SLICE, |deadline| deadline.saturating_duration_since(Instant::now()).min(SLICE));
    let until = monotonic_ns() + slice.as_nanos() as u64;
    let until = Timespec {
        tv_sec: (until / 1_000_000_000).cast_signed(),
        tv_nsec: (until % 1_000_000_000).cast_signed(),
    };
    match futex::waitv(parked, WaitvFlags::empty(), Some(&until), ClockId::Monotonic) {
        Ok(_) | Err(Errno::AGAIN | Errno::TIMEDOUT | Errno::INTR) => {}
        // ENOSYS, and whatever a sandbox answers to a call that it does not know.
        Err(_) => std::thread::sleep(FALLBACK_SLICE),
    }
}
