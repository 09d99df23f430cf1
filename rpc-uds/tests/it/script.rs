//! What peers do.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rpc_uds::{CallError, Client, PeerPolicy, Request, Server, Termination};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::desk::{ECHO, Echo, FAST_ECHO, Seen, WAIT, connect, patient, soon};
use crate::harness::say;
use crate::sys;

pub(crate) fn play(kind: &str, path: &Path) {
    match kind {
        "server" => server(path),
        "terminated" => terminated(path),
        "client" => client(path),
        "forking-client" => forking_client(path),
        "forking-server" => forking_server(path),
        "starving-server" => starving_server(path),
        "stranger" => stranger(path),
        "namespaced" => crate::isolation::namespaced(path),
        "sandboxed" => crate::isolation::sandboxed(path),
        "starving-client" => crate::isolation::starving(path),
        "restless" => crate::endurance::restless(path),
        "connecting" => crate::forks::connecting(path),
        "fork-storm" => crate::forks::storm(path),
        #[cfg(st_fault)]
        "faulty" => crate::fault::play(path),
        _ => panic!("`{kind}` is no role"),
    }
}

fn orders() -> impl Iterator<Item = String> {
    io::stdin().lines().map(|line| line.expect("orders are text"))
}

fn serve(path: &Path) -> (Server, Arc<Seen>) {
    let seen = Arc::<Seen>::default();
    let server = patient().policy(PeerPolicy::Anyone).serve(path, Echo(Arc::clone(&seen)));
    (server.expect("the path is free"), seen)
}

fn server(path: &Path) {
    let (server, seen) = serve(path);
    say("ready");
    for order in orders() {
        match order.as_str() {
            "stop" => {
                seen.open_door();
                let stopped = server.stop(Duration::from_secs(1200)).expect("not forked");
                say(&format!("drained {}", stopped.is_drained));
            }
            "waiting" => say(&seen.waiting.load(std::sync::atomic::Ordering::SeqCst).to_string()),
            _ => panic!("`{order}` is no order"),
        }
    }
}

fn terminated(path: &Path) {
    let termination = Termination::install().expect("the first one");
    let second = Termination::install().map_err(|error| error.kind()).map(drop);
    assert_eq!(second, Err(io::ErrorKind::AlreadyExists));
    let (server, _seen) = serve(path);
    say("ready");
    let stopped = server.run(&termination, Duration::from_secs(1200)).expect("it stops");
    say(&format!("drained {}", stopped.is_drained));
}

/// Holds a connection with a call that waits, and does nothing.
fn client(path: &Path) {
    let client = connect(path);
    let call = client.start(Request::new(WAIT, b""), soon()).expect("sent");
    client.call(Request::new(FAST_ECHO, b""), soon()).expect("an answer");
    say("ready");
    for _ in orders() {}
    drop(call);
}

/// Connects, forks a child that goes on living with what it inherits, and lets itself be killed.
fn forking_client(path: &Path) {
    let client = connect(path);
    client.call(Request::new(ECHO, b"before"), soon()).expect("an answer");
    let pending = client.start(Request::new(ECHO, b"pending"), soon()).expect("sent");
    let (mut read, mut write) = io::pipe().expect("a pipe");
    let Some(child) = sys::fork() else {
        let refused =
            matches!(client.call(Request::new(ECHO, b""), soon()), Err(CallError::Forked(_)))
                && client.try_next_push().is_err()
                && client.descriptor().is_err()
                && client.stats().is_err()
                && matches!(pending.canceller().cancel(), Err(CallError::Forked(_)));
        drop(pending);
        drop(client);
        // A connection of its own works.
        let own = connect(path);
        let answered = own.call(Request::new(ECHO, b"child"), soon()).is_ok();
        drop(own);
        tell_and_stay(&mut write, refused && answered);
    };
    let is_well = hear_of_child(&mut read);
    // Dropping it in the child has neither cancelled nor closed anything.
    assert_eq!(pending.wait().expect("an answer").body, b"pending");
    client.call(Request::new(ECHO, b"after"), soon()).expect("an answer");
    say("ready");
    for order in orders() {
        match order.as_str() {
            "call" => {
                client.call(Request::new(ECHO, b""), soon()).expect("an answer");
                say("answered");
            }
            "end child" => break,
            _ => panic!("`{order}` is no order"),
        }
    }
    end(child);
    say(&format!("child {is_well}"));
}

/// The rest of a forked child: it lives until the test lets go of the orders of its parent.
fn tell_and_stay(write: &mut io::PipeWriter, is_well: bool) -> ! {
    // Its parent may be dead already.
    let _ = write.write_all(&[u8::from(is_well)]);
    let orders = io::stdin();
    let mut polled = [PollFd::new(&orders, PollFlags::empty())];
    // Without anything asked for, only the end of the orders is told.
    let _ = poll(&mut polled, None);
    sys::leave(0)
}

fn hear_of_child(read: &mut io::PipeReader) -> bool {
    let mut said = [0];
    read.read_exact(&mut said).expect("the child says how it went");
    said == [1]
}

fn end(child: u32) {
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, Signal::KILL).expect("a child");
    waitpid(Some(pid), WaitOptions::empty()).expect("a child");
}

/// Serves, forks a child that goes on living with what it inherits, and lets itself be killed.
fn forking_server(path: &Path) {
    let (server, _seen) = serve(path);
    let (mut read, mut write) = io::pipe().expect("a pipe");
    let Some(child) = sys::fork() else {
        let refused = server.stats().is_err()
            && server.push_all(1, b"", &[]).is_err()
            && server.stop(Duration::ZERO).is_err();
        drop(server);
        tell_and_stay(&mut write, refused && path.exists());
    };
    let is_well = hear_of_child(&mut read);
    say("ready");
    assert_eq!(orders().next().as_deref(), Some("end child"));
    end(child);
    say(&format!("child {is_well}"));
    let stopped = server.stop(Duration::ZERO).expect("not forked");
    say(&format!("left {}", stopped.threads_left));
}

/// Serves with few descriptors, until there are none, and then with some again.
fn starving_server(path: &Path) {
    let (server, _seen) = serve(path);
    let own = connect(path);
    own.ping(soon()).expect("alive");
    // The connections that come now meet the limit.
    let restore = sys::limit_descriptors(3);
    say("ready");
    for order in orders() {
        match order.as_str() {
            "paused" => {
                while server.stats().expect("not forked").accept_pauses < 3 {
                    own.ping(soon()).expect("who is connected is served all the same");
                }
                say("yes");
            }
            "feed" => {
                restore();
                say("fed");
            }
            _ => panic!("`{order}` is no order"),
        }
    }
}

/// Another user, who may open the socket because the test let it.
fn stranger(path: &Path) {
    sys::become_user(65534).expect("only root gives this role");
    say("ready");
    for order in orders() {
        let options = Client::options();
        let options = match order.as_str() {
            "connect" => options.policy(PeerPolicy::Anyone),
            "distrust" => options,
            _ => panic!("`{order}` is no order"),
        };
        let deadline = Instant::now() + Duration::from_secs(1200);
        match options.connect(path, deadline) {
            Ok(client) => say(&format!("connected {}", client.ping(soon()).is_ok())),
            Err(error) => say(&error.to_string()),
        }
    }
}
