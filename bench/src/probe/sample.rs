//! What every probe needs: arguments, a CPU to stay on, a clock, order statistics.

use std::hint;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::figures::quantile;
use crate::{Outcome, screen};

/// The arguments of a probe, taken one after the other.
pub(super) struct Arguments(std::vec::IntoIter<String>);

impl Arguments {
    pub(super) fn new(given: Vec<String>) -> Self {
        Self(given.into_iter())
    }

    pub(super) fn next<T: FromStr>(&mut self) -> Outcome<T> {
        let text = self.0.next().ok_or("an argument is missing")?;
        text.parse().map_err(|_| format!("`{text}` is no value here").into())
    }
}

/// Stays on one CPU; with fewer CPUs than asked for, on the last there is.
pub(super) fn pin(cpu: usize) -> Outcome<()> {
    let last = std::thread::available_parallelism()?.get() - 1;
    let mut set = CpuSet::new();
    set.set(cpu.min(last));
    Ok(sched_setaffinity(None, &set)?)
}

/// The clock that all processes share, in nanoseconds.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Keeps the CPU busy.
pub(super) fn busy_for(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        hint::spin_loop();
    }
}

/// Times `samples` batches of `batch` calls, after a tenth as many for warming up; nanoseconds of
/// one call, sorted.
pub(super) fn times(
    samples: usize,
    batch: u32,
    mut call: impl FnMut() -> Outcome<()>,
) -> Outcome<Vec<f64>> {
    let warm = samples / 10 + 1;
    let mut times = Vec::with_capacity(samples);
    for sample in 0..samples + warm {
        let begun = now_ns();
        for _ in 0..batch {
            call()?;
        }
        if sample >= warm {
            times.push((now_ns() - begun) as f64 / f64::from(batch));
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

pub(super) fn median(sorted: &[f64]) -> f64 {
    quantile(sorted, 0.5)
}

/// Prints one figure.
pub(super) fn print(name: &str, value: f64) {
    screen::line(&format!("{name} {value:.3}"));
}

/// Prints two quantiles of sorted samples.
pub(super) fn print_quantiles(sorted: &[f64]) {
    print("p50", quantile(sorted, 0.50));
    print("p99", quantile(sorted, 0.99));
}
