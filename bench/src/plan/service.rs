//! The plan of `bench service`.

use super::{Gate, Group, Planner, Row, shown};

impl Planner<'_> {
    /// What `bench service` measures.
    pub fn service(&self) -> Vec<Group> {
        vec![self.requests()]
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
