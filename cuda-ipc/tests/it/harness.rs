//! Runs the tests one after the other, each under a watchdog, and looks at what each leaves behind.

use std::fs;
use std::io::Write;
use std::panic;
use std::path::Path;
use std::process::{ExitCode, abort};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::calls::{self, Calls};

/// How long one test may take before the run is given up. No test measures time against it.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long what a test let go of may take to be given back.
const SOON: Duration = Duration::from_secs(60);

/// Why a test cannot run here.
#[derive(Debug)]
pub(crate) struct Skip(pub(crate) &'static str);

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

pub(crate) fn say(line: &str) {
    // A closed pipe is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{line}");
}

pub(crate) fn run(modules: &[(&str, &[Test])]) -> ExitCode {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let all = modules.iter().flat_map(|(module, tests)| {
        tests.iter().map(move |(name, test)| (format!("{module}::{name}"), *test))
    });
    let chosen: Vec<_> = all
        .filter(|(name, _)| filter.as_ref().is_none_or(|filter| name.contains(filter)))
        .collect();
    if std::env::args().any(|argument| argument == "--list") {
        for (name, _) in &chosen {
            say(&format!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    say(&format!("\nrunning {} tests", chosen.len()));
    // The driver opens files of its own when it is started.
    let _ = cuda_ipc::probe();
    let (mut failed, mut skipped) = (0, 0);
    for (name, test) in &chosen {
        let (over, ended) = mpsc::channel::<()>();
        let (watched, calls) = (name.clone(), Calls::now());
        let before = calls.clone();
        let watchdog = std::thread::spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                say(&format!("test {watched} ... does not end"));
                say(&format!("called since it began: {:?}", Calls::now().since(&before)));
                for thread in threads() {
                    say(&thread);
                }
                abort();
            }
        });
        let outcome = panic::catch_unwind(|| {
            let before = open_descriptors();
            let outcome = test();
            let soon = Instant::now() + SOON;
            assert!(cuda_ipc::flush(soon), "what was mapped can be unmapped");
            // A device's driver lets go of what a graph kept in its own time.
            while cuda_ipc::usage() != cuda_ipc::Usage::default() && Instant::now() < soon {
                std::thread::yield_now();
            }
            assert_eq!(cuda_ipc::usage(), cuda_ipc::Usage::default(), "nothing stays mapped");
            if !crate::driver::is_device() {
                // A device's driver keeps some open for later.
                assert_eq!(open_descriptors(), before, "descriptors are left as they were found");
            }
            outcome
        });
        drop(over);
        watchdog.join().expect("it ends");
        calls::note("test", name, &Calls::now().since(&calls));
        match outcome {
            Ok(Ok(())) => say(&format!("test {name} ... ok")),
            Ok(Err(Skip(reason))) => {
                skipped += 1;
                note_skip(name, reason);
                say(&format!("test {name} ... skipped: {reason}"));
            }
            Err(_) => {
                failed += 1;
                say(&format!("test {name} ... FAILED"));
            }
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    // Where skips are collected in a file they are taken off the passed ones by the reader.
    let ignored = if std::env::var_os("ST_SKIPS").is_some() { 0 } else { skipped };
    say(&format!(
        "\ntest result: {verdict}. {} passed; {failed} failed; {ignored} ignored; 0 measured; 0 \
         filtered out; finished in {:.2}s\n",
        chosen.len() - failed - ignored,
        started.elapsed().as_secs_f64(),
    ));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn note_skip(name: &str, reason: &str) {
    let Some(path) = std::env::var_os("ST_SKIPS") else { return };
    let file = fs::OpenOptions::new().append(true).create(true).open(path);
    let noted = file.and_then(|mut file| writeln!(file, "cuda-ipc {name}: {reason}"));
    noted.expect("the file named by ST_SKIPS can be written");
}

/// What each thread of this process waits for in the kernel.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("procfs").flatten();
    let read = |path: &Path, name| fs::read_to_string(path.join(name)).unwrap_or_default();
    let told = tasks.map(|task| {
        let of = |name| read(&task.path(), name).trim_end().to_owned();
        format!("{}: {}, system call {}", of("comm"), of("wchan"), of("syscall"))
    });
    told.collect()
}

/// How many descriptors this process has, without the one used for looking.
pub(crate) fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("procfs").count() - 1
}
