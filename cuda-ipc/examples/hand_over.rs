//! One process makes memory on a GPU and ends; another reads it afterwards.
//!
//! `cargo run -p cuda-ipc --example hand_over`

#![expect(clippy::print_stdout, reason = "it is there to show something")]

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Instant;

use cuda_ipc::{Access, Chunk, ChunkLabel, Copies, DriverError, Mapping, probe};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

const BYTES: usize = 64 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let driver = match probe() {
        Ok(driver) => driver,
        Err(DriverError::Absent(reason)) => {
            println!("nothing to show: {reason}");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let mut arguments = std::env::args().skip(1);
    if let (Some(label), Some(maker)) = (arguments.next(), arguments.next()) {
        return read(&label, maker.parse()?);
    }
    let context = driver.device_at(0)?.context()?;
    println!("CUDA {}, {}", driver.version(), context.device().name());
    let chunk = Chunk::create(context.device(), BYTES as u64)?;
    let mapping = Mapping::open(&context, &[&chunk], Access::ReadWrite)?;
    Copies::new(&context)?.upload(mapping.address(), &content())?;
    // The reader gets the descriptor as its standard input, and the label as an argument.
    let (label, descriptor) = chunk.into_parts();
    fcntl_setfd(&descriptor, FdFlags::empty())?;
    let label = label.encode().map(|byte| format!("{byte:02x}")).concat();
    let mut reader = Command::new(std::env::current_exe()?);
    reader.arg(label).arg(std::process::id().to_string()).stdin(Stdio::from(descriptor)).spawn()?;
    println!("process {} has made {} MiB, and ends", std::process::id(), BYTES >> 20);
    // The reader is not waited for: this process, its context and its memory go now.
    Ok(())
}

fn content() -> Vec<u8> {
    (0..BYTES).map(|at| (at % 253) as u8).collect()
}

fn read(label: &str, maker: i32) -> Result<(), Box<dyn Error>> {
    let mut form = [0; ChunkLabel::BYTES];
    for (byte, digits) in form.iter_mut().zip(label.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits)?, 16)?;
    }
    // Readable when the process has ended. If there is none under its number, it has already.
    let maker = Pid::from_raw(maker).ok_or("no process")?;
    if let Ok(maker) = pidfd_open(maker, PidfdFlags::empty()) {
        poll(&mut [PollFd::new(&maker, PollFlags::IN)], None)?;
    }
    let label = ChunkLabel::decode(&form);
    let descriptor: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned()?;
    let context = probe()?.device(label.device())?.context()?;
    let begun = Instant::now();
    let chunk = Chunk::from_parts(label, descriptor);
    let mapping = Mapping::open(&context, &[&chunk], Access::Read)?;
    let opened = begun.elapsed();
    let mut found = vec![0; BYTES];
    Copies::new(&context)?.download(&mut found, mapping.address())?;
    let verdict = if found == content() { "every byte is right" } else { "it is wrong" };
    println!("process {}: opened in {opened:?}, {verdict}", std::process::id());
    Ok(())
}
