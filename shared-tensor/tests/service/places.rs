//! Where servers and clients meet.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use shared_tensor::DType;
use shared_tensor::service::{
    Address, Arguments, Call, Client, Code, Device, Endpoint, Error, Layout, MESSAGE_BYTES_LEAST,
    PlaceError, Provider, Server, Tensor, Value,
};

use crate::desk::{Scratch, options, soon};
use crate::harness::{Outcome, Skip, tests};

tests![
    the_links_of_the_contract_lead_to_the_socket,
    a_link_is_left_to_a_living_server_and_taken_from_a_dead_one,
    servers_for_two_devices_with_one_number_both_work,
    servers_for_other_gpus_are_named_to_who_finds_none,
    host_memory_is_not_lent_as_that_of_a_gpu_unasked,
    messages_without_room_are_refused,
    links_into_others_hands_are_not_followed,
    a_link_of_another_user_keeps_nobody_from_waiting,
    a_file_where_the_socket_should_be_is_told_at_once,
    an_interruption_counts_whatever_is_looked_for,
];

/// Changes the runtime directory of this process for a while. Tests run one at a time.
struct Runtime(Scratch);

impl Runtime {
    fn new() -> Self {
        let runtime = Self(Scratch::new());
        fs::set_permissions(runtime.0.path(), fs::Permissions::from_mode(0o700)).unwrap();
        runtime
    }

    /// Acts with this directory as the runtime directory.
    fn within<R>(&self, act: impl FnOnce() -> R) -> R {
        crate::sys::set_variable("SHARED_TENSOR_RUNTIME_DIR", Some(self.0.path()));
        let result = act();
        crate::sys::set_variable("SHARED_TENSOR_RUNTIME_DIR", None);
        result
    }

    /// Nothing is left but the lock of the links.
    fn end(self) {
        let lock = self.0.path().join("signposts.lock");
        fs::remove_file(lock).unwrap();
        assert_eq!(fs::read_dir(self.0.path()).unwrap().count(), 0);
    }
}

fn serve(address: &Address, name: &'static str) -> Server {
    let provider = Provider::new().with(Endpoint::new("name", move |_: &_| Ok(name)));
    Server::options().host_memory_for_gpu(true).serve(address, &provider).unwrap()
}

fn name(client: &Client) -> String {
    client.call("name", (), options()).unwrap().value.as_str().unwrap().to_owned()
}

fn a_file_where_the_socket_should_be_is_told_at_once() {
    let scratch = Scratch::new();
    fs::write(scratch.socket(), "precious").unwrap();
    let client = Client::at(Address::at(scratch.socket()));
    // Patience would last a minute, and these options a thousand seconds.
    let refused = client.call("name", (), options()).unwrap_err();
    assert!(matches!(refused, Error::Connect(_)), "{refused:?}");
    assert!(refused.to_string().contains("is a regular file, not a socket"), "{refused}");
    assert_eq!(fs::read(scratch.socket()).unwrap(), b"precious");
}

fn stop(server: &Server) {
    let _ = server.stop(Duration::from_secs(60)).unwrap();
}

fn the_links_of_the_contract_lead_to_the_socket() {
    let (runtime, scratch) = (Runtime::new(), Scratch::new());
    let address = Address::new(scratch.path().join("seed"), Device::Cpu);
    let link = scratch.path().join("seed-cpu.sock");
    let server = runtime.within(|| serve(&address, "one"));
    assert_eq!(server.signpost().as_deref(), Some(&*link));
    assert_eq!(fs::read_link(&link).unwrap(), server.path());
    assert!(server.path().starts_with(runtime.0.path()));
    assert_eq!(fs::metadata(server.path()).unwrap().mode() & 0o777, 0o600);
    let client = Client::at(address.clone());
    runtime.within(|| client.connect(soon())).unwrap();
    assert_eq!(name(&client), "one");
    // With another runtime directory the link is what leads there.
    let elsewhere = Runtime::new();
    let client = Client::at(address.clone());
    elsewhere.within(|| client.connect(soon())).unwrap();
    assert_eq!(name(&client), "one");
    stop(&server);
    assert!(fs::symlink_metadata(&link).is_err(), "taken away by its owner");
    drop(client);
    runtime.end();
    drop(elsewhere);
}

fn a_link_is_left_to_a_living_server_and_taken_from_a_dead_one() {
    let (one, other, scratch) = (Runtime::new(), Runtime::new(), Scratch::new());
    let address = Address::new(scratch.path().join("seed"), Device::Cpu);
    let link = scratch.path().join("seed-cpu.sock");
    symlink("/nowhere/at/all", &link).unwrap();
    let first = one.within(|| serve(&address, "first"));
    assert_eq!(fs::read_link(&link).unwrap(), first.path(), "what led nowhere was replaced");
    let second = other.within(|| serve(&address, "second"));
    assert_eq!(second.signpost(), None);
    assert_eq!(fs::read_link(&link).unwrap(), first.path());
    stop(&second);
    assert_eq!(fs::read_link(&link).unwrap(), first.path(), "not its own");
    stop(&first);
    fs::write(&link, "a file").unwrap();
    let third = one.within(|| serve(&address, "third"));
    assert_eq!(third.signpost(), None);
    stop(&third);
    assert_eq!(fs::read(&link).unwrap(), b"a file");
    fs::remove_file(&link).unwrap();
    one.end();
    other.end();
}

fn servers_for_two_devices_with_one_number_both_work() {
    let (runtime, scratch) = (Runtime::new(), Scratch::new());
    let device = |uuid: &str| Device::Gpu { uuid: uuid.to_owned(), index: 0 };
    let address = |uuid: &str| Address::new(scratch.path().join("seed"), device(uuid));
    let (one, other) = runtime
        .within(|| (serve(&address("GPU-1111"), "one"), serve(&address("GPU-2222"), "other")));
    assert_ne!(one.path(), other.path());
    assert!(one.signpost().is_some() && other.signpost().is_none());
    let clients = ["GPU-1111", "GPU-2222"].map(|uuid| Client::at(address(uuid)));
    runtime.within(|| clients.iter().for_each(|client| client.connect(soon()).unwrap()));
    assert_eq!(clients.each_ref().map(name), ["one", "other"]);
    // Whichever is there.
    let any = Client::options()
        .or_at(address("GPU-2222"))
        .at(Address::new(scratch.path().join("other base"), Device::Cpu));
    runtime.within(|| any.connect(soon())).unwrap();
    assert_eq!(name(&any), "other");
    drop((clients, any));
    stop(&one);
    stop(&other);
    runtime.end();
}

fn servers_for_other_gpus_are_named_to_who_finds_none() {
    let (runtime, scratch) = (Runtime::new(), Scratch::new());
    let device = |uuid: &str| Device::Gpu { uuid: uuid.to_owned(), index: 0 };
    let address = |uuid: &str| Address::new(scratch.path().join("seed"), device(uuid));
    let said = || {
        let client = Client::options().patience(Duration::ZERO).at(address("GPU-3333"));
        runtime.within(|| client.connect(soon())).unwrap_err()
    };
    let hidden = runtime.within(|| serve(&address("GPU-1111"), "hidden"));
    let of_host = Address::new(scratch.path().join("seed"), Device::Cpu);
    let others = [of_host, Address::new(scratch.path().join("other"), device("GPU-4444"))];
    let others = runtime.within(|| others.map(|it| serve(&it, "another")));
    // Nobody listens at this one.
    let dead = runtime.within(|| address("GPU-2222").socket()).unwrap();
    drop(UnixListener::bind(&dead).unwrap());
    let absent = said();
    let Error::Absent { others: found, .. } = &absent else { panic!("{absent:?}") };
    assert_eq!(found, &[hidden.path()]);
    assert!(absent.to_string().contains(&hidden.path().display().to_string()), "{absent}");
    assert!(absent.to_string().contains("hidden from this process"), "{absent}");
    // Whose driver tells no identity has the number.
    let unknown = Address::new(scratch.path().join("seed"), Device::UnknownGpu { index: 0 });
    let client = Client::at(unknown);
    runtime.within(|| client.connect(soon())).unwrap();
    assert_eq!(name(&client), "hidden");
    drop(client);
    stop(&hidden);
    let absent = said().to_string();
    assert!(absent.ends_with("start one, or check the path"), "{absent}");
    fs::remove_file(dead).unwrap();
    others.iter().for_each(stop);
    runtime.end();
}

fn host_memory_is_not_lent_as_that_of_a_gpu_unasked() {
    let scratch = Scratch::new();
    let device = Device::Gpu { uuid: "GPU-1111".to_owned(), index: 0 };
    let address = Address::new(scratch.path().join("seed"), device);
    let made = |call: &Call| {
        let storage = call.arena().allocate(4).expect("memory");
        let tensor = Tensor::new(storage, Layout::contiguous(DType::U8, [4])).expect("a tensor");
        Ok(Value::List(vec![Value::Tensor(tensor)]))
    };
    let provider = Provider::new()
        .with(Endpoint::new("made", made))
        .with(Endpoint::new("number", |_: &_| Ok(7)));
    let server = Server::options().serve(&address, &provider).unwrap();
    let client = Client::at(address.clone());
    let refused = client.call("made", Arguments::none(), options()).unwrap_err();
    assert_eq!(refused.code(), Some(Code::Capability), "{refused}");
    assert!(refused.to_string().contains("this server is for GPU-1111; allocate it there"));
    assert_eq!(client.call("number", Arguments::none(), options()).unwrap().value, Value::Int(7));
    drop(client);
    stop(&server);
    let asked = Server::options().host_memory_for_gpu(true);
    let server = asked.serve(&address, &provider).unwrap();
    let client = Client::at(address);
    assert!(client.call("made", Arguments::none(), options()).is_ok());
    drop(client);
    stop(&server);
}

fn messages_without_room_are_refused() {
    let scratch = Scratch::new();
    let address = Address::at(scratch.socket());
    for bytes in [0, MESSAGE_BYTES_LEAST - 1] {
        let options = Server::options().message_bytes_max(bytes);
        let refused = options.serve(&address, &Provider::new()).unwrap_err();
        let said = format!("messages of at most {bytes} bytes are too short: allow 32768 at least");
        assert_eq!(refused.to_string(), said);
        let client = Client::options().message_bytes_max(bytes).at(address.clone());
        assert_eq!(client.connect(soon()).unwrap_err().to_string(), said);
    }
    let name = "n".repeat(1000);
    let provider = Provider::new().with(Endpoint::new(&*name, |_: &_| Ok(1)));
    let least = Server::options().message_bytes_max(MESSAGE_BYTES_LEAST);
    let server = least.serve(&address, &provider).unwrap();
    let client = Client::options().message_bytes_max(MESSAGE_BYTES_LEAST).at(address);
    assert_eq!(client.call(&name, (), options()).unwrap().value, 1.into());
    stop(&server);
}

fn links_into_others_hands_are_not_followed() {
    let (runtime, scratch) = (Runtime::new(), Scratch::new());
    let open = scratch.path().join("server-open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    let target = open.join("socket");
    let server = serve(&Address::at(&target), "squatter");
    let link = scratch.path().join("seed-cpu.sock");
    symlink(&target, &link).unwrap();
    let client = Client::at(Address::new(scratch.path().join("seed"), Device::Cpu));
    let reason = || match runtime.within(|| client.connect(soon())) {
        Err(Error::Place(PlaceError::Untrusted { reason, .. })) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(), "is in a directory that others may enter");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o700)).unwrap();
    runtime.within(|| client.connect(soon())).unwrap();
    client.close();
    let point = |target: &Path| {
        fs::remove_file(&link).unwrap();
        symlink(target, &link).unwrap();
    };
    let client = Client::at(Address::new(scratch.path().join("seed"), Device::Cpu));
    let reason = || match runtime.within(|| client.connect(soon())) {
        Err(Error::Place(PlaceError::Untrusted { reason, .. })) => reason,
        other => panic!("{other:?}"),
    };
    fs::write(open.join("file"), "").unwrap();
    point(&open.join("file"));
    assert_eq!(reason(), "is not a socket of this user");
    point(Path::new("relative"));
    assert_eq!(reason(), "is not a whole path");
    fs::remove_file(&link).unwrap();
    stop(&server);
}

fn a_link_of_another_user_keeps_nobody_from_waiting() -> Outcome {
    let (runtime, scratch) = (Runtime::new(), Scratch::new());
    let link = scratch.path().join("seed-cpu.sock");
    symlink("/nonexistent/socket", &link).unwrap();
    if std::os::unix::fs::lchown(&link, Some(65_534), None).is_err() {
        drop(fs::remove_file(&link));
        return Err(Skip("only the superuser can make a link somebody else's".to_owned()));
    }
    let address = Address::new(scratch.path().join("seed"), Device::Cpu);
    let server = runtime.within(|| {
        let client = Client::at(address.clone());
        let at_once = client.connect(std::time::Instant::now());
        assert!(
            matches!(at_once, Err(Error::Place(PlaceError::Untrusted { .. }))),
            "nobody is there: {at_once:?}"
        );
        std::thread::scope(|scope| {
            let (tell, met) = mpsc::channel();
            let waiting = scope.spawn(|| {
                // Asked whenever it has found nobody.
                let goes_on = move || tell.send(()).is_err();
                let options = options().interrupted(&goes_on);
                let answer = client.call_with("name", &().into(), options).unwrap();
                answer.value.as_str().unwrap().to_owned()
            });
            met.recv().unwrap();
            let server = serve(&address, "own");
            assert_eq!(waiting.join().unwrap(), "own");
            server
        })
    });
    assert_eq!(server.signpost(), None, "the link is left alone");
    stop(&server);
    drop(server);
    fs::remove_file(&link).unwrap();
    runtime.end();
    Ok(())
}

/// Whoever is asked says so once: of a signal it may be known only once.
fn an_interruption_counts_whatever_is_looked_for() {
    let scratch = Scratch::new();
    let [wanted, other] = ["wanted", "other"].map(|name| Address::at(scratch.path().join(name)));
    let client = Client::options().not_at(other, "not that one").at(wanted);
    for when in 0..20 {
        let asked = AtomicU32::new(0);
        let is_interrupted = || asked.fetch_add(1, Ordering::Relaxed) == when;
        let told = client.wait_for_server(options().interrupted(&is_interrupted));
        assert!(matches!(told, Err(Error::Interrupted)), "{when}: {told:?}");
        assert_eq!(asked.into_inner(), when + 1);
    }
}
