//! Waits for words that were queued and are not over.
//!
//! To free memory of a device, to close another process's, or to unregister memory of the host, the driver waits for
//! all streams of the context, and meanwhile lets no thread queue anything there but words, or make a stream or an event.
//! If one of the streams waits for what another process is to do, that takes until it is done, and if that process has
//! died, until somebody has done it in its place, who may need what cannot be made. So this crate does none of that
//! while a wait of its own is queued. A wait in a graph that is replayed is nobody's, and not looked at.

use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::error::lost;
use crate::range_words::WordStep;
use crate::sync::{Mutex, lock};
use crate::sys::{self, HostMemory};

/// Where there is always some wait or other, whatever is given back gets its turn after this, if every wait is a new
/// one.
const TURN: Duration = Duration::from_secs(10);
/// And older ones may be for the dead.
const NEW: Duration = Duration::from_secs(1);
/// With so many at least, those that are over are forgotten.
const MANY: usize = 32;

static READY: OnceLock<fn() -> bool> = OnceLock::new();

static WAITS: Mutex<Waits> = Mutex::new(Waits { queued: Vec::new(), last: 0, many: MANY });

struct Waits {
    queued: Vec<Wait>,
    /// The number of the last one.
    last: u64,
    many: usize,
}

struct Wait {
    number: u64,
    memory: Arc<dyn HostMemory>,
    offset: u64,
    value: u64,
    since: Instant,
}

impl Wait {
    fn is_over(&self) -> bool {
        is_over(&*self.memory, self.offset, self.value)
    }
}

/// By signed distance, as devices do.
fn is_over(memory: &dyn HostMemory, offset: u64, value: u64) -> bool {
    sys::load(memory, offset).is_ok_and(|now| now.wrapping_sub(value).cast_signed() >= 0)
}

/// Whether some of the steps will wait.
pub(crate) fn are_in(memory: &dyn HostMemory, steps: &[WordStep]) -> bool {
    steps.iter().any(|step| match *step {
        WordStep::Wait { offset, value } => !is_over(memory, offset, value),
        WordStep::Write { .. } => false,
    })
}

/// Notes the waits among steps, and has `queue` queue them. Not in a forked child.
pub(crate) fn noted<T, E>(
    memory: &Arc<dyn HostMemory>,
    steps: &[WordStep],
    queue: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let numbers = lock(&WAITS).note(memory, steps, Instant::now());
    let queued = queue();
    if queued.is_err() {
        lock(&WAITS).queued.retain(|it| !numbers.contains(&it.number));
    }
    queued
}

/// Whether something may be done for which the driver waits for all streams, and which was wanted `since` then.
/// Waits that are queued from now on are behind it, and nobody is kept from queueing them: what a stream does
/// may depend on that, in another process.
pub(crate) fn give_way(since: Instant) -> bool {
    // A context that is lost waits for nothing.
    if lost().is_some() || lock(&WAITS).are_over() {
        return true;
    }
    let has_turn = || lock(&WAITS).have_given_way(since);
    // The second look: to get ready may take a while.
    has_turn() && READY.get().is_none_or(|are_ready| are_ready()) && has_turn()
}

/// Where some stream or other always waits for a word, what the driver waits for all streams for is done beside
/// new waits at last: not before `are_ready` says that everything is made that may have to end these, as meanwhile
/// the driver makes nothing. It is asked by a thread of this crate, again and again until it says so. One of a
/// process counts: the first.
pub fn before_turns(are_ready: fn() -> bool) {
    READY.get_or_init(|| are_ready);
}

impl Waits {
    fn note(
        &mut self,
        memory: &Arc<dyn HostMemory>,
        steps: &[WordStep],
        since: Instant,
    ) -> RangeInclusive<u64> {
        let first = self.last + 1;
        for step in steps {
            if let WordStep::Wait { offset, value } = *step {
                self.last += 1;
                let (number, memory) = (self.last, Arc::clone(memory));
                self.queued.push(Wait { number, memory, offset, value, since });
            }
        }
        if self.queued.len() >= self.many {
            self.forget();
            self.many = (2 * self.queued.len()).max(MANY);
        }
        first..=self.last
    }

    fn are_over(&mut self) -> bool {
        self.forget();
        self.queued.is_empty()
    }

    /// Whether it is the turn of what was wanted `since` then.
    fn have_given_way(&self, since: Instant) -> bool {
        since.elapsed() >= TURN && self.queued.iter().all(|it| it.since.elapsed() < NEW)
    }

    fn forget(&mut self) {
        self.queued.retain(|it| !it.is_over());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Pages;

    fn waits() -> (Waits, Arc<dyn HostMemory>) {
        let memory = Arc::new(Pages::create(4096).unwrap()) as Arc<dyn HostMemory>;
        (Waits { queued: Vec::new(), last: 0, many: MANY }, memory)
    }

    fn reach(memory: &Arc<dyn HostMemory>, value: u64) {
        let word = sys::word_to_write(&**memory, 8).unwrap();
        word.store(value, std::sync::atomic::Ordering::Release);
    }

    const STEPS: [WordStep; 2] =
        [WordStep::Wait { offset: 8, value: 2 }, WordStep::Write { offset: 8, value: 9 }];

    #[test]
    fn a_wait_is_over_when_its_word_is_there() {
        let (mut waits, memory) = waits();
        let now = Instant::now();
        assert!(are_in(&*memory, &STEPS) && !are_in(&*memory, &STEPS[1..]));
        assert_eq!(waits.note(&memory, &STEPS, now), 1..=1);
        reach(&memory, 1);
        assert!(!waits.are_over());
        reach(&memory, 2);
        assert!(!are_in(&*memory, &STEPS));
        assert!(waits.are_over());
    }

    #[test]
    fn who_waits_long_gets_a_turn_beside_new_waits_alone() {
        let (mut waits, memory) = waits();
        let now = Instant::now();
        let long = now.checked_sub(TURN).unwrap();
        waits.note(&memory, &STEPS, now);
        assert!(!waits.have_given_way(now) && waits.have_given_way(long));
        waits.note(&memory, &STEPS, now.checked_sub(NEW).unwrap());
        assert!(!waits.have_given_way(long), "it may be for the dead");
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let (mut waits, memory) = waits();
        for value in 1..=1000 {
            reach(&memory, value);
            let step = WordStep::Wait { offset: 8, value: value + 1 };
            waits.note(&memory, &[step], Instant::now());
            assert!(waits.queued.len() <= MANY);
        }
    }
}
