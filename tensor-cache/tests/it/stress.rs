//! Many threads, everything at once; afterwards the books must balance.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tensor_cache::{
    Built, Cache, Charges, Device, Entry, Lookup, Options, Request, Retention, Stats, Unwanted,
};

const THREADS: u64 = 8;
const STEPS: u64 = 4000;
const LIMIT: u64 = 500;

/// Made and dropped, by number.
static MADE: AtomicU64 = AtomicU64::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);

struct Counted(u64);

impl Counted {
    fn new(key: u64) -> Self {
        MADE.fetch_add(1, Ordering::Relaxed);
        Self(key)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// A sequence that looks random and is the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

type Shared = Cache<(u64, u64), Counted, String>;

fn request(dice: &mut Dice) -> Request<(u64, u64)> {
    let mut request = Request::new((dice.roll(3), dice.roll(8)));
    if dice.roll(3) == 0 {
        request = request.reserve(Charges::on(Device(0), dice.roll(80)));
    }
    if dice.roll(4) == 0 {
        request = request.time_to_live(Duration::from_micros(dice.roll(500)));
    }
    if dice.roll(4) == 0 {
        request = request.time_to_idle(Duration::from_micros(dice.roll(500)));
    }
    if dice.roll(5) == 0 {
        request = request.retention(Retention::WhileLeased);
    }
    if dice.roll(5) == 0 {
        request = request.when_unwanted(Unwanted::Cancel);
    }
    if dice.roll(6) == 0 { request.bound_to_session() } else { request }
}

fn play(cache: &Shared, seed: u64) {
    let mut dice = Dice(seed * 0x9e37_79b9 + 1);
    let mut session = cache.open_session();
    let mut held = Vec::new();
    for _ in 0..STEPS {
        let request = request(&mut dice);
        let key = *request.key();
        match dice.roll(12) {
            0 => drop(session.get_or_build(&request, |_| Err("no".to_owned()))),
            1 => {
                // Starts and leaves, in one order or the other.
                if let Ok(Lookup::Build(token, pending)) = session.lookup(&request) {
                    if dice.roll(2) == 0 {
                        drop(pending);
                        drop(token);
                    } else {
                        drop(token);
                        drop(pending);
                    }
                }
            }
            2 => {
                cache.invalidate(&key);
            }
            3 => {
                cache.invalidate_group(&key.0);
            }
            4 => held.clear(),
            5 => {
                if let Some(lease) = held.pop() {
                    session.release(tensor_cache::Lease::into_id(lease));
                }
            }
            6 if dice.roll(20) == 0 => {
                session.close();
                session = cache.open_session();
            }
            7 => {
                let bytes = dice.roll(40);
                let built = Built::new(Counted::new(99)).charge(Device(0), bytes);
                held.extend(session.admit(key, built).ok());
            }
            8 => cache.set_budget(Device(0), Some(LIMIT - dice.roll(100))),
            _ => {
                let bytes = dice.roll(80);
                let within =
                    request.deadline(Instant::now() + Duration::from_micros(dice.roll(300)));
                let turns = dice.roll(20);
                let got = session.get_or_build(&within, |build| {
                    build.progress(1, 2, "half");
                    // Lets others come and join.
                    (0..turns).for_each(|_| thread::yield_now());
                    if build.is_cancelled() {
                        return Err("cancelled".to_owned());
                    }
                    Ok(Built::new(Counted::new(key.1)).charge(Device(0), bytes))
                });
                if let Ok(lease) = got {
                    assert_eq!(lease.0, key.1, "a value of another key");
                    held.push(lease);
                }
            }
        }
        held.truncate(6);
    }
}

/// Counts and entries of one moment, between which the timer did nothing.
fn still(cache: &Shared) -> (Stats, Vec<Entry<(u64, u64)>>) {
    loop {
        let (before, entries) = (cache.stats(), cache.entries());
        if before == cache.stats() {
            return (before, entries);
        }
    }
}

#[test]
fn the_books_balance_after_everything() {
    let options = Options::new().budget(Device(0), LIMIT).keep_failures(Duration::from_micros(50));
    let cache: Shared = Cache::new(&options).expect("a thread");
    thread::scope(|scope| {
        for seed in 1..=THREADS {
            let cache = &cache;
            scope.spawn(move || play(cache, seed));
        }
    });
    let (stats, entries) = still(&cache);
    assert_eq!((stats.leases, stats.flights, stats.waiters, stats.sessions), (0, 0, 0, 0));
    assert_eq!(stats.misses, stats.builds + stats.failures);
    assert!(entries.iter().all(|entry| entry.is_listed && entry.leases == 0));
    let bytes: u64 = entries.iter().map(|entry| entry.charges.bytes_on(Device(0))).sum();
    let room = stats.devices[0].1;
    assert_eq!(room.idle, bytes);
    assert!(room.idle <= LIMIT);
    assert_eq!((room.leased, room.building), (0, 0));
    assert!(stats.hits > 0 && stats.evictions > 0 && stats.expirations > 0);
    drop(cache);
    assert_eq!(MADE.load(Ordering::Relaxed), DROPPED.load(Ordering::Relaxed), "a value is left");
}
