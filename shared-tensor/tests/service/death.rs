//! Who may die, and what the others have then.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use shared_tensor::service::{
    Address, Arena, CallOptions, Client, Endpoint, Error, Provider, ServeError, Server, Value,
};

use crate::desk::{Scratch, Service, options, refcount, soon, stat, until};
use crate::harness::tests;
use crate::peer::Peer;
use crate::sys;

tests![
    what_is_mapped_survives_the_server,
    a_server_that_was_never_there_is_awaited,
    one_that_was_there_is_not,
    a_successor_is_found_by_the_next_call,
    a_successor_is_waited_for_if_that_is_said,
    a_second_server_is_refused,
    stopping_ends_every_wait,
    what_does_not_end_is_named,
    a_stopped_server_keeps_nobody_elses_things,
    what_a_stopped_server_was_to_be_told_is_told_later,
    a_forked_child_has_no_client,
    a_fork_in_the_middle_of_everything_hangs_no_child,
    a_forked_child_is_no_server,
    calls_within_the_servers_process,
    clients_in_the_servers_process,
];

fn what_is_mapped_survives_the_server() {
    let mut service = Service::start();
    let clients: Vec<Client> = (0..4).map(|_| service.client()).collect();
    let mut peers: Vec<Peer> = (0..4).map(|_| service.peer_client()).collect();
    let held: Vec<_> =
        clients.iter().map(|it| it.call("managed_table", (), options()).unwrap()).collect();
    for peer in &mut peers {
        peer.expect("hold make_table", "held");
    }
    service.peer.kill();
    let table = held[0].value.as_tensor().unwrap();
    assert_eq!(table.to_vec::<f64>().unwrap()[11], 11.0);
    table.write(&[1.0; 12]).unwrap();
    for (client, held) in clients.iter().zip(&held) {
        assert_eq!(held.value.as_tensor().unwrap().to_vec::<f64>().unwrap(), [1.0; 12]);
        let lost = client.call("make_table", (), options()).unwrap_err();
        assert!(lost.is_server_lost(), "{lost}");
        assert!(lost.to_string().contains("is gone"), "{lost}");
        assert!(client.ping(soon()).unwrap_err().is_server_lost());
        let lease = held.lease.as_ref().unwrap();
        assert!(!client.release_lease(lease, options()).unwrap(), "it went with the server");
    }
    for peer in &mut peers {
        peer.expect("sum", "66");
    }
}

fn a_server_that_was_never_there_is_awaited() {
    let scratch = Scratch::new();
    let address = Address::at(scratch.socket());
    let client = Client::options().patience(Duration::from_millis(30)).at(address.clone());
    let absent = client.call("nothing", (), options()).unwrap_err();
    assert!(matches!(absent, Error::Absent { .. }), "{absent:?}");
    assert!(matches!(client.ping(soon()), Err(Error::Absent { .. })));
    let late = CallOptions::new().deadline(Instant::now() + Duration::from_millis(20));
    let client = Client::at(address.clone());
    assert!(matches!(client.call("nothing", (), late), Err(Error::Absent { .. })));
    let waiting = thread::spawn(move || client.call("add", [1, 2], options()).unwrap().value);
    let _server = Peer::start("server", &scratch.socket());
    assert_eq!(waiting.join().unwrap(), Value::Int(3));
}

fn one_that_was_there_is_not() {
    let mut service = Service::start();
    let client = service.client();
    let other = client.clone();
    client.ping(soon()).unwrap();
    let waiting = thread::spawn(move || other.call("slow", ["never"], options()));
    until("it runs", || client.call("builds", ["slow"], options()).unwrap().value == Value::Int(1));
    service.peer.kill();
    assert!(waiting.join().unwrap().unwrap_err().is_server_lost());
    assert!(client.call("add", [1, 2], options()).unwrap_err().is_server_lost());
}

fn a_successor_is_found_by_the_next_call() {
    let mut service = Service::start();
    let client = service.client();
    let old = client.call("managed_table", (), options()).unwrap();
    service.peer.kill();
    service.peer = Peer::start("server", &service.scratch.socket());
    client.ping(soon()).unwrap();
    let new = client.call("managed_table", (), options()).unwrap();
    let (old_handle, new_handle) = (old.handle.unwrap(), new.handle.unwrap());
    assert_ne!(old_handle.server, new_handle.server);
    assert_eq!(refcount(&client, old_handle.object), None, "stale");
    assert_eq!(refcount(&client, new_handle.object), Some(1));
    drop(old);
    client.settle(soon());
    assert_eq!(refcount(&client, new_handle.object), Some(1), "leases of the old one are nobody's");
    service.peer.kill();
    service.peer = Peer::start("server", &service.scratch.socket());
    assert_eq!(client.call("add", [1, 2], options()).unwrap().value, Value::Int(3));
}

fn a_successor_is_waited_for_if_that_is_said() {
    let mut service = Service::start();
    for is_driven in [false, true] {
        let client = Client::options().driven(is_driven).at(service.address());
        client.wait_for_server(options()).unwrap();
        service.peer.kill();
        if is_driven {
            until("it has noticed", || {
                client.drive();
                client.try_connect(options(), None).is_ok_and(|is_there| !is_there)
                    || client.connect(options()).is_err_and(|error| error.is_server_lost())
            });
        } else {
            assert!(client.call("add", [1, 2], options()).unwrap_err().is_server_lost());
        }
        let in_vain = client.wait_for_server(Duration::from_millis(30)).unwrap_err();
        assert!(matches!(in_vain, Error::Absent { .. }), "{in_vain:?}");
        let is_interrupted = || true;
        let told = client.wait_for_server(options().interrupted(&is_interrupted));
        assert!(matches!(told, Err(Error::Interrupted)), "{told:?}");
        let (met, meets) = std::sync::mpsc::channel();
        let waiting = client.clone();
        let waiting = thread::spawn(move || {
            // Asked whenever it has found nobody.
            let goes_on = move || met.send(()).is_err();
            waiting.wait_for_server(CallOptions::new().interrupted(&goes_on))
        });
        meets.recv().unwrap();
        service.peer = Peer::start("server", &service.scratch.socket());
        // The other end stays until it is there: a closed one would interrupt the wait.
        waiting.join().unwrap().unwrap();
        drop(meets);
        assert_eq!(client.call("add", [1, 2], options()).unwrap().value, Value::Int(3));
    }
    // That it is gone need not have been noticed before.
    let client = service.client();
    client.connect(options()).unwrap();
    service.peer.kill();
    service.peer = Peer::start("server", &service.scratch.socket());
    client.wait_for_server(options()).unwrap();
    assert_eq!(client.call("add", [1, 2], options()).unwrap().value, Value::Int(3));
}

fn a_second_server_is_refused() {
    let service = Service::start();
    let refused = Server::options().serve(&service.address(), &Provider::new());
    assert!(
        matches!(refused, Err(ServeError::Bind(rpc_uds::BindError::Taken { pid: Some(_), .. }))),
        "{refused:?}"
    );
    assert_eq!(service.client().call("add", [1, 2], options()).unwrap().value, Value::Int(3));
}

fn stopping_ends_every_wait() {
    let mut service = Service::with("workers=1");
    let client = service.client();
    let running = client.submit("task_slow", ["door"], options()).unwrap();
    let pending = client.submit("task_slow", ["door"], options()).unwrap();
    until("the first runs", || client.task_status(running, options()).unwrap().progress.is_some());
    let waiting: Vec<_> = [running, pending]
        .map(|task| {
            let client = service.client();
            thread::spawn(move || client.wait_task(task, options()).map(|it| it.status))
        })
        .into();
    until("both wait", || stat(&client, "sessions") == 3);
    client.call("open", ["door"], options()).unwrap();
    service.peer.expect("stop", "drained true left 0");
    for waiting in waiting {
        // Told of the end, or cut off by it: never left.
        match waiting.join().unwrap() {
            Ok(status) => assert!(status.is_final()),
            Err(error) => {
                assert!(error.is_server_lost() || matches!(error, Error::Refused(_)), "{error:?}");
            }
        }
    }
    assert!(client.call("add", [1, 2], options()).unwrap_err().is_server_lost());
    assert!(!service.scratch.socket().exists());
}

fn what_does_not_end_is_named() {
    let scratch = Scratch::new();
    let stage: std::sync::Arc<crate::endpoints::Stage> = std::sync::Arc::default();
    let provider = crate::endpoints::provider(&stage);
    let server = Server::options().serve(&Address::at(scratch.socket()), &provider).unwrap();
    let client = Client::at(Address::at(scratch.socket()));
    let hanging = client.clone();
    let call = thread::spawn(move || hanging.call("insists", ["door"], options()).is_err());
    until("it is at the door", || {
        let counted = client.call("builds", ["waiting at door"], options()).unwrap();
        counted.value == Value::Int(1)
    });
    let stopped = server.stop(Duration::ZERO).unwrap();
    assert_eq!((stopped.is_drained, stopped.threads_left), (false, 1));
    let named: Vec<_> = stopped.unfinished.iter().map(|it| &*it.endpoint).collect();
    assert_eq!(named, ["insists"]);
    assert_eq!(stopped.unfinished[0].asker.pid, Some(std::process::id()));
    assert!(call.join().unwrap());
    let again = server.stop(Duration::ZERO).unwrap();
    assert_eq!((again.is_drained, again.threads_left), (false, 1));
    stage.open("door");
    let at_last = server.stop(Duration::from_secs(60)).unwrap();
    assert_eq!((at_last.is_drained, at_last.threads_left), (true, 0));
}

/// One server is stopped, and more and more is owed to it: another one's things are given back all the
/// same.
fn a_stopped_server_keeps_nobody_elses_things() {
    let (stopped, well) = (Service::start(), Service::start());
    let (owing, client) = (stopped.client(), well.client());
    let mut owed: Vec<_> =
        (0..20).map(|_| owing.call("managed_fresh", (), options()).unwrap()).collect();
    stopped.peer.signal(Signal::STOP);
    let is_given_back = || {
        drop(owed.pop());
        let held = client.call("managed_table", (), options()).unwrap();
        let object = held.handle.unwrap().object;
        drop(held);
        // What was left to be given back before is waited for until then.
        let soon = CallOptions::new().deadline(Instant::now() + Duration::from_secs(8));
        client.object_info(object, &soon).is_ok_and(|info| info.is_none())
    };
    // A machine that is busy for so long is not so twenty times in a row.
    assert!(std::iter::repeat_with(is_given_back).take(20).any(|it| it));
    stopped.peer.signal(Signal::CONT);
}

fn what_a_stopped_server_was_to_be_told_is_told_later() {
    let service = Service::start();
    let (client, onlooker) = (service.client(), service.client());
    let held: Vec<_> =
        (0..300).map(|_| client.call("managed_fresh", (), options()).unwrap()).collect();
    let object = held[0].handle.unwrap().object;
    service.peer.signal(Signal::STOP);
    // Until the socket takes nothing any more: what is sent is not read.
    let long = "x".repeat(50_000);
    for _ in 0..100 {
        client.call("echo", [&*long], Duration::from_millis(5)).unwrap_err();
    }
    drop(held);
    // In vain, as long as it is stopped.
    client.settle(Instant::now() + Duration::from_millis(300));
    service.peer.signal(Signal::CONT);
    until("all is given back", || stat(&onlooker, "leases") == 0);
    assert_eq!(refcount(&onlooker, object), None);
    until("no region is kept for nobody", || client.regions_held() == 0);
}

/// Runs `child` in a forked child; it must return true.
fn in_child(child: impl FnOnce() -> bool) {
    let (mut read, mut write) = std::io::pipe().expect("a pipe");
    let Some(pid) = sys::fork() else {
        let is_well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        let _ = write.write_all(&[u8::from(is_well.unwrap_or(false))]);
        sys::leave(0);
    };
    drop(write);
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let patience = Timespec { tv_sec: 120, tv_nsec: 0 };
    let mut polled = [PollFd::new(&read, PollFlags::IN)];
    if poll(&mut polled, Some(&patience)) == Ok(0) {
        // One that hangs is not to be waited for.
        kill_process(pid.expect("a pid"), Signal::KILL).expect("a child can be killed");
    }
    let mut said = [0];
    let told = std::io::Read::read_exact(&mut read, &mut said);
    waitpid(pid, WaitOptions::empty()).expect("a child is reaped");
    told.expect("the child tells");
    assert_eq!(said, [1], "in the child");
}

fn a_forked_child_has_no_client() {
    let service = Service::start();
    let client = service.client();
    let held = client.call("managed_table", (), options()).unwrap();
    let object = held.handle.unwrap().object;
    let (address, in_parent) = (service.address(), client.clone());
    in_child(move || {
        let refused = matches!(client.call("add", [1, 2], options()), Err(Error::Forked(_)))
            && matches!(client.ping(soon()), Err(Error::Forked(_)));
        let sum: f64 = held.value.as_tensor().unwrap().to_vec::<f64>().unwrap().iter().sum();
        drop((held, client));
        let own = Client::at(address);
        let answered = own.call("add", [1, 2], options()).is_ok();
        drop(own);
        refused && sum == 66.0 && answered
    });
    // The parent's copies were moved into the closure, too, and dropped there: its lease is gone by
    // its own doing, and the child gave nothing back before.
    in_parent.ping(soon()).unwrap();
    until("it is gone", || refcount(&in_parent, object).is_none());
}

/// Whatever comes, those who look at it stop.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Threads keep every lock of the service busy while others are forked off.
fn a_fork_in_the_middle_of_everything_hangs_no_child() {
    let service = Service::start();
    let client = service.client();
    let held = client.call("managed_table", (), options()).unwrap();
    let is_over = AtomicBool::new(false);
    let busy = |work: &dyn Fn()| {
        while !is_over.load(Ordering::Relaxed) {
            work();
        }
    };
    thread::scope(|scope| {
        let _over = Over(&is_over);
        scope.spawn(|| busy(&|| drop(held.value.as_tensor().unwrap().to_vec::<f64>().unwrap())));
        scope.spawn(|| busy(&|| drop(Arena::allocate_together(&[4096, 1 << 20]).unwrap())));
        scope.spawn(|| busy(&|| drop(client.call("fresh_table", (), options()).unwrap())));
        for _ in 0..100 {
            in_child(|| {
                let sum: f64 =
                    held.value.as_tensor().unwrap().to_vec::<f64>().unwrap().iter().sum();
                let made = Arena::new().allocate(4096).unwrap().view().is_ok();
                let own = service.client();
                let answer = own.call("fresh_table", (), options()).unwrap();
                let read = answer.value.as_tensor().unwrap().to_vec::<f64>().unwrap();
                drop(answer);
                own.settle(soon());
                own.close();
                sum == 66.0 && made && read.len() == 12
            });
        }
    });
    client.settle(soon());
}

fn a_forked_child_is_no_server() {
    let scratch = Scratch::new();
    let provider = Provider::new().with(Endpoint::new("one", |_: &_| Ok(1)));
    let server = Server::options().serve(&Address::at(scratch.socket()), &provider).unwrap();
    let client = Client::at(Address::at(scratch.socket()));
    client.ping(soon()).unwrap();
    let path = scratch.socket();
    let mut server = Some(server);
    in_child(|| {
        let refused = server.as_ref().unwrap().stop(Duration::ZERO).is_err();
        drop(server.take());
        refused && path.exists()
    });
    assert_eq!(client.call("one", (), options()).unwrap().value, Value::Int(1));
    let stopped = server.unwrap().stop(Duration::from_secs(60)).unwrap();
    assert!(stopped.is_drained && stopped.threads_left == 0);
    drop(client);
}

fn calls_within_the_servers_process() {
    let scratch = Scratch::new();
    let stage = std::sync::Arc::default();
    let provider = crate::endpoints::provider(&stage);
    let address = Address::at(scratch.socket());
    let server = Server::options().max_workers(1).serve(&address, &provider).unwrap();
    let never = || false;
    let local = |name: &str| server.invoke(name, &().into(), None, None, &never).unwrap();
    let table = local("managed_table");
    let client = Client::at(address);
    let answer = client.call("managed_table", (), options()).unwrap();
    let object = answer.handle.unwrap().object;
    assert_eq!(table.object(), Some(object));
    assert_eq!(refcount(&client, object), Some(2), "one local, one remote");
    let identity =
        |value: &Value| value.as_tensor().unwrap().storage().region().unwrap().identity();
    assert_eq!(identity(table.value()), identity(&answer.value), "no copy");
    drop(table);
    assert_eq!(refcount(&client, object), Some(1));
    let failed = server.invoke("fail", &["KeyError", "x"].into(), None, None, &never).unwrap_err();
    assert_eq!(failed.type_name, "KeyError");
    drop((answer, client));
    let _ = server.stop(Duration::from_secs(60)).unwrap();
}

fn clients_in_the_servers_process() {
    let scratch = Scratch::new();
    let address = Address::at(scratch.socket());
    let inner = address.clone();
    let provider = Provider::new().with(Endpoint::new("inner", |_: &_| Ok(7)).cache(false)).with(
        Endpoint::new("outer", move |_: &_| {
            let client = Client::at(inner.clone());
            Ok(client.call("inner", (), options())?.value)
        })
        .cache(false),
    );
    let server = Server::options().max_workers(1).serve(&address, &provider).unwrap();
    let client = Client::at(address);
    assert_eq!(client.call("outer", (), options()).unwrap().value, Value::Int(7));
    drop(client);
    let stopped = server.stop(Duration::from_secs(60)).unwrap();
    assert!(stopped.is_drained);
}
