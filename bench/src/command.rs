//! The command line of a benchmark, and a run from beginning to end.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use crate::floor::Floors;
use crate::judgement::{self, Judgement};
use crate::plan::{Group, Planner};
use crate::probe::{self, space};
use crate::python::{self, Python};
use crate::{Outcome, chart, machine, record, round, screen};

/// Where results go.
const OUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/out");

/// One benchmark program.
#[derive(Debug)]
pub struct Bench {
    /// What its results are called.
    pub name: &'static str,
    /// What it measures.
    pub plan: fn(&Planner<'_>) -> Vec<Group>,
    /// Rounds, unless it is told how many.
    pub rounds: usize,
}

struct Options {
    rounds: Option<usize>,
    quick: bool,
    /// Only the groups whose title holds this.
    only: Option<String>,
    /// End with a failure if a gate is missed.
    enforce: bool,
}

impl Bench {
    /// Does what the command line says: a run, or one probe of a run.
    pub fn main(&self) -> ExitCode {
        let mut arguments = std::env::args().skip(1).peekable();
        let outcome = if arguments.next_if_eq("probe").is_some() {
            let name = arguments.next().unwrap_or_default();
            probe::run(&name, arguments.collect()).map(|()| true)
        } else {
            parse(arguments).and_then(|options| self.run(&options))
        };
        match outcome {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(fault) => {
                eprintln!("error: {fault}");
                ExitCode::FAILURE
            }
        }
    }

    /// Whether everything worked, and, if that is asked, every gate holds.
    fn run(&self, options: &Options) -> Outcome<bool> {
        let machine = machine::describe();
        for (name, value) in &machine {
            screen::line(&format!("  {name}: {value}"));
        }
        let before = machine::load();
        screen::line(&format!("  load before: {before}"));
        let floors = Floors::build()?;
        let own = std::env::current_exe()?;
        let python = Python::find(python::VARIABLE)?;
        let rival = Python::find(python::RIVAL)?;
        match &python {
            Some(python) => screen::line(&format!("  python: {}", python.described())),
            None => screen::line(&format!(
                "  python: left out, as {} is not set: run this by `cargo xtask bench {}`",
                python::VARIABLE,
                self.name
            )),
        }
        if let Some(rival) = &rival {
            screen::line(&format!("  the other service: {}", rival.described()));
        }
        let planner = Planner {
            floors: &floors,
            own: &own,
            python: python.as_ref(),
            rival: rival.as_ref(),
            quick: options.quick,
        };
        let mut plan = (self.plan)(&planner);
        if let Some(word) = &options.only {
            let word = word.to_lowercase();
            plan.retain(|group| group.title.to_lowercase().contains(&word));
        }
        let rounds = options.rounds.unwrap_or(if options.quick { 3 } else { self.rounds });
        let measured = round::run(&plan, rounds);
        space::sweep()?;
        let after = machine::load();
        let judgements = judgement::judge(&plan, &measured);
        show(&judgements);
        screen::line(&format!("  load before {before}, after {after}; {rounds} rounds, medians"));
        let void = judgement::void(&measured);
        if let Some(reason) = &void {
            screen::line(&format!("  VOID: {reason}; run again on a quiet machine"));
        }
        let run = json!({
            "rounds": rounds,
            "quick": options.quick,
            "compiler": floors.compiler,
            "python": python.as_ref().map(Python::described),
            "load_before": before,
            "load_after": after,
            "void": void,
        });
        let record = record::of(&machine, &run, &measured, &judgements);
        let heading = format!("Share of what is allowed: {}, {}", machine[0].1, machine[3].1);
        self.write("json", &serde_json::to_string_pretty(&record)?)?;
        self.write("svg", &chart::of(&judgements, &heading))?;
        let holds = judgements.iter().all(|it| it.passes != Some(false)) && void.is_none();
        Ok(measured.faults.is_empty() && (holds || !options.enforce))
    }

    fn write(&self, ending: &str, text: &str) -> Outcome<()> {
        std::fs::create_dir_all(OUT)?;
        let name = format!("{}.{ending}", self.name);
        std::fs::write(Path::new(OUT).join(&name), text)?;
        screen::line(&format!("  written: bench/out/{name}"));
        Ok(())
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Outcome<Options> {
    let mut options = Options { rounds: None, quick: false, only: None, enforce: false };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--enforce" => options.enforce = true,
            "--rounds" => {
                let count = arguments.next().ok_or("--rounds needs a number")?.parse()?;
                if count == 0 {
                    return Err("--rounds needs at least 1".into());
                }
                options.rounds = Some(count);
            }
            "--only" => options.only = Some(arguments.next().ok_or("--only needs a word")?),
            _ => {
                let known = "--rounds N, --quick, --only WORD, --enforce";
                return Err(format!("`{argument}` is not understood: use {known}").into());
            }
        }
    }
    Ok(options)
}

fn show(judgements: &[Judgement<'_>]) {
    let peers = judgement::peers(judgements);
    let mut rows = vec![judgement::head(&peers)];
    let mut group = "";
    for judged in judgements {
        if judged.group != group {
            group = judged.group;
            rows.push(vec![group.to_owned()]);
        }
        rows.push(judged.cells(&peers));
    }
    screen::table(&rows);
    let count = |verdict| judgements.iter().filter(|it| it.passes == Some(verdict)).count();
    screen::line(&format!("  gates: {} hold, {} missed", count(true), count(false)));
}
