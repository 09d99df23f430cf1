//! Words at places in memory that others mapped.

use cuda_ipc::{Access, Context, HostRange, Ordering, QueueError, RangeWords, WordStep, probe};

use crate::calls::{self, Calls};
use crate::harness::tests;
use crate::sys::{Graph, Pages};

tests![
    streams_wait_at_places,
    steps_are_taken_in_their_order,
    a_word_is_waited_for_by_distance,
    places_are_checked,
    what_is_for_reading_is_waited_for,
    words_go_into_graphs,
];

const BYTES: usize = 8192;

fn context() -> Context {
    probe().expect("a driver").device_at(0).expect("one").context().expect("one")
}

fn words(context: &Context, pages: &Pages) -> RangeWords {
    let words = RangeWords::new(context, pages.clone(), Access::ReadWrite).expect("registered");
    assert_eq!(words.ordering(), Ordering::Device);
    calls::ordered_by(words.ordering());
    words
}

fn streams_wait_at_places() {
    let (context, pages) = (context(), Pages::new(BYTES));
    let words = words(&context, &pages);
    let [first, second] = [(); 2].map(|()| context.stream().expect("a stream"));
    let (ready, done) = (64, 4096);
    for round in 1..=100 {
        words.wait(&second, ready, round).expect("queued");
        words.write(&second, done, round).expect("queued");
        assert_eq!(words.load(done), Ok(round - 1), "it has to wait");
        words.write(&first, ready, round).expect("queued");
        context.synchronize(&second).expect("done");
        assert_eq!((words.load(ready), words.load(done)), (Ok(round), Ok(round)));
    }
    // Others see them, in the memory itself, and through another registration of it.
    assert_eq!(pages.part(64, 8).read(), 100_u64.to_le_bytes());
    let part = HostRange::register(&context, pages.part(64, 8), Access::Read).expect("shared");
    let part = RangeWords::in_range(&context, &part).expect("words");
    assert_eq!((part.load(0), part.bytes()), (Ok(100), 8));
    part.wait(&first, 0, 100).expect("queued");
    context.synchronize(&first).expect("it is there");
    // What nobody will write is released.
    words.wait(&first, ready, 200).expect("queued");
    words.release(ready, 150).expect("a word");
    assert!(!context.is_idle(&first).expect("an answer"));
    words.release(ready, 200).expect("a word");
    words.release(ready, 3).expect("a word");
    context.synchronize(&first).expect("done");
    assert_eq!(words.load(ready), Ok(200));
}

fn steps_are_taken_in_their_order() {
    let (context, pages) = (context(), Pages::new(BYTES));
    let words = words(&context, &pages);
    let [one, other] = [(); 2].map(|()| context.stream().expect("a stream"));
    words.queue(&one, &[]).expect("nothing");
    // More than the driver takes at once: each stream writes one word when the other has written its
    // own, so that one step out of order keeps both for ever.
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for value in 1..=150 {
        ours.push(WordStep::Write { offset: 8, value });
        ours.push(WordStep::Wait { offset: 4000, value });
        theirs.push(WordStep::Wait { offset: 8, value });
        theirs.push(WordStep::Write { offset: 4000, value });
    }
    let before = Calls::now();
    words.queue(&one, &ours).expect("queued");
    assert_eq!(words.load(4000), Ok(0));
    words.queue(&other, &theirs).expect("queued");
    context.synchronize(&one).expect("done");
    context.synchronize(&other).expect("done");
    assert_eq!((words.load(8), words.load(4000)), (Ok(150), Ok(150)));
    assert_eq!(Calls::now().since(&before).of("cuStreamBatchMemOp_v2"), 4);
    // The last value that is written stays, and one that is wrong keeps all from being queued.
    let writes = |values: [u64; 3]| values.map(|value| WordStep::Write { offset: 16, value });
    words.queue(&one, &writes([5, 9, 7])).expect("queued");
    context.synchronize(&one).expect("done");
    assert_eq!(words.load(16), Ok(7));
    let mut wrong = writes([10, 11, 12]);
    wrong[2] = WordStep::Wait { offset: 8190, value: 0 };
    words.queue(&one, &wrong).expect_err("no word");
    context.synchronize(&one).expect("done");
    assert_eq!(words.load(16), Ok(7));
}

fn a_word_is_waited_for_by_distance() {
    let (context, pages) = (context(), Pages::new(BYTES));
    let (words, stream) = (words(&context, &pages), context.stream().expect("a stream"));
    // Round the end of numbers.
    words.release(0, u64::MAX).expect("a word");
    words.wait(&stream, 0, u64::MAX - 5).expect("queued");
    context.synchronize(&stream).expect("past it");
    words.wait(&stream, 0, 3).expect("queued");
    assert!(!context.is_idle(&stream).expect("an answer"), "3 is 4 ahead");
    let beside = context.stream().expect("a stream");
    words.write(&beside, 0, 3).expect("queued");
    context.synchronize(&stream).expect("done");
}

fn places_are_checked() {
    let (context, pages) = (context(), Pages::new(BYTES));
    let stream = context.stream().expect("a stream");
    // A part that begins at no multiple of 8 has its words elsewhere.
    let part = pages.part(4, 44);
    let words = words(&context, &part);
    for offset in [37, 44, 45, u64::MAX, u64::MAX - 7, 1 << 63] {
        let expected = QueueError::Range { offset, bytes: 8, length: 44 };
        assert_eq!(words.load(offset), Err(expected.clone()));
        assert_eq!(words.release(offset, 1), Err(expected.clone()));
        assert_eq!(words.write(&stream, offset, 1), Err(expected.clone()));
        assert_eq!(words.wait(&stream, offset, 0), Err(expected));
    }
    for offset in [0, 1, 8, 35] {
        let expected = QueueError::Misaligned { offset };
        assert_eq!(words.load(offset), Err(expected.clone()));
        assert_eq!(words.write(&stream, offset, 1), Err(expected));
    }
    words.write(&stream, 36, 9).expect("the last");
    context.synchronize(&stream).expect("done");
    assert_eq!(pages.part(40, 8).read(), 9_u64.to_le_bytes());
}

fn what_is_for_reading_is_waited_for() {
    let (context, pages) = (context(), Pages::new(BYTES));
    let stream = context.stream().expect("a stream");
    let words = RangeWords::new(&context, pages, Access::Read).expect("registered");
    assert_eq!(words.write(&stream, 0, 1), Err(QueueError::ReadOnly));
    assert_eq!(words.release(0, 1), Err(QueueError::ReadOnly));
    words.wait(&stream, 0, 0).expect("queued");
    context.synchronize(&stream).expect("it is there");
    assert_eq!(words.load(0), Ok(0));
}

fn words_go_into_graphs() {
    let (context, pages) = (context(), Pages::new(BYTES));
    let (words, stream) = (words(&context, &pages), context.stream().expect("a stream"));
    Graph::begin(&context, &stream);
    let steps = [(8, 1), (16, 2)].map(|(offset, value)| WordStep::Write { offset, value });
    let captured = words.write(&stream, 0, 7).and_then(|()| words.queue(&stream, &steps));
    let graph = Graph::end(&context, &stream);
    captured.expect("captured");
    let graph = graph.expect("not spoilt");
    assert_eq!(words.load(0), Ok(0), "nothing is run");
    graph.run(&context, &stream);
    assert_eq!([0, 8, 16].map(|offset| words.load(offset)), [Ok(7), Ok(1), Ok(2)]);
}
