//! What was measured, by name and round.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;

use cuda_ipc::{Device, Ordering};

use crate::calls::{self, Calls};
use crate::turn;

/// What a row may cost at most, or is to reach.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Limit {
    #[default]
    None,
    /// Microseconds.
    AtMost(f64),
    /// So many times the floor.
    OfFloor(f64),
}

/// Samples in microseconds, in rounds.
#[derive(Debug, Default)]
struct Row {
    rounds: Vec<Vec<f64>>,
    floors: Vec<f64>,
    /// What is told beside the floor and judges nothing, by its name.
    beside: BTreeMap<&'static str, Vec<f64>>,
    limit: Limit,
    calls: Calls,
    /// Beside the first one.
    devices: Vec<Device>,
    /// Of a turn, in all rounds, and the medians of the floor's in each.
    parts: [Vec<f64>; PARTS],
    parts_of_floor: Vec<[f64; PARTS]>,
}

/// Of a turn, as the first process sees it: its write is queued and published; it knows of the answer; it has
/// queued reading that; its stream is done.
pub(crate) const PARTS: usize = 4;
const PART_NAMES: [&str; PARTS] = ["write", "answer", "read", "end"];

#[derive(Debug)]
pub(crate) struct Figures {
    rows: BTreeMap<String, Row>,
    rounds: usize,
    ordering: Ordering,
}

/// Of a share of the samples the greatest, and so of half of them the median.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    #[expect(clippy::cast_sign_loss, reason = "shares are positive")]
    #[expect(clippy::cast_precision_loss, reason = "there are not so many")]
    let place = (share * sorted.len() as f64).ceil() as usize;
    sorted[place.saturating_sub(1)]
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The median, if there is one.
pub(crate) fn middle(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values.iter().copied());
    (!sorted.is_empty()).then(|| percentile(&sorted, 0.5))
}

impl Row {
    /// What its parts take, and those of the floor.
    fn parts(&self) -> Option<String> {
        let mut said = Vec::new();
        for (part, name) in PART_NAMES.iter().enumerate() {
            let mut text = format!("{name} {:.2} us", middle(&self.parts[part])?);
            let floors: Vec<f64> = self.parts_of_floor.iter().map(|parts| parts[part]).collect();
            if let Some(floor) = middle(&floors) {
                let _ = write!(text, " (floor {floor:.2})");
            }
            said.push(text);
        }
        Some(said.join(", "))
    }
}

impl Figures {
    pub(crate) fn new(rounds: usize, ordering: Ordering) -> Self {
        Self { rows: BTreeMap::new(), rounds, ordering }
    }

    /// Samples of one round, with what was called of the driver meanwhile.
    pub(crate) fn add(&mut self, name: &str, limit: Limit, samples: Vec<f64>, calls: &Calls) {
        let row = self.rows.entry(name.to_owned()).or_default();
        row.rounds.push(sorted(samples));
        row.limit = limit;
        row.calls.add(calls);
    }

    /// Says that a row is of another device, too.
    pub(crate) fn add_device(&mut self, name: &str, device: &Device) {
        let devices = &mut self.rows.entry(name.to_owned()).or_default().devices;
        if devices.is_empty() {
            devices.push(device.clone());
        }
    }

    /// The parts of a row's samples.
    pub(crate) fn add_parts(&mut self, name: &str, parts: [Vec<f64>; PARTS]) {
        let row = self.rows.entry(name.to_owned()).or_default();
        for (all, part) in row.parts.iter_mut().zip(parts) {
            all.extend(part);
        }
    }

    /// Those of the floor.
    pub(crate) fn add_parts_of_floor(&mut self, name: &str, parts: [f64; PARTS]) {
        self.rows.entry(name.to_owned()).or_default().parts_of_floor.push(parts);
    }

    /// What the driver alone takes for the same.
    pub(crate) fn add_floor(&mut self, name: &str, micros: f64) {
        self.rows.entry(name.to_owned()).or_default().floors.push(micros);
    }

    /// The same by another way, to be seen beside the floor.
    pub(crate) fn add_beside(&mut self, name: &str, way: &'static str, micros: f64) {
        let row = self.rows.entry(name.to_owned()).or_default();
        row.beside.entry(way).or_default().push(micros);
    }

    /// Shows them, and leaves them to whoever asked for that.
    pub(crate) fn end(self, device: &Device) {
        let mut out = std::io::stdout().lock();
        let ordering = match self.ordering {
            Ordering::Device => "memops",
            Ordering::Host => "host",
        };
        for (name, row) in &self.rows {
            let rounds = row.rounds.iter().filter(|samples| !samples.is_empty());
            let middles = sorted(rounds.clone().map(|samples| percentile(samples, 0.5)));
            let all = sorted(rounds.flatten().copied());
            let floor = middle(&row.floors);
            let others: Vec<(&str, f64)> =
                row.beside.iter().filter_map(|(way, all)| Some((*way, middle(all)?))).collect();
            let Some((least, greatest)) = middles.first().zip(middles.last()) else { continue };
            let limit = match row.limit {
                Limit::None => None,
                Limit::AtMost(micros) => Some(micros),
                Limit::OfFloor(times) => floor.map(|it| it * times),
            };
            let marks = [0.5, 0.9, 0.99].map(|share| percentile(&all, share));
            let mut beside = floor.map_or_else(String::new, |it| {
                format!("  floor {it:9.2} us, {:.2} times that", marks[0] / it)
            });
            for (way, it) in &others {
                let _ = write!(beside, ", {way} {it:.2} us");
            }
            let verdict = limit.map_or_else(String::new, |it| {
                let verdict = if marks[0] <= it { "pass" } else { "miss" };
                format!("  limit {it:.2} us: {verdict}")
            });
            let said = writeln!(
                out,
                "{name:44} p50 {:9.2} us ({least:.2} to {greatest:.2})  p99 {:9.2} us{beside}{verdict}",
                marks[0], marks[2]
            );
            said.expect("somebody listens");
            if let Some(parts) = row.parts() {
                writeln!(out, "    of that {parts}").expect("somebody listens");
            }
            let devices = [std::slice::from_ref(device), &row.devices].concat();
            calls::on(&devices);
            calls::ordered_by(self.ordering);
            calls::note("bench", name, &row.calls);
            let Some(path) = std::env::var_os("ST_FIGURES") else { continue };
            let json = |number: Option<f64>| number.map_or("null".to_owned(), |it| it.to_string());
            let line = format!(
                "{{\"name\": {name:?}, \"unit\": \"us\", \"p50\": {}, \"p90\": {}, \"p99\": {}, \
                 \"samples\": {}, \"ordering\": {ordering:?}, \"devices\": {:?}, \"rounds\": {}, \
                 \"least\": {least}, \"greatest\": {greatest}, \"floor\": {}, \"limit\": {}, \
                 \"beside\": {{{}}}}}\n",
                marks[0],
                marks[1],
                marks[2],
                all.len(),
                devices.iter().map(|it| it.uuid().to_string()).collect::<Vec<_>>(),
                self.rounds,
                json(floor),
                json(limit),
                others
                    .iter()
                    .map(|(way, it)| format!("{way:?}: {it}"))
                    .collect::<Vec<_>>()
                    .join(", "),
            );
            let file = OpenOptions::new().append(true).create(true).open(path);
            let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
            written.expect("the file named by ST_FIGURES can be written");
        }
        if self.rows.values().any(|row| !row.beside.is_empty()) {
            writeln!(out, "{}", turn::FLOORS).expect("somebody listens");
        }
    }
}
