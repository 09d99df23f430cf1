//! Waiting without a thread, and seeing progress.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Instant;

use tensor_cache::{Built, GetError, News};

use crate::harness::{Got, Place, ask, begin, join, plain, until};

#[derive(Default)]
struct Counter(AtomicU32);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll(place: &mut Place, counter: &Arc<Counter>) -> Poll<Got> {
    let waker = Waker::from(Arc::clone(counter));
    Pin::new(place).poll(&mut Context::from_waker(&waker))
}

#[test]
fn a_task_is_woken_by_the_end_and_by_progress() {
    let cache = plain();
    let session = cache.open_session();
    let (token, mut own) = begin(&session, &ask("model"));
    let counter = Arc::new(Counter::default());
    let woken = || counter.0.load(Ordering::Relaxed);
    assert!(poll(&mut own, &counter).is_pending());
    assert!(poll(&mut own, &counter).is_pending(), "the newest waker is enough");
    token.progress(1, 4, "reading");
    assert_eq!(woken(), 1);
    token.progress(2, 4, "reading");
    assert_eq!(woken(), 1, "woken once per poll");
    assert!(poll(&mut own, &counter).is_pending());
    let seen = own.progress().expect("something was told");
    assert_eq!((seen.done, seen.total, seen.note.as_str(), seen.serial), (2, 4, "reading", 2));
    assert!(token.finish(Built::new(3)).is_ok());
    assert_eq!(woken(), 2);
    let Poll::Ready(Ok(lease)) = poll(&mut own, &counter) else { panic!("it is built") };
    assert_eq!(*lease, 3);
    drop(own);
    assert_eq!(Arc::strong_count(&counter), 1, "no waker is left");
}

#[test]
fn a_task_is_woken_by_the_end_of_its_session() {
    let cache = plain();
    let (builder, session) = (cache.open_session(), cache.open_session());
    let (_token, _own) = begin(&builder, &ask("model"));
    let mut place = join(&session, "model");
    let counter = Arc::new(Counter::default());
    assert!(poll(&mut place, &counter).is_pending());
    session.close();
    assert_eq!(counter.0.load(Ordering::Relaxed), 1);
    let ended = poll(&mut place, &counter);
    assert!(matches!(ended, Poll::Ready(Err(GetError::SessionClosed { .. }))));
}

struct Grump;

impl Wake for Grump {
    fn wake(self: Arc<Self>) {
        panic!("not now");
    }
}

#[test]
fn a_waker_that_panics_keeps_nobody_asleep() {
    let cache = plain();
    let session = cache.open_session();
    let (token, _own) = begin(&session, &ask("model"));
    let mut places = [join(&session, "model"), join(&session, "model")];
    let grump = Waker::from(Arc::new(Grump));
    assert!(Pin::new(&mut places[0]).poll(&mut Context::from_waker(&grump)).is_pending());
    let counter = Arc::new(Counter::default());
    assert!(poll(&mut places[1], &counter).is_pending());
    // Nor does it keep the builder from what it has to do next.
    assert_eq!(token.finish(Built::new(3)).expect("there is room").delivered, 3);
    assert_eq!(counter.0.load(Ordering::Relaxed), 1);
    for place in places {
        assert_eq!(*place.wait().expect("it is built"), 3);
    }
}

#[test]
fn a_wait_can_be_tried() {
    let cache = plain();
    let session = cache.open_session();
    let (token, mut own) = begin(&session, &ask("model"));
    assert!(own.try_wait().is_none());
    assert!(token.finish(Built::new(3)).is_ok());
    assert_eq!(*own.try_wait().expect("it has ended").expect("with a value"), 3);
}

#[test]
fn a_thread_sees_progress() {
    let cache = plain();
    let session = cache.open_session();
    let (token, mut own) = begin(&session, &ask("model"));
    thread::scope(|scope| {
        let seen = scope.spawn(move || {
            let mut seen = Vec::new();
            loop {
                match own.next_news(None).expect("nothing fails") {
                    News::Progress(progress) => seen.push(progress.done),
                    News::Ready(lease) => return (seen, *lease),
                }
            }
        });
        token.hand_over().run(|build| {
            build.progress(1, 3, "one");
            build.progress(2, 3, "two");
            // Only what blocks now can be woken by what comes next.
            until(|| cache.stats().waiters == 1);
            Ok(Built::new(9))
        })?;
        let (seen, value) = seen.join().expect("the watcher does not fail");
        assert_eq!(value, 9);
        assert!(seen.is_sorted(), "reports come in order: {seen:?}");
        Ok::<_, tensor_cache::FlightError<String>>(())
    })
    .expect("there is room");
}

#[test]
fn news_are_told_once_and_only_until_the_deadline() {
    let cache = plain();
    let session = cache.open_session();
    let (token, mut own) = begin(&session, &ask("model"));
    let token = token.hand_over();
    let over = Some(Instant::now());
    assert!(matches!(own.next_news(over), Err(GetError::Timeout { .. })));
    token.progress(1, 0, "some");
    assert!(matches!(own.next_news(over), Ok(News::Progress(progress)) if progress.done == 1));
    assert!(matches!(own.next_news(over), Err(GetError::Timeout { .. })), "told before");
    assert!(matches!(own.wait_until(Instant::now()), Err(GetError::Timeout { .. })));
    drop(token);
    assert!(matches!(own.next_news(None), Err(GetError::Flight(_))));
}
