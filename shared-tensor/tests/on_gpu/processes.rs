//! Streams on a GPU among processes that die.

use crate::harness::tests;
use crate::peer::Peer;
use crate::support::Scratch;

tests![a_stream_outlives_its_creator];

/// As long as anybody has it, also for those who never had it before.
fn a_stream_outlives_its_creator() {
    let scratch = Scratch::new();
    let mut creator = Peer::start(&scratch);
    assert_eq!(creator.ask("create 4"), "created");
    assert_eq!(creator.ask("write 7"), "1");
    let mut second = Peer::start(&scratch);
    assert_eq!((second.ask("open"), second.ask("read")), ("opened".into(), "7".into()));
    creator.kill();
    let mut third = Peer::start(&scratch);
    assert_eq!((third.ask("open"), third.ask("read")), ("opened".into(), "7".into()));
    second.kill();
    assert_eq!(third.ask("write 8"), "2");
    let mut fourth = Peer::start(&scratch);
    assert_eq!((fourth.ask("open"), fourth.ask("read")), ("opened".into(), "8".into()));
    third.kill();
    fourth.kill();
    let mut late = Peer::start(&scratch);
    assert_eq!((late.ask("open"), late.ask("read")), ("opened".into(), "NoHolder".into()));
    assert!(shared_tensor::stream::unlink(&scratch, "it").unwrap());
}
