//! Other processes without CUDA: this program once more, told what to do line by line.

use std::time::Duration;

use shared_tensor::shm::Namespace;
use shared_tensor::stream::{
    Contents, Lease, OnAbort, OnFull, OnWriting, OpenOptions, Reader, ReaderOptions, Stamp, Stream,
    Wait, Writer, wait_any,
};

use crate::harness::say;
use crate::support::watchdog;

struct Plain {
    stream: Stream,
    /// With the default options.
    serving: Reader,
    /// Waits for what is on its way, and fails if that never comes.
    waiting: Reader,
    writer: Writer,
    lease: Option<Lease>,
}

/// The count of a frame and its bytes: each value, and how many of it come before another one.
pub(crate) fn told(count: u64, bytes: &[u8]) -> String {
    let runs: Vec<_> = bytes.chunk_by(|one, next| one == next).collect();
    if let [[value, ..]] = *runs {
        return format!("{count} {value}");
    }
    let each: Vec<_> = runs.iter().map(|run| format!("{}x{}", run[0], run.len())).collect();
    format!("{count} {}", each.join(","))
}

impl Plain {
    fn open(namespace: &Namespace) -> Self {
        let stream = OpenOptions::new().namespace(namespace.clone()).open("it").unwrap();
        let strict = ReaderOptions::new().on_writing(OnWriting::Wait).on_abort(OnAbort::Raise);
        Self {
            serving: stream.reader(),
            waiting: stream.reader_with(strict),
            writer: stream.writer().unwrap(),
            stream,
            lease: None,
        }
    }

    fn answer(&mut self, verb: &str, value: &str) -> shared_tensor::Result<String> {
        let number = || value.parse::<u8>().unwrap();
        Ok(match verb {
            "read" => {
                let frame = self.serving.latest_with(&watchdog())?;
                told(frame.publication().count, frame.bytes())
            }
            "wait" => {
                let frame = self.waiting.latest_with(&watchdog())?;
                told(frame.publication().count, frame.bytes())
            }
            "glance" => {
                let frame = self.waiting.latest_with(&Wait::for_at_most(Duration::ZERO))?;
                told(frame.publication().count, frame.bytes())
            }
            "next" => {
                let frame = self.serving.next(&watchdog())?;
                told(frame.publication().count, frame.bytes())
            }
            "any" => {
                wait_any(&mut [&mut self.serving], &watchdog())?;
                self.answer("next", "")?
            }
            "lease" => {
                let lease = self.serving.lease_with(OnFull::Copy, &watchdog())?;
                let kind = if lease.is_copy() { "copied" } else { "leased" };
                let answer = format!("{kind} {}", lease.publication().count);
                self.lease = Some(lease);
                answer
            }
            "leased" => {
                let lease = self.lease.as_ref().unwrap();
                let mut bytes = vec![0; lease.len()];
                lease.copy_to(&mut bytes)?;
                told(lease.publication().count, &bytes)
            }
            "drop" => {
                self.lease = None;
                "dropped".to_owned()
            }
            "write" => {
                let bytes = vec![number(); self.stream.frame_bytes()];
                self.writer.write_with(&bytes, &Stamp::default(), &watchdog())?.to_string()
            }
            // Changes the first byte of the last frame.
            "mark" => {
                let mut view = self.writer.write_view(Contents::Previous, &watchdog())?;
                view.write_at(0, &[number()])?;
                view.publish(&Stamp::default())?.to_string()
            }
            "phase" => format!("{:?}", self.stream.phase()),
            "maps" => {
                let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
                if maps.contains("libcuda") { "cuda" } else { "plain" }.to_owned()
            }
            _ => format!("what is {verb}?"),
        })
    }
}

/// Plays a process without CUDA.
pub(crate) fn play(namespace: &Namespace) {
    let mut plain = None;
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (verb, value) = line.split_once(' ').unwrap_or((&line, ""));
        if verb == "open" {
            plain = Some(Plain::open(namespace));
            say("opened");
            continue;
        }
        let plain = plain.as_mut().unwrap();
        say(&plain.answer(verb, value).unwrap_or_else(|error| format!("{:?}", error.kind())));
    }
}
