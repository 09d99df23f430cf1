//! Figures beside their floors and gates.

use std::collections::BTreeSet;

use crate::figures::{Spread, duration, is_count, shown};
use crate::plan::{Gate, Group, Row};
use crate::round::Measured;

/// The 40 KB pair of memcpy above which a run says nothing, in nanoseconds.
pub const PAIR_LIMIT: f64 = 2_500.0;
/// The bare futex there and back above which a run says nothing, in nanoseconds.
pub const FUTEX_LIMIT: f64 = 15_000.0;

/// One judged row.
#[derive(Debug)]
pub struct Judgement<'a> {
    /// The heading it stands under.
    pub group: &'static str,
    /// The row.
    pub row: &'a Row,
    /// Ours.
    pub value: Option<Spread>,
    /// The floor.
    pub floor: Option<Spread>,
    /// The peers that were measured.
    pub peers: Vec<(&'static str, Spread)>,
    /// Ours over the floor, round by round.
    pub ratio: Option<Spread>,
    /// What is allowed.
    pub limit: Option<Limit>,
    /// Whether it is; `None` where nothing is asked or nothing was measured.
    pub passes: Option<bool>,
}

/// What a gate comes to on this machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Nanoseconds.
    Duration(f64),
    /// Times the floor.
    Times(f64),
}

impl Limit {
    /// The bare number.
    pub fn number(self) -> f64 {
        match self {
            Self::Duration(limit) | Self::Times(limit) => limit,
        }
    }
}

/// Judges every row.
pub fn judge<'a>(groups: &'a [Group], measured: &Measured) -> Vec<Judgement<'a>> {
    groups
        .iter()
        .flat_map(|group| group.rows.iter().map(|row| judge_row(group.title, row, measured)))
        .collect()
}

fn judge_row<'a>(group: &'static str, row: &'a Row, measured: &Measured) -> Judgement<'a> {
    let values = |figure: &String| measured.values.get(figure).map(Vec::as_slice);
    let ours = values(&row.ours).unwrap_or_default();
    let floor = row.floor.as_ref().and_then(values);
    let ratios: Vec<f64> =
        ours.iter().zip(floor.unwrap_or_default()).map(|(value, floor)| value / floor).collect();
    let value = Spread::of(ours);
    let ratio = Spread::of(&ratios);
    // Whether a second thread brings a tenth or more.
    let pays = |second: &String| {
        let two = values(second).and_then(Spread::of);
        two.zip(floor.and_then(Spread::of)).is_some_and(|(two, one)| two.median < 0.9 * one.median)
    };
    let limit = match &row.gate {
        Gate::Shown | Gate::Ends => None,
        Gate::AtMost(limit) => Some(Limit::Duration(*limit)),
        Gate::AtMostTimes(limit) => Some(Limit::Times(*limit)),
        Gate::AtMostTimesOrPaying(limit, second) => {
            Some(Limit::Times(if pays(second) { 1.0 } else { *limit }))
        }
        Gate::AtMostWherePaying { free, second, times } => {
            Some(if pays(second) { Limit::Duration(*free) } else { Limit::Times(*times) })
        }
    };
    let peers = row.peers.iter().filter_map(|it| Some((it.name, Spread::of(values(&it.figure)?)?)));
    let mut judgement = Judgement {
        group,
        row,
        value,
        floor: floor.and_then(Spread::of),
        peers: peers.collect(),
        ratio,
        limit,
        passes: None,
    };
    judgement.passes = match row.gate {
        Gate::Ends => Some(value.is_some()),
        _ => judgement.shares().map(|[median, ..]| median <= 1.0),
    };
    judgement
}

/// Why the run says nothing, if it does not.
pub fn void(measured: &Measured) -> Option<String> {
    let median = |figure: &str| measured.values.get(figure).and_then(|it| Spread::of(it));
    // Either half of the plan has them.
    let pair = median("one_copy40000.p50").or_else(|| median("py_floor_40k.p50"))?;
    let futex = median("futex.p50").or_else(|| median("py_futex.p50"))?;
    let mut reasons = Vec::new();
    if pair.median > PAIR_LIMIT {
        reasons.push(format!("the 40 KB pair of memcpy took {}", duration(pair.median)));
    }
    if futex.median > FUTEX_LIMIT {
        reasons.push(format!("the bare futex there and back took {}", duration(futex.median)));
    }
    (!reasons.is_empty()).then(|| reasons.join(", "))
}

impl Judgement<'_> {
    /// Median, smallest and largest as shares of what is allowed.
    pub fn shares(&self) -> Option<[f64; 3]> {
        let spread = match self.limit? {
            Limit::Duration(_) => self.value?,
            Limit::Times(_) => self.ratio?,
        };
        let limit = self.limit?.number();
        Some([spread.median, spread.min, spread.max].map(|value| value / limit))
    }

    /// The cells of this row in the table on the screen, which has columns for these peers.
    pub fn cells(&self, columns: &[&str]) -> Vec<String> {
        let figure = |spread: Option<Spread>| {
            spread.map_or(String::new(), |it| shown(&self.row.ours, it.median))
        };
        let range = match self.value {
            Some(value) if !is_count(&self.row.ours) && value.min < value.max => {
                let [min, max] = [value.min, value.max].map(|it| shown(&self.row.ours, it));
                format!("{min} .. {max}")
            }
            _ => String::new(),
        };
        let mut cells = vec![
            format!("  {}", self.row.title),
            figure(self.value),
            range,
            figure(self.floor),
            self.ratio.map_or(String::new(), |it| format!("{:.2} x", it.median)),
        ];
        cells.extend(columns.iter().map(|column| {
            figure(self.peers.iter().find(|(name, _)| name == column).map(|(_, spread)| *spread))
        }));
        cells.push(match self.limit {
            None => String::new(),
            Some(Limit::Times(limit)) => format!("{limit:.2} x"),
            Some(Limit::Duration(limit)) => duration(limit),
        });
        let verdict = match self.passes {
            Some(true) => "pass",
            Some(false) => "FAIL",
            None if self.value.is_none() => "none",
            None => "",
        };
        cells.push(verdict.to_owned());
        cells
    }
}

/// Every peer that any row has.
pub fn peers(judgements: &[Judgement<'_>]) -> Vec<&'static str> {
    let all = judgements.iter().flat_map(|it| it.peers.iter().map(|(name, _)| *name));
    all.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The head of the table.
pub fn head(columns: &[&str]) -> Vec<String> {
    let before = ["", "ours", "rounds", "floor", "ratio"];
    before.iter().chain(columns).chain(&["gate", ""]).map(|&it| it.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(figures: &[(&str, &[f64])]) -> Measured {
        let values = figures.iter().map(|(name, it)| ((*name).to_owned(), it.to_vec())).collect();
        Measured { values, faults: Vec::new() }
    }

    fn row(gate: Gate) -> Row {
        Row {
            title: "t".into(),
            ours: "o.p50".into(),
            floor: Some("f.p50".into()),
            peers: Vec::new(),
            gate,
        }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let measured = measured(&[("o.p50", &[10.0, 40.0, 21.0]), ("f.p50", &[10.0, 20.0, 20.0])]);
        let row = row(Gate::AtMostTimes(1.05));
        let judged = judge_row("g", &row, &measured);
        assert_eq!(judged.ratio.unwrap().median.to_bits(), 1.05_f64.to_bits());
        assert_eq!(judged.passes, Some(true));
    }

    #[test]
    fn a_helper_that_pays_tightens_the_gate() {
        let figures: &[(&str, &[f64])] =
            &[("o.p50", &[10.5]), ("f.p50", &[10.0]), ("two.p50", &[6.0])];
        let row = row(Gate::AtMostTimesOrPaying(1.1, "two.p50".into()));
        assert_eq!(judge_row("g", &row, &measured(figures)).passes, Some(false));
        assert_eq!(judge_row("g", &row, &measured(&figures[..2])).passes, Some(true));
    }

    #[test]
    fn a_slow_machine_voids_the_run() {
        let quiet = measured(&[("one_copy40000.p50", &[1_500.0]), ("futex.p50", &[9_000.0])]);
        assert_eq!(void(&quiet), None);
        let busy = measured(&[("one_copy40000.p50", &[1_500.0]), ("futex.p50", &[19_000.0])]);
        assert!(void(&busy).unwrap().contains("bare futex"));
    }

    #[test]
    fn where_a_second_thread_pays_the_gate_is_a_duration() {
        let figures: &[(&str, &[f64])] =
            &[("o.p50", &[10.5]), ("f.p50", &[10.0]), ("two.p50", &[6.0])];
        let gate = Gate::AtMostWherePaying { free: 8.0, second: "two.p50".into(), times: 1.1 };
        let row = row(gate);
        let free = measured(figures);
        let judged = judge_row("g", &row, &free);
        assert_eq!((judged.limit, judged.passes), (Some(Limit::Duration(8.0)), Some(false)));
        let busy = measured(&figures[..2]);
        let judged = judge_row("g", &row, &busy);
        assert_eq!((judged.limit, judged.passes), (Some(Limit::Times(1.1)), Some(true)));
    }
}
