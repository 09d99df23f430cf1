//! Requests and replies over a socket, without a service on top.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rpc_uds::{Call, Client, Connection, Handler, Refusal, Request, Server};

use super::company::{Companion, await_cue, ready};
use super::sample::{Arguments, pin, print_quantiles, times};
use super::space;
use crate::Outcome;

/// Answered on the connection's thread, and by a worker.
const TAGS: [(&str, u16); 2] = [("at-once", 1), ("worker", 2)];

struct Echo;

impl Handler for Echo {
    type Session = ();

    fn connected(&self, _: &Connection) -> Result<(), Refusal> {
        Ok(())
    }

    fn fast(&self, _: &Arc<()>, call: Call) -> Option<Call> {
        if call.tag != TAGS[0].1 {
            return Some(call);
        }
        answer(call);
        None
    }

    fn call(&self, _: &Arc<()>, call: Call) {
        answer(call);
    }
}

fn answer(call: Call) {
    let Call { body, responder, .. } = call;
    // Whoever asked has gone, and says so itself.
    let _ = responder.reply(0, &body, &[]);
}

/// `requests at-once|worker BYTES SAMPLES`.
pub(super) fn run(given: &mut Arguments) -> Outcome<()> {
    let way = given.next::<String>()?;
    let bytes = given.next::<usize>()?;
    let samples = given.next::<usize>()?;
    let tag = TAGS.iter().find(|(name, _)| *name == way).ok_or("no such way")?.1;
    let server = Companion::start("requests-server", &[])?;
    pin(0)?;
    let soon = Instant::now() + Duration::from_secs(60);
    let client = Client::options().connect(socket(), soon)?;
    let body = vec![7; bytes];
    let sorted = times(samples, 1, || {
        let reply = client.call(Request::new(tag, &body), Instant::now() + Duration::from_secs(60));
        if reply?.body.len() == bytes { Ok(()) } else { Err("another reply".into()) }
    })?;
    drop(client);
    server.finish()?;
    print_quantiles(&sorted);
    Ok(())
}

pub(super) fn server(_: &mut Arguments) -> Outcome<()> {
    pin(1)?;
    let server = Server::options().workers(2).serve(socket(), Echo)?;
    ready()?;
    await_cue()?;
    let stopped = server.stop(Duration::from_secs(10))?;
    if stopped.is_drained { Ok(()) } else { Err("requests were left".into()) }
}

fn socket() -> PathBuf {
    format!("{}requests.sock", space::file_prefix()).into()
}
