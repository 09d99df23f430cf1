//! When a stream is done, the default one above all: it waits for streams that nobody named.

use cuda_ipc::{Context, Stream, Words, probe};

use crate::calls::Calls;
use crate::driver::is_device;
use crate::harness::{say, tests};
use crate::peer::Peer;
use crate::sys::Foreign;

tests![
    the_default_stream_is_as_idle_as_those_it_waits_for,
    a_driver_that_does_not_tell_is_not_believed,
    a_stream_is_as_idle_as_the_default_one,
    waiting_for_the_default_stream_waits_for_others,
];

fn context() -> Context {
    probe().expect("a driver").device_at(0).expect("one").context().expect("one")
}

/// Each in a process of its own, which finds out how its driver answers.
fn the_default_stream_is_as_idle_as_those_it_waits_for() {
    Peer::start("asking").join();
}

fn a_driver_that_does_not_tell_is_not_believed() {
    // A device's driver answers as it does; the role tells how.
    Peer::with("asking", |it| it.env("TEST_DRIVER_APART", "1")).join();
}

/// What is queued next in a blocking stream begins when the default one is done, and in others at once.
fn a_stream_is_as_idle_as_the_default_one() {
    let context = context();
    let words = Words::create(1).expect("memory").attach(&context).expect("attached");
    let (default, own) = (Stream::default_of_context(), context.stream().expect("one"));
    let foreign = Foreign::new(&context);
    words.wait(&default, 0, 1).expect("queued");
    assert!(!context.is_idle(foreign.stream()).expect("an answer"));
    assert!(context.is_idle(&own).expect("an answer"));
    words.release(0, 1);
    context.synchronize(&default).expect("done");
    assert!(context.is_idle(foreign.stream()).expect("an answer"));
}

fn waiting_for_the_default_stream_waits_for_others() {
    let context = context();
    let words = Words::create(1).expect("memory").attach(&context).expect("attached");
    let foreign = Foreign::new(&context);
    words.wait(foreign.stream(), 0, 1).expect("queued");
    let (context, words, before) = (&context, &words, Calls::now());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            context.synchronize(&Stream::default_of_context()).expect("waited");
            words.load(0)
        });
        while Calls::now().since(&before).of("cuEventRecord") == 0 {
            assert!(!waiting.is_finished(), "it did not wait");
            std::thread::yield_now();
        }
        words.release(0, 1);
        assert_eq!(waiting.join().expect("it ends"), 1);
    });
}

/// The other side.
pub(crate) fn asking() {
    let context = context();
    let words = Words::create(1).expect("memory").attach(&context).expect("attached");
    let (default, own) = (Stream::default_of_context(), context.stream().expect("one"));
    let foreign = Foreign::new(&context);
    words.wait(foreign.stream(), 0, 1).expect("queued");
    assert!(!context.is_idle(&default).expect("an answer"), "it waits for the other one");
    assert!(context.is_idle(&own).expect("an answer"), "it does not");
    words.release(0, 1);
    context.synchronize(foreign.stream()).expect("done");
    let tells = context.is_idle(&default).expect("an answer");
    if is_device() {
        say(&format!("the driver counts blocking streams with the default one: {tells}"));
    } else {
        assert_eq!(tells, std::env::var_os("TEST_DRIVER_APART").is_none());
    }
    // What was found out holds.
    words.wait(foreign.stream(), 0, 2).expect("queued");
    assert!(!context.is_idle(&default).expect("an answer"));
    words.release(0, 2);
    context.synchronize(foreign.stream()).expect("done");
    assert_eq!(context.is_idle(&default).expect("an answer"), tells);
}
