//! What other processes do for a test.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cuda_ipc::{
    Access, Chunk, Copies, ForeignError, LegacyHandle, Mapping, Origin, Words, flush, origin,
    probe, set_linger, usage,
};

use crate::calls::Calls;
use crate::foreign::LENT;
use crate::mappings::soon;
use crate::parcel;
pub(crate) use crate::process::Peer;
use crate::sys::Allocated;

pub(crate) fn pattern(seed: u8, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8 ^ seed).collect()
}

/// New memory on the first device, filled.
pub(crate) fn filled(seed: u8, bytes: usize) -> Chunk {
    let context = probe().expect("a driver").device_at(0).expect("one").context().expect("one");
    let chunk = Chunk::create(context.device(), bytes as u64).expect("memory");
    let mapping = Mapping::open(&context, &[&chunk], Access::ReadWrite).expect("mapped");
    let copies = Copies::new(&context).expect("a stream");
    copies.upload(mapping.address(), &pattern(seed, bytes)).expect("copied");
    chunk
}

/// Whether a chunk holds what [`filled`] wrote, as seen from a device.
pub(crate) fn holds(chunk: &Chunk, ordinal: usize, seed: u8, bytes: usize) -> bool {
    let device = probe().expect("a driver").device_at(ordinal).expect("it is visible");
    let context = device.context().expect("one");
    let mapping = Mapping::open(&context, &[chunk], Access::Read).expect("mapped");
    let mut found = vec![0; bytes];
    let copies = Copies::new(&context).expect("a stream");
    copies.download(&mut found, mapping.address()).expect("copied");
    found == pattern(seed, bytes)
}

pub(crate) const BYTES: usize = 3 << 20;

/// Notes how many allocations have been closed when it is dropped.
struct NotesClosing(Arc<AtomicU64>);

impl Drop for NotesClosing {
    fn drop(&mut self) {
        self.0.store(Calls::now().of("cuIpcCloseMemHandle"), Ordering::Release);
    }
}

pub(crate) fn receive_handle(socket: &UnixStream) -> LegacyHandle {
    let mut form = [0; LegacyHandle::BYTES];
    parcel::receive(socket, &mut form).expect("a handle");
    LegacyHandle::decode(&form)
}

/// What the process with a role does. It is spoken to over its standard input.
pub(crate) fn play(role: &str) {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor");
    let mut socket = UnixStream::from(socket);
    let mut word = [0];
    match role {
        // Makes memory, sends it, and waits to be killed.
        "maker" => {
            parcel::send_chunk(&socket, &filled(7, BYTES));
            // Ends with the socket at the latest.
            let _ = socket.read(&mut word);
        }
        // Holds what it is sent, without a driver, and passes it on when it is told to.
        "holder" => {
            let chunk = parcel::receive_chunk(&socket);
            socket.write_all(b"h").expect("somebody listens");
            socket.read_exact(&mut word).expect("told");
            assert!(!cuda_ipc::is_loaded());
            parcel::send_chunk(&socket, &chunk);
        }
        // Sees the devices in another order, or not all, and reads what it is sent.
        "reader" => {
            let chunk = parcel::receive_chunk(&socket);
            assert!(holds(&chunk, 0, 7, BYTES));
        }
        // Opens, is told not to be able to.
        "stranger" => {
            let chunk = parcel::receive_chunk(&socket);
            let context = probe().expect("a driver").device_at(0).expect("one");
            let context = context.context().expect("one");
            let error = Mapping::open(&context, &[&chunk], Access::Read).expect_err("far away");
            assert!(matches!(error, cuda_ipc::OpenError::Unreachable { .. }), "{error}");
            assert!(error.to_string().contains("peer access"), "{error}");
        }
        // Waits in a stream for word 0, then writes word 1; word 2 shows that it is so far.
        "answerer" => {
            let mut bytes = [0];
            let mut descriptors = parcel::receive(&socket, &mut bytes).expect("words");
            let words = Words::open(descriptors.pop().expect("one")).expect("words");
            let context = probe().expect("a driver").device_at(0).expect("one");
            let context = context.context().expect("one");
            let words = words.attach(&context).expect("attached");
            let stream = context.stream().expect("a stream");
            for round in 1..=u64::from(bytes[0]) {
                words.wait(&stream, 0, round).expect("queued");
                words.write(&stream, 1, round).expect("queued");
            }
            context.synchronize(&stream).expect("done");
        }
        "borrower" => borrow(&socket),
        // Makes memory of the old kind, sends its handle, and waits to be killed.
        "lender" => {
            let context = probe().expect("a driver").device_at(0).expect("one");
            let context = context.context().expect("one");
            let allocated = Allocated::new(&context, BYTES);
            let handle = LegacyHandle::new(&context, allocated.address, 16).expect("a handle");
            parcel::send(&socket, &handle.encode(), &[]);
            // Ends with the socket at the latest.
            let _ = socket.read(&mut word);
        }
        // Writes where it may only read, and is told.
        "author" => {
            let chunk = parcel::receive_chunk(&socket);
            let context = probe().expect("a driver").device_at(0).expect("one");
            let context = context.context().expect("one");
            let mapping = Mapping::open(&context, &[&chunk], Access::Read).expect("mapped");
            let copies = Copies::new(&context).expect("a stream");
            assert!(cuda_ipc::lost().is_none());
            copies.fill(mapping.address(), 1, 16).expect("queued");
            let error = copies.synchronize().expect_err("wrong");
            for said in ["the object that it has open for reading only", "lost to this process"] {
                assert!(error.to_string().contains(said), "{error}");
            }
            assert_eq!(cuda_ipc::lost(), error.as_call());
            // Whatever comes next says it too.
            let next = mapping.used_on(copies.stream()).expect_err("lost");
            assert!(next.to_string().contains("reading only"), "{next}");
        }
        // What a driver that lacks things, or none, is to the crate.
        other => crate::drivers::play(other),
    }
}

/// Opens memory of another process twice, which is once, and for some time.
fn borrow(socket: &UnixStream) {
    let handle = receive_handle(socket);
    let context = probe().expect("a driver").device_at(0).expect("one");
    let context = context.context().expect("one");
    // Nothing but a flush closes it.
    set_linger(Duration::from_secs(86_400));
    let lent = Mapping::open_handle(&context, &handle).expect("its maker lives");
    let again = Mapping::open_handle(&context, &handle).expect("it is open");
    assert_eq!((lent.address(), lent.bytes()), (again.address(), BYTES as u64));
    assert_eq!(handle.bytes(), LENT.len() as u64);
    let mut found = vec![0; LENT.len()];
    let copies = Copies::new(&context).expect("a stream");
    copies.download(&mut found, lent.address() + handle.offset()).expect("copied");
    assert!(found == pattern(7, BYTES)[LENT]);
    // It is nobody's to lend but its maker's.
    let kind = origin(&context, lent.address(), 16).expect("known");
    assert_eq!(kind, Origin::CopyOnly);
    let error = LegacyHandle::new(&context, lent.address(), 16).expect_err("another's");
    assert!(matches!(error, ForeignError::CopyOnly { .. }), "{error}");
    // What is let go of while others have it goes, and so does what was let go of last when
    // somebody has it again.
    let kept = Arc::new(());
    let is_gone = || Arc::strong_count(&kept) == 1;
    again.let_go_when_done(Arc::clone(&kept));
    while !is_gone() {
        std::thread::yield_now();
    }
    lent.let_go_when_done(Arc::clone(&kept));
    let third = Mapping::open_handle(&context, &handle).expect("it is open");
    while !is_gone() {
        std::thread::yield_now();
    }
    // Otherwise it is kept until the allocation is closed: its maker may free it then.
    let closed = Arc::new(AtomicU64::new(0));
    third.let_go_when_done(NotesClosing(Arc::clone(&closed)));
    assert_eq!(Calls::now().of("cuIpcCloseMemHandle"), 0, "not where it is dropped");
    assert!(flush(soon()));
    assert_eq!((closed.load(Ordering::Acquire), usage().mappings), (1, 0));
    assert_eq!(Calls::now().of("cuIpcOpenMemHandle_v2"), 1);
}
