//! Order between streams, and between processes.

use std::fs::File;
use std::os::fd::AsFd;

use cuda_ipc::{Access, Context, Copies, Mapping, Ordering, Words, WordsError, probe};

use crate::calls;
use crate::harness::tests;
use crate::parcel;
use crate::peer::{BYTES, Peer, filled};

tests![
    streams_wait_for_each_other,
    processes_wait_for_each_other,
    a_dead_writers_word_is_released,
    words_only_grow,
    what_is_no_file_of_words_is_refused,
];

fn context() -> Context {
    probe().expect("a driver").device_at(0).expect("one").context().expect("one")
}

fn streams_wait_for_each_other() {
    let (context, chunk) = (context(), filled(1, BYTES));
    let words = Words::create(1).expect("memory").attach(&context).expect("attached");
    assert_eq!(words.ordering(), Ordering::Device);
    calls::ordered_by(words.ordering());
    let mapping = Mapping::open(&context, &[&chunk], Access::ReadWrite).expect("mapped");
    let (first, second) =
        (Copies::new(&context).expect("one"), Copies::new(&context).expect("one"));
    // Queued in the wrong order: the second would be over long before the first begins.
    for round in 1..=100_u8 {
        words.wait(second.stream(), 0, round.into()).expect("queued");
        second.copy(mapping.address() + 4096, mapping.address(), 4096).expect("queued");
        first.fill(mapping.address(), round, 4096).expect("queued");
        words.write(first.stream(), 0, round.into()).expect("queued");
        let mut found = [0; 4096];
        second.download(&mut found, mapping.address() + 4096).expect("copied");
        assert_eq!(found, [round; 4096]);
    }
    assert_eq!(words.load(0), 100);
}

fn processes_wait_for_each_other() {
    let context = context();
    let words = Words::create(2).expect("memory");
    let answerer = Peer::start("answerer");
    parcel::send(&answerer.socket, &[100], &[words.as_fd()]);
    let words = words.attach(&context).expect("attached");
    let stream = context.stream().expect("a stream");
    for round in 1..=100 {
        words.write(&stream, 0, round).expect("queued");
        words.wait(&stream, 1, round).expect("queued");
    }
    context.synchronize(&stream).expect("done");
    assert_eq!((words.load(0), words.load(1)), (100, 100));
    answerer.join();
}

fn a_dead_writers_word_is_released() {
    let context = context();
    let words = Words::create(2).expect("memory");
    let answerer = Peer::start("answerer");
    parcel::send(&answerer.socket, &[2], &[words.as_fd()]);
    let words = words.attach(&context).expect("attached");
    let stream = context.stream().expect("a stream");
    words.write(&stream, 0, 1).expect("queued");
    words.wait(&stream, 1, 1).expect("queued");
    context.synchronize(&stream).expect("done");
    words.wait(&stream, 1, 2).expect("queued");
    answerer.kill();
    assert!(!context.is_idle(&stream).expect("an answer"));
    words.release(1, 2);
    context.synchronize(&stream).expect("done");
}

fn words_only_grow() {
    let words = Words::create(600).expect("memory");
    assert_eq!(words.count() % 512, 0);
    words.release(599, 7);
    words.release(599, 3);
    assert_eq!(words.load(599), 7);
    let again = Words::open(words.as_fd().try_clone_to_owned().expect("one")).expect("words");
    assert_eq!((again.count(), again.load(599)), (words.count(), 7));
}

fn what_is_no_file_of_words_is_refused() {
    for path in ["/dev/null", "/proc/self/exe"] {
        let file = File::open(path).expect("it is there");
        let error = Words::open(file.into()).expect_err("refused");
        assert!(matches!(error, WordsError::Form), "{error}");
    }
}
