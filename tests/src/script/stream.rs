//! Commands on streams.

use std::collections::HashMap;
use std::time::Duration;

use shared_tensor::stream::{
    Contents, Lease, OnAbort, OnFull, OpenOptions, Phase, Reader, ReaderOptions, Stamp, Stream,
    StreamInfo, StreamOptions, Wait, WriteView, locked_many,
};
use shared_tensor::{DType, Error};
use shm_core::Namespace;

use super::fork::in_child;
use super::stream_hold::{Hold, Order};
use super::{Answer, Subject, number, said, word};
use crate::frame;

/// The streams that a peer has open, by name. Frames are those of [`crate::frame`], told by their
/// keys.
///
/// | command | answer |
/// |---|---|
/// | `stream.create NAME BYTES [slots=K] [mode=OCTAL] [group=GID]` | `ok` generation |
/// | `stream.open NAME` | `ok` generation |
/// | `stream.await NAME` | the same, once the stream exists |
/// | `stream.reader NAME [raise] [reattach]` | `ok`; reads from here on are those of a new reader |
/// | `stream.write NAME KEY [TIMES]` | `ok` the last count; the keys count up |
/// | `stream.together NAME OTHER TIMES` | `ok` after so many turns with the locks of both, each publishing one frame on both |
/// | `stream.lock NAME [MS]` | `ok` `free` or `recovered` |
/// | `stream.begin NAME KEY BYTES` | `ok`; claims a slot in the held lock, fills BYTES of it |
/// | `stream.publish NAME` | `ok` the count |
/// | `stream.abort NAME` | `ok` |
/// | `stream.release NAME` | `ok` |
/// | `stream.latest NAME` | `ok` count, key, phase |
/// | `stream.next NAME [MS]` | `ok` count, key, missed |
/// | `stream.follow NAME UNTIL` | `ok` frames read in order up to count UNTIL, and missed |
/// | `stream.seek NAME COUNT` | `ok`; the next frame in order is the first above COUNT |
/// | `stream.wait NAME AFTER [MS]` | `ok` the count |
/// | `stream.lease NAME [revoke or MS]` | `ok` count, key, `slot` or `copy` |
/// | `stream.leased NAME` | `ok` the keys of all leases, read again; `revoked` where one was |
/// | `stream.drop_leases NAME` | `ok` |
/// | `stream.info NAME` | `ok` what there is to know, as `field=value`, warnings last |
/// | `stream.parks NAME PID` | `ok` how often that process went to sleep on the stream |
/// | `stream.fork_in_write NAME KEY` | `ok` what a forked child may do in its parent's write, then the parent's count |
/// | `stream.unlink NAME` | `ok` `true` or `false` |
/// | `stream.close NAME` | `ok` |
#[derive(Debug)]
pub struct Streams {
    namespace: Namespace,
    open: HashMap<String, Open>,
}

#[derive(Debug)]
struct Open {
    /// Before the stream, so that it is dropped first.
    hold: Option<Hold>,
    leases: Vec<Lease>,
    reader: Reader,
    stream: Stream,
}

impl Open {
    fn new(stream: Stream) -> Self {
        Self { hold: None, leases: Vec::new(), reader: stream.reader(), stream }
    }

    fn generation(&self) -> String {
        self.stream.generation().to_string()
    }
}

impl Streams {
    /// None yet.
    pub fn new(namespace: Namespace) -> Self {
        Self { namespace, open: HashMap::new() }
    }

    fn create(&self, name: &str, words: &[&str]) -> Result<Stream, String> {
        let bytes: u64 = number(words, 1, "the size")?;
        let mut options = StreamOptions::new(DType::U8, [bytes]).namespace(self.namespace.clone());
        for option in &words[2..] {
            options = match option.split_once('=') {
                Some(("slots", count)) => options.slots(count.parse().map_err(said)?),
                Some(("mode", mode)) => options.mode(u32::from_str_radix(mode, 8).map_err(said)?),
                Some(("group", group)) => options.group(group.parse().map_err(said)?),
                _ => return Err(format!("`{option}` is no option of a stream")),
            };
        }
        options.create(name).map_err(|error| told(&error))
    }

    /// Publishes on two streams as one step, so often. Whoever holds both locks finds both with the
    /// same count, and leaves them so.
    fn together(&self, names: [&str; 2], times: u64) -> Answer {
        let mut writers = Vec::new();
        for name in names {
            let open = self.open.get(name).ok_or_else(|| format!("stream `{name}` is not open"))?;
            writers.push(open.stream.writer().map_err(|error| told(&error))?);
        }
        let frame = frame::frame(self.open[names[0]].stream.frame_bytes(), 1);
        for _ in 0..times {
            let wait = Wait::forever();
            let held = locked_many(&mut writers, &wait).map_err(|error| told(&error))?;
            let mut counts = Vec::new();
            for mut locked in held {
                counts.push(locked.write(&frame, &Stamp::default()).map_err(|error| told(&error))?);
            }
            if counts[0] != counts[1] {
                return Err(format!("counts {counts:?} under both locks"));
            }
        }
        Ok(String::new())
    }

    fn attach(&mut self, verb: &str, name: &str, words: &[&str]) -> Option<Answer> {
        let options = OpenOptions::new().namespace(self.namespace.clone());
        let stream = match verb {
            "create" => self.create(name, words),
            "open" => options.open(name).map_err(|error| told(&error)),
            "await" => {
                options.open_when_created(name, &Wait::forever()).map_err(|error| told(&error))
            }
            _ => return None,
        };
        Some(stream.map(|stream| {
            let open = Open::new(stream);
            let generation = open.generation();
            self.open.insert(name.to_owned(), open);
            generation
        }))
    }
}

impl Subject for Streams {
    fn name(&self) -> &'static str {
        "stream"
    }

    fn run(&mut self, verb: &str, words: &[&str]) -> Answer {
        let name = word(words, 0, "the name")?;
        if let Some(answer) = self.attach(verb, name, words) {
            return answer;
        }
        let missing = || format!("stream `{name}` is not open");
        if verb == "close" {
            return self.open.remove(name).map(|_| String::new()).ok_or_else(missing);
        }
        if verb == "together" {
            let other = word(words, 1, "the other name")?;
            return self.together([name, other], number(words, 2, "the times")?);
        }
        let open = self.open.get_mut(name).ok_or_else(missing)?;
        match verb {
            "write" | "lock" | "begin" | "publish" | "abort" | "release" | "fork_in_write" => {
                open.write_side(verb, words)
            }
            "info" => Ok(describe(&open.stream.info())),
            "parks" => {
                let pid: u32 = number(words, 1, "the process")?;
                let participants = open.stream.info().participants;
                let found = participants.iter().find(|participant| participant.pid == pid);
                found
                    .map(|it| it.reader.parks.to_string())
                    .ok_or_else(|| format!("no process {pid}"))
            }
            "unlink" => match open.stream.unlink() {
                Ok(removed) => Ok(removed.to_string()),
                Err(error) => Err(told(&error)),
            },
            _ => open.read_side(verb, words),
        }
    }
}

impl Open {
    fn write_side(&mut self, verb: &str, words: &[&str]) -> Answer {
        let not_held = || "the lock is not held".to_owned();
        match verb {
            "write" => {
                let key: u64 = number(words, 1, "the key")?;
                let times = if words.len() > 2 { number(words, 2, "the times")? } else { 1 };
                self.write(key, times).map(|count| count.to_string()).map_err(|error| told(&error))
            }
            "lock" => {
                let writer = self.stream.writer().map_err(|error| told(&error))?;
                let (hold, found) =
                    Hold::take(writer, self.stream.frame_bytes(), millis(words, 1))?;
                self.hold = Some(hold);
                Ok(found)
            }
            "release" => self.hold.take().map(|_| String::new()).ok_or_else(not_held),
            "fork_in_write" => self.fork_in_write(number(words, 1, "the key")?),
            _ => {
                let order = match verb {
                    "begin" => Order::Begin {
                        key: number(words, 1, "the key")?,
                        bytes: number(words, 2, "the bytes")?,
                    },
                    "publish" => Order::Publish,
                    _ => Order::Abort,
                };
                self.hold.as_ref().ok_or_else(not_held)?.order(order)
            }
        }
    }

    fn write(&self, key: u64, times: u64) -> Result<u64, Error> {
        let mut writer = self.stream.writer()?;
        let mut frame = vec![0; self.stream.frame_bytes()];
        let mut count = 0;
        for key in key..key + times {
            frame::fill(&mut frame, key);
            count = writer.write(&frame)?;
        }
        Ok(count)
    }

    /// In the middle of a write, forks children that try to finish it, to give it up and to write
    /// under the inherited lock; then finishes it.
    fn fork_in_write(&self, key: u64) -> Answer {
        let failed = |error: Error| told(&error);
        let mut writer = self.stream.writer().map_err(failed)?;
        let frame = frame::frame(self.stream.frame_bytes(), key);
        let mut locked = writer.lock(&Wait::forever()).map_err(failed)?;
        let view = locked.view(Contents::Fresh).map_err(failed)?;
        let tried = share_write(view, &frame)?;
        let wrote = in_child(|| outcome(locked.write(&frame, &Stamp::default()).map(|_| "wrote")))?;
        Ok(format!("{wrote} {tried}"))
    }

    fn read_side(&mut self, verb: &str, words: &[&str]) -> Answer {
        self.try_read_side(verb, words).unwrap_or_else(|error| Err(told(&error)))
    }

    fn try_read_side(&mut self, verb: &str, words: &[&str]) -> Result<Answer, Error> {
        Ok(match verb {
            "reader" => {
                let mut options = ReaderOptions::default();
                for option in &words[1..] {
                    match *option {
                        "raise" => options.on_abort = OnAbort::Raise,
                        "reattach" => options.reattach = true,
                        _ => return Ok(Err(format!("`{option}` is no option of a reader"))),
                    }
                }
                self.reader = self.stream.reader_with(options);
                Ok(String::new())
            }
            "latest" => {
                let frame = self.reader.latest()?;
                let publication = frame.publication();
                let phase = phase_name(publication.phase);
                frame::verify(frame.bytes())
                    .map(|key| format!("{} {key} {phase}", publication.count))
            }
            "next" => {
                let frame = self.reader.next(&limit(words, 1))?;
                let publication = frame.publication();
                frame::verify(frame.bytes())
                    .map(|key| format!("{} {key} {}", publication.count, publication.missed))
            }
            "follow" => match number(words, 1, "the last count") {
                Ok(until) => self.follow(until)?,
                Err(words) => Err(words),
            },
            "seek" => number(words, 1, "the count").map(|count| {
                self.reader.seek(count);
                String::new()
            }),
            "wait" => match number(words, 1, "the count") {
                Ok(after) => Ok(self.reader.wait(after, &limit(words, 2))?.to_string()),
                Err(words) => Err(words),
            },
            "lease" => {
                let on_full = match (words.get(1), millis(words, 1)) {
                    (Some(&"revoke"), _) => OnFull::Revoke,
                    (_, Some(limit)) => OnFull::Wait(limit),
                    _ => OnFull::Copy,
                };
                let lease = self.reader.lease(on_full)?;
                let how = if lease.is_copy() { "copy" } else { "slot" };
                let mut bytes = vec![0; lease.len()];
                lease.copy_to(&mut bytes)?;
                let count = lease.publication().count;
                self.leases.push(lease);
                frame::verify(&bytes).map(|key| format!("{count} {key} {how}"))
            }
            "leased" => {
                let again = self.leases.iter().map(|lease| {
                    if lease.is_revoked() {
                        return Ok("revoked".to_owned());
                    }
                    let mut bytes = vec![0; lease.len()];
                    lease.copy_to(&mut bytes).map_err(|error| told(&error))?;
                    frame::verify(&bytes).map(|key| key.to_string())
                });
                again.collect::<Result<Vec<_>, _>>().map(|keys| keys.join(" "))
            }
            "drop_leases" => {
                self.leases.clear();
                Ok(String::new())
            }
            _ => Err(format!("unknown command `stream.{verb}`")),
        })
    }

    /// Reads every frame in order, and checks that the missed counts account for every other one.
    fn follow(&mut self, until: u64) -> Result<Answer, Error> {
        let mut bytes = vec![0; self.stream.frame_bytes()];
        let (mut frames, mut missed) = (0_u64, 0_u64);
        let mut last = self.reader.last_count();
        while last < until {
            let publication = self.reader.next_into(&mut bytes, &Wait::forever())?;
            if let Err(torn) = frame::verify(&bytes) {
                return Ok(Err(torn));
            }
            if publication.count != last + 1 + publication.missed {
                return Ok(Err(format!(
                    "frame {} after {last} cannot have {} missed",
                    publication.count, publication.missed
                )));
            }
            last = publication.count;
            frames += 1;
            missed += publication.missed;
        }
        Ok(Ok(format!("{frames} {missed}")))
    }
}

/// What children can do with the view of a write that they inherited, and then the count with which
/// their parent published it.
fn share_write(view: WriteView<'_>, frame: &[u8]) -> Answer {
    // Only a child ever takes it out of its own copy of this.
    let mut view = Some(view);
    let published = in_child(|| {
        let view = view.take().map(|view| view.publish(&Stamp::default()));
        view.map_or_else(String::new, |published| outcome(published.map(|_| "published")))
    })?;
    let filled = in_child(|| {
        let filled = view.as_mut().map(|view| view.write_at(0, &[0; 8]));
        filled.map_or_else(String::new, |filled| outcome(filled.map(|()| "filled")))
    })?;
    let dropped = in_child(|| {
        drop(view.take());
        "dropped".to_owned()
    })?;
    let mut view = view.ok_or("the view is gone")?;
    view.write_at(0, frame).map_err(|error| told(&error))?;
    let count = view.publish(&Stamp::default()).map_err(|error| told(&error))?;
    Ok(format!("{published} {filled} {dropped} {count}"))
}

fn outcome(result: Result<&str, Error>) -> String {
    result.map_or_else(|error| format!("{:?}", error.kind()), str::to_owned)
}

/// An error with its kind, so that a test can tell which it is.
pub(super) fn told(error: &Error) -> String {
    format!("{:?}: {error}", error.kind())
}

/// The milliseconds at `index`, if there are any.
fn millis(words: &[&str], index: usize) -> Option<Duration> {
    words.get(index).and_then(|text| text.parse().ok()).map(Duration::from_millis)
}

/// A wait for the milliseconds at `index`, or without a limit.
fn limit(words: &[&str], index: usize) -> Wait<'static> {
    millis(words, index).map_or(Wait::forever(), Wait::for_at_most)
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Idle => "idle",
        Phase::Writing => "writing",
        Phase::Aborted => "aborted",
        Phase::Crashed => "crashed",
    }
}

fn describe(info: &StreamInfo) -> String {
    let alive = info.participants.iter().filter(|participant| participant.alive).count();
    let leases: u32 = info.participants.iter().map(|participant| participant.leases).sum();
    format!(
        "slots={} leases_max={} count={} phase={} frames={} recoveries={} aborts={} entries={} \
         alive={alive} leases={leases} observer={} always_wakes={} warnings={}",
        info.slots,
        info.leases_max,
        info.count,
        phase_name(info.phase),
        info.writer.frames,
        info.writer.recoveries,
        info.writer.aborts,
        info.participants.len(),
        info.observer,
        info.always_wakes,
        info.warnings.join("; ")
    )
}
