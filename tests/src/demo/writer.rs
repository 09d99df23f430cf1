//! The writer: publishes photographs, each scrolled a row further than the one before.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use shared_tensor::stream::{Contents, Locked, OpenOptions, Stamp, Stream, Wait, WriteView};

use super::commands::{Command, Commands, done, refuse};
use super::label::{Checksum, Label};
use super::photograph::{FRAME_BYTES, Photograph, Scrolled};
use super::report::{TakenOver, Written};
use super::{STREAM, Stop, monotonic_ns};
use crate::Place;

/// What a writer is told, each answered with one line:
///
/// | line | what it does |
/// |---|---|
/// | `ready` | loads the photographs; answers how many |
/// | `stream PERIOD_NS` | publishes a frame every so often, without a pause for 0 |
/// | `report` | answers with [`Written`] |
/// | `pause` | stops publishing; answers the count of the last frame |
/// | `hold` | fills half a frame and stays in the write until it is killed |
/// | `stand-by` | answers, waits for the lock, and answers again with [`TakenOver`], holding it |
/// | `publish` | only after `stand-by`: publishes one frame and lets the lock go; answers its count |
/// | `quit` | ends |
pub(super) fn serve(number: u32, files: &[PathBuf]) -> Result<(), Stop> {
    let namespace = Place::from_environment()?.shm();
    let stream = OpenOptions::new().namespace(namespace).open(STREAM)?;
    let mut role = Role {
        writer: number.into(),
        photographs: Vec::new(),
        stream,
        commands: Commands::listen(),
        frames: 0,
        since: Instant::now(),
    };
    let ended = role.obey(files)?;
    if matches!(ended, Ended::Orphaned) {
        role.stream.unlink()?;
    }
    Ok(())
}

struct Role {
    writer: u64,
    photographs: Vec<Photograph>,
    stream: Stream,
    commands: Commands,
    /// Published since the act began.
    frames: u64,
    since: Instant,
}

enum Ended {
    Told,
    Orphaned,
}

impl Role {
    fn obey(&mut self, files: &[PathBuf]) -> Result<Ended, Stop> {
        loop {
            let Command::Line(line) = self.commands.wait() else { return Ok(Ended::Orphaned) };
            match line.split_once(' ').unwrap_or((&line, "")) {
                ("ready", _) => match load(files) {
                    Ok(photographs) => {
                        done(photographs.len());
                        self.photographs = photographs;
                    }
                    Err(why) => refuse(why),
                },
                ("stream", period) => match period.parse() {
                    Ok(period) => {
                        done("");
                        if let Ended::Orphaned = self.publish_until_paused(period)? {
                            return Ok(Ended::Orphaned);
                        }
                    }
                    Err(_) => refuse(format!("`{period}` is no period")),
                },
                ("report", _) => done(self.report()),
                ("hold", _) => self.hold()?,
                ("stand-by", _) => self.take_over()?,
                ("quit", _) => {
                    done("");
                    return Ok(Ended::Told);
                }
                _ => refuse(format!("`{line}` is no command of a writer now")),
            }
        }
    }

    fn report(&self) -> Written {
        Written { elapsed_ns: nanoseconds(self.since.elapsed()), frames: self.frames }
    }

    fn publish_until_paused(&mut self, period_ns: u64) -> Result<Ended, Stop> {
        let period = Duration::from_nanos(period_ns);
        let mut writer = self.stream.writer()?;
        let mut count = self.stream.info().count;
        (self.frames, self.since) = (0, Instant::now());
        let mut due = Instant::now();
        loop {
            match self.commands.poll() {
                None => {}
                Some(Command::Orphaned) => return Ok(Ended::Orphaned),
                Some(Command::Line(line)) if line == "report" => done(self.report()),
                Some(Command::Line(line)) if line == "pause" => {
                    done(count);
                    return Ok(Ended::Told);
                }
                Some(Command::Line(line)) => refuse(format!("`{line}` while it streams")),
            }
            if !period.is_zero() {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // A camera that is late does not hurry afterwards.
                due = (due + period).max(Instant::now());
            }
            count = self.publish(&mut writer.lock(&Wait::forever())?, count + 1)?;
            self.frames += 1;
        }
    }

    /// Publishes the frame that will have the count `number`.
    fn publish(&self, locked: &mut Locked<'_>, number: u64) -> Result<u64, Stop> {
        let picture = self.picture(number);
        let mut checksum = Checksum::of_frame(number);
        checksum.add(picture.upper);
        checksum.add(picture.lower);
        let label = Label { writer: self.writer, number, checksum: checksum.value() };
        let mut view = locked.view(Contents::Fresh)?;
        fill(&mut view, picture)?;
        let metadata = Some(label.to_metadata());
        Ok(view.publish(&Stamp { metadata, ..Stamp::frame_id(number) })?)
    }

    /// The photographs in turn, each scrolled a row further than the one before: no two frames
    /// that are in the ring at the same time have a row in common.
    fn picture(&self, number: u64) -> Scrolled<'_> {
        let number = number as usize;
        self.photographs[number % self.photographs.len()].scrolled(number)
    }

    /// Stays inside a write, until this process is killed.
    fn hold(&mut self) -> Result<(), Stop> {
        let mut writer = self.stream.writer()?;
        let mut locked = writer.lock(&Wait::forever())?;
        let count = self.stream.info().count;
        let mut view = locked.view(Contents::Fresh)?;
        let Scrolled { upper, lower } = self.picture(count + 1);
        let split = upper.len().min(FRAME_BYTES / 2);
        view.write_at(0, &upper[..split])?;
        view.write_at(split, &lower[..FRAME_BYTES / 2 - split])?;
        done(count);
        // Whatever comes, it is not waited for: only the stage's end ends this.
        while let Command::Line(line) = self.commands.wait() {
            refuse(format!("`{line}` inside a write"));
        }
        Ok(())
    }

    /// Waits for the lock, and keeps it until told to publish.
    fn take_over(&mut self) -> Result<(), Stop> {
        let mut writer = self.stream.writer()?;
        done("");
        let mut locked = writer.lock(&Wait::forever())?;
        done(TakenOver { owned_ns: monotonic_ns(), recovered: locked.is_recovered().into() });
        match self.commands.wait() {
            Command::Line(line) if line == "publish" => {
                let count = self.stream.info().count;
                done(self.publish(&mut locked, count + 1)?);
            }
            Command::Line(line) => refuse(format!("`{line}` after taking over")),
            Command::Orphaned => {}
        }
        Ok(())
    }
}

fn load(files: &[PathBuf]) -> Result<Vec<Photograph>, String> {
    files.iter().map(|file| Photograph::open(file)).collect()
}

fn fill(view: &mut WriteView<'_>, picture: Scrolled<'_>) -> Result<(), Stop> {
    view.write_at(0, picture.upper)?;
    view.write_at(picture.upper.len(), picture.lower)?;
    Ok(())
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
