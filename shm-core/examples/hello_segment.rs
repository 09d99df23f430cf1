//! Two processes and one segment: this program creates it, starts itself again as the reader, and
//! removes it.
//!
//! `cargo run -p shm-core --example hello_segment`

use std::error::Error;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use shm_core::{Access, Kind, Namespace, Segment, SegmentName, SegmentOptions};

/// What this program keeps in its segments: a counter at 512, text from 520 on.
const KIND: Kind = Kind { magic: *b"hello\0\0\0", version: 1 };
const COUNTER: usize = 512;
const TEXT: usize = 520;
const GREETING: &[u8] = b"hello from the creator";

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        Some(name) => read(&SegmentName::new(name)?),
        None => write(&SegmentName::new(format!("hello {}", std::process::id()))?),
    }
}

fn write(name: &SegmentName) -> Result<(), Box<dyn Error>> {
    let namespace = Namespace::default();
    let segment = SegmentOptions::new(KIND, 8192).create(&namespace, name, |segment| {
        // The name does not exist yet: whoever opens it finds all of this.
        let bytes = segment.map(0..8192, Access::ReadWrite).map_err(std::io::Error::other)?;
        bytes.write_from(TEXT, GREETING).map_err(std::io::Error::other)
    })?;
    eprintln!("created {} as {}", segment.name(), segment.path().display());

    let reader = Command::new(std::env::current_exe()?).arg(name.as_str()).status()?;

    let bytes = segment.map(0..8192, Access::ReadWrite)?;
    let visits = bytes.at::<AtomicU64>(COUNTER)?.load(Ordering::Acquire);
    eprintln!("the reader ended with {reader} and has counted {visits} visit");
    segment.unlink()?;
    if visits == 1 && reader.success() { Ok(()) } else { Err("the reader was not here".into()) }
}

fn read(name: &SegmentName) -> Result<(), Box<dyn Error>> {
    let segment = Segment::open(&Namespace::default(), name, Access::ReadWrite, KIND)?;
    let bytes = segment.map(0..segment.total_bytes(), Access::ReadWrite)?;
    let mut text = [0; GREETING.len()];
    bytes.read_into(TEXT, &mut text)?;
    eprintln!("process {} reads: {}", std::process::id(), String::from_utf8_lossy(&text));
    bytes.at::<AtomicU64>(COUNTER)?.fetch_add(1, Ordering::Release);
    Ok(())
}
