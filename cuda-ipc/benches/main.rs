//! What opening costs, by bytes and by chunks, on the first device; nothing without one, unless
//! `ST_GPU=require` says that there is one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use cuda_ipc::{Access, Chunk, Copies, Device, Mapping, Words, flush, probe, set_linger};

#[path = "../tests/it/calls.rs"]
mod calls;

use calls::Calls;

fn device() -> Option<Device> {
    let device = probe().map_err(|error| error.to_string());
    let device = device.and_then(|it| it.device_at(0).map_err(|error| error.to_string()));
    let is_required = std::env::var_os("ST_GPU").is_some_and(|it| it == "require");
    match device {
        Err(reason) if is_required => panic!("ST_GPU=require, and {reason}"),
        device => device.ok(),
    }
}

/// What was called between the timers, on the device.
fn note(name: &str, device: &Device, timed: &Calls) {
    calls::on(std::slice::from_ref(device));
    calls::note("bench", name, timed);
}

fn opening(criterion: &mut Criterion) {
    let Some(device) = device() else { return };
    let context = device.context().expect("a context");
    set_linger(Duration::ZERO);
    let mut group = criterion.benchmark_group("open");
    for (count, bytes) in [(1, 2 << 20), (1, 1 << 30), (1, 16 << 30), (16, 1 << 30), (120, 2 << 20)]
    {
        // A smaller device measures what it has room for.
        if count * bytes > device.memory_bytes() / 2 {
            continue;
        }
        let chunks: Vec<Chunk> =
            (0..count).map(|_| Chunk::create(&device, bytes).expect("memory")).collect();
        let all: Vec<&Chunk> = chunks.iter().collect();
        let what = format!("{count} x {} MiB", bytes >> 20);
        group.throughput(Throughput::Elements(count));
        let mut timed = Calls::default();
        group.bench_function(BenchmarkId::new("first", &what), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut taken = Duration::ZERO;
                for _ in 0..rounds {
                    let before = Calls::now();
                    let begun = Instant::now();
                    let mapping = Mapping::open(&context, &all, Access::Read).expect("mapped");
                    taken += begun.elapsed();
                    timed.add(&Calls::now().since(&before));
                    drop(black_box(mapping));
                    flush(Instant::now() + Duration::from_secs(60));
                }
                taken
            });
        });
        note(&format!("open/first/{what}"), &device, &timed);
        let kept = Mapping::open(&context, &all, Access::Read).expect("mapped");
        let before = Calls::now();
        group.bench_function(BenchmarkId::new("again", &what), |bencher| {
            bencher.iter(|| Mapping::open(&context, &all, Access::Read).expect("mapped"));
        });
        note(&format!("open/again/{what}"), &device, &Calls::now().since(&before));
        drop(kept);
        flush(Instant::now() + Duration::from_secs(60));
    }
    group.finish();
}

fn ordering(criterion: &mut Criterion) {
    let Some(device) = device() else { return };
    let context = device.context().expect("a context");
    let words = Words::create(2).expect("memory").attach(&context).expect("attached");
    let copies = Copies::new(&context).expect("a stream");
    let mut value = 0;
    let name = "write and wait, queued";
    let before = Calls::now();
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| {
            value += 1;
            words.write(copies.stream(), 0, value).expect("queued");
            words.wait(copies.stream(), 0, value).expect("queued");
        });
    });
    let timed = Calls::now().since(&before);
    copies.synchronize().expect("done");
    calls::ordered_by(words.ordering());
    note(name, &device, &timed);
}

criterion_group!(benches, opening, ordering);
criterion_main!(benches);
