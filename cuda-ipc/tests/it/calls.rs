//! What was called of the driver and on which devices, as lines of JSON in the file that
//! `ST_DRIVER_CALLS` names. Tests and the benchmark share it.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Mutex;

use cuda_ipc::{Device, Ordering, driver_calls};

const FILE: &str = "ST_DRIVER_CALLS";

/// Calls by name, without those that were not made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(BTreeMap<&'static str, u64>);

impl Calls {
    /// All that this process made so far.
    pub(crate) fn now() -> Self {
        let calls = driver_calls().into_iter().filter(|function| function.calls > 0);
        Self(calls.map(|function| (function.symbol, function.calls)).collect())
    }

    /// Those made after `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let made = self.0.iter().map(|(name, count)| (*name, count - earlier.of(name)));
        Self(made.filter(|(_, count)| *count > 0).collect())
    }

    pub(crate) fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Counts these as well.
    #[allow(dead_code, reason = "for the benchmark, which takes this file in")]
    pub(crate) fn add(&mut self, others: &Self) {
        for (name, count) in &others.0 {
            *self.0.entry(name).or_default() += count;
        }
    }
}

/// What else the next line says.
#[derive(Debug, Default)]
struct Beside {
    devices: Vec<String>,
    ordering: Option<&'static str>,
}

static BESIDE: Mutex<Beside> = Mutex::new(Beside { devices: Vec::new(), ordering: None });

/// The devices that the next line is about.
pub(crate) fn on(devices: &[Device]) {
    let mut beside = BESIDE.lock().expect("nobody panics with it");
    beside.devices = devices.iter().map(|device| device.uuid().to_string()).collect();
}

/// By what streams were ordered in what the next line is about.
pub(crate) fn ordered_by(ordering: Ordering) {
    let name = match ordering {
        Ordering::Device => "memops",
        Ordering::Host => "host",
    };
    BESIDE.lock().expect("nobody panics with it").ordering = Some(name);
}

/// Adds a line, if that was asked for.
pub(crate) fn note(kind: &str, name: &str, calls: &Calls) {
    let beside = std::mem::take(&mut *BESIDE.lock().expect("nobody panics with it"));
    let Some(path) = std::env::var_os(FILE) else { return };
    let ordering = beside.ordering.map_or_else(|| "null".to_owned(), |name| format!("{name:?}"));
    let devices: Vec<String> = beside.devices.iter().map(|uuid| format!("{uuid:?}")).collect();
    let calls: Vec<String> =
        calls.0.iter().map(|(name, count)| format!("{name:?}: {count}")).collect();
    // Names are ASCII without control characters, for which Rust's quotes are JSON's.
    let line = format!(
        "{{\"kind\": {kind:?}, \"name\": {name:?}, \"pid\": {}, \"ordering\": {ordering}, \
         \"devices\": [{}], \"calls\": {{{}}}}}\n",
        std::process::id(),
        devices.join(", "),
        calls.join(", "),
    );
    let file = OpenOptions::new().append(true).create(true).open(path);
    // One write, so that lines of several processes do not mix.
    let noted = file.and_then(|mut file| file.write_all(line.as_bytes()));
    noted.expect("the file named by ST_DRIVER_CALLS can be written");
}
