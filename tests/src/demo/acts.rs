//! The stage: what happens, in which order, and what must come of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shared_tensor::DType;
use shared_tensor::stream::{Stream, StreamOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::cast::{self, Cast};
use super::checks;
use super::company::Company;
use super::credit::Credit;
use super::photograph::{CHANNELS, FRAME_BYTES, HEIGHT, WIDTH};
use super::reader::Manner;
use super::report::{Read, TakenOver};
use super::screen::Screen;
use super::table::{self, Figures, thousands, time};
use super::{STREAM, Stop, monotonic_ns};
use crate::{Namespace, Peer};

/// How often the figures on the screen change.
const TICK: Duration = Duration::from_millis(200);
/// Of 1 kHz.
const PERIOD: Duration = Duration::from_millis(1);
/// An act in which frames are published.
struct Act {
    title: &'static str,
    /// From one frame to the next; zero for as fast as it goes.
    period: Duration,
    /// Its share of the whole length.
    percent: u32,
}

/// Played by the first writer.
const BEFORE: [Act; 2] = [
    Act { title: "Full speed", period: Duration::ZERO, percent: 30 },
    Act { title: "1 kHz", period: PERIOD, percent: 20 },
];
/// Played by the second one.
const AFTER: [Act; 2] = [
    Act { title: "1 kHz, second writer", period: PERIOD, percent: 20 },
    Act { title: "Full speed, second writer", period: Duration::ZERO, percent: 20 },
];
/// What remains: half of it while the write is open, half after the death of its writer.
const GAP_PERCENT: u32 = 5;

/// What starting and ending may take beside the acts before the watchdog ends it all: nothing
/// healthy comes near.
const MARGIN: Duration = Duration::from_secs(90);

/// Runs the demo for about `length`, and then checks that nothing of it is left.
pub(super) fn run(
    length: Duration,
    company: &Company,
    photographs: &[PathBuf],
) -> Result<(), Stop> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let space = Namespace::with_limit("demo", length * 2 + MARGIN);
    let mut stage = Stage { screen: Screen::new(), interrupted, length, acts: Vec::new() };
    let frames = stage.play(&space, company, photographs);
    stage.screen.erase();
    // Asserts that no name, no process, no descriptor and no mapping is left.
    drop(space);
    stage.close(frames?);
    Ok(())
}

struct Stage {
    screen: Screen,
    interrupted: Arc<AtomicBool>,
    length: Duration,
    /// The acts in which frames were published.
    acts: Vec<(&'static str, Figures)>,
}

/// The stream, whose name goes with it, however the demo ends.
struct Removed(Stream);

impl Drop for Removed {
    fn drop(&mut self) {
        // What cannot be removed is found and told by whoever looks for what is left.
        let _ = self.0.unlink();
    }
}

impl Stage {
    /// Plays all acts. Returns how many frames the readers verified.
    fn play(
        &mut self,
        space: &Namespace,
        company: &Company,
        photographs: &[PathBuf],
    ) -> Result<u64, Stop> {
        let shape = [HEIGHT, WIDTH, CHANNELS].map(|size| size as u64);
        let options = StreamOptions::new(DType::U8, shape).namespace(space.shm());
        let stream = Removed(options.create(STREAM)?);
        self.open(&stream.0, space, company, photographs.len());
        let mut cast = Cast::start(space, company, photographs)?;

        let mut count = 0;
        for act in &BEFORE {
            count = self.publish(&mut cast, act)?;
        }
        let successor = cast::writer(space, company, 2, photographs)?;
        self.kill_and_succeed(&mut cast, successor, &stream.0, count)?;
        for act in &AFTER {
            count = self.publish(&mut cast, act)?;
        }

        let read = cast.read()?;
        for (reader, read) in &read {
            checks::is_accounted_for(*reader, read, count).map_err(Stop::Failed)?;
        }
        cast.quit();
        Ok(read.iter().map(|(_, read)| read.frames_ever).sum())
    }

    fn open(&mut self, stream: &Stream, space: &Namespace, company: &Company, photographs: usize) {
        let info = stream.info();
        self.screen.heading("Photographs through shared memory, from one process to three");
        self.screen.line(&format!(
            "   {photographs} photographs as {HEIGHT} x {WIDTH} x {CHANNELS} uint8, \
             {} kB a frame, in a ring of {} slots:",
            FRAME_BYTES / 1000,
            info.slots
        ));
        let directory = space.directory().display();
        self.screen.line(&format!("   {directory}/{}{STREAM}", space.prefix()));
        self.screen.line("");
        let role = |credit: Credit, what: &str| format!("   {credit:<17}{what}");
        let writer = "publishes them, each frame with a checksum in its metadata";
        self.screen.line(&role(company.writer(), writer));
        for manner in Manner::ALL {
            self.screen.line(&role(company.reader(manner), manner.description()));
        }
        self.screen.line("   Each is a process of its own; readers check every frame they read.");
    }

    /// Plays one act. Returns the count of its last frame, which every reader has then read.
    fn publish(&mut self, cast: &mut Cast, act: &Act) -> Result<u64, Stop> {
        self.screen.heading(act.title);
        cast.begin_act();
        cast.writer.ask(&format!("stream {}", act.period.as_nanos()));
        self.watch(act.percent, |screen| {
            let figures = cast.figures()?;
            screen.figures(&table::block(&figures), Some(&figures.brief()));
            Ok(())
        })?;
        // However short the act was, every reader takes part.
        self.await_readers(cast, |read| read.frames > 0)?;
        let figures = cast.figures()?;
        let count = cast::parse(&cast.writer.ask("pause"))?;
        self.await_readers(cast, |read| read.last_count == count)?;
        self.screen.line(&figures.summary());
        self.acts.push((act.title, figures));
        Ok(count)
    }

    /// The writer is killed inside a write; readers go on; the successor takes over.
    fn kill_and_succeed(
        &mut self,
        cast: &mut Cast,
        mut successor: Peer,
        stream: &Stream,
        count: u64,
    ) -> Result<(), Stop> {
        let held = count + 1;
        self.screen.heading("The writer is killed inside a write");
        cast.writer.ask("hold");
        checks::is_inside_a_write(&stream.info(), count).map_err(Stop::Failed)?;
        successor.ask("stand-by");
        self.screen.line(&format!(
            "   It stops with half of frame {} written. A second writer waits for the lock.",
            thousands(held)
        ));
        self.watch_going_on(cast, count, "the write is open")?;

        let killed_ns = monotonic_ns();
        cast.writer.kill();
        let taken: TakenOver = cast::parse(&successor.hear_ok())?;
        checks::is_recovered(&taken, &stream.info()).map_err(Stop::Failed)?;
        self.screen.line(&format!(
            "   SIGKILL. The second writer owns the stream {} later, and waits, to let you see:",
            time(taken.owned_ns.saturating_sub(killed_ns))
        ));
        let read = self.watch_going_on(cast, count, "told of the crash")?;
        for (reader, read) in &read {
            checks::is_told(*reader, read).map_err(Stop::Failed)?;
        }

        let asked_ns = monotonic_ns();
        successor.ask("publish");
        let read = self.await_readers(cast, |read| read.last_count == held)?;
        for (reader, read) in &read {
            checks::is_succeeded(*reader, read, held).map_err(Stop::Failed)?;
        }
        let last_ns = read.iter().map(|(_, read)| read.writer_first_ns).max().unwrap_or(asked_ns);
        self.screen.line(&format!(
            "   It writes frame {} anew, and all readers have it {} after it was told to.",
            thousands(held),
            time(last_ns.saturating_sub(asked_ns))
        ));
        cast.writer = successor;
        Ok(())
    }

    /// Readers while nothing new comes: frame `count` stays readable, and is what they read.
    fn watch_going_on(
        &mut self,
        cast: &mut Cast,
        count: u64,
        why: &str,
    ) -> Result<Vec<(Credit, Read)>, Stop> {
        cast.begin_act();
        let lines = |read: &[(Credit, Read)]| {
            let line = |(reader, read): &(Credit, Read)| {
                let (frame, times) = (thousands(count), thousands(read.again));
                format!("   {reader:<17}frame {frame} again, verified {times} times ({why})")
            };
            read.iter().map(line).collect::<Vec<_>>()
        };
        self.watch(GAP_PERCENT, |screen| {
            screen.figures(&lines(&cast.read()?), None);
            Ok(())
        })?;
        let read = self.await_readers(cast, |read| read.again > 0)?;
        for (reader, read) in &read {
            checks::goes_on(*reader, read, count).map_err(Stop::Failed)?;
        }
        for line in lines(&read) {
            self.screen.line(&line);
        }
        Ok(read)
    }

    /// Looks at what happens every [`TICK`], for some percent of the time.
    fn watch(
        &mut self,
        percent: u32,
        mut look: impl FnMut(&mut Screen) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let end = Instant::now() + self.length * percent / 100;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(TICK));
            self.check_interruption()?;
            look(&mut self.screen)?;
        }
    }

    /// Waits until every reader has come to where `arrived` holds.
    fn await_readers(
        &self,
        cast: &mut Cast,
        arrived: impl Fn(&Read) -> bool,
    ) -> Result<Vec<(Credit, Read)>, Stop> {
        loop {
            let read = cast.read()?;
            if read.iter().all(|(_, read)| arrived(read)) {
                return Ok(read);
            }
            self.check_interruption()?;
        }
    }

    fn check_interruption(&self) -> Result<(), Stop> {
        if self.interrupted.load(Ordering::Relaxed) { Err(Stop::Interrupted) } else { Ok(()) }
    }

    fn close(&mut self, verified: u64) {
        self.screen.heading("What it came to");
        for row in table::table(&self.acts) {
            self.screen.line(&row);
        }
        self.screen.line("");
        self.screen.line("   latency: from publication until a reader has the frame");
        self.screen
            .line("   missed: overwritten before a slower reader came to it; writers never wait");
        self.screen.line("");
        self.screen.line(&format!(
            "All {} frames verified: none torn, none out of order. Nothing is left behind.",
            thousands(verified)
        ));
    }
}
