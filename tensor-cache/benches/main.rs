//! What finding, building and waiting cost, alone and with others.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use criterion::Criterion;
use tensor_cache::{Built, Cache, Device, Lookup, Options, Request, Session};

type Numbers = Cache<u64, u64, String>;

const DEVICE: Device = Device(0);

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    hits(&mut criterion);
    misses(&mut criterion);
    contended(&mut criterion);
    delivered(&mut criterion);
    criterion.final_summary();
}

fn filled(entries: u64) -> (Numbers, Session<u64, u64, String>) {
    let cache = Numbers::new(&Options::new()).expect("a thread");
    let session = cache.open_session();
    for key in 0..entries {
        fill(&session, key);
    }
    (cache, session)
}

fn fill(session: &Session<u64, u64, String>, key: u64) {
    let built = Built::new(key).charge(DEVICE, 1);
    drop(session.get_or_build(&Request::new(key), |_| Ok(built)).expect("there is room"));
}

fn hits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hit");
    // The floor: what a map behind a lock does that only finds, counts nobody's use and forgets none.
    let bare: Mutex<HashMap<u64, Arc<u64>>> =
        Mutex::new((0..10_000).map(|key| (key, Arc::new(key))).collect());
    group.bench_function("bare Mutex<HashMap>, 10000 entries", |bencher| {
        let find = || Some(Arc::clone(bare.lock().ok()?.get(&black_box(5000))?));
        bencher.iter(|| black_box(find()).is_some());
    });
    for entries in [1, 10_000] {
        let (_cache, session) = filled(entries);
        let request = Request::new(entries / 2);
        group.bench_function(format!("lease and release, {entries} entries"), |bencher| {
            bencher.iter(|| black_box(session.lookup(&request)).is_ok());
        });
    }
    let (_cache, session) = filled(1);
    let request = Request::new(0);
    let leases: Vec<_> = (0..1000).map(|_| session.lookup(&request)).collect();
    group.bench_function("lease and release, 1000 leases in the session", |bencher| {
        bencher.iter(|| black_box(session.lookup(&request)).is_ok());
    });
    drop(leases);
    group.finish();
}

fn misses(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("miss");
    let (cache, session) = filled(0);
    group.bench_function("build and invalidate", |bencher| {
        bencher.iter(|| {
            fill(&session, 7);
            cache.invalidate(&7)
        });
    });
    for entries in [100, 1000] {
        let (cache, session) = filled(entries);
        cache.set_budget(DEVICE, Some(entries));
        let mut key = entries;
        group.bench_function(format!("build and evict, {entries} entries"), |bencher| {
            bencher.iter(|| {
                key += 1;
                fill(&session, key);
            });
        });
    }
    group.finish();
}

/// Eight threads that do nothing but find one value; the time is that of one hit of one of them.
fn contended(criterion: &mut Criterion) {
    const THREADS: u32 = 8;
    let (cache, _session) = filled(1);
    let mut group = criterion.benchmark_group("contended");
    group.bench_function("hit, 8 threads", |bencher| {
        bencher.iter_custom(|rounds| {
            let start = Barrier::new(THREADS as usize);
            let hammer = || {
                let session = cache.open_session();
                let request = Request::new(0);
                start.wait();
                let begun = Instant::now();
                for _ in 0..rounds {
                    drop(black_box(session.lookup(&request)));
                }
                begun.elapsed()
            };
            let total: Duration = thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(hammer)).collect();
                threads.into_iter().map(|thread| thread.join().expect("hits do not fail")).sum()
            });
            total / THREADS
        });
    });
    group.finish();
}

/// One build that many have joined.
fn delivered(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("delivered");
    for joiners in [1, 64] {
        let (cache, session) = filled(0);
        let request = Request::new(1);
        group.bench_function(format!("join, finish, collect, {joiners} joined"), |bencher| {
            bencher.iter(|| {
                let Ok(Lookup::Build(token, own)) = session.lookup(&request) else {
                    panic!("nothing is there")
                };
                let joined: Vec<_> = (0..joiners).map(|_| session.lookup(&request)).collect();
                assert!(token.finish(Built::new(1)).is_ok());
                for joined in joined {
                    if let Ok(Lookup::Join(pending)) = joined {
                        drop(pending.wait());
                    }
                }
                drop(own.wait());
                cache.invalidate(&1)
            });
        });
    }
    group.finish();
}
