//! What is measured, what it is compared with, and which result is good enough.

mod python;
mod service;

use std::path::Path;

use crate::floor::Floors;
use crate::program::Program;
use crate::python::Python;

/// Probes that belong together: they run one right after the other in every round.
#[derive(Debug)]
pub struct Group {
    /// The heading.
    pub title: &'static str,
    /// Every probe with the name that its figures get.
    pub probes: Vec<(String, Program)>,
    /// What is said about their figures.
    pub rows: Vec<Row>,
    /// Whether it runs in the last round only: long by nature, and a distribution by itself.
    pub once: bool,
}

impl Group {
    /// Nothing yet, in every round.
    fn new(title: &'static str) -> Self {
        Self { title, probes: Vec::new(), rows: Vec::new(), once: false }
    }
}

/// One line of the report. A figure is named `probe.line`; how the line ends says
/// in what unit it is ([`crate::figures::shown`]).
#[derive(Debug)]
pub struct Row {
    /// What was done.
    pub title: String,
    /// The figure of ours.
    pub ours: String,
    /// The figure to compare with.
    pub floor: Option<String>,
    /// The same work by other libraries.
    pub peers: Vec<Peer>,
    /// When it is good enough.
    pub gate: Gate,
}

/// The same work by another library.
#[derive(Debug)]
pub struct Peer {
    /// The library.
    pub name: &'static str,
    /// Its figure.
    pub figure: String,
}

/// When a figure is good enough.
#[derive(Clone, Debug, PartialEq)]
pub enum Gate {
    /// Shown only.
    Shown,
    /// That the probe ends well is what is asked.
    Ends,
    /// At most this many nanoseconds.
    AtMost(f64),
    /// At most this many times the floor.
    AtMostTimes(f64),
    /// At most this many times the floor, and not above it where a second thread, of which the
    /// figure is named, brings a tenth or more.
    AtMostTimesOrPaying(f64, String),
    /// At most so many nanoseconds where a second thread brings a tenth or more, and at most so many
    /// times the floor elsewhere.
    AtMostWherePaying {
        /// Nanoseconds where it does.
        free: f64,
        /// The figure of two threads.
        second: String,
        /// Times the floor where it does not.
        times: f64,
    },
}

/// Who makes the programs of a plan.
#[derive(Debug)]
pub struct Planner<'a> {
    /// The compiled floors.
    pub floors: &'a Floors,
    /// This program.
    pub own: &'a Path,
    /// The Python to measure from, if there is one.
    pub python: Option<&'a Python>,
    /// One with shared-tensor 0.2.16, if there is one.
    pub rival: Option<&'a Python>,
    /// A fifth of the samples, a twentieth of the long runs.
    pub quick: bool,
}

impl Planner<'_> {
    /// What `bench streams` measures.
    pub fn streams(&self) -> Vec<Group> {
        let mut groups = vec![self.machine()];
        groups.extend([
            self.copies("Write and read, 40 KB, one process", 40_000, 8, [300, 100]),
            self.copies("Write and read, 4 MB, one process", 4_000_000, 4, [150, 1]),
            self.copies("Write and read, 400 MB, one process", 400_000_000, 3, [8, 1]),
            self.both_ways(),
            self.in_place(),
            self.publishing(),
            self.attached(),
            self.lock(),
            self.wakes(),
            self.fan_out(),
            self.lifecycle(),
            self.big_lifecycle(),
            self.rate(1_000),
            self.rate(2_000),
        ]);
        groups.extend(self.python.into_iter().flat_map(|python| self.python_half(python)));
        groups
    }

    fn machine(&self) -> Group {
        let rows = [
            ("read the clock", "clock"),
            ("locked add", "locked_add"),
            ("sequentially consistent fence", "fence"),
            ("system call", "system_call"),
            ("FUTEX_WAKE with nobody there", "wake_nobody"),
        ];
        Group {
            title: "What this machine charges",
            probes: vec![self.floor("machine", "machine", &[])],
            rows: rows.map(|(title, line)| shown(title, format!("machine.{line}"))).into(),
            once: false,
        }
    }

    fn copies(&self, title: &'static str, bytes: u64, slots: u64, counts: [u64; 2]) -> Group {
        let size = format!("copy{bytes}");
        let [samples, batch] = [self.samples(counts[0]), counts[1]];
        let numbers = |threads: u64| [bytes, slots, threads, samples, batch].map(|n| n.to_string());
        let named = |who: &str| format!("{who}_{size}");
        let p50 = |who: &str| format!("{}.p50", named(who));
        let mut group = Group {
            title,
            probes: vec![
                self.floor(&named("one"), "copy", &numbers(1)),
                self.ours(&named("ours"), "copy", &numbers(1)),
                self.ours(&named("iceoryx2"), "iceoryx2-copy", &numbers(1)),
            ],
            rows: Vec::new(),
            once: false,
        };
        let row = |title: &str, who: &str, gate: Gate| Row {
            title: title.to_owned(),
            ours: p50(who),
            floor: Some(p50("one")),
            peers: vec![iceoryx2(p50("iceoryx2"))],
            gate,
        };
        if bytes < 1 << 20 {
            group.rows.push(row("write + read_into", "ours", Gate::AtMostTimes(1.25)));
            return group;
        }
        group.probes.push(self.floor(&named("two"), "copy", &numbers(2)));
        group.probes.push(self.ours(&named("free"), "copy", &numbers(2)));
        group.rows.push(row("write + read_into, one CPU", "ours", Gate::AtMostTimes(1.10)));
        let paying = Gate::AtMostTimesOrPaying(1.10, p50("two"));
        group.rows.push(row("write + read_into, any CPU", "free", paying));
        group.rows.push(Row {
            title: "the same beside two threads of the floor".into(),
            ours: p50("free"),
            floor: Some(p50("two")),
            peers: Vec::new(),
            gate: Gate::Shown,
        });
        group
    }

    fn both_ways(&self) -> Group {
        let mut group = Group::new("Two processes, one per CPU");
        let samples = self.samples(5_000);
        for (way, gate) in [("park", 1.25), ("spin", 1.25)] {
            for (size, there, back) in [("64k", 65_536, 65_536), ("40k", 40_000, 0)] {
                let case = format!("{size}_{way}");
                let arguments = [there, back, 8, samples].map(|n: u64| n.to_string());
                let [there, back, slots, samples] = arguments;
                let arguments = [there, back, slots, way.to_owned(), samples];
                group.probes.push(self.floor(&format!("c_{case}"), "pingpong", &arguments));
                group.probes.push(self.ours(&format!("ours_{case}"), "pingpong", &arguments));
                let mut peers = Vec::new();
                if way == "spin" {
                    let name = format!("iceoryx2_{case}");
                    group.probes.push(self.ours(&name, "iceoryx2-pingpong", &arguments));
                    peers.push(iceoryx2(format!("{name}.p50")));
                }
                let what =
                    if size == "64k" { "64 KiB both ways" } else { "40 KB there, a word back" };
                let how = if way == "park" { "parked" } else { "spinning" };
                let gated = size == "64k" || way == "spin";
                group.rows.push(Row {
                    title: format!("{what}, {how}"),
                    ours: format!("ours_{case}.p50"),
                    floor: Some(format!("c_{case}.p50")),
                    peers,
                    gate: if gated { Gate::AtMostTimes(gate) } else { Gate::Shown },
                });
            }
        }
        let arguments = ["65536", "65536", "8", "adapt", &samples.to_string()].map(str::to_owned);
        group.probes.push(self.ours("ours_64k_adapt", "pingpong", &arguments));
        group.rows.push(Row {
            title: "64 KiB both ways, adaptive".into(),
            ours: "ours_64k_adapt.p50".into(),
            floor: Some("c_64k_park.p50".into()),
            peers: Vec::new(),
            gate: Gate::Shown,
        });
        group
    }

    fn in_place(&self) -> Group {
        let mut group = Group::new("In place");
        for (size, bytes) in [("40 KB", 40_000), ("4 MB", 4_000_000), ("400 MB", 400_000_000)] {
            let name = format!("place{bytes}");
            let arguments = [bytes, self.samples(300)].map(|n: u64| n.to_string());
            group.probes.push(self.ours(&name, "place", &arguments));
            let rows = [
                ("leased read", "lease", Gate::AtMost(1_000.0)),
                ("publish by view + leased read", "both", Gate::AtMost(1_000.0)),
            ];
            for (title, line, gate) in rows {
                group.rows.push(Row {
                    gate,
                    ..shown(&format!("{title}, {size}"), format!("{name}.{line}"))
                });
            }
        }
        group
    }

    fn publishing(&self) -> Group {
        let rows = [
            ("publish 64 B, nobody waiting, lock held", "held", Gate::AtMost(80.0)),
            ("publish 64 B, nobody waiting, with lock and clock", "locked", Gate::AtMost(120.0)),
            ("anything new: one look", "look", Gate::AtMost(50.0)),
            (
                "frames without a system call, under a filter that kills",
                "silent_frames",
                Gate::Ends,
            ),
        ];
        Group {
            title: "Publishing",
            probes: vec![
                self.ours("publish", "publish", &[self.samples(300).to_string()]),
                self.ours("publish_silent", "silence", &[self.samples(1_000_000).to_string()]),
            ],
            rows: rows
                .map(|(title, line, gate)| {
                    let figure = if line == "silent_frames" {
                        "publish_silent.frames".to_owned()
                    } else {
                        format!("publish.{line}")
                    };
                    Row { gate, ..shown(title, figure) }
                })
                .into(),
            once: false,
        }
    }

    fn attached(&self) -> Group {
        let samples = self.samples(200);
        let name = |count: u64| format!("attached{count}");
        let probe = |count: u64| {
            self.ours(&name(count), "attached", &[count.to_string(), samples.to_string()])
        };
        let row = |count: u64, gate: Gate| Row {
            title: format!("publish 64 B with {count} attached beside 1"),
            ours: format!("{}.publish", name(count)),
            floor: Some(format!("{}.publish", name(1))),
            peers: Vec::new(),
            gate,
        };
        Group {
            title: "Publishing with many attached, none waiting",
            probes: [1, 8, 64].map(probe).into(),
            rows: vec![row(8, Gate::AtMostTimes(1.05)), row(64, Gate::AtMostTimes(1.05))],
            once: false,
        }
    }

    fn lock(&self) -> Group {
        let samples = [self.samples(500).to_string()];
        let row = |title: &str, line: &str, gate: Gate| Row {
            title: title.into(),
            ours: format!("lock.{line}"),
            floor: Some(format!("c_lock.{line}")),
            peers: Vec::new(),
            gate,
        };
        Group {
            title: "The lock",
            probes: vec![
                self.floor("c_lock", "lock", &samples),
                self.ours("lock", "lock", &samples),
            ],
            rows: vec![
                row("lock + unlock, uncontended", "uncontended", Gate::AtMost(25.0)),
                row("two processes, 200 ns held, each", "contended", Gate::AtMost(480.0)),
            ],
            once: false,
        }
    }

    fn wakes(&self) -> Group {
        let mut group = Group::new("Waking");
        let bare = ["0", "0", "8", "park", &self.samples(5_000).to_string()].map(str::to_owned);
        group.probes.push(self.floor("futex", "pingpong", &bare));
        group.rows.push(shown("bare futex there and back", "futex.p50".into()));
        let times = |limits: [f64; 2]| limits.map(Gate::AtMostTimes);
        let cases = [
            ("parked, 100 us idle", "park", 100_000, 3_000, times([1.15, 1.5])),
            ("parked, 1 ms idle", "park", 1_000_000, 1_000, times([1.15, 1.5])),
            ("spinning, 20 us idle", "spin", 20_000, 10_000, [300.0, 1_000.0].map(Gate::AtMost)),
        ];
        for (title, way, idle, samples, gates) in cases {
            let case = format!("wake_{way}{idle}");
            let arguments = [idle.to_string(), way.to_owned(), self.samples(samples).to_string()];
            group.probes.push(self.floor(&format!("c_{case}"), "wake", &arguments));
            group.probes.push(self.ours(&format!("ours_{case}"), "wake", &arguments));
            let peer = (way == "park").then(|| format!("iceoryx2_{case}"));
            if let Some(name) = &peer {
                group.probes.push(self.ours(name, "iceoryx2-wake", &arguments));
            }
            for (line, gate) in ["p50", "p99"].into_iter().zip(gates) {
                group.rows.push(Row {
                    title: format!("{title}, {line}"),
                    ours: format!("ours_{case}.{line}"),
                    floor: Some(format!("c_{case}.{line}")),
                    peers: peer.iter().map(|name| iceoryx2(format!("{name}.{line}"))).collect(),
                    gate,
                });
            }
        }
        group
    }

    fn fan_out(&self) -> Group {
        let mut group = Group::new("What waking many costs the writer");
        for count in [1_u64, 8, 32] {
            let arguments = [count, self.samples(150)].map(|n| n.to_string());
            group.probes.push(self.floor(&format!("c_fan{count}"), "fanout", &arguments));
            group.probes.push(self.ours(&format!("ours_fan{count}"), "fanout", &arguments));
            group.rows.push(Row {
                title: format!("publish 64 B with {count} parked"),
                ours: format!("ours_fan{count}.p50"),
                floor: Some(format!("c_fan{count}.p50")),
                peers: Vec::new(),
                gate: Gate::AtMostTimes(1.1),
            });
        }
        group
    }

    fn lifecycle(&self) -> Group {
        let samples = self.samples(500).to_string();
        let path = format!("{}create-floor", crate::probe::space::file_prefix());
        let row = |line: &str, limit: f64| Row {
            title: format!("{line} a stream of 40 KB"),
            ours: format!("create.{line}"),
            floor: Some(format!("c_create.{line}")),
            peers: Vec::new(),
            gate: Gate::AtMost(limit),
        };
        Group {
            title: "Small streams",
            probes: vec![
                // What is reserved for eight slots, the header and the control page.
                self.floor("c_create", "create", &["344064".into(), samples.clone(), path]),
                self.ours("create", "create", &[samples]),
            ],
            rows: vec![row("create", 60_000.0), row("attach", 20_000.0)],
            once: false,
        }
    }

    fn big_lifecycle(&self) -> Group {
        let row = |title: &str, ours: &str, floor: Option<&str>, gate: Gate| Row {
            title: title.into(),
            ours: ours.into(),
            floor: floor.map(str::to_owned),
            peers: Vec::new(),
            gate,
        };
        Group {
            title: "A stream of 400 MB, three slots",
            probes: vec![
                self.floor("c_frame", "pages", &["400000000".into()]),
                self.floor("c_ring", "pages", &["1200000000".into()]),
                self.ours("big", "big", &["400000000".into()]),
            ],
            rows: vec![
                row("create returns", "big.create", None, Gate::Shown),
                row("first frame published", "big.first", None, Gate::Shown),
                row(
                    "created, all pages there",
                    "big.populated",
                    Some("c_ring.create"),
                    Gate::AtMostTimes(1.1),
                ),
                row("created, all pages huge", "big.huge", Some("c_ring.create_huge"), Gate::Shown),
                row("of them huge, percent", "big.huge_percent", None, Gate::Shown),
                row(
                    "attach, frame touched, small pages",
                    "big.attach",
                    Some("c_frame.attach"),
                    Gate::AtMostTimes(1.2),
                ),
                row(
                    "attach, frame touched, huge pages",
                    "big.attach_huge",
                    Some("c_frame.attach_huge"),
                    Gate::AtMost(0.2e6),
                ),
            ],
            once: false,
        }
    }

    fn rate(&self, hertz: u64) -> Group {
        let seconds = if self.quick { 3 } else { 60 };
        let name = format!("rate{hertz}");
        let lines = [("p50", "p50"), ("p99", "p99"), ("p99.9", "p999"), ("max", "max")];
        let rows = lines.map(|(title, line)| {
            shown(
                &format!("40 KB at {hertz} Hz, 3 readers, {seconds} s: {title}"),
                format!("{name}.{line}"),
            )
        });
        let arguments = [hertz, seconds, 3, 40_000].map(|n| n.to_string());
        Group {
            title: if hertz == 1_000 { "Latency at 1 kHz" } else { "Latency at 2 kHz" },
            probes: vec![self.ours(&name, "rate", &arguments)],
            rows: rows.into(),
            once: true,
        }
    }

    fn samples(&self, full: u64) -> u64 {
        if self.quick { (full / 5).max(3) } else { full }
    }

    fn floor(&self, name: &str, program: &str, arguments: &[String]) -> (String, Program) {
        (name.to_owned(), Program::new(&self.floors.path(program), arguments))
    }

    fn ours(&self, name: &str, probe: &str, arguments: &[String]) -> (String, Program) {
        let mut all = vec!["probe".to_owned(), probe.to_owned()];
        all.extend_from_slice(arguments);
        (name.to_owned(), Program::new(self.own, &all))
    }
}

fn iceoryx2(figure: String) -> Peer {
    Peer { name: "iceoryx2", figure }
}

fn shown(title: &str, figure: String) -> Row {
    Row { title: title.to_owned(), ours: figure, floor: None, peers: Vec::new(), gate: Gate::Shown }
}
