//! A forked child has no CUDA, and is told so.

use cuda_ipc::{Access, DriverError, Mapping, OpenError, Words, probe};

use crate::harness::tests;
use crate::peer::{BYTES, filled, holds};
use crate::sys::in_forked_child;

tests![a_child_is_told, a_child_gives_nothing_back, a_child_that_is_first_is_served];

fn a_child_is_told() {
    let context = probe().expect("a driver").device_at(0).expect("one").context().expect("one");
    let chunk = filled(1, BYTES);
    assert!(in_forked_child(|| {
        let error = probe().expect_err("forked");
        assert!(error.to_string().contains("spawn"), "{error}");
        let opened = Mapping::open(&context, &[&chunk], Access::Read);
        matches!(opened, Err(OpenError::Driver(DriverError::Forked)))
            && matches!(context.stream(), Err(DriverError::Forked))
            && cuda_ipc::usage() == cuda_ipc::Usage::default()
    }));
}

fn a_child_gives_nothing_back() {
    let context = probe().expect("a driver").device_at(0).expect("one").context().expect("one");
    let chunk = filled(1, BYTES);
    let words = Words::create(1).expect("memory").attach(&context).expect("attached");
    let stream = context.stream().expect("a stream");
    let mut kept = Some((
        Mapping::open(&context, &[&chunk], Access::Read).expect("mapped"),
        words,
        stream,
        context.clone(),
    ));
    assert!(in_forked_child(|| {
        drop(kept.take());
        true
    }));
    let (mapping, words, stream, context) = kept.expect("the parent has it still");
    words.write(&stream, 0, 1).expect("queued");
    context.synchronize(&stream).expect("done");
    assert_eq!((words.load(0), mapping.bytes()), (1, 4 << 20));
    assert!(holds(&chunk, 0, 1, BYTES));
}

/// Words need no driver, so a child may use them.
fn a_child_that_is_first_is_served() {
    let words = Words::create(1).expect("memory");
    assert!(in_forked_child(|| {
        words.release(0, 5);
        true
    }));
    assert_eq!(words.load(0), 5);
}
