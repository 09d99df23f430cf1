//! What the tests share: short ways to ask, and waiting without sleeping.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use tensor_cache::{
    Build, Built, Cache, Device, GetError, Lease, Lookup, Options, Pending, Request, Session,
};

pub(crate) type Texts = Cache<String, u64, String>;
pub(crate) type Holder = Session<String, u64, String>;
pub(crate) type Token = Build<String, u64, String>;
pub(crate) type Place = Pending<String, u64, String>;
pub(crate) type Got = Result<Lease<u64>, GetError<String>>;

pub(crate) const GPU: Device = Device(0);

/// What hangs longer than this never ends.
const WATCHDOG: Duration = Duration::from_secs(1200);

pub(crate) fn cache(options: &Options) -> Texts {
    Cache::new(options).expect("the system has a thread to give")
}

pub(crate) fn plain() -> Texts {
    cache(&Options::new())
}

pub(crate) fn ask(key: &str) -> Request<String> {
    Request::new(key.to_owned())
}

/// The value of `key`, built with `bytes` if it is not there.
pub(crate) fn fill(session: &Holder, key: &str, value: u64, bytes: u64) -> Lease<u64> {
    session
        .get_or_build(&ask(key), |_| Ok(Built::new(value).charge(GPU, bytes)))
        .expect("there is room, and nothing fails")
}

/// The value of `key` if it is there.
pub(crate) fn find(session: &Holder, key: &str) -> Option<Lease<u64>> {
    match session.lookup(&ask(key)) {
        Ok(Lookup::Hit(lease)) => Some(lease),
        _ => None,
    }
}

pub(crate) fn begin(session: &Holder, request: &Request<String>) -> (Token, Place) {
    match session.lookup(request) {
        Ok(Lookup::Build(token, pending)) => (token, pending),
        other => panic!("nothing is there: {other:?}"),
    }
}

pub(crate) fn join(session: &Holder, key: &str) -> Place {
    match session.lookup(&ask(key)) {
        Ok(Lookup::Join(pending)) => pending,
        other => panic!("it is being built: {other:?}"),
    }
}

/// Lets others run until `is_so`.
pub(crate) fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < WATCHDOG, "this never becomes so");
        thread::yield_now();
    }
}

/// What somebody sends.
pub(crate) fn hear<T>(from: &Receiver<T>) -> T {
    from.recv_timeout(WATCHDOG).expect("somebody sends")
}

/// Asserts that nobody has sent anything and nobody is left who could.
pub(crate) fn hear_nothing<T>(from: &Receiver<T>) {
    match from.recv_timeout(WATCHDOG) {
        Err(RecvTimeoutError::Disconnected) => {}
        Err(RecvTimeoutError::Timeout) => panic!("a sender is left"),
        Ok(_) => panic!("something was sent"),
    }
}

/// No lease, no build, no wait, and bytes that agree with the entries.
pub(crate) fn assert_quiet(cache: &Texts) {
    let stats = cache.stats();
    assert_eq!((stats.leases, stats.flights, stats.waiters), (0, 0, 0));
    for (device, room) in &stats.devices {
        let entries = cache.entries();
        let bytes: u64 = entries.iter().map(|entry| entry.charges.bytes_on(*device)).sum();
        assert_eq!((room.leased, room.building, room.idle), (0, 0, bytes));
    }
}
