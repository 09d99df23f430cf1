//! Frames at a steady rate to several reading processes.

use std::time::Duration;

use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec};
use shared_tensor::stream::Wait;

use super::company::{Companion, ready};
use super::sample::{Arguments, now_ns, print};
use super::space;
use crate::Outcome;
use crate::figures::quantile;

/// How long before its time the writer stops sleeping and spins.
const EARLY: Duration = Duration::from_micros(60);

/// `rate HERTZ SECONDS READERS BYTES`: from just before the write to the frame copied by a reader
/// that waits as readers do by default.
pub(super) fn run(given: &mut Arguments) -> Outcome<()> {
    let (hertz, seconds) = (given.next::<u64>()?, given.next::<u64>()?);
    let (readers, bytes) = (given.next::<usize>()?, given.next()?);
    let stream = space::create("rate", bytes, 0)?;
    let frames = hertz * seconds;
    let readers = (0..readers).map(|_| Companion::start("rate-reader", &[frames.to_string()]));
    let readers = readers.collect::<Outcome<Vec<_>>>()?;
    let mut writer = stream.writer()?;
    let mut frame = vec![7; bytes];
    let begun = now_ns();
    for number in 1..=frames {
        await_time(begun + number * 1_000_000_000 / hertz)?;
        frame[..8].copy_from_slice(&now_ns().to_ne_bytes());
        writer.write(&frame)?;
    }
    let mut times = Vec::new();
    for reader in readers {
        let said = reader.finish()?;
        times.extend(said.as_chunks::<8>().0.iter().map(|it| u64::from_ne_bytes(*it) as f64));
    }
    stream.unlink()?;
    times.sort_by(f64::total_cmp);
    for (name, q) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
        print(name, quantile(&times, q));
    }
    print("samples", times.len() as f64);
    Ok(())
}

/// Reads every frame in order; its samples go to the probe as words.
pub(super) fn reader(given: &mut Arguments) -> Outcome<()> {
    let frames = given.next::<u64>()?;
    let stream = space::open("rate")?;
    let mut reader = stream.reader();
    let mut frame = vec![0; stream.frame_bytes()];
    let mut samples = Vec::new();
    ready()?;
    while reader.last_count() < frames {
        reader.next_into(&mut frame, &Wait::forever())?;
        let begun = frame.first_chunk().map_or(0, |it| u64::from_ne_bytes(*it));
        samples.extend(now_ns().saturating_sub(begun).to_ne_bytes());
    }
    use_stdout(&samples)
}

fn use_stdout(bytes: &[u8]) -> Outcome<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

fn await_time(time_ns: u64) -> Outcome<()> {
    let early = time_ns.saturating_sub(EARLY.as_nanos() as u64);
    let until = Timespec {
        tv_sec: (early / 1_000_000_000).cast_signed(),
        tv_nsec: (early % 1_000_000_000).cast_signed(),
    };
    clock_nanosleep_absolute(ClockId::Monotonic, &until)?;
    while now_ns() < time_ns {
        std::hint::spin_loop();
    }
    Ok(())
}
