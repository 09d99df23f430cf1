//! Whose memory a result is, how often it travels, and what is left of it.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use shared_tensor::DType;
use shared_tensor::service::cuda::{Chunk, ChunkId, ChunkLabel, Uuid};
use shared_tensor::service::{
    Access, Address, Call, Client, Endpoint, Layout, Output, Provider, Region, Rights, Server,
    Storage, Tensor, Value,
};

use crate::desk::{Scratch, Service, options, soon, stat, until};
use crate::harness::tests;

tests![
    cached_results_are_one_memory_and_private_to_write,
    a_store_into_one_result_reaches_no_later_one,
    fresh_results_alias_the_servers_memory,
    writable_results_alias_it_though_cached,
    a_gigabyte_moves_no_bytes_and_grows_nothing,
    what_is_dropped_is_unmapped_and_forgotten,
    results_of_many_calls_leave_nothing,
    who_drops_faster_than_is_given_back_waits_for_it,
    what_was_lent_read_only_is_not_lent_for_writing,
    a_view_apart_is_seen_by_nobody,
    a_gigabyte_is_a_few_hundred_bytes_on_the_socket,
    many_threads_of_one_client_agree_with_the_server,
    memory_of_another_allocator_stays_its_owners_while_it_is_used,
    closing_a_client_ends_no_lease_on_memory_of_another_allocator,
];

fn tensor(value: &Value) -> &Tensor {
    value.as_tensor().expect("a tensor")
}

fn identity(value: &Value) -> shared_tensor::shm::Identity {
    tensor(value).storage().region().and_then(Region::identity).expect("memory")
}

fn cached_results_are_one_memory_and_private_to_write() {
    let mut service = Service::start();
    let (one, mut other) = (service.client(), service.peer_client());
    let first = one.call("make_table", (), options()).unwrap().value;
    let second = one.call("make_table", (), options()).unwrap().value;
    assert_eq!(identity(&first), identity(&second));
    let region = tensor(&first).storage().region().unwrap();
    assert_eq!(
        (region.rights(), region.usual_access()),
        (Rights::Read, Access::PrivateCopyOnWrite)
    );
    assert!(tensor(&first).storage().view_as(Access::Shared).is_err());
    other.expect("hold make_table", "held");
    other.expect("sum", "66");
    tensor(&first).write(&[100.0; 12]).unwrap();
    assert_eq!(tensor(&second).to_vec::<f64>().unwrap(), [100.0; 12], "one mapping per process");
    other.expect("sum", "66");
    let third = service.client().call("make_table", (), options()).unwrap().value;
    drop((first, second, third));
    one.settle(soon());
    let fresh = one.call("make_table", (), options()).unwrap().value;
    assert_eq!(tensor(&fresh).to_vec::<f64>().unwrap()[11], 11.0, "nothing reached the server");
    assert_eq!(one.call("builds", ["make_table"], options()).unwrap().value, Value::Int(1));
    drop(fresh);
    service.peer.expect("stop", "drained true left 0");
}

fn a_store_into_one_result_reaches_no_later_one() {
    let service = Service::start();
    let client = service.client();
    let rows = |rows: i64| client.call("table_by_rows", [rows], options()).unwrap().value;
    let first = rows(1);
    tensor(&first).write(&[9.0; 3]).unwrap();
    for number in 2..40_i64 {
        let later = rows(number);
        let elements: Vec<f64> = (0..number * 3).map(|element| element as f64).collect();
        assert_eq!(tensor(&later).to_vec::<f64>().unwrap(), elements, "{number} rows");
        tensor(&later).write(&vec![7.0; elements.len()]).unwrap();
    }
    assert_eq!(tensor(&first).to_vec::<f64>().unwrap(), [9.0; 3]);
    // A second delivery of one result is the same view of it.
    assert_eq!(tensor(&rows(2)).to_vec::<f64>().unwrap(), [7.0; 6]);
    drop(first);
    client.settle(soon());
    assert_eq!(tensor(&rows(1)).to_vec::<f64>().unwrap(), [0.0, 1.0, 2.0], "as the server has it");
}

fn fresh_results_alias_the_servers_memory() {
    let service = Service::start();
    let client = service.client();
    let table = client.call("fresh_table", (), options()).unwrap().value;
    // The server keeps what it is given, and gives it to others.
    client.call("keep", [table.clone()], options()).unwrap();
    tensor(&table).write(&[5.0; 12]).unwrap();
    let doubled = client.call("double_in_place", [table.clone()], options()).unwrap();
    assert_eq!(doubled.value, Value::None);
    assert_eq!(tensor(&table).to_vec::<f64>().unwrap(), [10.0; 12]);
}

fn writable_results_alias_it_though_cached() {
    let service = Service::start();
    let mut other = service.peer_client();
    let client = service.client();
    other.expect("hold writable_table", "held");
    other.expect("sum", "66");
    let table = client.call("writable_table", (), options()).unwrap().value;
    tensor(&table).write(&[2.0; 12]).unwrap();
    other.expect("sum", "24");
}

fn a_gigabyte_moves_no_bytes_and_grows_nothing() {
    let mut service = Service::start();
    let client = service.client();
    let bytes = 1_i64 << 30;
    let first = client.call("zeros", [bytes], options()).unwrap().value;
    assert_eq!(tensor(&first).elements(), 1 << 30);
    let region = tensor(&first).storage().region().unwrap().clone();
    let inode = region.identity().expect("a file");
    drop(region);
    client.ping(soon()).unwrap();
    let before = service.peer.ask("memory");
    for _ in 0..10 {
        let again = client.call("zeros", [bytes], options()).unwrap().value;
        assert_eq!(identity(&again), inode);
    }
    assert_eq!(service.peer.ask("memory"), before, "a second call grows nothing");
    // What went over the socket: a message that names the region.
    let info = client.server_info(options()).unwrap();
    assert_eq!(info.get("regions_held"), Some(&Value::Int(1)));
    assert_eq!(client.regions_held(), 1);
}

fn what_is_dropped_is_unmapped_and_forgotten() {
    let service = Service::start();
    let client = service.client();
    let (chunks, maps) = shared_tensor::service::accounting();
    let table = client.call("make_table", (), options()).unwrap();
    assert_eq!(tensor(&table.value).to_vec::<f64>().unwrap()[3], 3.0);
    // The second call confirms what the first has brought.
    let again = client.call("make_table", (), options()).unwrap();
    assert_eq!(shared_tensor::service::accounting(), (chunks + 1, maps + 1));
    assert_eq!(stat(&client, "leases"), 2);
    drop((table, again));
    client.settle(soon());
    assert_eq!(shared_tensor::service::accounting(), (chunks, maps));
    assert_eq!(client.regions_held(), 0);
    assert_eq!(stat(&client, "leases"), 0);
    let info = client.server_info(options()).unwrap();
    assert_eq!(info.get("regions_held"), Some(&Value::Int(0)), "the server knows it");
}

fn results_of_many_calls_leave_nothing() {
    let mut service = Service::start();
    let client = service.client();
    let step = || {
        let fresh = client.call("fresh_table", (), options()).unwrap();
        let kept = client.call("make_table", (), options()).unwrap();
        let managed = client.call("managed_fresh", (), options()).unwrap();
        assert_eq!(tensor(&fresh.value).to_vec::<f64>().unwrap()[1], 1.0);
        drop((fresh, kept, managed));
    };
    (0..20).for_each(|_| step());
    client.settle(soon());
    let (ours, theirs) = (shared_tensor::service::accounting(), service.peer.ask("memory"));
    (0..500).for_each(|_| step());
    client.settle(soon());
    assert_eq!(shared_tensor::service::accounting(), ours);
    let count = |text: &str| text.split(' ').filter_map(|it| it.parse::<i64>().ok()).sum::<i64>();
    // The arenas of the server go on to their next regions now and then.
    until("the server has let go of it, too", || {
        count(&service.peer.ask("memory")) - count(&theirs) <= 12
    });
    until("leases are given back", || stat(&client, "leases") == 0);
}

fn who_drops_faster_than_is_given_back_waits_for_it() {
    let service = Service::start();
    let client = service.client();
    let most = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let drop_one = |_| {
                        drop(client.call("zeros_alone", [600_000], options()).unwrap());
                        client.regions_held()
                    };
                    (0..1000).map(drop_one).max().unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    });
    // What one call brings on top, for each thread, and what is kept while the server is busy.
    assert!(most <= 300, "{most} regions at once");
    client.settle(soon());
    assert_eq!(client.regions_held(), 0);
}

fn what_was_lent_read_only_is_not_lent_for_writing() {
    let service = Service::start();
    let client = service.client();
    let table = client.call("make_table", (), options()).unwrap().value;
    // The server gets its own memory back, and lends it to whoever asks for it: as before.
    let back = client.call("echo", [table.clone()], options()).unwrap().value;
    assert_eq!(identity(&back), identity(&table));
    assert_eq!(tensor(&back).storage().region().unwrap().rights(), Rights::Read);
    assert_eq!(tensor(&back).to_vec::<f64>().unwrap()[2], 2.0);
}

fn a_view_apart_is_seen_by_nobody() {
    let service = Service::start();
    let client = service.client();
    let table = client.call("make_table", (), options()).unwrap().value;
    let apart = tensor(&table).storage().view_apart().unwrap();
    apart.bytes().unwrap().write_from(0, &7.0_f64.to_ne_bytes()).unwrap();
    assert_eq!(tensor(&table).to_vec::<f64>().unwrap()[0], 0.0);
}

fn a_gigabyte_is_a_few_hundred_bytes_on_the_socket() {
    let scratch = Scratch::new();
    let address = Address::at(scratch.socket());
    let provider = crate::endpoints::provider(&Arc::default());
    let server = Server::options().serve(&address, &provider).unwrap();
    let client = Client::at(address);
    let sent = || {
        let stats = server.socket_stats().unwrap();
        stats.bytes_in + stats.bytes_out
    };
    for _ in 0..3 {
        let before = sent();
        let zeros = client.call("zeros", [1_i64 << 30], options()).unwrap().value;
        assert_eq!(tensor(&zeros).storage().bytes(), 1 << 30);
        let bytes = sent() - before;
        assert!(bytes < 64 << 10, "{bytes} bytes");
    }
    drop(client);
    let _ = server.stop(Duration::from_secs(60)).unwrap();
}

fn many_threads_of_one_client_agree_with_the_server() {
    let service = Service::with("workers=3");
    let client = service.client();
    let endpoints = ["make_table", "fresh_table", "writable_table", "managed_table", "zeros"];
    let threads: Vec<_> = (0..8_usize)
        .map(|thread| {
            let client = client.clone();
            std::thread::spawn(move || {
                let mut kept = Vec::new();
                for round in 0..300_usize {
                    let endpoint = endpoints[(thread + round) % endpoints.len()];
                    let arguments = if endpoint == "zeros" {
                        vec![5000 + i64::from(round % 3 == 0)]
                    } else {
                        vec![]
                    };
                    let answer = client.call(endpoint, arguments, options()).unwrap();
                    assert!(tensor(&answer.value).elements() > 0);
                    tensor(&answer.value).storage().view().unwrap();
                    kept.push(answer);
                    // Some live longer than others.
                    if round % 7 == thread % 7 {
                        kept.clear();
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    // What was on its way when it was asked for is asked for again.
    until("the server holds nothing for it", || {
        client.settle(soon());
        let info = client.server_info(options()).unwrap();
        info.get("regions_held") == Some(&Value::Int(0)) && client.regions_held() == 0
    });
    assert_eq!(stat(&client, "leases"), 0);
}

/// Says when it is let go of.
struct Owner(mpsc::Sender<&'static str>);

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.send("let go of");
    }
}

/// Memory on a GPU, named and never looked at: none is needed.
fn borrowed() -> Tensor {
    const BYTES: u64 = 2 << 20;
    let label = ChunkLabel::new(ChunkId::from_bytes([1; 16]), Uuid::from_bytes([7; 16]), BYTES);
    let descriptor = memfd_create("no memory of a GPU", MemfdFlags::CLOEXEC).unwrap();
    let region = Region::of_chunk(Chunk::from_parts(label, descriptor));
    let storage = Storage::new(region, 0, BYTES).unwrap();
    Tensor::new(storage, Layout::contiguous(DType::U8, [BYTES])).unwrap()
}

/// Gives such memory, and tells when its owner is let go of.
fn lender(told: mpsc::Sender<&'static str>) -> Provider {
    Provider::new()
        .with(
            Endpoint::new("borrowed", move |_: &Call| {
                let owner = Owner(told.clone());
                Ok(Output::from(Value::from(borrowed())).with_native(Arc::new(owner)))
            })
            .cache(false),
        )
        .with(Endpoint::new("nothing", |_: &Call| Ok(Value::None)).cache(false))
}

/// What is in use keeps its connection: kernels may be queued that read it.
fn closing_a_client_ends_no_lease_on_memory_of_another_allocator() {
    let scratch = Scratch::new();
    let (told, ends) = mpsc::channel();
    let address = Address::at(scratch.socket());
    let server = Server::options().serve(&address, &lender(told)).unwrap();
    let (client, other) = (Client::at(address.clone()), Client::at(address));
    let value = client.call("borrowed", (), options()).unwrap().value;
    client.close();
    drop(client);
    // The server has answered something since, and would have noticed an end.
    for _ in 0..100 {
        other.call("nothing", (), options()).unwrap();
    }
    assert_eq!((stat(&other, "leases"), stat(&other, "sessions")), (1, 2));
    assert_eq!(ends.try_recv(), Err(mpsc::TryRecvError::Empty));
    drop(value);
    assert_eq!(ends.recv(), Ok("let go of"));
    until("its lease is over", || stat(&other, "leases") == 0);
    until("so is its connection", || stat(&other, "sessions") == 1);
    assert!(server.stop(Duration::from_secs(120)).unwrap().is_drained);
}

fn memory_of_another_allocator_stays_its_owners_while_it_is_used() {
    let scratch = Scratch::new();
    let (told, ends) = mpsc::channel();
    let provider = lender(told);
    let address = Address::at(scratch.socket());
    let server = Server::options().max_workers(1).serve(&address, &provider).unwrap();
    let client = Client::at(address);
    let value = client.call("borrowed", (), options()).unwrap().value;
    // The one worker is done with the first call when it has answered the next.
    client.call("nothing", (), options()).unwrap();
    assert_eq!(ends.try_recv(), Err(mpsc::TryRecvError::Empty));
    assert_eq!((stat(&client, "leases"), stat(&client, "objects")), (1, 0));
    drop(value);
    assert_eq!(ends.recv(), Ok("let go of"));
    until("its lease is over", || stat(&client, "leases") == 0);
    assert!(server.stop(Duration::from_secs(120)).unwrap().is_drained);
}
