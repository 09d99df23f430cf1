//! Figures beside their floors and gates.

use crate::figures::{Spread, duration};
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
    /// The peer.
    pub peer: Option<Spread>,
    /// Ours over the floor, round by round.
    pub ratio: Option<Spread>,
    /// What is allowed: a ratio or nanoseconds, as the gate says.
    pub limit: Option<f64>,
    /// Whether it is; `None` where nothing is asked or nothing was measured.
    pub passes: Option<bool>,
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
    let (limit, judged) = match &row.gate {
        Gate::Shown | Gate::Ends => (None, None),
        Gate::AtMost(limit) => (Some(*limit), value),
        Gate::AtMostTimes(limit) => (Some(*limit), ratio),
        Gate::AtMostTimesOrPaying(limit, second) => {
            let two = values(second).and_then(Spread::of);
            let one = floor.and_then(Spread::of);
            let pays = two.zip(one).is_some_and(|(two, one)| two.median < 0.9 * one.median);
            (Some(if pays { 1.0 } else { *limit }), ratio)
        }
    };
    Judgement {
        group,
        row,
        value,
        floor: floor.and_then(Spread::of),
        peer: row.peer.as_ref().and_then(values).and_then(Spread::of),
        ratio,
        limit,
        passes: match row.gate {
            Gate::Ends => Some(value.is_some()),
            _ => limit.zip(judged).map(|(limit, judged)| judged.median <= limit),
        },
    }
}

/// Why the run says nothing, if it does not.
pub fn void(measured: &Measured) -> Option<String> {
    let median = |figure: &str| measured.values.get(figure).and_then(|it| Spread::of(it));
    let pair = median("one_copy40000.p50")?;
    let futex = median("futex.p50")?;
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
    /// The cells of this row in the table on the screen.
    pub fn cells(&self) -> Vec<String> {
        let shown = |spread: Option<Spread>| spread.map_or(String::new(), |it| duration(it.median));
        let is_count = [".frames", "_percent"].iter().any(|it| self.row.ours.ends_with(it));
        let value = match self.value {
            Some(value) if is_count => format!("{:.0}", value.median),
            _ => shown(self.value),
        };
        let range = match self.value {
            Some(value) if !is_count && value.min < value.max => {
                format!("{} .. {}", duration(value.min), duration(value.max))
            }
            _ => String::new(),
        };
        let is_ratio = !matches!(self.row.gate, Gate::AtMost(_));
        let limit = self.limit.map_or(String::new(), |limit| {
            if is_ratio { format!("{limit:.2} x") } else { duration(limit) }
        });
        vec![
            format!("  {}", self.row.title),
            value,
            range,
            shown(self.floor),
            self.ratio.map_or(String::new(), |it| format!("{:.2} x", it.median)),
            shown(self.peer),
            limit,
            match self.passes {
                Some(true) => "pass",
                Some(false) => "FAIL",
                None if self.value.is_none() => "none",
                None => "",
            }
            .to_owned(),
        ]
    }
}

/// The head of the table.
pub fn head() -> Vec<String> {
    ["", "ours", "rounds", "floor", "ratio", "iceoryx2", "gate", ""].map(str::to_owned).into()
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
            peer: None,
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
}
