//! Running the rounds.

use std::collections::BTreeMap;

use crate::plan::Group;
use crate::screen;

/// What all rounds gave: one value per round, by figure.
#[derive(Debug, Default)]
pub struct Measured {
    /// Values by `probe.line`.
    pub values: BTreeMap<String, Vec<f64>>,
    /// What did not work.
    pub faults: Vec<String>,
}

/// Runs every probe of every group once per round, compared probes next to each other, each round
/// beginning with another one of them.
pub fn run(groups: &[Group], rounds: usize) -> Measured {
    let mut measured = Measured::default();
    for round in 0..rounds {
        screen::line(&format!("  round {} of {rounds}", round + 1));
        for group in groups.iter().filter(|group| !group.once || round + 1 == rounds) {
            for turn in 0..group.probes.len() {
                let (name, program) = &group.probes[(turn + round) % group.probes.len()];
                match program.run() {
                    Ok(figures) => {
                        for (line, value) in figures {
                            measured
                                .values
                                .entry(format!("{name}.{line}"))
                                .or_default()
                                .push(value);
                        }
                    }
                    Err(fault) => {
                        screen::line(&format!("    fault: {fault}"));
                        measured.faults.push(fault.to_string());
                    }
                }
            }
        }
    }
    measured
}
