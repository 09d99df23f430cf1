//! Frames both ways between two processes, one per CPU, copied in and out on both sides.

use std::time::Duration;

use shared_tensor::stream::{Reader, ReaderOptions, Spin, Stream, Wait};

use super::company::{Companion, ready};
use super::sample::{Arguments, pin, print_quantiles, times};
use super::space;
use crate::Outcome;

/// `pingpong BYTES_THERE BYTES_BACK SLOTS park|spin|adapt SAMPLES`; a way back without bytes gets
/// one word.
pub(super) fn run(given: &mut Arguments) -> Outcome<()> {
    let (there, back): (usize, usize) = (given.next()?, given.next()?);
    let (slots, way, samples) = (given.next()?, given.next::<String>()?, given.next::<usize>()?);
    let outward = space::create("ping", there, slots)?;
    let homeward = space::create("pong", back.max(8), slots)?;
    let rounds = samples + samples / 10 + 1;
    let echo = Companion::start("pingpong-echo", &[way.clone(), rounds.to_string()])?;
    pin(0)?;
    let (mut writer, mut reader) = (outward.writer()?, reader(&homeward, &way)?);
    let frame = vec![7; outward.frame_bytes()];
    let mut answer = vec![0; homeward.frame_bytes()];
    let times = times(samples, 1, || {
        writer.write(&frame)?;
        reader.next_into(&mut answer, &Wait::forever())?;
        Ok(())
    })?;
    echo.finish()?;
    outward.unlink()?;
    homeward.unlink()?;
    print_quantiles(&times);
    Ok(())
}

pub(super) fn echo(given: &mut Arguments) -> Outcome<()> {
    let (way, rounds) = (given.next::<String>()?, given.next::<usize>()?);
    pin(1)?;
    let (outward, homeward) = (space::open("ping")?, space::open("pong")?);
    let (mut reader, mut writer) = (reader(&outward, &way)?, homeward.writer()?);
    let mut frame = vec![0; outward.frame_bytes()];
    ready()?;
    for _ in 0..rounds {
        reader.next_into(&mut frame, &Wait::forever())?;
        writer.write(&frame[..homeward.frame_bytes()])?;
    }
    Ok(())
}

/// A reader that waits in the given way.
pub(super) fn reader(stream: &Stream, way: &str) -> Outcome<Reader> {
    let mut options = ReaderOptions::default();
    options.spin = match way {
        "park" => Spin::Never,
        "spin" => Spin::For(Duration::from_secs(1)),
        "adapt" => Spin::Adaptive,
        _ => return Err(format!("`{way}` is no way to wait").into()),
    };
    Ok(stream.reader_with(options))
}
