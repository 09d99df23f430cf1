//! What opening costs, by bytes and by chunks, on the first device; nothing without one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use cuda_ipc::{Access, Chunk, Copies, Mapping, Words, flush, probe, set_linger};

fn opening(criterion: &mut Criterion) {
    let Ok(driver) = probe() else { return };
    let Ok(device) = driver.device_at(0) else { return };
    let context = device.context().expect("a context");
    set_linger(Duration::ZERO);
    let mut group = criterion.benchmark_group("open");
    for (count, bytes) in [(1, 2 << 20), (1, 1 << 30), (1, 16 << 30), (16, 1 << 30), (120, 2 << 20)]
    {
        let chunks: Vec<Chunk> =
            (0..count).map(|_| Chunk::create(&device, bytes).expect("memory")).collect();
        let all: Vec<&Chunk> = chunks.iter().collect();
        let name = BenchmarkId::new("first", format!("{count} x {} MiB", bytes >> 20));
        group.throughput(Throughput::Elements(count));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut taken = Duration::ZERO;
                for _ in 0..rounds {
                    let begun = Instant::now();
                    let mapping = Mapping::open(&context, &all, Access::Read).expect("mapped");
                    taken += begun.elapsed();
                    drop(black_box(mapping));
                    flush(Instant::now() + Duration::from_secs(60));
                }
                taken
            });
        });
        let kept = Mapping::open(&context, &all, Access::Read).expect("mapped");
        let name = BenchmarkId::new("again", format!("{count} x {} MiB", bytes >> 20));
        group.bench_function(name, |bencher| {
            bencher.iter(|| Mapping::open(&context, &all, Access::Read).expect("mapped"));
        });
        drop(kept);
        flush(Instant::now() + Duration::from_secs(60));
    }
    group.finish();
}

fn ordering(criterion: &mut Criterion) {
    let Ok(driver) = probe() else { return };
    let Ok(device) = driver.device_at(0) else { return };
    let context = device.context().expect("a context");
    let words = Words::create(2).expect("memory").attach(&context).expect("attached");
    let copies = Copies::new(&context).expect("a stream");
    let mut value = 0;
    criterion.bench_function("write and wait, queued", |bencher| {
        bencher.iter(|| {
            value += 1;
            words.write(copies.stream(), 0, value).expect("queued");
            words.wait(copies.stream(), 0, value).expect("queued");
        });
    });
    copies.synchronize().expect("done");
}

criterion_group!(benches, opening, ordering);
criterion_main!(benches);
