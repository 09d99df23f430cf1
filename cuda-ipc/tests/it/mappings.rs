//! Chunks at addresses.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use cuda_ipc::{
    Access, Chunk, Context, Copies, Mapping, OpenError, Words, flush, lost, probe, set_linger,
    usage,
};

use crate::driver::is_device;
use crate::harness::{Outcome, Skip, tests};
use crate::parcel;
use crate::peer::{BYTES, Peer, filled, holds, pattern};

tests![
    chunks_lie_one_behind_the_other,
    an_object_is_mapped_once,
    accesses_are_apart,
    opening_again_soon_costs_nothing,
    errors_name_the_chunk,
    what_is_no_chunk_is_refused,
    a_write_to_what_is_read_only_is_told_to_its_author,
    nothing_grows,
];

fn context() -> Context {
    probe().expect("a driver").device_at(0).expect("one").context().expect("one")
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn chunks_lie_one_behind_the_other() {
    let context = context();
    let unit = context.device().granularity().expect("an answer");
    let sizes = [1, 3, 2, 1].map(|units| units * unit);
    let chunks: Vec<_> =
        sizes.iter().map(|size| Chunk::create(context.device(), *size).expect("memory")).collect();
    let all: Vec<&Chunk> = chunks.iter().collect();
    let mapping = Mapping::open(&context, &all, Access::ReadWrite).expect("mapped");
    assert_eq!(mapping.bytes(), 7 * unit);
    assert_eq!(mapping.offsets(), [0, unit, 4 * unit, 6 * unit]);
    // Written across them all, read chunk by chunk.
    let bytes = pattern(1, usize::try_from(mapping.bytes()).expect("few"));
    let copies = Copies::new(&context).expect("a stream");
    copies.upload(mapping.address(), &bytes).expect("copied");
    for (chunk, offset) in chunks.iter().zip(mapping.offsets()) {
        let single = Mapping::open(&context, &[chunk], Access::Read).expect("mapped");
        let from = usize::try_from(*offset).expect("few");
        let mut found = vec![0; usize::try_from(single.bytes()).expect("few")];
        copies.download(&mut found, single.address()).expect("copied");
        assert_eq!(found, bytes[from..from + found.len()]);
    }
    assert_eq!((usage().mappings, usage().chunks, usage().bytes), (5, 8, 14 * unit));
}

fn an_object_is_mapped_once() {
    let (context, chunk) = (context(), filled(2, BYTES));
    assert!(flush(soon()));
    let calls = || {
        let functions = probe().expect("a driver").functions().expect("a table");
        functions.iter().find(|it| it.symbol == "cuMemMap").expect("listed").calls
    };
    let before = calls();
    let (addresses, kept) = (Mutex::new(HashSet::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let mapping = Mapping::open(&context, &[&chunk], Access::Read).expect("mapped");
                    addresses.lock().expect("whole").insert(mapping.address());
                    kept.lock().expect("whole").push(mapping.clone());
                }
            });
        }
    });
    assert_eq!(addresses.lock().expect("whole").len(), 1);
    assert_eq!(calls() - before, 1);
    assert_eq!((usage().mappings, usage().lingering), (1, 0));
    kept.lock().expect("whole").clear();
    assert!(flush(soon()));
    assert_eq!(usage().mappings, 0);
}

fn accesses_are_apart() {
    let (context, chunk) = (context(), filled(3, BYTES));
    let read = Mapping::open(&context, &[&chunk], Access::Read).expect("mapped");
    let write = Mapping::open(&context, &[&chunk], Access::ReadWrite).expect("mapped");
    assert_ne!(read.address(), write.address());
    assert_eq!((read.access(), write.access()), (Access::Read, Access::ReadWrite));
    let copies = Copies::new(&context).expect("a stream");
    copies.fill(write.address(), 0x5a, 16).expect("queued");
    let mut found = [0; 16];
    copies.download(&mut found, read.address()).expect("copied");
    assert_eq!(found, [0x5a; 16]);
}

fn opening_again_soon_costs_nothing() {
    set_linger(Duration::from_secs(600));
    let (context, chunk) = (context(), filled(4, BYTES));
    let first = Mapping::open(&context, &[&chunk], Access::Read).expect("mapped");
    let address = first.address();
    drop(first);
    assert!(usage().lingering >= 1);
    let again = Mapping::open(&context, &[&chunk], Access::Read).expect("mapped");
    assert_eq!(again.address(), address);
    drop(again);
    set_linger(Duration::from_millis(1));
    // Nobody asks for it, and it goes all the same.
    while usage().mappings > 0 {
        std::thread::yield_now();
    }
    set_linger(Duration::from_millis(500));
}

fn errors_name_the_chunk() {
    let context = context();
    let error = Mapping::open(&context, &[], Access::Read).expect_err("nothing");
    assert!(matches!(error, OpenError::Empty), "{error}");
    let (label, descriptor) = filled(5, BYTES).into_parts();
    for bytes in [0, 1, u64::MAX, label.bytes() * 2, label.bytes() / 2] {
        let mut form = label.encode();
        form[32..].copy_from_slice(&bytes.to_le_bytes());
        let label = cuda_ipc::ChunkLabel::decode(&form);
        let liar = Chunk::from_parts(label, descriptor.try_clone().expect("a descriptor"));
        let error = Mapping::open(&context, &[&liar], Access::Read).expect_err("a lie");
        assert!(error.to_string().contains(&label.id().to_string()), "{error}");
    }
}

fn what_is_no_chunk_is_refused() {
    let context = context();
    let (label, _) = filled(6, BYTES).into_parts();
    let words = Words::create(8).expect("memory");
    let strangers: [OwnedFd; 4] = [
        File::open("/dev/null").expect("it is there").into(),
        File::open("/proc/self/exe").expect("it is there").into(),
        std::os::fd::AsFd::as_fd(&words).try_clone_to_owned().expect("a descriptor"),
        std::os::unix::net::UnixStream::pair().expect("a pair").0.into(),
    ];
    for stranger in strangers {
        let chunk = Chunk::from_parts(label, stranger);
        let error = Mapping::open(&context, &[&chunk], Access::Read).expect_err("no chunk");
        assert!(matches!(error, OpenError::NoChunk { .. }), "{error}");
    }
}

fn a_write_to_what_is_read_only_is_told_to_its_author() -> Outcome {
    if is_device() {
        return Err(Skip("it takes a kernel of torch's: drivers refuse what sets memory there"));
    }
    let chunk = filled(9, BYTES);
    let author = Peer::start("author");
    parcel::send_chunk(&author.socket, &chunk);
    author.join();
    // Nobody else notices.
    assert!(holds(&chunk, 0, 9, BYTES));
    assert_eq!(lost(), None);
    Ok(())
}

fn nothing_grows() {
    let context = context();
    for round in 0..100 {
        let chunk = Chunk::create(context.device(), 1).expect("memory");
        let access = if round % 2 == 0 { Access::Read } else { Access::ReadWrite };
        drop(Mapping::open(&context, &[&chunk], access).expect("mapped"));
        if round % 10 == 0 {
            assert!(flush(soon()));
        }
    }
}
