//! The run as a file that programs read.

use serde_json::{Map, Value, json};

use crate::figures::Spread;
use crate::judgement::{Judgement, Limit};
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
        "values": measured.values,
        "faults": measured.faults,
    })
}

fn row(judged: &Judgement<'_>) -> Value {
    let spread = |spread: Option<Spread>| {
        spread.map(|it| json!({ "median": it.median, "min": it.min, "max": it.max }))
    };
    let peers: Map<String, Value> = judged
        .peers
        .iter()
        .map(|(name, it)| ((*name).to_owned(), json!(spread(Some(*it)))))
        .collect();
    json!({
        "group": judged.group,
        "title": judged.row.title,
        "figure": judged.row.ours,
        "ours": spread(judged.value),
        "floor": spread(judged.floor),
        "peers": peers,
        "ratio": spread(judged.ratio),
        "gate": judged.limit.map(Limit::number),
        "gate_is": match (judged.limit, &judged.row.gate) {
            (None, Gate::Ends) => Some("ends well"),
            (None, _) => None,
            (Some(Limit::Duration(_)), _) => Some("ns"),
            (Some(Limit::Times(_)), _) => Some("times the floor"),
        },
        "passes": judged.passes,
    })
}
