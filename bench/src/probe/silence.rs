//! Publishing and reading make no system call: the kernel kills this program if one does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use shared_tensor::stream::{OnFull, Stream, Wait};

use super::sample::{Arguments, print};
use super::space;
use crate::Outcome;

/// Frames done so far.
static DONE: AtomicU64 = AtomicU64::new(0);

/// `silence FRAMES`: each is written, looked for, waited for, copied in order, copied as the newest
/// and leased, then the lock is taken and released once more.
pub(super) fn run(given: &mut Arguments) -> Outcome<()> {
    let frames = given.next::<u64>()?;
    let stream = space::create("silence", 64, 0)?;
    // The filter is that of one thread, and the end of a thread makes system calls: so it never
    // ends, and this one, which is free, looks at how far it got.
    let publisher = {
        let stream = stream.clone();
        std::thread::spawn(move || publish_silently(&stream, frames).map_err(|it| it.to_string()))
    };
    while DONE.load(Ordering::Acquire) < frames && !publisher.is_finished() {
        std::thread::sleep(Duration::from_millis(1));
    }
    stream.unlink()?;
    if publisher.is_finished() {
        publisher.join().map_err(|_| "the publisher panicked")??;
    }
    print("frames", frames as f64);
    Ok(())
}

/// Returns only with an error, and only before the filter is in force: after that it is killed.
fn publish_silently(stream: &Stream, frames: u64) -> Outcome<()> {
    let (mut writer, mut reader, mut newest) = (stream.writer()?, stream.reader(), stream.reader());
    let mut out = [0; 64];
    let admitted = std::collections::BTreeMap::new();
    let (otherwise, listed) = (SeccompAction::KillProcess, SeccompAction::Allow);
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(admitted, otherwise, listed, architecture)?;
    let filter: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&filter)?;
    for count in 1..=frames {
        writer.write(&[count as u8; 64])?;
        let published = reader.wait(count - 1, &Wait::forever())?;
        reader.next_into(&mut out, &Wait::forever())?;
        newest.read_into(&mut out)?;
        drop(newest.lease(OnFull::Copy)?);
        drop(writer.lock(&Wait::forever())?);
        DONE.store(published, Ordering::Release);
    }
    loop {
        std::hint::spin_loop();
    }
}
