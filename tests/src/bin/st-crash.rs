//! Kills writers, readers, lessees and attachers at random, and checks what is left. See
//! `st_tests::crash`.
//!
//! `st-crash [--iterations N] [--seed S]`

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use st_tests::crash::{Campaign, Plan, Tally, report};
use st_tests::{Namespace, Seed};

const ITERATIONS: u64 = 200;
/// A kill with all that belongs to it takes some twenty milliseconds.
const LIMIT_EACH: Duration = Duration::from_secs(2);
const LIMIT_START: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut plan = Plan { iterations: ITERATIONS, seed: Seed::from_environment().start() };
    while let Some(argument) = arguments.next() {
        let Some(value) = arguments.next() else { return refuse(&argument) };
        let number = value.strip_prefix("0x").map_or_else(
            || value.parse::<u64>().ok(),
            |digits| u64::from_str_radix(digits, 16).ok(),
        );
        match (argument.as_str(), number) {
            ("--role", _) => return serve(&value),
            ("--iterations", Some(number)) => plan.iterations = number,
            ("--seed", Some(number)) => plan.seed = number,
            _ => return refuse(&argument),
        }
    }
    campaign(plan)
}

fn campaign(plan: Plan) -> ExitCode {
    say(&format!("{} kills, seed {}", plan.iterations, plan.seed));
    let limit = u32::try_from(plan.iterations).unwrap_or(u32::MAX);
    let space = Namespace::with_limit("crash", LIMIT_START + LIMIT_EACH * limit);
    let tell = |tally: &Tally| {
        let inside = tally.inside_slot + tally.inside_lock;
        say(&format!("  {} of {} kills, {inside} inside", tally.kills(), plan.iterations));
    };
    let tally = Campaign::run(&space, plan, tell);
    let left = space.files();
    say(&format!("{tally}  {:<40}{}", "names left", left.len()));
    if tally.violations.is_empty() && left.is_empty() {
        return ExitCode::SUCCESS;
    }
    say(&format!(
        "failed; the same choices again: --iterations {} --seed {}",
        plan.iterations, plan.seed
    ));
    ExitCode::FAILURE
}

fn serve(role: &str) -> ExitCode {
    match report(role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn refuse(argument: &str) -> ExitCode {
    say(&format!("`{argument}` is not understood: st-crash [--iterations N] [--seed S]"));
    ExitCode::FAILURE
}

fn say(line: &str) {
    // Whoever listened may have gone; what counts is the exit code.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
