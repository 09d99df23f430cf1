//! The stream's lock, alone and fought over.

use std::time::Duration;

use shared_tensor::stream::{Wait, Writer};

use super::company::{Companion, await_cue, ready};
use super::sample::{Arguments, busy_for, median, now_ns, pin, print, times};
use super::space;
use crate::Outcome;

const HELD: Duration = Duration::from_nanos(200);

/// `lock SAMPLES`.
pub(super) fn run(given: &mut Arguments) -> Outcome<()> {
    let samples = given.next::<usize>()?;
    let stream = space::create("lock", 64, 0)?;
    let turns = samples * 200;
    let mut rival = Companion::start("lock-rival", &[turns.to_string()])?;
    pin(0)?;
    let mut writer = stream.writer()?;
    let alone = times(samples, 1_000, || {
        drop(writer.lock(&Wait::forever())?);
        Ok(())
    })?;
    rival.cue()?;
    rival.await_ready()?;
    let spent = fight(&mut writer, turns)?;
    rival.finish()?;
    stream.unlink()?;
    print("uncontended", median(&alone));
    print("contended", spent / (2 * turns) as f64);
    Ok(())
}

pub(super) fn rival(given: &mut Arguments) -> Outcome<()> {
    let turns = given.next()?;
    pin(1)?;
    let stream = space::open("lock")?;
    let mut writer = stream.writer()?;
    ready()?;
    await_cue()?;
    ready()?;
    fight(&mut writer, turns).map(drop)
}

fn fight(writer: &mut Writer, turns: usize) -> Outcome<f64> {
    let begun = now_ns();
    for _ in 0..turns {
        let locked = writer.lock(&Wait::forever())?;
        busy_for(HELD);
        drop(locked);
    }
    Ok((now_ns() - begun) as f64)
}
