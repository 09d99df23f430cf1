//! Values and wakers that panic: nobody but they may come to harm.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use tensor_cache::{
    Built, Cache, Charges, Device, FlightError, GetError, Lookup, Options, Request,
};

const DEVICE: Device = Device(0);

/// Panics when it is dropped, if it is told to.
#[derive(Debug)]
struct Bomb(bool);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.0, "as the test wants it");
    }
}

type Bombs = Cache<&'static str, Bomb, String>;

fn bombs(bytes: u64) -> Bombs {
    Bombs::new(&Options::new().budget(DEVICE, bytes)).expect("a thread")
}

fn fill(cache: &Bombs, request: &Request<&'static str>, is_bomb: bool) {
    let built = Built::new(Bomb(is_bomb)).charge(DEVICE, 1);
    drop(cache.open_session().get_or_build(request, |_| Ok(built)).expect("there is room"));
}

fn reserving(key: &'static str) -> Request<&'static str> {
    Request::new(key).reserve(Charges::on(DEVICE, 1))
}

#[test]
fn a_build_that_evicts_one_is_begun_and_ends() {
    let cache = bombs(1);
    fill(&cache, &Request::new("bomb"), true);
    let session = cache.open_session();
    // The room is made by dropping it, within the very call that begins the build.
    let Ok(Lookup::Build(token, pending)) = session.lookup(&reserving("new")) else {
        panic!("nothing is there")
    };
    let other = cache.open_session();
    let Ok(Lookup::Join(joined)) = other.lookup(&reserving("new")) else { panic!("it is built") };
    let finished = token.finish(Built::new(Bomb(false)).charge(DEVICE, 1));
    assert_eq!(finished.expect("there is room").delivered, 2);
    drop((pending.wait().expect("built"), joined.wait().expect("built")));
    let stats = cache.stats();
    assert_eq!((stats.flights, stats.leases, stats.evictions), (0, 0, 1));
}

#[test]
fn all_of_them_go_and_the_books_balance() {
    let cache = bombs(3);
    for key in ["one", "two", "three"] {
        fill(&cache, &Request::new(key), true);
    }
    cache.set_budget(DEVICE, Some(0));
    let stats = cache.stats();
    assert_eq!((stats.evictions, stats.objects, stats.devices[0].1.idle), (3, 0, 0));
}

#[test]
fn what_a_session_had_is_told_though_one_panics() {
    let cache = bombs(2);
    let session = cache.open_session();
    for key in ["one", "two"] {
        let built = Built::new(Bomb(true)).charge(DEVICE, 1);
        let _ = session.admit(key, built).expect("there is room").into_id();
    }
    let released = session.close();
    assert!(released.iter().all(|it| it.is_destroyed) && released.len() == 2, "{released:?}");
}

#[test]
fn an_expired_one_costs_nobody_a_lease() {
    let cache = bombs(2);
    fill(&cache, &Request::new("kept"), false);
    fill(&cache, &Request::new("bomb").time_to_live(Duration::from_millis(5)), true);
    let session = cache.open_session();
    // Some lookup, or the timer, ends it.
    while cache.stats().expirations == 0 {
        drop(session.lookup(&Request::new("kept")).expect("it is there"));
    }
    assert_eq!((cache.stats().leases, session.leases()), (0, vec![]));
}

struct Grump;

impl Wake for Grump {
    fn wake(self: Arc<Self>) {
        panic!("as the test wants it");
    }
}

#[test]
fn a_waker_that_panics_while_the_builder_unwinds() {
    let cache = bombs(1);
    let session = cache.open_session();
    let Ok(Lookup::Build(token, mut pending)) = session.lookup(&Request::new("key")) else {
        panic!("nothing is there")
    };
    let grump = Waker::from(Arc::new(Grump));
    assert!(Pin::new(&mut pending).poll(&mut Context::from_waker(&grump)).is_pending());
    let builder = thread::spawn(move || {
        let _token = token;
        panic!("as the test wants it");
    });
    // A second panic that went on while the first one does would end the process.
    builder.join().expect_err("it panics");
    let told = pending.wait().map(drop);
    assert!(matches!(told, Err(GetError::Flight(FlightError::Panicked { .. }))), "{told:?}");
}
