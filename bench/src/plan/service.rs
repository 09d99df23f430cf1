//! The plan of `bench service`.

use super::{Gate, Group, Peer, Planner, Row, shown};
use crate::python::Python;

/// The service that was there before.
const RIVAL: &str = "0.2.16";

impl Planner<'_> {
    /// What `bench service` measures.
    pub fn service(&self) -> Vec<Group> {
        let mut groups = vec![self.requests()];
        groups.extend(self.python.map(|python| self.calls(python)));
        groups.extend(
            self.python.filter(|it| it.has("transformers")).map(|python| self.openings(python)),
        );
        groups.extend([self.load(), self.deaths()]);
        groups
    }

    /// Models that are opened again, the call included, and pickle over the same memory.
    fn openings(&self, python: &Python) -> Group {
        const MS: f64 = 1e6;
        const PICKLE: &str = "pickle, tensors apart";
        let samples = self.samples(1_500).to_string();
        let mut group = Group::new("Python: models opened again, transformers loaded");
        for (model, title, p50, p99) in [
            ("minilm", "MiniLM", 0.8, 3.0),
            ("bert", "Bert, 676 M parameters", 1.0, 3.0),
            ("synthetic", "300 tensors in 450 modules", 1.5, 5.0),
        ] {
            let (name, theirs) = (format!("reopen_{model}"), format!("pickle_{model}"));
            let case = |what| python.case(&["models", what, model, &samples]);
            group.probes.push((name.clone(), case("reopen")));
            group.probes.push((theirs.clone(), case("pickle")));
            for (which, limit) in [("p50", p50), ("p99", p99), ("worst", 20.0)] {
                let peer = Peer { name: PICKLE, figure: format!("{theirs}.{which}") };
                group.rows.push(Row {
                    peers: vec![peer],
                    gate: Gate::AtMost(limit * MS),
                    ..shown(&format!("{title}, {which}"), format!("{name}.{which}"))
                });
            }
        }
        let times = self.samples(10).to_string();
        group
            .probes
            .push(("first_minilm".to_owned(), python.case(&["models", "first", "minilm", &times])));
        group.rows.push(Row {
            gate: Gate::AtMost(5.0 * MS),
            ..shown(
                "MiniLM, the first time in a process, imports apart, p50",
                "first_minilm.p50".into(),
            )
        });
        group.rows.push(shown("the same, worst", "first_minilm.worst".into()));
        group
    }

    /// Many clients of one server.
    fn load(&self) -> Group {
        let mut group = Group::new("256 clients of one server");
        let arguments = ["256".to_owned(), if self.quick { "2" } else { "10" }.to_owned()];
        group.probes.push(self.ours("load", "service-load", &arguments));
        group.rows = vec![
            shown("calls a second, all together", "load.all_hz".into()),
            Row {
                floor: Some("load.worst_hz".into()),
                gate: Gate::AtMostTimes(2.0),
                ..shown("the mean client beside the worst", "load.mean_hz".into())
            },
        ];
        group
    }

    /// Clients that are killed, beside the time that the kernel takes for its part: to end this very
    /// client, and to end a small program in C with as much memory.
    fn deaths(&self) -> Group {
        let mut group = Group::new("From the SIGKILL of a client to the end of its leases");
        for (name, title, resident, lent, samples, gate) in [
            ("small", "10 MB resident", "10000000", "4096", 112, None),
            ("large", "400 MB resident", "400000000", "4096", 10, Some(1.2)),
            ("huge", "2 GB resident", "2000000000", "4096", 4, Some(1.2)),
            ("model", "91 MB of a model mapped", "10000000", "91000000", 100, Some(1.2)),
        ] {
            let samples = self.samples(samples).to_string();
            let arguments = [resident.to_owned(), lent.to_owned(), samples];
            let (small, ours) = (format!("hangup_{name}"), format!("death_{name}"));
            group.probes.push(self.floor(&small, "hangup", &arguments));
            group.probes.push(self.ours(&ours, "service-death", &arguments));
            for (quantile, gate) in [
                ("p50", gate.map_or(Gate::Shown, Gate::AtMostTimes)),
                ("p99", if gate.is_none() { Gate::AtMost(50e6) } else { Gate::Shown }),
            ] {
                group.rows.push(Row {
                    floor: Some(format!("{ours}.files_{quantile}")),
                    gate,
                    ..shown(&format!("{title}, {quantile}"), format!("{ours}.{quantile}"))
                });
            }
            group.rows.push(Row {
                floor: Some(format!("{small}.p50")),
                ..shown(&format!("{title}, p50 beside a program in C"), format!("{ours}.p50"))
            });
        }
        group
    }

    /// Calls from Python, of functions in Python in another process.
    fn calls(&self, python: &Python) -> Group {
        let samples = self.samples(5_000).to_string();
        let mut group = Group::new("Python: calls, 64 bytes and less");
        group.probes.push(self.floor("call_echo", "echo", &["64".to_owned(), samples.clone()]));
        for (what, title, gate) in [
            ("empty", "of a function that does nothing", Gate::AtMostTimes(1.6)),
            ("ping", "ping", Gate::Shown),
            ("hit", "answered from the cache", Gate::Shown),
            ("held", "the same, while a thread of the server holds the GIL", Gate::Shown),
        ] {
            let name = format!("call_{what}");
            group.probes.push((name.clone(), python.case(&["service", what, &samples])));
            let mut peers = Vec::new();
            if let Some(rival) = self.rival {
                let theirs = format!("{name}_rival");
                group.probes.push((theirs.clone(), rival.case(&["service", what, &samples])));
                peers.push(theirs);
            }
            let last = if what == "held" { "worst" } else { "p99" };
            // The thread holds it for a second.
            let last_gate = if what == "held" { Gate::AtMost(50e6) } else { Gate::Shown };
            for (quantile, gate) in [("p50", gate), (last, last_gate)] {
                let figure = |of: &str| format!("{of}.{quantile}");
                let row = shown(&format!("{title}, {quantile}"), figure(&name));
                let floor = (quantile != "worst").then(|| figure("call_echo"));
                let peers = peers.iter().map(|it| Peer { name: RIVAL, figure: figure(it) });
                group.rows.push(Row { floor, peers: peers.collect(), gate, ..row });
            }
            if let ("empty", Some(rival)) = (what, peers.first()) {
                group.rows.push(Row {
                    floor: Some(format!("{rival}.p50")),
                    gate: Gate::AtMostTimes(0.25),
                    ..shown(
                        "of a function that does nothing: share of theirs",
                        format!("{name}.p50"),
                    )
                });
            }
        }
        if python.has("transformers") {
            let few = self.samples(200).to_string();
            group.probes.push(("call_large".into(), python.case(&["service", "large", &few])));
            for (quantile, gate) in [("p50", Gate::AtMost(200e3)), ("p99", Gate::Shown)] {
                group.rows.push(Row {
                    gate,
                    ..shown(
                        &format!("1 GiB, from the second call on, {quantile}"),
                        format!("call_large.{quantile}"),
                    )
                });
            }
        }
        group
    }

    fn requests(&self) -> Group {
        let samples = self.samples(20_000).to_string();
        let bytes = "64".to_owned();
        let mut group = Group::new("A request of 64 bytes and its reply");
        group.probes.push(self.floor("echo", "echo", &[bytes.clone(), samples.clone()]));
        for (way, title) in [("at-once", "answered at once"), ("worker", "answered by a worker")] {
            let name = format!("requests_{way}");
            let arguments = [way.to_owned(), bytes.clone(), samples.clone()];
            group.probes.push(self.ours(&name, "requests", &arguments));
            for quantile in ["p50", "p99"] {
                group.rows.push(Row {
                    floor: Some(format!("echo.{quantile}")),
                    gate: Gate::Shown,
                    ..shown(&format!("{title}, {quantile}"), format!("{name}.{quantile}"))
                });
            }
        }
        group
    }
}
