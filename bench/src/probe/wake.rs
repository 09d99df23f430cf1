//! One way to a waiting process on the other CPU: from just before the write to running there.

use std::time::Duration;

use shared_tensor::stream::Wait;

use super::both_ways::reader;
use super::company::{Companion, ready};
use super::sample::{Arguments, busy_for, now_ns, pin, print_quantiles};
use super::space;
use crate::{Outcome, screen};

/// `wake IDLE_NS park|spin SAMPLES`: the writer keeps its own CPU busy between two frames.
pub(super) fn run(given: &mut Arguments) -> Outcome<()> {
    let idle = Duration::from_nanos(given.next()?);
    let (way, samples) = (given.next::<String>()?, given.next::<usize>()?);
    let stream = space::create("wake", 8, 0)?;
    let sleeper = Companion::start("wake-sleeper", &[way, samples.to_string()])?;
    pin(0)?;
    let mut writer = stream.writer()?;
    for _ in 0..samples {
        busy_for(idle);
        writer.write(&now_ns().to_ne_bytes())?;
    }
    let said = sleeper.finish()?;
    stream.unlink()?;
    screen::line(String::from_utf8(said)?.trim_end());
    Ok(())
}

pub(super) fn sleeper(given: &mut Arguments) -> Outcome<()> {
    let (way, samples) = (given.next::<String>()?, given.next()?);
    pin(1)?;
    let stream = space::open("wake")?;
    let mut reader = reader(&stream, &way)?;
    let mut times = Vec::with_capacity(samples);
    let mut begun = [0; 8];
    ready()?;
    let mut seen = 0;
    while seen < samples as u64 {
        seen = reader.wait(seen, &Wait::forever())?;
        let now = now_ns();
        reader.read_into(&mut begun)?;
        // A newer frame than the one that woke may be there by now: not a sample.
        if let Some(spent) = now.checked_sub(u64::from_ne_bytes(begun)) {
            times.push(spent as f64);
        }
    }
    times.sort_by(f64::total_cmp);
    print_quantiles(&times);
    Ok(())
}
