//! Waiting for a frame: spin for a little while it pays, then park on the control word.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shm_lock::Wait;
use shm_lock::park::park_low_half;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::word::{Ctl, Phase};
use crate::ring::{
    Found, Identity, Liveness, Ring, RingLoads, announce_parking, arrivals, slot_owner,
};
use crate::stream::attachment::{Attachment, Role};
use crate::stream::counters::add;
use crate::stream::cpus;
use crate::stream::device::{doubts, seat};
use crate::sync::Ordering;

/// Longest uninterrupted sleep. Not to find data: a publisher can die between publishing and
/// waking, and then nobody else will.
const SLICE: Duration = Duration::from_millis(50);

/// How long a wait spins before it parks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spin {
    /// Up to 25 us, and up to 50 us for who reads with a GPU, while that keeps finding frames, not at all otherwise
    /// and on a single CPU: while two of the last eight spins found one; then one wait in 64 tries again. Looks that
    /// do not wait do not count.
    #[default]
    Adaptive,
    /// Not at all: the least CPU time, a wake-up of some 4 us.
    Never,
    /// Always this long: for loops that own a core.
    For(Duration),
}

/// Longest adaptive spin.
const SPIN_MAX: Duration = Duration::from_micros(25);
/// The same for frames on a GPU, whose peers have calls of a driver to make: with 25 us many waits for a process of
/// Python slept.
const SPIN_MAX_OF_DEVICE: Duration = Duration::from_micros(50);
/// Looks at the word between two looks at the clock.
const LOOKS: u32 = 32;

/// What recent waits were like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spinner {
    policy: Spin,
    /// Longest adaptive spin.
    most: Duration,
    /// Of the last waits, how many ended while spinning: one bit each, newest lowest.
    recent: u8,
    /// Waits since the last time that spinning was tried although it had not paid.
    since_probe: u32,
    single_cpu: bool,
}

impl Spinner {
    pub(crate) fn new(policy: Spin) -> Self {
        let single_cpu = cpus::is_single();
        Self { policy, most: SPIN_MAX, recent: u8::MAX, since_probe: 0, single_cpu }
    }

    /// For frames on a GPU.
    pub(crate) fn of_device(self) -> Self {
        Self { most: SPIN_MAX_OF_DEVICE, ..self }
    }

    fn budget(&mut self) -> Duration {
        match self.policy {
            Spin::Never => Duration::ZERO,
            Spin::For(time) => time,
            Spin::Adaptive if self.single_cpu => Duration::ZERO,
            Spin::Adaptive => {
                if self.recent.count_ones() >= 2 {
                    return self.most;
                }
                // Rates change: look again once in a while.
                self.since_probe += 1;
                if self.since_probe >= 64 {
                    self.since_probe = 0;
                    return self.most;
                }
                Duration::ZERO
            }
        }
    }

    fn learn(&mut self, hit: bool) {
        self.recent = (self.recent << 1) | u8::from(hit);
    }
}

/// When an operation began; only asked of the clock where there is a deadline to miss.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since(Option<Instant>);

impl Since {
    #[inline]
    pub(crate) fn now(wait: &Wait<'_>) -> Self {
        Self(wait.deadline().filter(|_| !wait.is_never()).map(|_| Instant::now()))
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.map_or(Duration::ZERO, |begun| begun.elapsed())
    }
}

/// Which word changes when what is waited for may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The control word: with every publication.
    Publication,
    /// The word of arrivals: whenever something is new in the file of a mirrored stream.
    Arrival,
}

/// Why a wait ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// The word satisfies the caller.
    Arrived(Ctl),
    /// One slice of sleep passed, or a wake-up came that was not for the caller.
    Slice(Ctl),
}

/// Waits until `arrived` holds for the control word, or for one slice.
///
/// # Errors
/// [`ErrorKind::Timeout`] and [`ErrorKind::Interrupted`] as `wait` says.
pub(crate) fn wait_once(
    attachment: &Attachment,
    spinner: &mut Spinner,
    signal: Signal,
    wait: &Wait<'_>,
    started: Since,
    arrived: impl Fn(Ctl) -> bool,
) -> Result<Moved> {
    let now = attachment.ctl(Ordering::Acquire);
    if arrived(now) {
        return Ok(Moved::Arrived(now));
    }
    // Who does not wait at all spins for nothing, and learns nothing of how long waits are.
    let budget = if wait.is_never() { Duration::ZERO } else { spinner.budget() };
    if !budget.is_zero() {
        let begun = Instant::now();
        let mut asked = begun;
        loop {
            for _ in 0..LOOKS {
                let now = attachment.ctl(Ordering::Acquire);
                if arrived(now) {
                    spinner.learn(true);
                    if let Role::Member(member) = &attachment.role {
                        add(&member.counters(member.me()?).spin_hits, 1);
                    }
                    return Ok(Moved::Arrived(now));
                }
                std::hint::spin_loop();
            }
            let now = Instant::now();
            // Less than a whole spin says nothing of whether one pays.
            if wait.deadline().is_some_and(|deadline| now >= deadline) {
                break;
            }
            if now - begun >= budget {
                spinner.learn(false);
                break;
            }
            if now - asked >= SLICE {
                asked = now;
                check_interrupt(attachment, wait)?;
            }
        }
    }
    check_interrupt(attachment, wait)?;
    let at_most = remaining(wait, started, attachment, NOTHING_NEW)?.min(SLICE);
    match &attachment.role {
        Role::Member(member) => {
            add(&member.counters(member.me()?).parks, 1);
            let before = arrivals::seen(member.memory.arrivals());
            let seen = member.memory.ctl(Ordering::Acquire);
            if arrived(seen) {
                return Ok(Moved::Arrived(seen));
            }
            // SYNC: park. The word that is slept on is the word that publishing, or arriving, changes.
            let (word, low) = match signal {
                Signal::Publication => {
                    (member.memory.ctl_word(), announce_parking(&*member.memory, seen))
                }
                Signal::Arrival => {
                    let word = member.memory.arrivals();
                    (word, arrivals::announce(word, before))
                }
            };
            if let Some(low) = low {
                park_low_half(word, low, at_most);
            }
        }
        Role::Observer(memory) => {
            let before = memory.observed.arrivals();
            let seen = memory.ctl(Ordering::Acquire);
            if arrived(seen) {
                return Ok(Moved::Arrived(seen));
            }
            let low = match signal {
                Signal::Publication => seen.low(),
                Signal::Arrival => before as u32,
            };
            memory.observed.park(signal, low, at_most);
        }
    }
    let now = attachment.ctl(Ordering::Acquire);
    if arrived(now) {
        return Ok(Moved::Arrived(now));
    }
    check_patience(attachment, wait, started, NOTHING_NEW)?;
    Ok(Moved::Slice(now))
}

/// Whether the caller still wants to go on; asked wherever a read is tried again.
///
/// # Errors
/// [`ErrorKind::Timeout`] and [`ErrorKind::Interrupted`].
pub(crate) fn check_patience(
    attachment: &Attachment,
    wait: &Wait<'_>,
    started: Since,
    in_vain: &str,
) -> Result<()> {
    std::hint::spin_loop();
    check_interrupt(attachment, wait)?;
    remaining(wait, started, attachment, in_vain).map(drop)
}

/// What a wait ends with that found nothing.
const NOTHING_NEW: &str = "nothing new was published";
/// What a read ends with that never came to the end of a copy.
pub(crate) const OVERTAKEN: &str = "a faster writer overtook every copy";

fn check_interrupt(attachment: &Attachment, wait: &Wait<'_>) -> Result<()> {
    if !wait.is_interrupted() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Interrupted,
        format!("waiting on stream `{}` was interrupted", attachment.name()),
    ))
}

/// Time left until the deadline.
fn remaining(
    wait: &Wait<'_>,
    started: Since,
    attachment: &Attachment,
    in_vain: &str,
) -> Result<Duration> {
    let Some(deadline) = wait.deadline() else { return Ok(Duration::MAX) };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(in_vain_for(wait, started, attachment, in_vain));
    }
    Ok(left)
}

#[cold]
fn in_vain_for(wait: &Wait<'_>, started: Since, attachment: &Attachment, in_vain: &str) -> Error {
    let mut what = format!("stream `{}`: {in_vain}", attachment.name());
    // Somebody who does not wait asks often, and system calls take long.
    if !wait.is_never() {
        let ctl = attachment.ctl(Ordering::Acquire);
        if ctl.phase() == Phase::Writing && writer_has_left(attachment, ctl) {
            what = format!("{what}; {}", died_writing(attachment));
        }
    }
    Error::timeout(&what, started.elapsed())
}

/// The words for a write whose writer is gone, which it is.
pub(crate) fn died_writing(attachment: &Attachment) -> String {
    let holder = match &attachment.role {
        Role::Member(member) => member.lock.holder(),
        Role::Observer(_) => None,
    };
    let who = holder.map_or_else(String::new, |holder| format!(" (process {})", holder.pid));
    format!("its writer{who} died during a write, which the next write repairs")
}

/// Whether nobody who lives has had the lock for as long as the word has not moved.
pub(crate) fn writer_has_left(attachment: &Attachment, ctl: Ctl) -> bool {
    if !attachment.ctl(Ordering::Acquire).same_for_writer(ctl) {
        return false;
    }
    let holder_is_dead = match &attachment.role {
        Role::Member(member) => member.lock.holder().map(|holder| {
            let holder = Identity { entry: holder.slot, id: holder.id };
            member.peers().has_ended(holder)
        }),
        Role::Observer(memory) => memory.observed.holder_is_gone(&memory.onlooker),
    };
    // Without a holder, somebody let the lock go without finishing: the next writer heals it.
    holder_is_dead.unwrap_or(true) && attachment.ctl(Ordering::Acquire).same_for_writer(ctl)
}

/// Whether a frame of a mirrored stream was published, is not in its file, and nobody is left who would put it
/// there. Who may not write cannot tell, and is told no.
pub(crate) fn is_lost(attachment: &Attachment, found: &Found) -> bool {
    let Role::Member(member) = &attachment.role else { return false };
    let memory = &*member.memory;
    let owner = slot_owner(memory.slot(found.slot));
    let peers = member.peers();
    let is_lost = seat::fills_nothing(memory, owner, |who| peers.has_ended(who));
    // The last look comes last: whoever had it may have put it there before they went, and somebody may have
    // taken it over.
    is_lost
        && slot_owner(memory.slot(found.slot)) == owner
        && memory.seq(found.slot, Ordering::Acquire) == found.seq
        && !memory.is_in_file(found.slot, found.seq)
}

/// The same, of somebody who waits for the frame: after a while, those who have GPUs are asked how these are.
pub(crate) fn is_found_lost(attachment: &Arc<Attachment>, found: &Found) -> bool {
    let is_lost = is_lost(attachment, found);
    if !is_lost && !attachment.is_in_file(found.slot, found.seq) {
        doubts::arise(attachment, found.seq);
    }
    is_lost
}

#[cfg(all(test, not(loom)))]
mod tests {
    use shm_core::Namespace;

    use super::*;
    use crate::stream::{Stream, StreamOptions};
    use crate::tensor::DType;

    fn stream() -> Stream {
        let prefix = format!("st-wait.{}.", std::process::id());
        let namespace = Namespace::new("/dev/shm", &prefix).expect("a prefix");
        StreamOptions::new(DType::U8, [8]).namespace(namespace).create("it").expect("a stream")
    }

    /// Waits for what does not come.
    fn in_vain(stream: &Stream, spinner: &mut Spinner, wait: &Wait<'_>) {
        let started = Since::now(wait);
        let signal = Signal::Publication;
        let ended = wait_once(&stream.attachment, spinner, signal, wait, started, |_| false);
        assert!(ended.expect_err("it never comes").is_timeout());
    }

    #[test]
    fn only_whole_spins_say_whether_they_pay() {
        let stream = stream();
        let mut spinner = Spinner { single_cpu: false, ..Spinner::new(Spin::Adaptive) };
        assert_eq!(spinner.of_device().budget(), SPIN_MAX_OF_DEVICE, "its peers take longer");
        for _ in 0..100 {
            in_vain(&stream, &mut spinner, &Wait::never());
            in_vain(&stream, &mut spinner, &Wait::until(Instant::now()));
        }
        assert_eq!(spinner.budget(), SPIN_MAX, "looks without a wait have taught nothing");
        for _ in 0..16 {
            in_vain(&stream, &mut spinner, &Wait::for_at_most(Duration::from_millis(1)));
        }
        assert_eq!(spinner.budget(), Duration::ZERO, "waits in vain have taught not to spin");
        let since = spinner.since_probe;
        in_vain(&stream, &mut spinner, &Wait::never());
        assert_eq!(spinner.since_probe, since, "a look is no occasion to try it again");
        stream.unlink().unwrap();
    }
}
