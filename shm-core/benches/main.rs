//! What the primitives cost: creation, attachment, mapping, and copies against plain `memcpy`.
//!
//! `cargo bench -p shm-core`. A copy through a view and the standard library's copy of the same
//! bytes stand side by side in each group; their difference is what the opaque call and the bounds
//! check cost.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use shm_core::{
    Access, Kind, Namespace, Region, RegionOptions, Segment, SegmentName, SegmentOptions,
};

const KIND: Kind = Kind { magic: *b"shmbench", version: 1 };
const STREAM_BYTES: u64 = 40 << 10;

/// Names of this process only, so that two runs do not meet.
fn namespace() -> Namespace {
    Namespace::new("/dev/shm", format!("bench-{}.", std::process::id())).expect("a plain prefix")
}

fn name() -> SegmentName {
    SegmentName::new("segment").expect("a name")
}

fn life(c: &mut Criterion) {
    let (ns, name) = (namespace(), name());
    let mut group = c.benchmark_group("life of 40 KiB");
    let options = SegmentOptions::new(KIND, STREAM_BYTES);
    group.bench_function("create + unlink", |b| {
        b.iter(|| {
            let segment = options.create(&ns, &name, |_| Ok(())).expect("created");
            segment.unlink().expect("removed")
        });
    });
    let segment = options.create(&ns, &name, |_| Ok(())).expect("created");
    let whole = segment.map(0..STREAM_BYTES, Access::ReadWrite).expect("mapped");
    whole.populate(0..whole.len()).expect("in bounds");
    group.bench_function("open + close", |b| {
        b.iter(|| Segment::open(&ns, &name, Access::ReadOnly, KIND).expect("opened"));
    });
    group.bench_function("attach: open + map + read all + close", |b| {
        let mut copy = vec![0; STREAM_BYTES as usize];
        b.iter(|| {
            let segment = Segment::open(&ns, &name, Access::ReadOnly, KIND).expect("opened");
            let bytes = segment.map(0..STREAM_BYTES, Access::ReadOnly).expect("mapped");
            bytes.read_into(0, &mut copy).expect("in bounds");
        });
    });
    group.bench_function("map + unmap", |b| {
        b.iter(|| segment.map(0..STREAM_BYTES, Access::ReadWrite).expect("mapped"));
    });
    group.bench_function("is_current", |b| b.iter(|| segment.is_current().expect("a stat")));
    group.bench_function("is_attached", |b| b.iter(|| segment.is_attached().expect("a probe")));
    group.finish();
    segment.unlink().expect("removed");

    let mut group = c.benchmark_group("life of 4 MiB");
    let options = SegmentOptions::new(KIND, 4 << 20);
    group.bench_function("create + unlink, memory limits checked", |b| {
        b.iter(|| {
            let segment = options.create(&ns, &name, |_| Ok(())).expect("created");
            segment.unlink().expect("removed")
        });
    });
    group.finish();
}

fn copies(c: &mut Criterion) {
    const LARGEST: usize = 4 << 20;
    let region = Region::create("bench", LARGEST as u64, &RegionOptions::new()).expect("room");
    let bytes = region.map(0..LARGEST as u64, Access::ReadWrite).expect("mapped");
    bytes.populate(0..LARGEST).expect("in bounds");
    let source = vec![1u8; LARGEST];
    let mut target = vec![0u8; LARGEST];
    for (direction, reads) in [("copy in", false), ("copy out", true)] {
        let mut group = c.benchmark_group(direction);
        for size in [8, 64, 512, 4 << 10, 40 << 10, 1 << 20, LARGEST] {
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_with_input(BenchmarkId::new("view", size), &size, |b, &size| {
                b.iter(|| {
                    if reads {
                        bytes.read_into(0, black_box(&mut target[..size])).expect("in bounds");
                    } else {
                        bytes.write_from(0, black_box(&source[..size])).expect("in bounds");
                    }
                });
            });
            group.bench_with_input(BenchmarkId::new("memcpy", size), &size, |b, &size| {
                b.iter(|| {
                    black_box(&mut target[..size]).copy_from_slice(black_box(&source[..size]));
                });
            });
        }
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    life(&mut criterion);
    copies(&mut criterion);
    criterion.final_summary();
}
