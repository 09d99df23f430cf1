//! A frame written and read in one process.

use super::sample::{Arguments, pin, print_quantiles, times};
use super::space;
use crate::Outcome;

/// `copy BYTES SLOTS CPUS SAMPLES BATCH`: on one CPU there is nobody to help with a copy.
pub(super) fn run(given: &mut Arguments) -> Outcome<()> {
    let (bytes, slots, cpus) = (given.next()?, given.next()?, given.next::<usize>()?);
    let (samples, batch) = (given.next()?, given.next()?);
    if cpus == 1 {
        pin(0)?;
    }
    let stream = space::create("copy", bytes, slots)?;
    let (mut writer, mut reader) = (stream.writer()?, stream.reader());
    let input = vec![7; bytes];
    let mut output = vec![1; bytes];
    space::settle(&stream);
    let times = times(samples, batch, || {
        writer.write(&input)?;
        reader.read_into(&mut output)?;
        Ok(())
    })?;
    stream.unlink()?;
    if output != input {
        return Err("another frame came out".into());
    }
    print_quantiles(&times);
    Ok(())
}
