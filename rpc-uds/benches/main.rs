//! What a call costs: answered at once or by a worker, by one client or many, beside a bare socket.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use rpc_uds::{Call, Client, Connection, Handler, Refusal, Request, Server};

const FAST: u16 = 1;
const WORKER: u16 = 2;

struct Echo;

impl Handler for Echo {
    type Session = ();

    fn connected(&self, _: &Connection) -> Result<(), Refusal> {
        Ok(())
    }

    fn fast(&self, _: &Arc<()>, call: Call) -> Option<Call> {
        if call.tag != FAST {
            return Some(call);
        }
        echo(call);
        None
    }

    fn call(&self, _: &Arc<()>, call: Call) {
        echo(call);
    }
}

fn echo(call: Call) {
    let Call { tag, body, descriptors, responder, .. } = call;
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    responder.reply(tag, &body, &descriptors).expect("the client waits");
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    alone(&mut criterion);
    together(&mut criterion);
    pipelined(&mut criterion);
    criterion.final_summary();
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("rpc-uds-bench-{}-{name}", std::process::id()))
}

fn connect(path: &PathBuf) -> Client {
    Client::options().connect(path, None).expect("the server is there")
}

/// One client, one call at a time.
fn alone(criterion: &mut Criterion) {
    let path = path("alone");
    let server = Server::options().serve(&path, Echo).expect("the path is free");
    let client = connect(&path);
    let mut group = criterion.benchmark_group("alone");
    bare(&mut group);
    for (name, tag) in [("answered at once", FAST), ("answered by a worker", WORKER)] {
        for bytes in [0, 100, 64 * 1024] {
            let body = vec![7; bytes];
            group.bench_function(BenchmarkId::new(name, bytes), |bencher| {
                bencher.iter(|| client.call(Request::new(tag, &body), None).expect("an answer"));
            });
        }
    }
    let deadline = Instant::now() + Duration::from_secs(3600);
    group.bench_function("answered at once, with a deadline", |bencher| {
        bencher.iter(|| client.call(Request::new(FAST, b""), deadline).expect("an answer"));
    });
    let given = [server_file()];
    let given = given.each_ref().map(AsFd::as_fd);
    group.bench_function("answered at once, with a descriptor", |bencher| {
        let request = Request::new(FAST, b"").with_descriptors(&given);
        bencher.iter(|| client.call(request, None).expect("an answer"));
    });
    group.bench_function("ping", |bencher| {
        bencher.iter(|| client.ping(None).expect("an answer"));
    });
    group.finish();
    drop((client, server));
}

fn server_file() -> std::fs::File {
    std::fs::File::open("/dev/null").expect("it is everywhere")
}

/// The floor: a thread that sends back what it reads, with a header's worth of bytes.
fn bare(group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>) {
    let path = path("bare");
    let listener = UnixListener::bind(&path).expect("the path is free");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client comes");
        let mut bytes = [0; 24];
        while stream.read_exact(&mut bytes).is_ok() {
            stream.write_all(&bytes).expect("the client waits");
        }
    });
    let mut stream = UnixStream::connect(&path).expect("the server is there");
    let mut bytes = [0; 24];
    group.bench_function("bare socket", |bencher| {
        bencher.iter(|| {
            stream.write_all(&bytes).expect("the server reads");
            stream.read_exact(&mut bytes).expect("an answer");
        });
    });
    drop(stream);
    server.join().expect("no panic");
    std::fs::remove_file(&path).expect("the path of the bare server");
}

/// Many clients at once, each with a connection of its own.
fn together(criterion: &mut Criterion) {
    let path = path("together");
    let server = Server::options().serve(&path, Echo).expect("the path is free");
    let mut group = criterion.benchmark_group("together");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    for clients in [1_u64, 4, 16, 32] {
        group.throughput(Throughput::Elements(clients));
        for (name, tag) in [("at once", FAST), ("by a worker", WORKER)] {
            group.bench_function(BenchmarkId::new(name, clients), |bencher| {
                bencher.iter_custom(|rounds| everybody(&path, clients, tag, rounds));
            });
        }
    }
    group.finish();
    drop(server);
}

/// How long it takes until each of `clients` has called `rounds` times.
fn everybody(path: &PathBuf, clients: u64, tag: u16, rounds: u64) -> Duration {
    let barrier = Arc::new(Barrier::new(clients as usize + 1));
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let (client, barrier) = (connect(path), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                for _ in 0..rounds {
                    client.call(Request::new(tag, b""), None).expect("an answer");
                }
            })
        })
        .collect();
    barrier.wait();
    let begun = Instant::now();
    for thread in threads {
        thread.join().expect("no panic");
    }
    begun.elapsed()
}

/// One connection, several threads: one of them reads for all.
fn pipelined(criterion: &mut Criterion) {
    let path = path("pipelined");
    let server = Server::options().serve(&path, Echo).expect("the path is free");
    let client = connect(&path);
    let mut group = criterion.benchmark_group("one connection");
    group.bench_function("32 requests begun, then waited for", |bencher| {
        bencher.iter(|| {
            let begin = |_| client.start(Request::new(FAST, b""), None).expect("sent");
            let calls: Vec<_> = (0..32).map(begin).collect();
            for call in calls {
                call.wait().expect("an answer");
            }
        });
    });
    group.finish();
    drop((client, server));
}
