//! The broadcast word and the parking of wider words, between processes.

use std::time::Duration;

use shm_lock::park::{Parked, park_low_half, wake_all_low_half};
use shm_lock::{Broadcast, Wait, WaitError};

use crate::harness::tests;
use crate::peer::{Peer, Place};
use crate::sys::SharedPage;

tests![
    everybody_is_notified,
    a_killed_waiter_costs_one_wake_up,
    a_killed_notifier_costs_a_bounded_wait,
    a_wait_ends_by_deadline_or_interruption,
    a_sequence_wraps_around,
    a_read_only_page_can_be_slept_on,
];

const WAITERS: u32 = 1 << 31;

fn page(place: &Place) -> SharedPage {
    let path = place.file().with_extension("page");
    std::fs::write(&path, [0; 4096]).expect("the folder is ours");
    SharedPage::open(&path)
}

fn relaxed() -> std::sync::atomic::Ordering {
    std::sync::atomic::Ordering::Relaxed
}

fn waiting_peer(place: &Place, page: &SharedPage, at: u32) -> Peer {
    let mut peer = Peer::spawn("futex", &place.file());
    peer.expect("wait-broadcast", &format!("at {at}"));
    while page.word(0).load(relaxed()) & WAITERS == 0 {
        std::thread::yield_now();
    }
    peer
}

fn everybody_is_notified() {
    let place = Place::new();
    let page = page(&place);
    let word = Broadcast::from_atomic(page.word(0));
    let mut peers: Vec<_> = (0..4).map(|_| waiting_peer(&place, &page, 0)).collect();
    word.notify();
    for peer in &mut peers {
        assert_eq!(peer.hear(), "now 1");
    }
    assert_eq!(word.notify(), 0, "nobody sleeps any more");
}

fn a_killed_waiter_costs_one_wake_up() {
    let place = Place::new();
    let page = page(&place);
    let word = Broadcast::from_atomic(page.word(0));
    waiting_peer(&place, &page, 0).kill_and_reap();
    assert_ne!(page.word(0).load(relaxed()) & WAITERS, 0, "its bit stays behind,");
    word.notify();
    assert_eq!(page.word(0).load(relaxed()), 1, "until the next notification");
}

fn a_killed_notifier_costs_a_bounded_wait() {
    let place = Place::new();
    let page = page(&place);
    let mut peer = waiting_peer(&place, &page, 0);
    // What a notifier does that is killed between changing the word and waking.
    page.word(0).store(1, relaxed());
    assert_eq!(peer.hear(), "now 1");
}

fn a_wait_ends_by_deadline_or_interruption() {
    let word = Broadcast::new();
    let soon = Wait::for_at_most(Duration::from_millis(3));
    match word.wait(0, &soon) {
        Err(error @ WaitError::Timeout { waited }) => {
            assert!(waited >= Duration::from_millis(1));
            assert!(error.to_string().ends_with("without being notified"), "{error}");
        }
        other => panic!("nobody notified, but: {other:?}"),
    }
    let stop = || true;
    let outcome = word.wait(0, &Wait::forever().interruptible(&stop));
    assert_eq!(outcome, Err(WaitError::Interrupted));
    assert_eq!(word.wait(7, &Wait::forever()), Ok(0), "what was seen is long past");
}

fn a_sequence_wraps_around() {
    let place = Place::new();
    let page = page(&place);
    let word = Broadcast::from_atomic(page.word(0));
    page.word(0).store(WAITERS - 1, relaxed());
    assert_eq!(word.sequence(), WAITERS - 1);
    word.notify();
    assert_eq!(word.sequence(), 0);
    assert_eq!(page.word(0).load(relaxed()), 0, "the carry does not become a waiter");
}

fn a_read_only_page_can_be_slept_on() {
    let place = Place::new();
    let page = page(&place);
    let read_only = SharedPage::open_read_only(&place.file().with_extension("page"));
    let (word, seen) = (page.wide_word(0), read_only.wide_word(0));
    word.store(7 << 32 | 5, relaxed());
    assert_eq!(park_low_half(seen, 4, Duration::from_secs(60)), Parked::Changed);
    assert_eq!(park_low_half(seen, 5, Duration::from_millis(1)), Parked::TimedOut);
    // The high half may change without waking anybody.
    word.store(8 << 32 | 5, relaxed());
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| park_low_half(seen, 5, Duration::from_secs(60)));
        while wake_all_low_half(word) == 0 {
            std::thread::yield_now();
        }
        assert_eq!(sleeper.join().ok(), Some(Parked::Woken));
    });
}
