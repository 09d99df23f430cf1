//! Calls and their ends, in one process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rpc_uds::{CallError, Client, FrameError, FrameLimits, Lost, Refusal, Request};

use crate::desk::{
    Desk, ECHO, FAST_ECHO, FAST_PANIC, FORGET, INFO, LONG, PANIC, PUSH, WAIT, on_thread, patient,
    soon,
};
use crate::harness::tests;

tests![
    a_call_is_answered,
    many_threads_share_a_connection,
    replies_come_in_any_order,
    a_deadline_ends_a_wait,
    what_is_late_already_is_not_sent,
    what_is_sent_at_once_may_be_waited_for,
    a_late_reply_is_dropped,
    a_late_reply_is_kept_if_that_is_wanted,
    a_call_is_cancelled_from_another_thread,
    an_interrupted_wait_ends,
    a_dropped_call_is_cancelled,
    a_panicking_handler_is_told_of,
    a_forgotten_request_is_told_of,
    what_is_too_much_is_not_sent,
    a_reply_that_is_too_much_is_a_refusal,
    long_bodies_pass_both_ways,
    both_limits_hold,
    pushes_come_while_calls_are_made,
    pushes_come_while_nothing_is_called,
    a_push_handler_may_make_calls,
    unread_pushes_are_dropped_and_counted,
    an_event_loop_drives_a_client,
    closing_ends_every_wait,
    push_to_all,
];

fn a_call_is_answered() {
    let desk = Desk::new();
    let client = desk.client();
    for tag in [ECHO, FAST_ECHO, INFO] {
        let reply = client.call(Request::new(tag, b"hello"), soon()).expect("an answer");
        assert_eq!((reply.tag, &reply.body[..]), (tag, &b"hello"[..]));
        assert!(reply.descriptors.is_empty());
    }
    client.call(Request::new(ECHO, b""), None).expect("an answer without a deadline");
    client.ping(soon()).expect("a server that lives");
    assert_eq!(client.server().uid, rustix::process::geteuid().as_raw());
    assert_eq!(client.server().pid, Some(std::process::id()));
    // What was sent is counted a moment after it has come.
    desk.seen.until(|_| desk.stats().replies == 4 && desk.stats().in_progress == 0);
    let stats = desk.stats();
    assert_eq!((stats.requests, stats.fast_requests, stats.control_requests), (4, 1, 2));
    assert_eq!((stats.sessions, stats.connections), (1, 1));
    drop(client);
    desk.seen.until_gone(1);
}

fn many_threads_share_a_connection() {
    let desk = Desk::new();
    let client = Arc::new(desk.client());
    let threads: Vec<_> = (0..8_u32)
        .map(|thread| {
            let client = Arc::clone(&client);
            std::thread::spawn(move || {
                for round in 0..500_u32 {
                    let body = [thread.to_le_bytes(), round.to_le_bytes()].concat();
                    let tag = if (thread + round) % 3 == 0 { FAST_ECHO } else { ECHO };
                    let reply = client.call(Request::new(tag, &body), soon()).expect("an answer");
                    assert_eq!(reply.body, body);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("every reply reaches its caller");
    }
    assert_eq!(client.stats().expect("not forked").late_replies, 0);
}

fn replies_come_in_any_order() {
    let desk = Desk::new();
    let client = desk.client();
    let slow = client.start(Request::new(WAIT, b"slow"), soon()).expect("sent");
    let quick = client.start(Request::new(ECHO, b"quick"), soon()).expect("sent");
    assert_ne!(slow.id(), quick.id());
    assert_eq!(quick.wait().expect("an answer").body, b"quick");
    desk.seen.open_door();
    assert_eq!(slow.wait().expect("an answer").body, b"slow");
}

fn a_deadline_ends_a_wait() {
    let desk = Desk::new();
    let client = desk.client();
    let begun = Instant::now();
    let call = client.start(Request::new(WAIT, b""), begun + Duration::from_millis(300));
    let call = call.expect("sent");
    // What is cancelled in the queue is never begun.
    desk.seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 1);
    let error = call.wait();
    assert!(matches!(error, Err(CallError::TimedOut { .. })), "{error:?}");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    // The handler is told that nobody waits any more.
    desk.seen.until(|seen| seen.cancelled.load(Ordering::SeqCst) == 1);
    client.call(Request::new(ECHO, b""), soon()).expect("the connection goes on");
}

fn what_is_late_already_is_not_sent() {
    let desk = Desk::new();
    let client = desk.client();
    for _ in 0..500 {
        // Answered by the thread that reads: it would often be there before anybody looks.
        let late = client.call(Request::new(FAST_ECHO, b"late"), Instant::now());
        assert!(matches!(late, Err(CallError::TimedOut { .. })), "{late:?}");
        let late = client.ping(Instant::now());
        assert!(matches!(late, Err(CallError::TimedOut { .. })), "{late:?}");
    }
    client.call(Request::new(FAST_ECHO, b""), soon()).expect("the connection goes on");
    desk.seen.until(|_| desk.stats().in_progress == 0);
    assert_eq!((desk.stats().requests, desk.stats().control_requests), (1, 0));
    assert_eq!(client.stats().expect("not forked").late_replies, 0);
}

fn what_is_sent_at_once_may_be_waited_for() {
    let desk = Desk::new();
    let client = desk.client();
    let call = client.start_now(Request::new(ECHO, b"now")).expect("room in the socket");
    assert_eq!(call.wait().expect("an answer").body, b"now");
    let too_long = vec![7; 16 << 20];
    let refused = client.start_now(Request::new(ECHO, &too_long));
    assert!(matches!(refused, Err(CallError::TimedOut { .. } | CallError::TooMuch(_))));
    client.call(Request::new(ECHO, b""), soon()).expect("the connection goes on");
}

fn a_late_reply_is_dropped() {
    let desk = Desk::new();
    let client = desk.client();
    let call = client.start(Request::new(FAST_ECHO, b"late"), soon()).expect("sent");
    drop(call);
    client.call(Request::new(ECHO, b""), soon()).expect("the connection goes on");
    assert_eq!(client.stats().expect("not forked").late_replies, 1);
}

fn a_late_reply_is_kept_if_that_is_wanted() {
    let desk = Desk::new();
    let client = desk.client();
    let late = |body| Request::new(FAST_ECHO, body).keeping_late_reply();
    // Given up before anybody read it, and after.
    drop(client.start(late(b"unread"), soon()).expect("sent"));
    assert_eq!(client.awaits_late(), Ok(true));
    let read = client.start(late(b"read"), soon()).expect("sent");
    client.call(Request::new(ECHO, b""), soon()).expect("the connection goes on");
    drop(read);
    assert_eq!(client.awaits_late(), Ok(false));
    let kept = || client.try_next_late().expect("not forked").map(|it| it.body);
    assert_eq!([kept(), kept()], [Some(b"unread".to_vec()), Some(b"read".to_vec())]);
    assert_eq!(kept(), None);
}

fn a_call_is_cancelled_from_another_thread() {
    let desk = Desk::new();
    let client = Arc::new(desk.client());
    for leads in [true, false] {
        // In the second round another call reads, and the cancelled one sleeps.
        let other = (!leads).then(|| {
            let client = Arc::clone(&client);
            on_thread(move || client.call(Request::new(WAIT, b"other"), soon()))
        });
        desk.seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == usize::from(!leads) * 2);
        let call = client.start(Request::new(WAIT, b""), soon()).expect("sent");
        let canceller = call.canceller();
        let (thread, ended) = on_thread(move || call.wait());
        desk.seen.until(|seen| seen.waiting.load(Ordering::SeqCst) > usize::from(!leads) * 2);
        assert_eq!(canceller.cancel(), Ok(true));
        assert_eq!(ended.recv().expect("it ends").map(|it| it.tag), Err(CallError::Cancelled));
        assert_eq!(canceller.cancel(), Ok(false));
        thread.join().expect("no panic");
        let told = if leads { 1 } else { 2 };
        desk.seen.until(|_| desk.stats().cancelled == told);
        if let Some((thread, reply)) = other {
            desk.seen.open_door();
            assert_eq!(reply.recv().expect("it ends").expect("an answer").body, b"other");
            thread.join().expect("no panic");
        } else {
            desk.seen.until(|seen| seen.cancelled.load(Ordering::SeqCst) == 1);
        }
    }
}

fn an_interrupted_wait_ends() {
    let desk = Desk::new();
    let client = desk.client();
    let call = client.start(Request::new(WAIT, b""), soon()).expect("sent");
    desk.seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 1);
    assert_eq!(call.wait_unless(|| true).map(|it| it.tag), Err(CallError::Interrupted));
    desk.seen.until(|seen| seen.cancelled.load(Ordering::SeqCst) == 1);
}

fn a_dropped_call_is_cancelled() {
    let desk = Desk::new();
    let client = desk.client();
    drop(client.start(Request::new(WAIT, b""), soon()).expect("sent"));
    client.ping(soon()).expect("the connection goes on");
    assert_eq!(desk.stats().cancelled, 1);
}

fn a_panicking_handler_is_told_of() {
    let desk = Desk::new();
    let client = desk.client();
    for tag in [PANIC, FAST_PANIC] {
        for _ in 0..6 {
            let error = client.call(Request::new(tag, b""), soon()).map(|it| it.tag);
            assert_eq!(error, Err(CallError::Refused(Refusal::Panicked)));
        }
    }
    client.call(Request::new(ECHO, b""), soon()).expect("the workers go on");
    assert_eq!(desk.stats().unanswered, 12);
}

fn a_forgotten_request_is_told_of() {
    let desk = Desk::new();
    let error = desk.client().call(Request::new(FORGET, b""), soon()).map(|it| it.tag);
    assert_eq!(error, Err(CallError::Refused(Refusal::Dropped)));
}

fn what_is_too_much_is_not_sent() {
    let limits = FrameLimits { body_bytes_max: 5000, descriptors_max: 1 };
    let desk = Desk::with(patient().limits(limits));
    let client = desk.client();
    let error = client.call(Request::new(ECHO, &[0; 5001]), soon()).map(|it| it.tag);
    let too_long = FrameError::TooLong { bytes: 5001, limit: 5000 };
    assert_eq!(error, Err(CallError::TooMuch(too_long)));
    let socket = client.descriptor().expect("not forked");
    let request = Request::new(ECHO, b"");
    let error = client.call(request.with_descriptors(&[socket; 2]), soon()).map(|it| it.tag);
    let too_many = FrameError::TooManyDescriptors { count: 2, limit: 1 };
    assert_eq!(error, Err(CallError::TooMuch(too_many)));
    client.call(Request::new(ECHO, &[0; 5000]), soon()).expect("exactly the limit passes");
    assert_eq!(desk.stats().requests, 1);
}

fn a_reply_that_is_too_much_is_a_refusal() {
    let limits = FrameLimits { body_bytes_max: 5000, ..FrameLimits::default() };
    let desk = Desk::with(patient().limits(limits));
    let client = desk.client();
    let error = client.call(Request::new(LONG, &5001_u32.to_le_bytes()), soon()).map(|it| it.tag);
    let Err(CallError::Refused(Refusal::Reply { what })) = error else { panic!("{error:?}") };
    assert!(what.contains("5001") && what.contains("5000"), "{what}");
    client.call(Request::new(LONG, &5000_u32.to_le_bytes()), soon()).expect("the limit passes");
}

fn long_bodies_pass_both_ways() {
    let limits = FrameLimits { body_bytes_max: 32 << 20, ..FrameLimits::default() };
    let desk = Desk::with(patient().limits(limits));
    let options = Client::options().limits(limits);
    let client = options.connect(desk.place.socket(), soon()).expect("the server is there");
    let body: Vec<u8> = (0..20_000_000_u32).map(|at| (at % 251) as u8).collect();
    for tag in [ECHO, FAST_ECHO] {
        let reply = client.call(Request::new(tag, &body), soon()).expect("an answer");
        assert!(reply.body == body, "{} bytes came back changed", reply.body.len());
    }
}

fn both_limits_hold() {
    let narrow = FrameLimits { body_bytes_max: 10, descriptors_max: 3 };
    let desk = Desk::new();
    let options = Client::options().limits(narrow).features(0b110);
    let client = options.connect(desk.place.socket(), soon()).expect("the server is there");
    let agreement = client.agreement();
    assert_eq!((agreement.body_bytes_max, agreement.descriptors_max), (10, 3));
    assert_eq!((agreement.version, agreement.features), (1, 0));
    client.ping(soon()).expect("the crate's own words pass whatever the limit");
}

fn pushes_come_while_calls_are_made() {
    let desk = Desk::new();
    let client = desk.client();
    client.call(Request::new(PUSH, b"\x03abc"), soon()).expect("an answer");
    for number in 0..3 {
        let push = client.next_push(soon()).expect("a push");
        assert_eq!((push.tag, &push.body[..]), (number, &b"abc"[..]));
    }
    assert!(client.try_next_push().expect("not forked").is_none());
    let error = client.next_push(Instant::now() + Duration::from_millis(5)).map(|it| it.tag);
    assert!(matches!(error, Err(CallError::TimedOut { .. })), "{error:?}");
}

fn pushes_come_while_nothing_is_called() {
    let desk = Desk::new();
    let (give, take) = std::sync::mpsc::channel();
    let options = Client::options().on_push(move |push| {
        // The test may have ended.
        let _ = give.send((push.tag, push.body));
    });
    let client = options.connect(desk.place.socket(), soon()).expect("the server is there");
    let other = desk.client();
    other.ping(soon()).expect("alive");
    for round in 0..200_u16 {
        // Calls in between keep sending the watcher away.
        if round % 3 == 0 {
            client.call(Request::new(FAST_ECHO, b""), soon()).expect("an answer");
        }
        desk.server.push_all(round, b"all", &[]).expect("not forked");
        assert_eq!(take.recv().expect("it comes"), (round, b"all".to_vec()));
    }
    assert_eq!(desk.stats().pushes, 400);
    drop((client, other));
    desk.seen.until_gone(2);
}

fn a_push_handler_may_make_calls() {
    let desk = Desk::new();
    let slot = Arc::new(std::sync::OnceLock::<Client>::new());
    let (give, take) = std::sync::mpsc::channel();
    let inside = Arc::downgrade(&slot);
    let options = Client::options().on_push(move |push| {
        let Some(slot) = inside.upgrade() else { return };
        let client = slot.get().expect("set before the first push");
        let reply = client.call(Request::new(ECHO, &push.body), soon());
        let _ = give.send(reply.map(|it| it.body));
    });
    let client = options.connect(desk.place.socket(), soon()).expect("the server is there");
    slot.set(client).expect("set once");
    let client = slot.get().expect("set");
    client.call(Request::new(PUSH, b"\x02again"), soon()).expect("an answer");
    for _ in 0..2 {
        assert_eq!(take.recv().expect("it comes"), Ok(b"again".to_vec()));
    }
}

fn unread_pushes_are_dropped_and_counted() {
    let desk = Desk::new();
    let options = Client::options().pushes_max(2);
    let client = options.connect(desk.place.socket(), soon()).expect("the server is there");
    client.call(Request::new(PUSH, b"\x05x"), soon()).expect("an answer");
    let kept: Vec<u16> = std::iter::from_fn(|| client.try_next_push().expect("not forked"))
        .map(|it| it.tag)
        .collect();
    assert_eq!(kept, [3, 4]);
    assert_eq!(client.stats().expect("not forked").pushes_dropped, 3);
}

fn an_event_loop_drives_a_client() {
    let desk = Desk::new();
    let client = desk.client();
    let mut calls: Vec<_> = (0..10_u8)
        .map(|number| client.start(Request::new(ECHO, &[number]), soon()).expect("sent"))
        .collect();
    let mut replies = 0;
    while replies < 10 {
        let socket = client.descriptor().expect("not forked");
        let mut polled =
            [rustix::event::PollFd::from_borrowed_fd(socket, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut polled, None).expect("readable in the end");
        replies += client.try_receive().expect("the server is there").replies;
    }
    for (number, call) in calls.iter_mut().enumerate() {
        let reply = call.try_wait().expect("it was read").expect("an answer");
        assert_eq!(usize::from(reply.body[0]), number);
        assert!(call.try_wait().is_none(), "it is over");
    }
    assert_eq!(client.try_receive(), Ok(rpc_uds::Progress::default()));
}

fn closing_ends_every_wait() {
    let desk = Desk::new();
    let client = desk.client();
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let call = client.start(Request::new(WAIT, b""), soon()).expect("sent");
            on_thread(move || call.wait().map(|it| it.tag))
        })
        .collect();
    desk.seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 4);
    drop(client);
    for (thread, ended) in calls {
        assert_eq!(ended.recv().expect("it ends"), Err(CallError::Lost(Lost::ClosedHere)));
        thread.join().expect("no panic");
    }
    desk.seen.until_gone(1);
    desk.seen.until(|_| desk.stats().in_progress == 0);
    let ended = [&desk.seen.waiting, &desk.seen.cancelled].map(|it| it.load(Ordering::SeqCst));
    assert_eq!(ended, [4, 4], "the one in the queue was never begun");
}

fn push_to_all() {
    let desk = Desk::new();
    let clients: Vec<_> = (0..5).map(|_| desk.client()).collect();
    for client in &clients {
        client.ping(soon()).expect("alive");
    }
    assert_eq!(desk.server.push_all(9, b"to you", &[]), Ok(5));
    for client in &clients {
        let push = client.next_push(soon()).expect("a push");
        assert_eq!((push.tag, &push.body[..]), (9, &b"to you"[..]));
    }
}
