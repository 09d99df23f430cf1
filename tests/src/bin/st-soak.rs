//! Minutes of a busy stream, watched for growth; and readers against a writer that never pauses.
//!
//! `st-soak [--minutes M] [--seed S]`, `st-soak starve [--quick]`

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use st_tests::crash::report;
use st_tests::soak::soak;
use st_tests::starve::Contest;
use st_tests::{Namespace, Seed};

const MIB: u64 = 1 << 20;
/// Beyond what it is to take.
const GRACE: Duration = Duration::from_secs(120);
const CONTEST_LIMIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--role", role] => report(role).is_ok(),
        ["starve"] => starve(&[64 * MIB, 256 * MIB], &[1, 3, 8], 20),
        ["starve", "--quick"] => starve(&[64 * MIB], &[1, 3], 4),
        _ => lengths(&words).is_some_and(|(minutes, seed)| run(minutes, seed)),
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Minutes and seed, or a word on how to say them.
fn lengths(words: &[&str]) -> Option<(f64, u64)> {
    let lengths = parsed(words);
    if lengths.is_none() {
        say("st-soak [--minutes M] [--seed S], or st-soak starve [--quick]");
    }
    lengths
}

fn parsed(words: &[&str]) -> Option<(f64, u64)> {
    let mut plan = (1.0, Seed::from_environment().start());
    for pair in words.chunks(2) {
        match pair {
            ["--minutes", minutes] => plan.0 = minutes.parse().ok()?,
            ["--seed", seed] => plan.1 = seed.parse().ok()?,
            _ => return None,
        }
    }
    (plan.0 > 0.0 && plan.0 < 10_000.0).then_some(plan)
}

fn run(minutes: f64, seed: u64) -> bool {
    let length = Duration::from_secs_f64(minutes * 60.0);
    say(&format!("{minutes} minutes, seed {seed}"));
    let space = Namespace::with_limit("soak", length + GRACE);
    let outcome = soak(&space, length, seed);
    let left = space.files();
    say(&format!("{outcome}  names left {}", left.len()));
    outcome.violations.is_empty() && left.is_empty()
}

fn starve(sizes: &[u64], crowds: &[usize], reads: u64) -> bool {
    say("   MiB  slots  readers   reads  copied again  copies per read  frames written       s");
    let mut good = true;
    for &frame_bytes in sizes {
        for &readers in crowds {
            let space = Namespace::with_limit("starve", CONTEST_LIMIT);
            let score = Contest { frame_bytes, readers, reads }.hold(&space);
            say(&format!(
                "{:>6} {:>6} {readers:>8} {:>7} {:>13} {:>11} max {:>15} {:>7.1}",
                frame_bytes / MIB,
                score.slots,
                score.reads,
                score.retries,
                score.copies_max,
                score.published,
                score.elapsed.as_secs_f64()
            ));
            for violation in &score.violations {
                say(&format!("  ! {violation}"));
            }
            good &= score.violations.is_empty();
        }
    }
    good
}

fn say(line: &str) {
    // Whoever listened may have gone; what counts is the exit code.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
