//! Several streams at once, between processes.

use shared_tensor::stream::{OpenOptions, Wait, wait_any};
use st_tests::Namespace;

use crate::peer;

#[test]
fn whichever_process_publishes_first_is_heard() {
    let space = Namespace::new("any-of-several");
    let names = ["a", "b", "c"];
    let mut peers = names.map(|name| {
        let mut owner = peer(&space);
        owner.ask(&format!("stream.create {name} 1000"));
        owner
    });
    let streams = names.map(|name| {
        OpenOptions::new().namespace(space.shm()).open(name).expect("its creator is there")
    });
    let mut readers = streams.each_ref().map(shared_tensor::stream::Stream::reader);
    for turn in 0..30 {
        let publisher = turn % names.len();
        let name = names[publisher];
        // Said before the wait begins, heard after it: it comes before, during or after falling
        // asleep, and is found in each case.
        peers[publisher].say(&format!("stream.write {name} {turn}"));
        let heard = {
            let mut waiting: Vec<_> = readers.iter_mut().collect();
            wait_any(&mut waiting, &Wait::forever()).expect("somebody publishes")
        };
        peers[publisher].hear_ok();
        assert_eq!(heard, publisher);
        readers[heard].latest().expect("a frame");
    }
    // The death of a process without a word is none of a waiter's business: removal is.
    let [mut one, mut two, three] = peers;
    one.kill();
    two.ask("stream.unlink b");
    let mut waiting: Vec<_> = readers.iter_mut().collect();
    assert_eq!(wait_any(&mut waiting, &Wait::forever()).expect("told"), 1);
    three.quit();
    two.quit();
    for name in ["a", "c"] {
        shared_tensor::stream::unlink(&space.shm(), name).expect("its file is there");
    }
}

#[test]
fn two_locks_are_taken_in_one_order_by_everybody() {
    const TURNS: u64 = 2_000;
    let space = Namespace::new("together");
    let mut creator = peer(&space);
    creator.ask("stream.create a 100");
    creator.ask("stream.create b 100");
    let mut rivals = [peer(&space), peer(&space)];
    for rival in &mut rivals {
        rival.ask("stream.open a");
        rival.ask("stream.open b");
    }
    // In opposite orders, which would be a deadlock if each took the first one first.
    rivals[0].say(&format!("stream.together a b {TURNS}"));
    rivals[1].say(&format!("stream.together b a {TURNS}"));
    for rival in &mut rivals {
        rival.hear_ok();
    }
    for name in ["a", "b"] {
        assert_eq!(creator.ask(&format!("stream.wait {name} {}", 2 * TURNS - 1)), "4000");
        creator.ask(&format!("stream.unlink {name}"));
    }
}
