//! Servers that answer what they should not. A client ends every wait, and keeps no descriptor.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rpc_uds::{
    CallError, Client, ConnectError, Control, HEADER_BYTES, Kind, Offer, Refusal, Request,
};

use crate::desk::{ECHO, Place, soon};
use crate::harness::{open_descriptors, say, tests};
use crate::random::Random;
use crate::raw::{Raw, frame};

tests![answers_that_are_none, welcomes_that_are_none, a_reply_that_trickles];

const ROUNDS: u32 = 2000;

/// Some frame that a server may send, well or badly.
fn answer(random: &mut Random, id: u64) -> (Vec<u8>, usize) {
    let given = [0, 0, 0, 1, 2, 5][random.below(6)];
    let announced = if random.below(8) == 0 { random.below(6) } else { given };
    let id = [id, id, id, 0, id + 1, random.next()][random.below(6)];
    let length = random.below(300);
    let body = random.bytes(length);
    let control = |control: Control| (Kind::Control, control.encode());
    let offer = Offer::default();
    let (kind, body) = match random.below(12) {
        0..4 => (Kind::Reply, body),
        4 => (Kind::Push, body),
        5 => (Kind::Request, body),
        6 => control(Control::Pong),
        7 => control(Control::Refusal(Refusal::Dropped)),
        8 => control(Control::Refusal(Refusal::rejected("é".repeat(random.below(600))))),
        9 => control(Control::Goodbye),
        10 => control(Control::Hello(offer)),
        _ => control(Control::Welcome(offer.answer(&offer).expect("the same"))),
    };
    let mut bytes = frame(kind, 0, id, announced as u8, &body);
    match random.below(3) {
        0 => random.mutate(&mut bytes, 0),
        1 if !body.is_empty() => random.mutate(&mut bytes, HEADER_BYTES),
        _ => {}
    }
    if random.below(6) == 0 {
        bytes.truncate(random.below(bytes.len()));
    }
    (bytes, given)
}

/// Listens, lets one client in after the other, and answers each request as `answer` says.
fn serve(listener: &UnixListener, welcomes: bool, mut random: Random) {
    let file = File::open("/dev/null").expect("it is everywhere");
    for _ in 0..ROUNDS {
        let (stream, _) = listener.accept().expect("a client comes");
        let mut raw = Raw::over(stream);
        let Some((0, Control::Hello(offer))) = raw.hear() else { panic!("a hello comes first") };
        if welcomes {
            raw.say(&Control::Welcome(offer.answer(&offer).expect("the same")), 0);
        }
        // It answers what was asked, or something before anything was.
        let mut id = 0;
        if welcomes && random.below(4) > 0 {
            let Some(frame) = raw.next() else { continue };
            id = frame.header.id;
        }
        loop {
            let (bytes, given) = answer(&mut random, id);
            let given = vec![file.as_fd(); given];
            let is_sent = bytes.is_empty()
                || if given.is_empty() { raw.send(&bytes) } else { raw.send_with(&bytes, &given) };
            if !is_sent || random.below(4) == 0 {
                break;
            }
        }
        if random.below(10) == 0 {
            // It says no more, and stays until the client has gone.
            while raw.next().is_some() {}
        }
    }
}

fn against(welcomes: bool, client: impl Fn(&std::path::Path)) {
    let place = Place::new();
    let before = open_descriptors();
    let listener = UnixListener::bind(place.socket()).expect("the path is free");
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&listener, welcomes, Random(0xbad)));
        for _ in 0..ROUNDS {
            client(&place.socket());
        }
    });
    drop(listener);
    assert_eq!(open_descriptors(), before, "whatever came was closed");
    std::fs::remove_file(place.socket()).expect("left by the listener");
}

fn answers_that_are_none() {
    let ends = std::cell::Cell::new([0_u32; 4]);
    against(true, |path| {
        let client = match Client::options().connect(path, soon()) {
            Ok(client) => client,
            // What came with the welcome was bad enough.
            Err(ConnectError::Handshake { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        // An answer may simply not come.
        let deadline = Instant::now() + Duration::from_millis(20);
        let end = match client.call(Request::new(ECHO, b"?"), deadline) {
            Ok(_) => 0,
            Err(CallError::Lost(_)) => 1,
            Err(CallError::Refused(_) | CallError::Cancelled) => 2,
            Err(CallError::TimedOut { .. }) => 3,
            Err(error) => panic!("{error}"),
        };
        let mut counts = ends.get();
        counts[end] += 1;
        ends.set(counts);
    });
    let [answered, lost, refused, late] = ends.get();
    say(&format!("  {answered} answered, {lost} lost, {refused} refused, {late} timed out"));
    assert!([answered, lost, refused, late].iter().all(|count| *count > 10));
}

fn welcomes_that_are_none() {
    against(false, |path| {
        let deadline = Instant::now() + Duration::from_millis(20);
        match Client::options().connect(path, deadline) {
            Ok(client) => drop(client),
            Err(
                ConnectError::Handshake { .. }
                | ConnectError::Refused { .. }
                | ConnectError::TimedOut { .. },
            ) => {}
            Err(error) => panic!("{error}"),
        }
    });
}

fn a_reply_that_trickles() {
    let place = Place::new();
    let listener = UnixListener::bind(place.socket()).expect("the path is free");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut raw = Raw::over(listener.accept().expect("a client comes").0);
            let Some((0, Control::Hello(offer))) = raw.hear() else {
                panic!("a hello comes first")
            };
            raw.say(&Control::Welcome(offer.answer(&offer).expect("the same")), 0);
            let id = raw.next().expect("a request").header.id;
            // Each byte sooner than any timeout per read would be, until the client has gone.
            for byte in frame(Kind::Reply, 0, id, 0, &vec![0; 1 << 20]) {
                if !raw.send(&[byte]) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            panic!("the client has waited for all of it");
        });
        let client = Client::options().connect(place.socket(), soon()).expect("a welcome");
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(50);
        let error = client.call(Request::new(ECHO, b""), deadline).map(|it| it.tag);
        assert!(matches!(error, Err(CallError::TimedOut { .. })), "{error:?}");
        assert!(begun.elapsed() >= Duration::from_millis(50));
        drop(client);
    });
    drop(listener);
    std::fs::remove_file(place.socket()).expect("left by the listener");
}
