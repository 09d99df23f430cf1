//! Peers that say what they should not, too slowly, or too much; and those of other protocols.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rpc_uds::{
    Control, FrameLimits, HEADER_BYTES, Header, Kind, Offer, Refusal, Request, Versions,
};

use crate::desk::{
    Desk, ECHO, FAST_ECHO, FORGET, INFO, LONG, WAIT, connect, on_thread, patient, soon,
};
use crate::harness::{Outcome, Skip, open_descriptors, say, tests};
use crate::random::Random;
use crate::raw::{Raw, frame};

tests![
    an_old_client_gets_a_readable_refusal,
    an_old_client_is_heard_out,
    a_client_of_another_version_is_told_which,
    a_foreign_protocol_is_refused,
    a_silent_client_is_closed,
    a_trickling_frame_is_ended,
    what_is_out_of_turn_ends_the_connection,
    ids_in_use_end_the_connection,
    a_control_frame_takes_no_descriptors,
    a_client_that_does_not_read_is_cut_off,
    a_client_that_reads_late_gets_everything,
    too_many_connections_are_shed,
    a_full_queue_is_refused,
    too_many_unanswered_are_refused,
    too_many_descriptors_are_refused,
    descriptors_that_nobody_reads_end_the_connection,
    an_answer_makes_room_for_the_next_request,
    cancelling_does_not_buy_more_of_the_queue,
    control_answers_while_everybody_is_busy,
    a_connection_without_a_thread_is_shed,
    everybody_is_served,
    hostile_frames_leak_nothing,
    descriptors_of_hostile_frames_are_closed,
];

/// What a client of the 0.2 protocol sends: a pickled `{"method": "ping", "params": {}}`.
fn old_message() -> Vec<u8> {
    let pickle = b"\x80\x05\x95\x1f\0\0\0\0\0\0\0}\x94(\x8c\x06method\x94\x8c\x04ping\x94\x8c\x06params\x94}\x94u.";
    let length = u32::try_from(pickle.len()).expect("short");
    [&length.to_be_bytes()[..], pickle].concat()
}

fn an_old_client_gets_a_readable_refusal() -> Outcome {
    let desk = Desk::new();
    let program = "import pickle, socket, struct, sys\n\
        s = socket.socket(socket.AF_UNIX)\n\
        s.connect(sys.argv[1])\n\
        message = pickle.dumps({'method': 'ping', 'params': {}}, protocol=pickle.HIGHEST_PROTOCOL)\n\
        s.sendall(struct.pack('!I', len(message)) + message)\n\
        def exactly(count):\n\
        \x20   data = b''\n\
        \x20   while len(data) < count:\n\
        \x20       more = s.recv(count - len(data))\n\
        \x20       assert more, 'closed'\n\
        \x20       data += more\n\
        \x20   return data\n\
        reply = pickle.loads(exactly(struct.unpack('!I', exactly(4))[0]))\n\
        error = reply['error']\n\
        print(reply['ok'], error['code'], error['type'], error['message'])";
    let output = std::process::Command::new("python3")
        .args(["-c", program])
        .arg(desk.place.socket())
        .output()
        .map_err(|_| Skip("there is no python3".to_owned()))?;
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.starts_with("False 1 SharedTensorProtocolError this server speaks"), "{said}");
    assert_eq!(desk.stats().refused_legacy, 1);
    Ok(())
}

fn an_old_client_is_heard_out() {
    let desk = Desk::new();
    let mut stream = UnixStream::connect(desk.place.socket()).expect("the server is there");
    // More than a socket holds: it can be sent only if somebody reads it.
    let message = [&4_000_000_u32.to_be_bytes()[..], b"\x80\x05", &vec![0; 3_999_998]].concat();
    stream.write_all(&message[..5]).expect("room");
    stream.write_all(&message[5..]).expect("it is read to its end");
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).expect("an answer");
    assert!(reply.ends_with(b"uu."), "{} bytes", reply.len());
    let mut short = UnixStream::connect(desk.place.socket()).expect("the server is there");
    short.write_all(&old_message()).expect("room");
    let mut again = Vec::new();
    short.read_to_end(&mut again).expect("an answer");
    assert_eq!(again, reply);
    desk.seen.until(|_| desk.stats().connections == 0);
    assert_eq!((desk.stats().refused_legacy, desk.stats().sessions), (2, 0));
}

fn a_client_of_another_version_is_told_which() {
    let desk = Desk::new();
    let mut raw = Raw::connect(desk.place.socket().as_path());
    let versions = Versions { min: 2, max: 7 };
    raw.say(&Control::Hello(Offer { versions, ..Offer::default() }), 0);
    let server = Versions { min: 1, max: 1 };
    let refusal = Refusal::Version { client: versions, server };
    assert!(refusal.to_string().contains("2 to 7"), "{refusal}");
    assert_eq!(raw.hear(), Some((0, Control::Refusal(refusal))));
    assert_eq!(raw.hear(), None);

    let mut header = frame(Kind::Control, 0, 0, 0, &[]);
    header[4] = 9;
    let mut raw = Raw::connect(desk.place.socket().as_path());
    raw.send(&header);
    let (_, refusal) = raw.hear().expect("a refusal");
    let Control::Refusal(Refusal::Protocol { what }) = refusal else { panic!("{refusal:?}") };
    assert!(what.contains("version 9"), "{what}");
    assert_eq!(desk.stats().refused_versions, 2);
}

fn a_foreign_protocol_is_refused() {
    let desk = Desk::new();
    for words in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"U", b"UDS", b"\0\0\0\x05hello", b"x"] {
        let mut raw = Raw::connect(desk.place.socket().as_path());
        raw.send(words);
        raw.stream.shutdown(Shutdown::Write).expect("connected");
        let (_, refusal) = raw.hear().expect("a refusal");
        assert!(matches!(refusal, Control::Refusal(Refusal::Protocol { .. })), "{refusal:?}");
        assert_eq!(raw.hear(), None);
    }
    assert_eq!((desk.stats().protocol_errors, desk.stats().sessions), (5, 0));
}

fn a_silent_client_is_closed() {
    let desk = Desk::with(patient().handshake_timeout(Duration::from_millis(20)));
    let mut raw = Raw::connect(desk.place.socket().as_path());
    let (_, refusal) = raw.hear().expect("a refusal");
    assert!(matches!(refusal, Control::Refusal(Refusal::Protocol { .. })), "{refusal:?}");
    assert_eq!(raw.hear(), None);
    assert_eq!(desk.stats().silent, 1);
}

fn a_trickling_frame_is_ended() {
    let desk = Desk::with(patient().frame_timeout(Duration::from_millis(50)));
    let mut raw = Raw::welcomed(desk.place.socket().as_path());
    let bytes = frame(Kind::Request, ECHO, 1, 0, &vec![0; 100_000]);
    // A byte at a time, each sooner than any timeout per read would be.
    let mut sent = 0;
    while raw.send(&bytes[sent..=sent]) {
        sent += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(sent < bytes.len());
    desk.seen.until_gone(1);
    assert_eq!(desk.stats().trickling, 1);
}

fn what_is_out_of_turn_ends_the_connection() {
    let desk = Desk::new();
    let welcome = Control::Welcome(Offer::default().answer(&Offer::default()).expect("the same"));
    let hello = Control::Hello(Offer::default());
    let cases = [
        frame(Kind::Reply, 0, 1, 0, b""),
        frame(Kind::Push, 0, 0, 0, b""),
        frame(Kind::Control, 0, 0, 0, &hello.encode()),
        frame(Kind::Control, 0, 0, 0, &welcome.encode()),
        frame(Kind::Control, 0, 0, 0, b"\xff"),
        frame(Kind::Control, 0, 0, 0, b""),
        frame(Kind::Request, 0, 0, 0, b""),
        b"nonsense that is no frame".to_vec(),
    ];
    for (at, case) in cases.iter().enumerate() {
        let mut raw = Raw::welcomed(desk.place.socket().as_path());
        raw.send(case);
        let (_, refusal) = raw.hear().expect("a refusal");
        assert!(matches!(refusal, Control::Refusal(Refusal::Protocol { .. })), "{at}: {refusal:?}");
        assert_eq!(raw.hear(), None);
    }
    desk.seen.until_gone(cases.len());
    assert_eq!(desk.stats().protocol_errors, cases.len() as u64);
    // Before the handshake as well.
    let mut raw = Raw::connect(desk.place.socket().as_path());
    raw.send(&frame(Kind::Request, ECHO, 1, 0, b""));
    assert!(matches!(raw.hear(), Some((0, Control::Refusal(Refusal::Protocol { .. })))));
}

fn ids_in_use_end_the_connection() {
    let desk = Desk::new();
    let mut raw = Raw::welcomed(desk.place.socket().as_path());
    raw.send(&frame(Kind::Request, WAIT, 5, 0, b""));
    raw.send(&frame(Kind::Request, WAIT, 5, 0, b""));
    assert!(matches!(raw.hear(), Some((0, Control::Refusal(Refusal::Protocol { .. })))));
    desk.seen.until_gone(1);
}

fn a_control_frame_takes_no_descriptors() {
    let desk = Desk::new();
    let mut raw = Raw::welcomed(desk.place.socket().as_path());
    let own = raw.stream.try_clone().expect("a copy");
    raw.send_with(&frame(Kind::Control, 0, 1, 1, &Control::Ping.encode()), &[own.as_fd()]);
    assert!(matches!(raw.hear(), Some((0, Control::Refusal(Refusal::Protocol { .. })))));
}

fn a_client_that_does_not_read_is_cut_off() {
    let desk = Desk::with(patient().outbox_bytes_max(1 << 20).unanswered_max(100_000));
    let mut greedy = Raw::welcomed(desk.place.socket().as_path());
    let ask = |id| frame(Kind::Request, LONG, id, 0, &100_000_u32.to_le_bytes());
    let mut id = 1;
    while greedy.send(&ask(id)) && desk.stats().slow_readers == 0 {
        id += 1;
    }
    desk.seen.until_gone(1);
    desk.seen.until(|_| desk.stats().slow_readers == 1 && desk.stats().in_progress == 0);
    // Others have not waited for it.
    desk.client().call(Request::new(ECHO, b""), soon()).expect("an answer");
}

fn a_client_that_reads_late_gets_everything() {
    let desk = Desk::with(patient().outbox_bytes_max(32 << 20));
    let mut late = Raw::welcomed(desk.place.socket().as_path());
    for id in 1..=100 {
        late.send(&frame(Kind::Request, LONG, id, 0, &100_000_u32.to_le_bytes()));
    }
    desk.seen.until(|_| desk.stats().replies == 100);
    let mut seen = Vec::new();
    for _ in 0..100 {
        let frame = late.next().expect("a reply");
        assert_eq!((frame.header.kind, frame.body.len()), (Kind::Reply, 100_000));
        seen.push(frame.header.id);
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=100).collect::<Vec<_>>());
}

fn too_many_connections_are_shed() {
    let desk = Desk::with(patient().connections_max(3));
    let clients: Vec<_> = (0..3).map(|_| desk.client()).collect();
    for _ in 0..20 {
        let error = rpc_uds::Client::options().connect(desk.place.socket(), soon());
        let Err(rpc_uds::ConnectError::Refused { refusal, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!(refusal, Refusal::Connections { limit: 3 });
    }
    assert_eq!(desk.stats().shed_connections, 20);
    for client in &clients {
        client.ping(soon()).expect("who is there stays");
    }
    drop(clients);
    desk.seen.until(|_| desk.stats().connections == 0);
    desk.client().ping(soon()).expect("there is room again");
}

fn a_full_queue_is_refused() {
    let desk = Desk::with(patient().workers(1).queue_max(2));
    let client = desk.client();
    let first = client.start(Request::new(WAIT, b""), soon()).expect("sent");
    desk.seen.until(|seen| seen.waiting.load(std::sync::atomic::Ordering::SeqCst) == 1);
    let queued: Vec<_> =
        (0..2).map(|_| client.start(Request::new(ECHO, b""), soon()).expect("sent")).collect();
    let error = client.call(Request::new(ECHO, b""), soon()).map(|it| it.tag);
    assert_eq!(error, Err(rpc_uds::CallError::Refused(Refusal::Queue { limit: 2 })));
    client.call(Request::new(FAST_ECHO, b""), soon()).expect("what needs no worker is answered");
    desk.seen.open_door();
    first.wait().expect("an answer");
    for call in queued {
        call.wait().expect("an answer");
    }
    assert_eq!(desk.stats().shed_queue, 1);
}

fn too_many_unanswered_are_refused() {
    let desk = Desk::with(patient().unanswered_max(3));
    let client = desk.client();
    let calls: Vec<_> =
        (0..3).map(|_| client.start(Request::new(WAIT, b""), soon()).expect("sent")).collect();
    let error = client.call(Request::new(FAST_ECHO, b""), soon()).map(|it| it.tag);
    assert_eq!(error, Err(rpc_uds::CallError::Refused(Refusal::Unanswered { limit: 3 })));
    client.call(Request::new(INFO, b""), soon()).expect("control requests are not counted");
    desk.client().call(Request::new(FAST_ECHO, b""), soon()).expect("others are not concerned");
    desk.seen.open_door();
    for call in calls {
        call.wait().expect("an answer");
    }
    assert_eq!(desk.stats().shed_unanswered, 1);
}

fn too_many_descriptors_are_refused() {
    let desk = Desk::with(patient().descriptors_waiting_max(10));
    let mut greedy = Raw::welcomed(desk.place.socket().as_path());
    let other = desk.client();
    other.ping(soon()).expect("alive");
    let file = File::open("/dev/null").expect("it is everywhere");
    let before = open_descriptors().len();
    let mut cancel = greedy.stream.try_clone().expect("a copy");
    let mut ask = |id, tag, count| {
        let bytes = frame(Kind::Request, tag, id, count, b"");
        if count == 0 {
            greedy.send(&bytes);
        } else {
            greedy.send_with(&bytes, &vec![file.as_fd(); usize::from(count)]);
        }
        // Whatever came before has been looked at.
        greedy.say(&Control::Ping, id + 100);
        let mut heard = Vec::new();
        loop {
            let frame = greedy.next().expect("the connection stands");
            if frame.header.id == id + 100 {
                return heard;
            }
            heard.push((frame.header.id, Control::decode(&frame.body)));
        }
    };
    let refused = |id| vec![(id, Ok(Control::Refusal(Refusal::Descriptors { limit: 10 })))];
    // One request alone always fits, and makes nobody wait who brings none.
    assert_eq!(ask(1, WAIT, 20), []);
    assert_eq!(ask(2, WAIT, 0), []);
    assert_eq!(ask(3, WAIT, 1), refused(3));
    assert_eq!(desk.stats().shed_descriptors, 1);
    assert_eq!(open_descriptors().len(), before + 21, "what was refused is closed");
    // Others are not concerned.
    let given = [file.as_fd()];
    let one = Request::new(FAST_ECHO, b"").with_descriptors(&given);
    assert_eq!(other.call(one, soon()).expect("an answer").descriptors.len(), 1);
    for id in [1, 2] {
        cancel.write_all(&frame(Kind::Control, 0, id, 0, &Control::Cancel.encode())).expect("room");
    }
    desk.seen.until(|_| desk.stats().in_progress == 0);
    ask(4, FORGET, 6);
    desk.seen.until(|_| desk.stats().in_progress == 0);
    assert_eq!(desk.stats().shed_descriptors, 1, "there is room again");
    drop((greedy, cancel));
    desk.seen.until_gone(1);
    desk.seen.until(|_| open_descriptors().len() == before - 2);
}

fn descriptors_that_nobody_reads_end_the_connection() {
    let desk = Desk::with(patient().descriptors_waiting_max(10).outbox_bytes_max(1 << 30));
    let file = File::open("/dev/null").expect("it is everywhere");
    let before = open_descriptors().len();
    let greedy = Raw::welcomed(desk.place.socket().as_path());
    let bytes = frame(Kind::Request, FAST_ECHO, 1, 4, &vec![0; 100_000]);
    // Each reply is read by nobody and takes four descriptors along.
    while greedy.send_with(&bytes, &[file.as_fd(); 4]) && desk.stats().slow_readers == 0 {}
    desk.seen.until_gone(1);
    desk.seen.until(|_| desk.stats().slow_readers == 1 && desk.stats().in_progress == 0);
    assert!(desk.stats().bytes_out < 10_000_000, "{:?}", desk.stats());
    drop(greedy);
    desk.seen.until(|_| open_descriptors().len() == before);
    desk.client().call(Request::new(ECHO, b""), soon()).expect("others are not concerned");
}

fn an_answer_makes_room_for_the_next_request() {
    let desk = Desk::with(patient().unanswered_max(1));
    let client = desk.client();
    for round in 0..2000 {
        let request = Request::new([ECHO, FAST_ECHO, FORGET][round % 3], b"");
        match client.call(request, soon()) {
            Ok(_) | Err(rpc_uds::CallError::Refused(Refusal::Dropped)) => {}
            Err(error) => panic!("in round {round}: {error}"),
        }
    }
    assert_eq!(desk.stats().shed_unanswered, 0);
}

fn cancelling_does_not_buy_more_of_the_queue() {
    let desk = Desk::with(patient().workers(1).queue_max(64).unanswered_max(8));
    let (greedy, modest) = (desk.client(), desk.client());
    let busy = modest.start(Request::new(WAIT, b""), soon()).expect("sent");
    desk.seen.until(|seen| seen.waiting.load(std::sync::atomic::Ordering::SeqCst) == 1);
    for _ in 0..200 {
        // Sent, and given up at once: it stays in the queue until a worker comes by.
        drop(greedy.start(Request::new(ECHO, b""), soon()).expect("sent"));
    }
    greedy.ping(soon()).expect("everything sent has come");
    let queued = modest.start(Request::new(ECHO, b"modest"), soon()).expect("sent");
    desk.seen.open_door();
    busy.wait().expect("an answer");
    assert_eq!(queued.wait().expect("there was room").body, b"modest");
    let stats = desk.stats();
    assert_eq!((stats.shed_queue, stats.shed_unanswered), (0, 192));
    greedy.call(Request::new(ECHO, b""), soon()).expect("served again");
}

fn control_answers_while_everybody_is_busy() {
    let desk = Desk::with(patient().workers(4).connections_max(600));
    let path = desk.place.socket();
    let silent: Vec<_> = (0..256).map(|_| Raw::welcomed(&path)).collect();
    let speechless: Vec<_> = (0..64).map(|_| Raw::connect(&path)).collect();
    let client = desk.client();
    let calls: Vec<_> =
        (0..100).map(|_| client.start(Request::new(WAIT, b""), soon()).expect("sent")).collect();
    desk.seen.until(|seen| seen.waiting.load(std::sync::atomic::Ordering::SeqCst) == 4);
    let other = desk.client();
    for client in [&client, &other] {
        client.ping(soon()).expect("an answer");
        client.call(Request::new(INFO, b"info"), soon()).expect("an answer");
        client.call(Request::new(FAST_ECHO, b""), soon()).expect("an answer");
    }
    // Cancelled in the queue, without a worker.
    let cancelled = calls.len();
    drop(calls);
    desk.seen.until(|_| desk.stats().cancelled == cancelled as u64);
    drop((silent, speechless));
    desk.seen.until_gone(256);
}

fn a_connection_without_a_thread_is_shed() {
    // More than there are addresses.
    let desk = Desk::with(patient().stack_bytes(1 << 47));
    for _ in 0..3 {
        let error = rpc_uds::Client::options().connect(desk.place.socket(), soon());
        let Err(rpc_uds::ConnectError::Refused { refusal, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!(refusal, Refusal::Threads);
    }
    let stats = desk.stats();
    assert_eq!((stats.shed_threads, stats.connections, stats.accepted), (3, 0, 3));
}

fn everybody_is_served() {
    let desk = Desk::new();
    let path = desk.place.socket();
    let clients: Vec<_> = (0..256_u32).map(|number| (number, connect(&path))).collect();
    std::thread::scope(|scope| {
        // Some take all they can get, each of the others is served all the same.
        let (greedy, modest) = clients.split_at(16);
        for (number, client) in greedy {
            scope.spawn(move || {
                let body = number.to_le_bytes();
                let begin = |_| client.start(Request::new(ECHO, &body), soon()).expect("sent");
                let calls: Vec<_> = (0..100).map(begin).collect();
                for call in calls {
                    // A full queue refuses some of what is asked too fast.
                    match call.wait() {
                        Ok(reply) => assert_eq!(reply.body, body),
                        Err(rpc_uds::CallError::Refused(Refusal::Queue { .. })) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        for some in modest.chunks(16) {
            scope.spawn(move || {
                for round in 0..10 {
                    for (number, client) in some {
                        let body = number.to_le_bytes();
                        let tag = [ECHO, FAST_ECHO][round % 2];
                        match client.call(Request::new(tag, &body), soon()) {
                            Ok(reply) => assert_eq!(reply.body, body),
                            Err(rpc_uds::CallError::Refused(Refusal::Queue { .. })) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(desk.stats().connections, 256);
    drop(clients);
    desk.seen.until_gone(256);
}

/// How many hostile frames are thrown: a short form here, more by the environment.
fn frames() -> u64 {
    std::env::var("RPC_UDS_HOSTILE").ok().and_then(|count| count.parse().ok()).unwrap_or(10_000)
}

/// What is thrown: a name, a kind of frame, and its body.
fn hostile_body(random: &mut Random) -> (&'static str, Kind, Vec<u8>) {
    let length = 1 + random.below(200);
    let body = random.bytes(length);
    let offer = Offer::default();
    let (name, control) = match random.below(16) {
        0..6 => return ("request", Kind::Request, body),
        6 => return ("reply", Kind::Reply, body),
        7 => return ("push", Kind::Push, body),
        8 | 9 => ("hello", Control::Hello(offer)),
        10 => ("welcome", Control::Welcome(offer.answer(&offer).expect("the same"))),
        11 => ("refusal", Control::Refusal(Refusal::rejected("no".repeat(random.below(50))))),
        12 => ("ping", Control::Ping),
        13 => ("pong", Control::Pong),
        14 => ("cancel", Control::Cancel),
        _ => ("goodbye", Control::Goodbye),
    };
    (name, Kind::Control, control.encode())
}

/// How many of a kind were thrown, how many of them with one mutation past the header and nothing
/// else wrong, and how many of all were refused as not the protocol.
type Counts = BTreeMap<&'static str, [u64; 3]>;

/// Whether one of the frames refuses not a request but the connection.
fn ends_the_connection(mut said: &[u8]) -> bool {
    while let Some((header, rest)) = said.split_first_chunk::<HEADER_BYTES>() {
        let header = Header::decode(header, FrameLimits::default()).expect("a header");
        let (body, rest) = rest.split_at(header.body_bytes as usize);
        said = rest;
        if header.kind == Kind::Control && header.id == 0 {
            let control = Control::decode(body).expect("the server speaks the protocol");
            return matches!(control, Control::Refusal(_));
        }
    }
    assert!(said.is_empty(), "half a frame");
    false
}

/// Throws one frame and hears the server out, so that each is looked at.
fn throw(path: &Path, random: &mut Random, counts: &mut Counts) {
    let (name, kind, body) = hostile_body(random);
    // A hello is for those who have not said one; whoever has says it again now and then.
    let is_first = name == "hello" && random.below(4) > 0;
    let mut raw = if is_first { Raw::connect(path) } else { Raw::welcomed(path) };
    let announced = if kind == Kind::Request { random.below(4) } else { 0 };
    let tag = [ECHO, FAST_ECHO, INFO, FORGET, 99][random.below(5)];
    let id = [1, random.next()][random.below(2)];
    let mut bytes = frame(kind, tag, id, announced as u8, &body);
    let mut given = announced;
    let only_past_the_header = match random.below(8) {
        0 | 1 => {
            random.mutate(&mut bytes[..HEADER_BYTES], 0);
            false
        }
        2 => {
            given = random.below(8);
            false
        }
        _ => {
            random.mutate(&mut bytes, HEADER_BYTES);
            true
        }
    };
    if given == 0 {
        raw.send(&bytes);
    } else {
        let file = raw.stream.try_clone().expect("a copy");
        raw.send_with(&bytes, &vec![file.as_fd(); given]);
    }
    // Whoever waits for the rest of a frame is told that there is none.
    let _ = raw.stream.shutdown(Shutdown::Write);
    let mut said = Vec::new();
    // A server that closes with something unread resets the connection; what it said is there.
    let _ = raw.stream.read_to_end(&mut said);
    let is_refused = ends_the_connection(&said);
    let count = counts.entry(name).or_default();
    for (count, holds) in count.iter_mut().zip([true, only_past_the_header, is_refused]) {
        *count += u64::from(holds);
    }
}

fn hostile_frames_leak_nothing() {
    let limits = FrameLimits { body_bytes_max: 8192, descriptors_max: 4 };
    let desk = Desk::with(patient().limits(limits));
    // A mutated tag may ask for what waits for it.
    desk.seen.open_door();
    let path = desk.place.socket();
    let mut random = Random(0x5eed);
    let client = desk.client();
    client.ping(soon()).expect("alive");
    let before = open_descriptors();
    let mut counts = Counts::new();
    let sum = |counts: &Counts, at: usize| counts.values().map(|count| count[at]).sum::<u64>();
    let mut resident = resident_kib();
    while sum(&counts, 0) < frames() {
        throw(&path, &mut random, &mut counts);
        if sum(&counts, 0) < frames() / 10 {
            // What the first ones take is not given back, and no growth.
            resident = resident_kib();
        }
    }
    say("    thrown     past  refused");
    for (name, [thrown, behind, refused]) in &counts {
        say(&format!("  {thrown:8} {behind:8} {refused:8} {name}"));
    }
    let (thrown, behind) = (sum(&counts, 0), sum(&counts, 1));
    say(&format!(
        "  {thrown:8} {behind:8} past the header only; {resident} KiB resident, now {}",
        resident_kib()
    ));
    assert!(behind * 2 > thrown, "{behind} of {thrown}");
    assert!(counts.len() == 10 && counts.values().all(|[_, behind, _]| *behind > 50));
    client.call(Request::new(ECHO, b"still"), soon()).expect("the server is well");
    desk.seen.until(|_| desk.stats().connections == 1 && desk.stats().in_progress == 0);
    let stats = desk.stats();
    assert!(stats.protocol_errors > 0 && stats.requests > 0 && stats.sessions > 1, "{stats:?}");
    // A worker may be about to drop what came with the last one.
    desk.seen.until(|_| open_descriptors() == before);
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn descriptors_of_hostile_frames_are_closed() {
    let desk = Desk::new();
    let path = desk.place.socket();
    desk.client().ping(soon()).expect("alive");
    desk.seen.until_gone(1);
    desk.seen.until(|_| desk.stats().connections == 0);
    let before = open_descriptors().len();
    let whole = frame(Kind::Request, ECHO, 1, 2, b"body");
    let cases: [(&[u8], usize); 6] = [
        (&whole, 1),
        (&whole, 3),
        (&whole, 253),
        // Too late, as a stump, and with something that is no frame.
        (&whole[..10], 2),
        (&whole[..26], 2),
        (b"nonsense", 5),
    ];
    for (bytes, count) in cases {
        let mut raw = Raw::welcomed(&path);
        let file = raw.stream.try_clone().expect("a copy");
        raw.send_with(bytes, &vec![file.as_fd(); count]);
        raw.stream.shutdown(Shutdown::Write).expect("connected");
        assert!(matches!(raw.hear(), Some((0, Control::Refusal(_)))), "{count}");
        drop((raw, file));
    }
    desk.seen.until(|_| desk.stats().connections == 0);
    desk.seen.until(|_| open_descriptors().len() == before);
    let (thread, reply) = {
        let client = desk.client();
        on_thread(move || client.call(Request::new(ECHO, b""), soon()).map(|it| it.tag))
    };
    assert_eq!(reply.recv().expect("it ends"), Ok(ECHO));
    thread.join().expect("no panic");
}
