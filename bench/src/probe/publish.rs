//! What publishing costs beyond the copy, with nobody waiting; and one look for something new.

use std::hint::black_box;

use shared_tensor::stream::{Contents, Stamp, Wait};

use super::sample::{Arguments, median, pin, print, times};
use super::space;
use crate::Outcome;

/// Bytes of a frame: one cache line, so that the copy is next to nothing.
const BYTES: usize = 64;
const BATCH: u32 = 1_000;

/// `publish SAMPLES`.
pub(super) fn run(given: &mut Arguments) -> Outcome<()> {
    let samples = given.next()?;
    pin(0)?;
    let stream = space::create("publish", BYTES, 0)?;
    let mut writer = stream.writer()?;
    let reader = stream.reader();
    let frame = [7; BYTES];
    let held = {
        let mut locked = writer.lock(&Wait::forever())?;
        times(samples, BATCH, || {
            let mut view = locked.view(Contents::Fresh)?;
            view.write_at(0, &frame)?;
            view.publish(&Stamp::default())?;
            Ok(())
        })?
    };
    let locked = times(samples, BATCH, || {
        writer.write(&frame)?;
        Ok(())
    })?;
    let look = times(samples, BATCH, || {
        black_box(black_box(&reader).count());
        Ok(())
    })?;
    stream.unlink()?;
    print("held", median(&held));
    print("locked", median(&locked));
    print("look", median(&look));
    Ok(())
}
