//! Waiting on several streams at once.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::ClockId;
use rustix::thread::futex::{self, WaitFlags, WaitPtr, WaitvFlags};
use rustix::time::Timespec;
use shm_lock::Wait;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::word::Ctl;
use crate::ring::{RingLoads, announce_parking};
use crate::stream::attachment::{Attachment, Role};
use crate::stream::description::monotonic_ns;
use crate::stream::reader::Reader;
use crate::sync::Ordering;

/// Most streams that the kernel waits on at once (`FUTEX_WAITV_MAX`).
const STREAMS_MAX: usize = 128;
/// Longest uninterrupted sleep, as for a single stream.
const SLICE: Duration = Duration::from_millis(50);
/// Sleep where the kernel cannot wait on several words (before Linux 5.16), or may not.
const FALLBACK_SLICE: Duration = Duration::from_millis(1);

/// Waits until one of the readers' streams has a frame that its reader has not seen, or was
/// unlinked. Returns the index of the first such reader.
///
/// # Errors
/// [`ErrorKind::Timeout`], [`ErrorKind::Interrupted`]; [`ErrorKind::InvalidArgument`] for no or
/// more than 128 readers.
pub fn wait_any(readers: &mut [&mut Reader], wait: &Wait<'_>) -> Result<usize> {
    if readers.is_empty() || readers.len() > STREAMS_MAX {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{} streams to wait on: use 1 to {STREAMS_MAX}", readers.len()),
        ));
    }
    let started = Instant::now();
    loop {
        let mut parked = [futex::Wait::new(); STREAMS_MAX];
        let mut all_announced = true;
        for (index, reader) in readers.iter().enumerate() {
            let attachment = reader.attachment();
            let now = attachment.ctl(Ordering::Acquire);
            if now.count() > reader.last_count() || now.is_unlinked() {
                return Ok(index);
            }
            match announce(attachment, now) {
                Some((low, address)) => {
                    parked[index].val = u64::from(low);
                    parked[index].uaddr = address;
                    parked[index].flags = WaitFlags::SIZE_U32;
                }
                None => all_announced = false,
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
            sleep(&parked[..readers.len()], wait);
        }
    }
}

/// Says on the stream that somebody is about to park; the futex and its expected value.
fn announce(attachment: &Attachment, seen: Ctl) -> Option<(u32, WaitPtr)> {
    match &attachment.role {
        Role::Member(member) => {
            let low = announce_parking(&*member.memory, seen)?;
            let word = crate::ring::Ring::ctl_word(&*member.memory).as_ptr();
            Some((low, WaitPtr::new(word.cast())))
        }
        Role::Observer(memory) => {
            Some((seen.low(), WaitPtr::new(memory.observed.ctl_address().cast_mut().cast())))
        }
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
