//! `cargo xtask fuzz`: the decoders under libFuzzer, for as long as one likes.
//!
//! Stable Rust instruments code for it as nightly does, if LLVM is told to; libFuzzer itself is built
//! from its source, which takes a C++ compiler.

use std::fs::{self, File};
use std::io::Write;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use crate::tally::{Report, Tally};
use crate::task::Task;
use crate::verb::Verb;
use crate::{Failure, Flags, Workspace, screen};

pub(crate) const VERB: Verb = Verb {
    name: "fuzz",
    usage: "[TARGET...] [--minutes N]",
    summary: "fuzz what decodes the bytes of others (without a target: all, a minute each)",
    exists: |workspace| workspace.has(MANIFEST),
    run,
};

const MANIFEST: &str = "fuzz/Cargo.toml";
const MINUTES: u32 = 1;

/// Each target, and the longest input in bytes: longer ones reach nothing more.
const TARGETS: &[(&str, u32)] =
    &[("frame", 100_000), ("handshake", 5_000), ("manifest", 16_000), ("value", 8_000)];

/// An input that takes longer counts as hanging. Far longer than any does, as processes may be stopped.
const SECONDS_MAX: u32 = 20;
/// More memory than any input may take, with all inputs that were kept.
const MEBIBYTES_MAX: u32 = 1024;

/// What makes code tell libFuzzer where it went and what it compared.
const COVERAGE: &[&str] = &[
    "--cfg fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Branches that LLVM folds into one are not seen any more.
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Ccodegen-units=1",
];

fn run(workspace: &Workspace, mut flags: Flags) -> Result<(), Failure> {
    let minutes = flags.value::<NonZero<u32>>("--minutes")?.map_or(MINUTES, NonZero::get);
    let mut targets = Vec::new();
    while let Some(name) = flags.word() {
        let known = TARGETS.iter().find(|(target, _)| *target == name).ok_or_else(|| {
            let names: Vec<&str> = TARGETS.iter().map(|(target, _)| *target).collect();
            Failure::new(format!("`{name}` is none of: {}", names.join(", ")))
        })?;
        targets.push(*known);
    }
    flags.finish()?;
    if targets.is_empty() {
        targets = TARGETS.to_vec();
    }
    let folder = workspace.target.join("fuzz");
    screen::step("Build the targets");
    let programs = build(workspace, &folder)?;
    screen::step(&format!("Fuzz, {minutes} minutes each"));
    let fuzzer = Fuzzer { programs, folder, seconds: minutes * 60 };
    let queue = Mutex::new(targets.into_iter());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().ok().and_then(|mut queue| queue.next());
                    let Some((target, bytes)) = next else { break };
                    let mut figures = Figures::default();
                    let outcome = fuzzer.fuzz(target, bytes, &mut figures);
                    if let Err(failure) = &outcome {
                        screen::error(&failure.to_string());
                    }
                    if let Ok(mut done) = done.lock() {
                        done.push((target, figures, outcome.is_ok()));
                    }
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_default();
    screen::step("Found");
    let heading =
        ["target", "executions", "a second", "edges", "features", "inputs", "MiB", "worst"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(done.iter().map(|(target, figures, _)| figures.row(target)));
    screen::table(&rows);
    match done.iter().filter(|(_, _, is_well)| !is_well).count() {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} targets failed"))),
    }
}

/// The targets over what they begin with and what is near it: a test that takes no fuzzer.
pub(crate) fn near_seeds(workspace: &Workspace, report: &mut Report) {
    let ring = "Rust, fuzz targets near their seeds";
    screen::step(ring);
    let mut tally = Tally::default();
    let outcome = plain(workspace, &["test", "--lib"])
        .tee(|line| tally += Tally::of_libtest(line).unwrap_or_default());
    report.add(ring, tally, &outcome);
}

/// Cargo for the targets without libFuzzer.
fn plain(workspace: &Workspace, arguments: &[&str]) -> Task {
    Task::cargo(arguments)
        .args(["--locked", "--manifest-path", MANIFEST])
        .within(&workspace.root)
        .env("RUSTFLAGS", "--cfg fuzzing")
        .env("CARGO_TARGET_DIR", workspace.target.join("fuzz/test"))
}

/// Builds the targets, and writes what each begins with. Where the programs are.
fn build(workspace: &Workspace, folder: &Path) -> Result<PathBuf, Failure> {
    let host = host()?;
    let build = folder.join("build");
    Task::cargo(["build", "--release", "--locked", "--features", "libfuzzer"])
        // Not the program that writes seeds: without libFuzzer nobody hears what the code tells.
        .args(TARGETS.iter().flat_map(|(target, _)| ["--bin", target]))
        // Named, so that the flags are not for build scripts.
        .args(["--target", &host, "--manifest-path", MANIFEST])
        .within(&workspace.root)
        .env("CARGO_TARGET_DIR", &build)
        .env("RUSTFLAGS", COVERAGE.join(" "))
        .run()?;
    plain(workspace, &["run", "--bin", "seeds"])
        .args(["--"])
        .args([folder.join("corpus")])
        .run()?;
    Ok(build.join(host).join("release"))
}

/// The triple of this machine, as rustc calls it.
fn host() -> Result<String, Failure> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Task::new(rustc).args(["-vV"]).capture()?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure::new("rustc -vV names no host"))
}

struct Fuzzer {
    programs: PathBuf,
    folder: PathBuf,
    seconds: u32,
}

impl Fuzzer {
    /// Fuzzes one target. What was found new stays in its corpus, and what failed in its findings.
    fn fuzz(&self, target: &str, bytes: u32, figures: &mut Figures) -> Result<(), Failure> {
        let corpus = self.folder.join("corpus").join(target);
        let findings = self.folder.join("findings");
        let log = self.folder.join(format!("{target}.log"));
        let lost = |error: std::io::Error| {
            Failure::new(format!("{} cannot be written: {error}", log.display()))
        };
        fs::create_dir_all(&findings).map_err(lost)?;
        let mut file = File::create(&log).map_err(lost)?;
        let prefix = format!("-artifact_prefix={}/{target}-", findings.display());
        let outcome = Task::new(self.programs.join(target))
            .args([corpus])
            .args([prefix, format!("-max_total_time={}", self.seconds)])
            .args([format!("-max_len={bytes}"), format!("-timeout={SECONDS_MAX}")])
            .args([format!("-rss_limit_mb={MEBIBYTES_MAX}")])
            .args(["-print_final_stats=1"])
            .tee_errors(|line| {
                figures.read(line);
                // The log is for whoever looks for more than is on the screen.
                let _ = writeln!(file, "{line}");
                if is_news(line) {
                    screen::line(&format!("  {target}: {line}"));
                }
            });
        outcome.map_err(|failure| {
            let (log, findings) = (log.display(), findings.display());
            Failure::new(format!("{failure}: see {log}; the input is in {findings}"))
        })
    }
}

/// Whether a line is one of the few that say that it goes on, each after twice as many executions as the
/// last one. The first seconds have many.
fn is_news(line: &str) -> bool {
    let executions = line.strip_prefix('#').and_then(|it| it.split_whitespace().next());
    let executions = executions.and_then(|count| count.parse().ok()).unwrap_or(0_u64);
    line.contains("pulse") && executions > 100_000
}

/// What libFuzzer says of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Figures {
    executions: String,
    a_second: String,
    edges: String,
    features: String,
    inputs: String,
    mebibytes: String,
    seconds_at_worst: String,
}

impl Figures {
    /// Reads lines such as `#12 DONE cov: 7 ft: 9 corp: 3/51b` and `stat::peak_rss_mb: 40`.
    fn read(&mut self, line: &str) {
        if let Some((name, value)) = line.strip_prefix("stat::").and_then(|it| it.split_once(':')) {
            let field = match name {
                "number_of_executed_units" => &mut self.executions,
                "average_exec_per_sec" => &mut self.a_second,
                "slowest_unit_time_sec" => &mut self.seconds_at_worst,
                "peak_rss_mb" => &mut self.mebibytes,
                _ => return,
            };
            value.trim().clone_into(field);
        } else if line.starts_with('#') {
            let after = |name| line.split_whitespace().skip_while(move |word| *word != name).nth(1);
            let fields = [
                ("cov:", &mut self.edges),
                ("ft:", &mut self.features),
                ("corp:", &mut self.inputs),
            ];
            for (name, field) in fields {
                if let Some(value) = after(name) {
                    value.split('/').next().unwrap_or(value).clone_into(field);
                }
            }
        }
    }

    fn row(&self, target: &str) -> Vec<String> {
        let Self { executions, a_second, edges, features, inputs, mebibytes, seconds_at_worst } =
            self;
        let worst = format!("{seconds_at_worst} s");
        [target, executions, a_second, edges, features, inputs, mebibytes, &worst]
            .map(str::to_owned)
            .to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::Figures;

    #[test]
    fn figures_are_read() {
        let mut figures = Figures::default();
        for line in [
            "INFO: seed corpus: files: 3",
            "#4\tpulse  cov: 5 ft: 6 corp: 2/20b lim: 4 exec/s: 1 rss: 30Mb",
            "#12\tDONE   cov: 7 ft: 9 corp: 3/51b lim: 8 exec/s: 6 rss: 40Mb",
            "stat::number_of_executed_units: 12",
            "stat::average_exec_per_sec:     6",
            "stat::slowest_unit_time_sec:    0",
            "stat::peak_rss_mb:              40",
        ] {
            figures.read(line);
        }
        assert_eq!(figures.row("frame"), ["frame", "12", "6", "7", "9", "3", "40", "0 s"]);
    }
}
