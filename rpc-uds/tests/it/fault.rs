//! Every kernel call of the library, one after the other, fails or is the last one of its process.
//! After each the next server must have the path, and clients their answers.

use std::error::Error;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rpc_uds::{Client, Request, Server};

use crate::desk::{ECHO, Echo, FAST_ECHO, LONG, PUSH, Place, WAIT, connect, soon};
use crate::harness::{say, tests};
use crate::peer;

tests![every_call_fails_once, every_call_is_the_last_once];

/// What the process whose calls are broken does.
pub(crate) fn play(path: &Path) {
    if let Err(error) = everything(path) {
        assert!(!error.to_string().is_empty());
    }
    say(&rpc_uds::fault::passed().to_string());
}

fn everything(path: &Path) -> Result<(), Box<dyn Error>> {
    // Nothing here takes long; but a deadline must end what a broken call leaves without an end.
    let deadline = || Instant::now() + Duration::from_secs(10);
    let server = Server::options().workers(1).serve(path, Echo(<_>::default()))?;
    let (give, take) = std::sync::mpsc::channel();
    let options = Client::options().wait_for_server(true).on_push(move |push| {
        let _ = give.send(push.tag);
    });
    let client = options.connect(path, deadline())?;
    let other = Client::options().connect(path, deadline())?;
    let own = std::fs::File::open("/dev/null")?;
    let given = [own.as_fd()];
    client.ping(deadline())?;
    client.call(Request::new(FAST_ECHO, b"").with_descriptors(&given), deadline())?;
    client.call(Request::new(ECHO, &[7; 1000]).with_descriptors(&given), deadline())?;
    client.call(Request::new(PUSH, b"\x02"), deadline())?;
    server.push_all(7, b"", &given)?;
    for _ in 0..3 {
        take.recv_timeout(Duration::from_secs(10))?;
    }
    drop(client.start(Request::new(WAIT, b""), deadline())?);
    // More than a socket holds, so that the flusher has something to do.
    let calls = (0..5)
        .map(|_| other.start(Request::new(LONG, &300_000_u32.to_le_bytes()), deadline()))
        .collect::<Result<Vec<_>, _>>()?;
    for call in calls {
        call.wait()?;
    }
    let _ = server.stop(Duration::from_secs(10))?;
    Ok(())
}

fn break_every_call(kind: &str) {
    let mut at = 0;
    loop {
        at += 1;
        let place = Place::new();
        let mut command = peer::command("faulty", &place.socket());
        command.env("ST_FAULT", kind).env("ST_FAULT_AT", at.to_string());
        let output = command.output().expect("this program can be started again");
        let said = String::from_utf8_lossy(&output.stdout);
        let passed = said.trim().parse::<u64>();
        assert!(kind == "kill" || passed.is_ok(), "{kind} at call {at}: {output:?}");
        let successor = Server::options().serve(place.socket(), Echo(<_>::default()));
        let successor = successor.unwrap_or_else(|error| panic!("{kind} at {at}: {error}"));
        let client = connect(&place.socket());
        client.call(Request::new(ECHO, b""), soon()).expect("an answer");
        drop((client, successor));
        if passed.is_ok_and(|passed| passed < at) {
            break;
        }
        assert!(at < 5000, "the scenario does not end");
    }
    say(&format!("  {} calls, each broken by {kind}", at - 1));
    assert!(at > 50, "the scenario makes many calls");
}

fn every_call_fails_once() {
    break_every_call("error");
}

fn every_call_is_the_last_once() {
    break_every_call("kill");
}
