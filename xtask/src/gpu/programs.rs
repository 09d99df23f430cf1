//! The programs that go into the bundle. A line here is all that a further one needs.

use serde_json::{Value, json};

/// What cargo builds it as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    Test(&'static str),
    Example(&'static str),
    Bench(&'static str),
}

/// How it is run and judged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Prints tests as libtest does. Those that may call `cuIpc*`, and those that use two devices and
    /// name them.
    Test { legacy: &'static [&'static str], several_devices: &'static [&'static str] },
    /// Ends by itself and says this.
    Example { says: &'static str },
    /// Criterion's, or one that writes figures as lines.
    Bench { legacy: &'static [&'static str], arguments: &'static [&'static str] },
    /// One test of a test program, again and again, with these arguments; it kills so many processes
    /// each time.
    Soak { test: &'static str, arguments: &'static [&'static str], kills: u32 },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    /// As the report calls it.
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    pub(crate) target: Target,
    pub(crate) kind: Kind,
    /// After so many seconds it is taken to hang.
    pub(crate) limit_s: u32,
}

const OBJECT: &str = "--bytes=17179869184";
const CHUNK: &str = "--chunk=1073741824";
const FRAME: &str = "--bytes=16777216";

pub(crate) const PROGRAMS: &[Program] = &[
    Program {
        name: "cuda-ipc it",
        package: "cuda-ipc",
        target: Target::Test("it"),
        kind: Kind::Test {
            legacy: &[
                "foreign::handles_open_in_place",
                "foreign::handles_of_the_dead_are_refused",
                "foreign::nothing_is_closed_beside_streams_that_wait",
                "borrower",
                "lender",
            ],
            several_devices: &["chunks::order_and_hiding_of_devices_do_not_matter"],
        },
        limit_s: 420,
    },
    Program {
        name: "cuda-ipc survivors",
        package: "cuda-ipc",
        target: Target::Test("survivors"),
        kind: Kind::Test { legacy: &[], several_devices: &[] },
        limit_s: 240,
    },
    Program {
        name: "cuda-ipc hand_over",
        package: "cuda-ipc",
        target: Target::Example("hand_over"),
        kind: Kind::Example { says: "every byte is right" },
        limit_s: 120,
    },
    Program {
        name: "cuda-ipc bench",
        package: "cuda-ipc",
        target: Target::Bench("main"),
        kind: Kind::Bench { legacy: &[], arguments: &[] },
        limit_s: 420,
    },
    Program {
        name: "cuda-ipc large",
        package: "cuda-ipc",
        target: Target::Bench("large"),
        kind: Kind::Bench { legacy: &[], arguments: &[] },
        limit_s: 420,
    },
    Program {
        name: "cuda-ipc makers killed",
        package: "cuda-ipc",
        target: Target::Test("it"),
        kind: Kind::Soak { test: "chunks::memory_outlives_its_maker", arguments: &[], kills: 1 },
        limit_s: 120,
    },
    Program {
        name: "cuda-ipc writers killed",
        package: "cuda-ipc",
        target: Target::Test("it"),
        kind: Kind::Soak {
            test: "words::a_dead_writers_word_is_released",
            arguments: &[],
            kills: 1,
        },
        limit_s: 120,
    },
    Program {
        name: "makers of 16 GiB killed",
        package: "cuda-ipc",
        target: Target::Test("survivors"),
        kind: Kind::Soak {
            test: "makers_die",
            arguments: &[OBJECT, CHUNK, "--kills=25", "--at-once=8", "--readers=3"],
            kills: 25,
        },
        limit_s: 420,
    },
    Program {
        name: "all but a holder killed",
        package: "cuda-ipc",
        target: Target::Test("survivors"),
        kind: Kind::Soak {
            test: "a_holder_is_all_that_is_left",
            arguments: &[OBJECT, CHUNK],
            kills: 2,
        },
        limit_s: 240,
    },
    Program {
        name: "readers of 16 GiB killed",
        package: "cuda-ipc",
        target: Target::Test("survivors"),
        kind: Kind::Soak {
            test: "readers_die",
            arguments: &[OBJECT, CHUNK, "--kills=100", "--at-once=10"],
            kills: 100,
        },
        limit_s: 420,
    },
    Program {
        name: "streams on_gpu",
        package: "shared-tensor",
        target: Target::Test("on_gpu"),
        kind: Kind::Test { legacy: &[], several_devices: &[] },
        limit_s: 240,
    },
    Program {
        name: "streams bench",
        package: "shared-tensor",
        target: Target::Bench("gpu_streams"),
        kind: Kind::Bench { legacy: &[], arguments: &[] },
        limit_s: 240,
    },
    Program {
        name: "streams bench, MPS",
        package: "shared-tensor",
        target: Target::Bench("gpu_streams"),
        kind: Kind::Bench { legacy: &[], arguments: &["--mps"] },
        limit_s: 240,
    },
    Program {
        name: "streams, writers killed",
        package: "shared-tensor",
        target: Target::Test("on_gpu"),
        kind: Kind::Soak {
            test: "deaths::writers_die",
            arguments: &[FRAME, "--kills=50", "--at-once=8"],
            kills: 50,
        },
        limit_s: 240,
    },
    Program {
        name: "streams, readers killed",
        package: "shared-tensor",
        target: Target::Test("on_gpu"),
        kind: Kind::Soak {
            test: "deaths::readers_die",
            arguments: &[FRAME, "--kills=100", "--at-once=10"],
            kills: 100,
        },
        limit_s: 240,
    },
    // For as long as `run.sh --soak` says, at a time.
    Program {
        name: "streams, one writer and eight readers",
        package: "shared-tensor",
        target: Target::Test("on_gpu"),
        kind: Kind::Soak {
            test: "deaths::nothing_grows",
            arguments: &["--bytes=1048576", "--seconds=10"],
            kills: 0,
        },
        limit_s: 420,
    },
];

/// Of C: the sources, and what they are called in the folder of programs. They need the C library alone.
pub(crate) const FLOORS: &[(&str, &str)] = &[
    ("tests/gpu/floor/floor.c", "floor"),
    ("tests/gpu/floor/move.c", "floor-move"),
    ("tests/gpu/floor/stream.c", "floor-stream"),
];

/// What the interpreter runs, beside pytest.
pub(crate) fn of_python() -> Vec<Value> {
    let bench = |name: &str, file: &str, arguments: &[&str], limit_s: u32, legacy: &[&str]| {
        json!({
            "name": name,
            "kind": "bench",
            "legacy": legacy,
            "file": format!("python/gpu/bench/{file}"),
            "arguments": arguments,
            "is_python": true,
            "limit_s": limit_s,
        })
    };
    vec![
        bench("service bench", "__main__.py", &["3"], 480, &[]),
        bench("service large", "large.py", &[], 420, &[]),
        bench("service in place", "in_place.py", &[], 120, &["1 GiB with copy=False: again"]),
        bench("streams python", "streams/__main__.py", &["turns", "pairs"], 240, &[]),
        bench("streams python, tables", "streams/__main__.py", &["tables"], 240, &[]),
        bench("streams python, MPS", "streams/__main__.py", &["turns", "--mps"], 240, &[]),
    ]
}

impl Program {
    /// The name of its file in the bundle.
    pub(crate) fn file(&self) -> String {
        let (Target::Test(name) | Target::Example(name) | Target::Bench(name)) = self.target;
        match self.target {
            Target::Bench(_) => format!("{}-bench-{name}", self.package),
            _ => format!("{}-{name}", self.package),
        }
    }

    /// As the manifest has it.
    pub(crate) fn as_json(&self) -> Value {
        let mut value = json!({
            "name": self.name,
            "file": format!("programs/{}", self.file()),
            "limit_s": self.limit_s,
        });
        let more = match self.kind {
            Kind::Test { legacy, several_devices } => {
                json!({"kind": "test", "legacy": legacy, "several_devices": several_devices})
            }
            Kind::Example { says } => json!({"kind": "example", "says": says}),
            Kind::Bench { legacy, arguments } => {
                json!({"kind": "bench", "legacy": legacy, "arguments": arguments})
            }
            Kind::Soak { test, arguments, kills } => {
                let mut all = vec![test, "--exact"];
                all.extend(arguments);
                json!({"kind": "soak", "arguments": all, "kills": kills})
            }
        };
        if let (Some(fields), Value::Object(more)) = (value.as_object_mut(), more) {
            fields.extend(more);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{PROGRAMS, Program};

    #[test]
    fn names_are_told_apart() {
        let names: BTreeSet<&str> = PROGRAMS.iter().map(|program| program.name).collect();
        assert_eq!(names.len(), PROGRAMS.len());
    }

    #[test]
    fn one_file_is_one_target() {
        for one in PROGRAMS {
            for other in PROGRAMS {
                let same =
                    |a: &Program, b: &Program| (a.package, a.target) == (b.package, b.target);
                assert_eq!(one.file() == other.file(), same(one, other));
            }
        }
    }

    #[test]
    fn the_manifest_says_how_to_run_it() {
        for program in PROGRAMS {
            let value = program.as_json();
            assert!(value["kind"].is_string() && value["limit_s"].is_u64(), "{value}");
            assert!(value["file"].as_str().unwrap().starts_with("programs/"), "{value}");
        }
    }
}
