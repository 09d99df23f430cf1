//! The run as a file that programs read.

use serde_json::{Map, Value, json};

use crate::figures::Spread;
use crate::judgement::Judgement;
use crate::plan::Gate;
use crate::round::Measured;

/// Everything about a run.
pub fn of(
    machine: &[(&'static str, String)],
    run: &Value,
    measured: &Measured,
    judgements: &[Judgement<'_>],
) -> Value {
    let machine: Map<String, Value> =
        machine.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let rows: Vec<Value> = judgements.iter().map(row).collect();
    json!({
        "machine": machine,
        "run": run,
        "rows": rows,
        "values_ns": measured.values,
        "faults": measured.faults,
    })
}

fn row(judged: &Judgement<'_>) -> Value {
    let spread = |spread: Option<Spread>| {
        spread.map(|it| json!({ "median": it.median, "min": it.min, "max": it.max }))
    };
    json!({
        "group": judged.group,
        "title": judged.row.title,
        "figure": judged.row.ours,
        "ours_ns": spread(judged.value),
        "floor_ns": spread(judged.floor),
        "iceoryx2_ns": spread(judged.peer),
        "ratio": spread(judged.ratio),
        "gate": judged.limit,
        "gate_is": match judged.row.gate {
            Gate::Shown => None,
            Gate::Ends => Some("ends well"),
            Gate::AtMost(_) => Some("ns"),
            Gate::AtMostTimes(_) | Gate::AtMostTimesOrPaying(..) => Some("times the floor"),
        },
        "passes": judged.passes,
    })
}
