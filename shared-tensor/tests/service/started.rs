//! Calls that tell when they are done, with a thread that reads for them or an event loop.

use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shared_tensor::service::{Answer, CallOptions, Client, Error, Value};

use crate::desk::{Scratch, Service, options, refcount, soon, until};
use crate::harness::tests;

tests![
    a_callback_that_panics_ends_no_other_call,
    a_listener_that_panics_ends_no_call,
    the_descriptor_tells_of_a_deadline,
    an_answer_that_is_read_too_late_is_none,
    the_descriptor_is_quiet_when_the_server_is_gone,
    calls_on_a_lost_connection_are_told_when_it_is_driven,
    no_event_loop_waits_for_a_server,
    calls_of_a_client_that_is_let_go_of_are_cancelled,
];

type Outcome = Result<Answer, Error>;

fn start(
    client: &Client,
    endpoint: &str,
    argument: &str,
    options: CallOptions<'_>,
) -> Receiver<Outcome> {
    let (tell, told) = mpsc::channel();
    let arguments = if argument.is_empty() { ().into() } else { [argument].into() };
    let on_done = move |outcome| drop(tell.send(outcome));
    client.start_call(endpoint, &arguments, options, on_done).unwrap();
    told
}

fn driven(service: &Service) -> Client {
    let client = Client::options().driven(true).at(service.address());
    client.connect(soon()).unwrap();
    client
}

/// Whether the descriptor becomes readable, waiting for ever or not at all.
fn is_readable(client: &Client, is_waited_for: bool) -> bool {
    let descriptor = client.descriptor().unwrap();
    let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
    let none = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, (!is_waited_for).then_some(&none)).unwrap() > 0
}

/// The life of an event loop until there is an outcome.
fn driven_until(client: &Client, told: &Receiver<Outcome>) -> Outcome {
    loop {
        assert!(is_readable(client, true));
        client.drive();
        if let Ok(outcome) = told.try_recv() {
            return outcome;
        }
    }
}

fn a_callback_that_panics_ends_no_other_call() {
    let service = Service::start();
    let client = service.client();
    let waiting = start(&client, "slow", "door", options());
    let (tell, told) = mpsc::channel::<()>();
    let panics = move |_: Outcome| {
        let _tell = tell;
        panic!("on purpose");
    };
    client.start_call("nothing", (), options(), panics).unwrap();
    assert!(told.recv().is_err(), "it was called, and is gone");
    client.call("open", ["door"], options()).unwrap();
    assert!(waiting.recv().unwrap().is_ok());
    assert!(start(&client, "nothing", "", options()).recv().unwrap().is_ok(), "and the next one");
    let cancelled = client.start_call("slow", ["never"], options(), |_| {
        panic!("on purpose");
    });
    assert!(cancelled.unwrap().cancel());
}

fn a_listener_that_panics_ends_no_call() {
    let service = Service::start();
    let client = service.client();
    let (tell, told) = mpsc::channel();
    let listening = options().on_progress(move |progress| {
        tell.send(progress.done).unwrap();
        panic!("on purpose");
    });
    let waiting = start(&client, "slow", "door", listening);
    assert_eq!(told.recv(), Ok(1));
    client.call("open", ["door"], options()).unwrap();
    assert!(waiting.recv().unwrap().is_ok());
    assert!(told.recv().is_err(), "it was called once");
}

fn the_descriptor_tells_of_a_deadline() {
    let service = Service::start();
    let client = driven(&service);
    let within = |time| CallOptions::new().deadline(Instant::now() + time);
    let later = start(&client, "slow", "never", within(Duration::from_millis(900)));
    let sooner = start(&client, "slow", "never", within(Duration::from_millis(300)));
    assert!(driven_until(&client, &sooner).unwrap_err().is_timeout());
    assert!(driven_until(&client, &later).unwrap_err().is_timeout());
    // What was told is not told again. The server confirms that both were given up.
    until("nothing is left to be read", || {
        client.drive();
        !is_readable(&client, false)
    });
}

fn an_answer_that_is_read_too_late_is_none() {
    let service = Service::start();
    let (client, other) = (driven(&service), service.client());
    let held = other.call("managed_table", (), options()).unwrap();
    let object = held.handle.unwrap().object;
    let deadline = Instant::now() + Duration::from_millis(300);
    let told = start(&client, "managed_table", "", CallOptions::new().deadline(deadline));
    assert!(is_readable(&client, true));
    until("it is too late", || Instant::now() > deadline);
    client.drive();
    assert!(told.try_recv().unwrap().unwrap_err().is_timeout());
    until("what it brought is given back", || {
        client.drive();
        refcount(&other, object) == Some(1) && client.regions_held() == 0
    });
}

fn the_descriptor_is_quiet_when_the_server_is_gone() {
    let mut service = Service::start();
    let client = driven(&service);
    let held = start(&client, "make_table", "", options());
    let held = driven_until(&client, &held).unwrap();
    let told = start(&client, "slow", "never", options());
    service.peer.kill();
    assert!(driven_until(&client, &told).unwrap_err().is_server_lost());
    assert!(!is_readable(&client, false), "though what it lent is still held");
    let gone = client.start_call("nothing", (), options(), |_| ()).unwrap_err();
    assert!(gone.is_server_lost(), "{gone}");
    drop(held);
}

fn calls_on_a_lost_connection_are_told_when_it_is_driven() {
    let mut service = Service::start();
    let client = driven(&service);
    let told = start(&client, "slow", "never", options());
    service.peer.kill();
    let next = client.start_call("nothing", (), options(), |_| ());
    assert!(next.unwrap_err().is_server_lost());
    assert!(told.try_recv().is_err(), "nobody has driven it");
    assert!(driven_until(&client, &told).unwrap_err().is_server_lost());
    assert!(!is_readable(&client, false));
}

fn no_event_loop_waits_for_a_server() {
    let scratch = Scratch::new();
    let address = shared_tensor::service::Address::at(scratch.socket());
    let client = Client::options().driven(true).at(address.clone());
    let absent = client.start_call("nothing", (), options(), |_| ()).unwrap_err();
    let Error::Absent { waited, .. } = absent else { panic!("{absent}") };
    // Which is its patience where somebody waits.
    assert!(waited < Duration::from_secs(60), "{waited:?}");
    // A call that somebody waits for has the usual patience.
    let calling = {
        let client = client.clone();
        std::thread::spawn(move || client.call("nothing", (), options()).unwrap().value)
    };
    let peer = crate::peer::Peer::start("server", &scratch.socket());
    assert_eq!(calling.join().unwrap(), Value::None);
    drop((client, peer));
}

fn calls_of_a_client_that_is_let_go_of_are_cancelled() {
    let service = Service::start();
    let client = driven(&service);
    let told = start(&client, "slow", "never", options());
    drop(client);
    assert!(matches!(told.try_recv(), Ok(Err(Error::Cancelled))));
    let client = driven(&service);
    let told = start(&client, "slow", "never", options());
    client.close();
    assert!(matches!(told.try_recv(), Ok(Err(Error::Cancelled))));
    // It connects anew.
    let again = start(&client, "nothing", "", options());
    assert_eq!(driven_until(&client, &again).unwrap().value, Value::None);
    // With a thread, what was begun goes on.
    let client = service.client();
    let told = start(&client, "slow", "door", options());
    drop(client);
    service.client().call("open", ["door"], options()).unwrap();
    assert!(told.recv().unwrap().is_ok());
}
