//! What one publication to many parked processes costs the writer.

use std::time::Duration;

use shared_tensor::stream::Wait;

use super::both_ways::reader;
use super::company::{Companion, ready};
use super::sample::{Arguments, now_ns, print_quantiles};
use super::space;
use crate::Outcome;

/// `fanout PROCESSES SAMPLES`.
pub(super) fn run(given: &mut Arguments) -> Outcome<()> {
    let (processes, samples) = (given.next::<u64>()?, given.next::<usize>()?);
    let stream = space::create("fanout", 64, 0)?;
    let mut writer = stream.writer()?;
    let sleepers =
        (0..processes).map(|_| Companion::start("fanout-sleeper", &[samples.to_string()]));
    let sleepers = sleepers.collect::<Outcome<Vec<_>>>()?;
    let mut times = Vec::with_capacity(samples);
    for _ in 0..samples {
        // Long enough for all of them to run and to park again.
        std::thread::sleep(Duration::from_micros(2_000 + 100 * processes));
        let begun = now_ns();
        writer.write(&[7; 64])?;
        times.push((now_ns() - begun) as f64);
    }
    for sleeper in sleepers {
        sleeper.finish()?;
    }
    stream.unlink()?;
    times.sort_by(f64::total_cmp);
    print_quantiles(&times);
    Ok(())
}

pub(super) fn sleeper(given: &mut Arguments) -> Outcome<()> {
    let samples = given.next::<u64>()?;
    let stream = space::open("fanout")?;
    let mut reader = reader(&stream, "park")?;
    ready()?;
    let mut seen = 0;
    while seen < samples {
        seen = reader.wait(seen, &Wait::forever())?;
    }
    Ok(())
}
