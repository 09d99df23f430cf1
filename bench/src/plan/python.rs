//! The Python half: the wheel beside floors, beside pyshmem, and beside whatever else is there.

use super::{Gate, Group, Peer, Planner, Row, shown};
use crate::program::Program;
use crate::python::Python;

/// Ours, by the native class and by the compatible module, and every library that does the same work.
const SIDES: [&str; 5] = ["ours", "compatible", "pyshmem", "iceoryx2", "multiprocessing"];
/// Those that anybody can wait for without spinning.
const PARKING: [&str; 4] = ["ours", "compatible", "pyshmem", "iceoryx2"];
/// A bare array stands for no sharing at all.
const ROUND_TRIPS: [&str; 6] =
    ["ours", "compatible", "pyshmem", "iceoryx2", "multiprocessing", "bare"];
/// What iceoryx2 has received is gone: a matrix cannot stay there.
const PRODUCTS: [&str; 5] = ["ours", "compatible", "pyshmem", "multiprocessing", "bare"];
/// Those that need nothing that could be missing.
const ALWAYS: [&str; 3] = ["compatible", "multiprocessing", "bare"];
/// What the same work of pyshmem takes at least, in times of ours.
const FASTER_PAIR: f64 = 3.2;
const FASTER_PARKED: f64 = 1.7;
const FASTER_SPINNING: f64 = 3.0;
/// Set to 1, the round trip of 128 x 128 has to reach the rate below; named as pyshmem's own.
const ENFORCE: &str = "pyshmem_ENFORCE_BENCHMARK";
const TARGET: &str = "pyshmem_TARGET_HZ";
const TARGET_HERTZ: f64 = 50_000.0;

impl Planner<'_> {
    /// Everything that is measured from Python.
    pub(super) fn python_half(&self, python: &Python) -> Vec<Group> {
        let mut groups = vec![
            self.python_pairs(python),
            self.python_big_pairs(python),
            self.python_in_place(python),
            self.python_charges(python),
            self.python_both_ways(python),
        ];
        groups.extend([100, 1_000, 10_000].map(|edge| self.round_trips(python, edge)));
        groups.push(self.round_trips(python, 128));
        groups.extend([100, 1_000, 10_000].map(|edge| self.products(python, edge)));
        groups
    }

    fn python_pairs(&self, python: &Python) -> Group {
        let samples = self.samples(300).to_string();
        let mut group = Group::new("Python: write and read, 40 KB, one process");
        group.probes.push(self.with_calls(python, "py_floor_40k", 40_000, 8, 1, [&samples, "100"]));
        for way in ["into", "fresh"] {
            group.sides(python, &format!("py_40k_{way}"), &SIDES, |side| {
                vec!["write-read", side, way, "40000", "1", &samples, "100"]
            });
        }
        let peers = |way: &str| Peer::all(python, &format!("py_40k_{way}"), "p50");
        group.rows = vec![
            Row {
                title: "write + read(out=), beside memcpy and two empty calls".into(),
                ours: "py_40k_into_ours.p50".into(),
                floor: Some("py_floor_40k.p50".into()),
                peers: peers("into"),
                gate: Gate::AtMostTimes(1.3),
            },
            Row {
                title: "write + read(), a new array".into(),
                ours: "py_40k_fresh_ours.p50".into(),
                floor: Some("py_floor_40k.p50".into()),
                peers: peers("fresh"),
                gate: Gate::AtMost(2_800.0),
            },
        ];
        group.faster("write + read(out=)", "py_40k_into_ours.p50", "py_40k_into", FASTER_PAIR);
        group
    }

    fn python_big_pairs(&self, python: &Python) -> Group {
        let samples = self.samples(8).to_string();
        let mut group = Group::new("Python: write and read, 400 MB, one process");
        for (name, threads) in [("py_floor_400m", 1), ("py_floor_400m_two", 2)] {
            let numbers = [samples.as_str(), "1"];
            group.probes.push(self.with_calls(python, name, 400_000_000, 3, threads, numbers));
        }
        for way in ["into", "fresh"] {
            group.sides(python, &format!("py_400m_{way}"), &SIDES, |side| {
                vec!["write-read", side, way, "400000000", "2", &samples, "1"]
            });
        }
        for (title, way, free) in
            [("write + read(out=)", "into", 45e6), ("write + read(), a new array", "fresh", 50e6)]
        {
            group.rows.push(Row {
                title: title.into(),
                ours: format!("py_400m_{way}_ours.p50"),
                floor: Some("py_floor_400m.p50".into()),
                peers: Peer::all(python, &format!("py_400m_{way}"), "p50"),
                gate: Gate::AtMostWherePaying {
                    free,
                    second: "py_floor_400m_two.p50".into(),
                    times: 1.10,
                },
            });
        }
        group
    }

    fn python_in_place(&self, python: &Python) -> Group {
        let samples = self.samples(100).to_string();
        let mut group = Group::new("Python: in place");
        for (size, bytes) in [("40 KB", "40000"), ("4 MB", "4000000"), ("400 MB", "400000000")] {
            let name = format!("py_place{bytes}");
            group.probes.push((name.clone(), python.case(&["in-place", bytes, &samples])));
            for (title, line, gate) in [
                ("leased view", "lease", Gate::AtMost(1_000.0)),
                ("fresh view published", "publish", Gate::AtMost(2_000.0)),
                ("both", "both", Gate::Shown),
            ] {
                let row = shown(&format!("{title}, {size}"), format!("{name}.{line}"));
                group.rows.push(Row { gate, ..row });
            }
        }
        group
    }

    fn python_charges(&self, python: &Python) -> Group {
        let samples = self.samples(300).to_string();
        let mut group = Group::new("Python: the smallest steps");
        group.probes.push(("py_charges".into(), python.case(&["charges", &samples])));
        group.rows = vec![
            shown("an empty turn of the loop", "py_charges.loop".into()),
            Row { gate: Gate::AtMost(60.0), ..shown("anything new?", "py_charges.look".into()) },
            Row {
                gate: Gate::AtMost(150.0),
                ..shown("with stream.locked(), nobody else", "py_charges.lock".into())
            },
            shown("with threading.RLock()", "py_charges.rlock".into()),
        ];
        group
    }

    fn python_both_ways(&self, python: &Python) -> Group {
        let samples = self.samples(5_000).to_string();
        let mut group = Group::new("Python: two processes, 64 KiB both ways");
        let bare = ["0", "0", "8", "park", &samples].map(str::to_owned);
        group.probes.push(self.floor("py_futex", "pingpong", &bare));
        for way in ["park", "spin"] {
            let numbers = ["65536", "65536", "8", way, &samples].map(str::to_owned);
            group.probes.push(self.floor(&format!("py_c_{way}"), "pingpong", &numbers));
            let sides: &[&str] = if way == "park" { &PARKING } else { &SIDES };
            group.sides(python, &format!("py_{way}"), sides, |side| {
                vec!["ping-pong", side, way, "65536", &samples]
            });
        }
        let adapting = python.case(&["ping-pong", "ours", "adapt", "65536", &samples]);
        group.probes.push(("py_adapt_ours".into(), adapting));
        let views = python.case(&["view-ping-pong", "park", "65536", &samples]);
        group.probes.push(("py_views".into(), views));
        for (title, way) in [("parked", "park"), ("spinning", "spin"), ("adaptive", "adapt")] {
            let floor = if way == "spin" { "py_c_spin.p50" } else { "py_c_park.p50" };
            group.rows.push(Row {
                title: format!("copied in and out, {title}"),
                ours: format!("py_{way}_ours.p50"),
                floor: Some(floor.into()),
                peers: Peer::all(python, &format!("py_{way}"), "p50"),
                gate: if way == "adapt" { Gate::Shown } else { Gate::AtMostTimes(1.3) },
            });
        }
        group.faster("copied, parked", "py_park_ours.p50", "py_park", FASTER_PARKED);
        // Its notify mode is its fastest, so that is what spinning is measured against.
        group.faster("copied, spinning", "py_spin_ours.p50", "py_park", FASTER_SPINNING);
        group.rows.push(Row {
            gate: Gate::AtMost(15_000.0),
            ..shown("by write_view and leased read, parked", "py_views.p50".into())
        });
        group
    }

    fn round_trips(&self, python: &Python, edge: u64) -> Group {
        let (seconds, case) = (self.seconds(), edge.to_string());
        let mut group = Group::new(match edge {
            100 => "Python: square float32 written and read, 100 x 100",
            128 => "Python: square float32 written and read, 128 x 128",
            1_000 => "Python: square float32 written and read, 1000 x 1000",
            _ => "Python: square float32 written and read, 10000 x 10000",
        });
        group.once = true;
        for (title, way) in [("read()", "fresh"), ("read(out=)", "into")] {
            let name = format!("py_io{edge}_{way}");
            group.sides(python, &name, &ROUND_TRIPS, |side| {
                vec!["round-trips", side, way, &case, seconds]
            });
            for (what, line) in [("a second", "rate_hz"), ("written plus read", "io_gb_s")] {
                group.rows.push(Row {
                    peers: Peer::all(python, &name, line),
                    ..shown(&format!("write + {title}, {what}"), format!("{name}_ours.{line}"))
                });
            }
        }
        if edge == 128 {
            let gate = enforced_period().map_or(Gate::Shown, Gate::AtMost);
            let row = shown("one round trip with read()", "py_io128_fresh_ours.period".into());
            group.rows.push(Row { gate, ..row });
        }
        group
    }

    fn products(&self, python: &Python, edge: u64) -> Group {
        let (seconds, case) = (self.seconds(), edge.to_string());
        let mut group = Group::new(match edge {
            100 => "Python: matrix in a stream times vectors, 100 x 100",
            1_000 => "Python: matrix in a stream times vectors, 1000 x 1000",
            _ => "Python: matrix in a stream times vectors, 10000 x 10000",
        });
        group.once = true;
        for (title, way) in [("matrix read as cheaply as is safe", "view"), ("copied", "copy")] {
            let name = format!("py_mvm{edge}_{way}");
            group.sides(python, &name, &PRODUCTS, |side| {
                vec!["products", side, way, &case, seconds]
            });
            for (what, line) in [("products a second", "rate_hz"), ("work", "work_gflop_s")] {
                group.rows.push(Row {
                    peers: Peer::all(python, &name, line),
                    ..shown(&format!("{title}, {what}"), format!("{name}_ours.{line}"))
                });
            }
        }
        group
    }

    /// A pair of memcpy in C, and what two calls from Python cost.
    fn with_calls(
        &self,
        python: &Python,
        name: &str,
        bytes: u64,
        slots: u64,
        threads: u64,
        [samples, batch]: [&str; 2],
    ) -> (String, Program) {
        let copy = self.floors.path("copy").to_string_lossy().into_owned();
        let [bytes, slots, threads] = [bytes, slots, threads].map(|it| it.to_string());
        let program = python.case(&["floor", &copy, &bytes, &slots, &threads, samples, batch]);
        (name.to_owned(), program)
    }

    fn seconds(&self) -> &'static str {
        if self.quick { "0.2" } else { "1.5" }
    }
}

impl Group {
    /// A probe for each of the sides that are there, named `base_side`.
    fn sides<'a>(
        &mut self,
        python: &Python,
        base: &str,
        sides: &[&'a str],
        case: impl Fn(&'a str) -> Vec<&str>,
    ) {
        for side in sides.iter().copied().filter(|side| is_there(python, side)) {
            self.probes.push((format!("{base}_{side}"), python.case(&case(side))));
        }
    }

    /// A row that asks how many times faster than pyshmem the same work is.
    fn faster(&mut self, title: &str, ours: &str, base: &str, times: f64) {
        self.rows.push(Row {
            title: format!("{title}: share of pyshmem's time"),
            ours: ours.to_owned(),
            floor: Some(format!("{base}_pyshmem.p50")),
            peers: Vec::new(),
            gate: Gate::AtMostTimes(1.0 / times),
        });
    }
}

impl Peer {
    /// The figure of every other side that is there.
    fn all(python: &Python, base: &str, line: &str) -> Vec<Self> {
        ROUND_TRIPS[1..]
            .iter()
            .filter(|side| is_there(python, side))
            .map(|&name| Self { name, figure: format!("{base}_{name}.{line}") })
            .collect()
    }
}

fn is_there(python: &Python, side: &str) -> bool {
    ALWAYS.contains(&side) || python.has(side)
}

/// Nanoseconds that one round trip may take, if that is asked of this run.
fn enforced_period() -> Option<f64> {
    (std::env::var(ENFORCE).as_deref() == Ok("1")).then(|| {
        let target = std::env::var(TARGET).ok().and_then(|it| it.parse().ok());
        1e9 / target.unwrap_or(TARGET_HERTZ)
    })
}
