//! Frames published and read in place, whatever their size.

use shared_tensor::stream::{Contents, OnFull, Stamp, Wait};

use super::sample::{Arguments, median, pin, print, times};
use super::space;
use crate::Outcome;

/// Bytes touched at either end, as a sign of life.
const TOUCHED: usize = 64;

/// `place BYTES SAMPLES`.
pub(super) fn run(given: &mut Arguments) -> Outcome<()> {
    let (bytes, samples) = (given.next()?, given.next()?);
    pin(0)?;
    let stream = space::create("place", bytes, 0)?;
    let (mut writer, mut reader) = (stream.writer()?, stream.reader());
    let mut touched = [0; TOUCHED];
    let mut publish = |value: u8| -> Outcome<()> {
        let mut locked = writer.lock(&Wait::forever())?;
        let mut view = locked.view(Contents::Fresh)?;
        view.write_at(0, &[value; TOUCHED])?;
        view.publish(&Stamp::default())?;
        Ok(())
    };
    let mut lease = || -> Outcome<u8> {
        let lease = reader.lease(OnFull::Copy)?;
        let bytes = lease.shared_bytes()?.ok_or("a copy was made")?;
        bytes.read_into(0, &mut touched)?;
        Ok(touched[TOUCHED - 1])
    };
    publish(1)?;
    space::settle(&stream);
    let leases = times(samples, 100, || lease().map(drop))?;
    let mut value = 0_u8;
    let both = times(samples, 100, || {
        value = value.wrapping_add(1);
        publish(value)?;
        if lease()? == value { Ok(()) } else { Err("another frame came out".into()) }
    })?;
    stream.unlink()?;
    print("lease", median(&leases));
    print("both", median(&both));
    Ok(())
}
