//! A futex made of a mutex and a condition variable, for loom.
//!
//! Time does not pass in a model, so a sleep does not end by itself: a wake-up that gets lost
//! shows as a deadlock, which loom reports. The slices that a death needs are given by
//! [`tick`]: one timeout for every thread that sleeps now or lies down later, except those that
//! chose to [`sleep_soundly`].

use std::cell::Cell;
use std::time::Duration;

use loom::sync::{Condvar, Mutex};

use crate::park::Parked;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[derive(Default)]
struct Bedroom {
    ticks: u64,
    tickets: u64,
    sleepers: Vec<Sleeper>,
}

struct Sleeper {
    address: usize,
    ticket: u64,
    soundly: bool,
    woken: Option<Parked>,
}

loom::lazy_static! {
    static ref BEDROOM: Mutex<Bedroom> = Mutex::new(Bedroom::default());
    static ref BELL: Condvar = Condvar::new();
}

loom::thread_local! {
    static TICKS_SEEN: Cell<u64> = Cell::new(0);
    static SOUNDLY: Cell<bool> = Cell::new(false);
}

/// Sleeps while `word` is `expected`.
pub fn wait(word: &AtomicU32, expected: u32, _at_most: Duration) -> Parked {
    let address = std::ptr::from_ref(word).addr();
    sleep(address, || word.load(Ordering::SeqCst) == expected)
}

/// Wakes up to `count` sleepers of `word`.
pub fn wake(word: &AtomicU32, count: u32) -> usize {
    ring(std::ptr::from_ref(word).addr(), count)
}

/// Sleeps while the low half of `word` is `expected`.
pub fn wait_low_half(word: &AtomicU64, expected: u32, _at_most: Duration) -> Parked {
    let address = std::ptr::from_ref(word).addr();
    sleep(address, || word.load(Ordering::SeqCst) as u32 == expected)
}

/// Wakes every sleeper of `word`.
pub fn wake_low_half(word: &AtomicU64) -> usize {
    ring(std::ptr::from_ref(word).addr(), u32::MAX)
}

/// Lets one slice of every sleeper end, those that lie down later included.
pub fn tick() {
    let mut bedroom = BEDROOM.lock().expect("a model does not panic under this lock");
    bedroom.ticks += 1;
    for sleeper in bedroom.sleepers.iter_mut().filter(|sleeper| !sleeper.soundly) {
        sleeper.woken.get_or_insert(Parked::TimedOut);
    }
    BELL.notify_all();
}

/// The calling thread's sleeps end only by a wake-up from now on.
pub fn sleep_soundly() {
    SOUNDLY.with(|soundly| soundly.set(true));
}

fn sleep(address: usize, as_expected: impl Fn() -> bool) -> Parked {
    let mut bedroom = BEDROOM.lock().expect("a model does not panic under this lock");
    if !as_expected() {
        return Parked::Changed;
    }
    let soundly = SOUNDLY.with(Cell::get);
    if !soundly && TICKS_SEEN.with(|seen| seen.replace(bedroom.ticks)) != bedroom.ticks {
        return Parked::TimedOut;
    }
    bedroom.tickets += 1;
    let ticket = bedroom.tickets;
    bedroom.sleepers.push(Sleeper { address, ticket, soundly, woken: None });
    loop {
        bedroom = BELL.wait(bedroom).expect("a model does not panic under this lock");
        let place = bedroom.sleepers.iter().position(|sleeper| sleeper.ticket == ticket);
        let place = place.expect("a sleeper is taken off the list by itself");
        if let Some(why) = bedroom.sleepers[place].woken {
            bedroom.sleepers.remove(place);
            TICKS_SEEN.with(|seen| seen.set(bedroom.ticks));
            return why;
        }
    }
}

fn ring(address: usize, count: u32) -> usize {
    let mut bedroom = BEDROOM.lock().expect("a model does not panic under this lock");
    let asleep = bedroom.sleepers.iter_mut();
    let mut rung = 0;
    for sleeper in asleep.filter(|one| one.address == address && one.woken.is_none()) {
        if rung == count as usize {
            break;
        }
        sleeper.woken = Some(Parked::Woken);
        rung += 1;
    }
    BELL.notify_all();
    rung
}
