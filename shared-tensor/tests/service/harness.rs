//! Runs the tests one after the other, with a watchdog, and counts what each leaves behind.
//!
//! Understands what `cargo test` passes on: a filter, `--exact`, `--skip`, `--list`; ignores the
//! rest.

use std::fs;
use std::io::Write;
use std::panic;
use std::process::{ExitCode, abort};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long one test may take before the run is given up. No test measures time against it.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Why a test cannot run here.
#[derive(Debug)]
pub(crate) struct Skip(pub(crate) String);

pub(crate) type Outcome = Result<(), Skip>;
pub(crate) type Test = (&'static str, fn() -> Outcome);

/// What a test may return: nothing, or that it may have been skipped.
pub(crate) trait Returned {
    fn outcome(self) -> Outcome;
}

impl Returned for () {
    fn outcome(self) -> Outcome {
        Ok(self)
    }
}

impl Returned for Outcome {
    fn outcome(self) -> Outcome {
        self
    }
}

/// A list of tests, named like their functions.
macro_rules! tests {
    ($($test:ident),* $(,)?) => {
        pub(crate) const TESTS: &[crate::harness::Test] =
            &[$((stringify!($test), || crate::harness::Returned::outcome($test()))),*];
    };
}
pub(crate) use tests;

pub(crate) fn run(modules: &[(&str, &[Test])]) -> ExitCode {
    let wanted = Wanted::from_arguments();
    let all = modules.iter().flat_map(|(module, tests)| {
        tests.iter().map(move |(name, test)| (format!("{module}::{name}"), *test))
    });
    let chosen: Vec<_> = all.filter(|(name, _)| wanted.includes(name)).collect();
    if wanted.list {
        for (name, _) in &chosen {
            say(&format!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    say(&format!("\nrunning {} tests", chosen.len()));
    let (mut failed, mut skipped) = (Vec::new(), 0);
    for (name, test) in &chosen {
        let watchdog = Watchdog::over(name);
        let before = Belongings::now();
        let outcome = panic::catch_unwind(|| {
            let outcome = test();
            before.assert_left();
            outcome
        });
        watchdog.leave();
        match outcome {
            Ok(Ok(())) => say(&format!("test {name} ... ok")),
            Ok(Err(Skip(reason))) => {
                skipped += 1;
                note_skip(name, &reason);
                say(&format!("test {name} ... skipped: {reason}"));
            }
            Err(_) => {
                say(&format!("test {name} ... FAILED"));
                failed.push(name);
            }
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    // Where skips are collected in a file they are taken off the passed ones by the reader.
    let ignored = if std::env::var_os("ST_SKIPS").is_some() { 0 } else { skipped };
    say(&format!(
        "\ntest result: {verdict}. {} passed; {} failed; {ignored} ignored; 0 measured; 0 filtered \
         out; finished in {:.2}s\n",
        chosen.len() - failed.len() - ignored,
        failed.len(),
        started.elapsed().as_secs_f64(),
    ));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

pub(crate) fn say(line: &str) {
    // A closed pipe is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn note_skip(name: &str, reason: &str) {
    let Some(path) = std::env::var_os("ST_SKIPS") else { return };
    let file = fs::OpenOptions::new().append(true).create(true).open(path);
    let noted = file.and_then(|mut file| writeln!(file, "shared-tensor {name}: {reason}"));
    noted.expect("the file named by ST_SKIPS can be written");
}

/// The descriptors and threads of this process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Belongings {
    descriptors: Vec<String>,
    threads: Vec<String>,
    /// Chunks of memory, and their mappings.
    memory: (usize, usize),
}

impl Belongings {
    pub(crate) fn now() -> Self {
        let mut threads: Vec<String> = listed("/proc/self/task", |path| {
            fs::read_to_string(path.join("comm")).unwrap_or_default()
        });
        // Two per process stay, and for a while one of those with GPUs, and one per client.
        let stays = |name: &str| {
            let all = ["st-reaper", "st-copy", "st-watch", "st-replies"];
            all.iter().any(|it| name.starts_with(it))
        };
        threads.retain(|name| {
            (name.starts_with("rpc-uds") || name.starts_with("st-")) && !stays(name)
        });
        Self {
            descriptors: open_descriptors(),
            threads,
            memory: shared_tensor::service::accounting(),
        }
    }

    /// The kernel lists a thread for a moment after it was joined, so one look is not enough.
    fn assert_left(&self) {
        let begun = Instant::now();
        while Self::now() != *self && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(Self::now(), *self, "a test leaves descriptors and threads as it found them");
    }
}

/// What the descriptors of this process lead to, but for the one that is open while looking.
pub(crate) fn open_descriptors() -> Vec<String> {
    let mut open = listed("/proc/self/fd", |path| {
        fs::read_link(path).map(|to| to.display().to_string()).unwrap_or_default()
    });
    // Those of the driver come and stay as it pleases.
    open.retain(|to| !to.ends_with("/fd") && !to.is_empty() && !to.starts_with("/dev/nvidia"));
    // A socket is named by a number that never comes again; that there are as many is what counts.
    for to in &mut open {
        if let Some(colon) = to.find(":[") {
            to.truncate(colon);
        }
    }
    open.sort();
    open
}

fn listed(folder: &str, name: impl Fn(&std::path::Path) -> String) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("/proc is mounted");
    let mut names: Vec<String> =
        entries.flatten().map(|entry| name(&entry.path()).trim_end().to_owned()).collect();
    names.sort();
    names
}

#[derive(Default)]
struct Wanted {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    list: bool,
}

impl Wanted {
    fn from_arguments() -> Self {
        let mut wanted = Self::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--exact" => wanted.exact = true,
                "--list" => wanted.list = true,
                "--skip" => wanted.skips.extend(arguments.next()),
                "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" => {
                    arguments.next();
                }
                _ if argument.starts_with('-') => {}
                _ => wanted.filters.push(argument),
            }
        }
        wanted
    }

    fn includes(&self, name: &str) -> bool {
        let matches = |filter: &String| {
            if self.exact { name == filter } else { name.contains(filter.as_str()) }
        };
        (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skips.iter().any(matches)
    }
}

/// Ends the whole run when a test hangs: a hang is a failure, not a longer wait.
struct Watchdog(mpsc::Sender<()>);

impl Watchdog {
    fn over(name: &str) -> Self {
        let (sender, receiver) = mpsc::channel();
        let name = name.to_owned();
        std::thread::spawn(move || {
            if receiver.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                say(&format!("test {name} ... FAILED: still running after {PATIENCE:?}"));
                abort();
            }
        });
        Self(sender)
    }

    fn leave(self) {
        // The watchdog may just have given up.
        let _ = self.0.send(());
    }
}
