//! Deaths, many of them: makers of memory, its readers, and everybody but one who holds it.
//!
//! Sizes and counts are arguments, `--bytes=N` and the like; without them they are small. This process
//! has no part of CUDA: what needs the driver, also looking for free memory, is another one's.
//!
//! Without `ST_GPU=require` it runs on the driver for tests.

#[path = "../it/calls.rs"]
#[allow(dead_code, reason = "others use more of it")]
mod calls;
mod counts;
#[path = "../it/driver.rs"]
mod driver;
mod object;
#[path = "../it/parcel.rs"]
mod parcel;
mod pattern;
mod peer;
mod plan;
#[path = "../it/process.rs"]
mod process;
mod roles;
#[expect(unsafe_code, reason = "the driver's functions for kernels have no safe form")]
mod sys;
mod tests;

use std::io::Write;
use std::panic;
use std::process::{ExitCode, abort};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::plan::Plan;

/// How long one test may take before the run is given up. No test measures time against it.
const PATIENCE: Duration = Duration::from_secs(900);

fn say(line: &str) {
    // A closed pipe is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn main() -> ExitCode {
    if let Some(role) = std::env::var_os(process::ROLE) {
        let role = role.to_string_lossy();
        roles::play(&role);
        calls::note("role", &role, &calls::Calls::now());
        return ExitCode::SUCCESS;
    }
    if !driver::is_device() && !driver::is_chosen() {
        return driver::run_again();
    }
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let is_chosen = |name: &str| filter.as_ref().is_none_or(|filter| name.contains(filter));
    let chosen: Vec<_> = tests::TESTS.iter().filter(|(name, _)| is_chosen(name)).collect();
    if std::env::args().any(|argument| argument == "--list") {
        for (name, _) in &chosen {
            say(&format!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let plan = Plan::read(std::env::args().skip(1));
    let started = Instant::now();
    say(&format!("\nrunning {} tests", chosen.len()));
    let mut failed = 0;
    for (name, test) in &chosen {
        let (over, ended) = mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                say(&format!("test {name} ... does not end"));
                // The others end with their sockets.
                abort();
            }
        });
        let outcome = panic::catch_unwind(|| test(&plan));
        drop(over);
        watchdog.join().expect("it ends");
        if let Ok(counts) = outcome {
            counts.note(name, &plan);
            say(&format!("test {name} ... ok"));
        } else {
            failed += 1;
            say(&format!("test {name} ... FAILED"));
        }
    }
    say(&format!(
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; \
         finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        chosen.len() - failed,
        started.elapsed().as_secs_f64(),
    ));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
