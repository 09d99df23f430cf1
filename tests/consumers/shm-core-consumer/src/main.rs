//! A project that uses shm-core alone: a ring of messages between two processes, in forty lines.
//!
//! The program starts itself again as the receiver, sends, and checks what came back. It exits with
//! an error if anything is wrong, and leaves nothing behind.

use std::error::Error;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use shm_core::{Access, Kind, Namespace, Segment, SegmentName, SegmentOptions, SharedBytes};

const KIND: Kind = Kind { magic: *b"messages", version: 1 };
const SLOTS: u64 = 8;
const SLOT_BYTES: usize = 64;
/// The caller's area starts behind the object header of 512 bytes.
const SENT: usize = 512;
const RECEIVED: usize = 640;
const FIRST_SLOT: usize = 1024;
const MESSAGES: u64 = 100_000;

struct Ring(SharedBytes);

impl Ring {
    fn counter(&self, at: usize) -> Result<&AtomicU64, Box<dyn Error>> {
        Ok(self.0.at::<AtomicU64>(at)?)
    }

    fn slot(&self, message: u64) -> usize {
        FIRST_SLOT + (message % SLOTS) as usize * SLOT_BYTES
    }

    fn send(&self, message: u64) -> Result<(), Box<dyn Error>> {
        while message - self.counter(RECEIVED)?.load(Ordering::Acquire) >= SLOTS {
            std::thread::yield_now();
        }
        self.0.write_from(self.slot(message), &[message as u8; SLOT_BYTES])?;
        self.counter(SENT)?.store(message + 1, Ordering::Release);
        Ok(())
    }

    fn receive(&self, message: u64) -> Result<[u8; SLOT_BYTES], Box<dyn Error>> {
        while self.counter(SENT)?.load(Ordering::Acquire) <= message {
            std::thread::yield_now();
        }
        let mut text = [0; SLOT_BYTES];
        self.0.read_into(self.slot(message), &mut text)?;
        self.counter(RECEIVED)?.store(message + 1, Ordering::Release);
        Ok(text)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let place = Namespace::new("/dev/shm", "consumer.")?;
    if let Some(name) = std::env::args().nth(1) {
        let segment = Segment::open(&place, &SegmentName::new(name)?, Access::ReadWrite, KIND)?;
        let ring = Ring(segment.map(0..segment.total_bytes(), Access::ReadWrite)?);
        for message in 0..MESSAGES {
            assert_eq!(ring.receive(message)?, [message as u8; SLOT_BYTES], "message {message}");
        }
        println!("received {MESSAGES} messages");
        return Ok(());
    }
    let name = SegmentName::new(format!("ring of {}", std::process::id()))?;
    let segment = SegmentOptions::new(KIND, 4096).create(&place, &name, |_| Ok(()))?;
    let ring = Ring(segment.map(0..4096, Access::ReadWrite)?);
    let mut receiver =
        Command::new(std::env::current_exe()?).arg(name.as_str()).stdin(Stdio::null()).spawn()?;
    let sent = (0..MESSAGES).try_for_each(|message| ring.send(message));
    if sent.is_err() {
        receiver.kill()?;
    }
    let status = receiver.wait()?;
    segment.unlink()?;
    sent?;
    assert!(status.success(), "the receiver ended with {status}");
    assert!(place.list()?.is_empty(), "something was left behind");
    Ok(())
}
