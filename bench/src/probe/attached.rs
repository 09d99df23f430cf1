//! What publishing costs while many processes are attached and none waits.

use super::company::{Companion, await_cue, ready};
use super::sample::{Arguments, median, pin, print, times};
use super::space;
use crate::Outcome;

/// `attached PROCESSES SAMPLES`, the writer included.
pub(super) fn run(given: &mut Arguments) -> Outcome<()> {
    let (processes, samples) = (given.next::<usize>()?, given.next()?);
    let stream = space::create("attached", 64, 0)?;
    let mut writer = stream.writer()?;
    let company = (1..processes).map(|_| Companion::start("attached-one", &[]));
    let company = company.collect::<Outcome<Vec<_>>>()?;
    pin(0)?;
    let frame = [7; 64];
    let times = times(samples, 1_000, || {
        writer.write(&frame)?;
        Ok(())
    })?;
    for companion in company {
        companion.finish()?;
    }
    stream.unlink()?;
    print("publish", median(&times));
    Ok(())
}

pub(super) fn one(_: &mut Arguments) -> Outcome<()> {
    let stream = space::open("attached")?;
    let mut reader = stream.reader();
    // Whether there is a frame yet does not matter here.
    let _ = reader.latest();
    ready()?;
    await_cue()
}
