//! The endpoints that the tests agree on, in any language.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use shared_tensor::DType;
use shared_tensor::service::{
    Call, Code, Concurrency, Endpoint, Execution, Failure, KeyRule, Provider, Tensor, Value,
};

/// What several calls have to do with each other.
#[derive(Default)]
pub(crate) struct Stage {
    builds: Mutex<HashMap<String, u64>>,
    doors: Mutex<HashMap<String, bool>>,
    opened: Condvar,
    inside: AtomicU64,
    most_inside: AtomicU64,
    kept: Mutex<Vec<Value>>,
}

impl Stage {
    pub(crate) fn count(&self, what: &str) -> u64 {
        let mut builds = self.builds.lock().unwrap();
        let count = builds.entry(what.to_owned()).or_default();
        *count += 1;
        *count
    }

    pub(crate) fn open(&self, door: &str) {
        self.doors.lock().unwrap().insert(door.to_owned(), true);
        self.opened.notify_all();
    }

    /// Waits for a door, told to stop or not.
    fn insist(&self, door: &str) {
        let mut doors = self.doors.lock().unwrap();
        while !doors.get(door).copied().unwrap_or(false) {
            doors = self.opened.wait(doors).unwrap();
        }
    }

    /// Waits for a door that another call opens; `false` if the call is told to stop before.
    pub(crate) fn pass(&self, door: &str, call: &Call) -> bool {
        self.count(&format!("waiting at {door}"));
        let mut doors = self.doors.lock().unwrap();
        while !doors.get(door).copied().unwrap_or(false) {
            self.count(&format!("looking at {door}"));
            if call.cancelled() {
                return false;
            }
            let slice = std::time::Duration::from_millis(5);
            doors = self.opened.wait_timeout(doors, slice).unwrap().0;
        }
        true
    }
}

fn number(call: &Call, place: usize, name: &str) -> Result<i64, Failure> {
    let value = call.argument(place, name).and_then(Value::as_int);
    value.ok_or_else(|| Failure::other("TypeError", format!("{name} is to be a number")))
}

fn text(call: &Call, place: usize, name: &str) -> Result<String, Failure> {
    let value = call.argument(place, name).and_then(Value::as_str);
    let value = value.ok_or_else(|| Failure::other("TypeError", format!("{name} is to be text")));
    Ok(value?.to_owned())
}

/// `rows` times three numbers: 0, 1, 2 ...
pub(crate) fn table(call: &Call, rows: u64) -> Result<Tensor, Failure> {
    let elements: Vec<f64> = (0..rows * 3).map(|number| number as f64).collect();
    Ok(Tensor::from_slice(call.arena(), [rows, 3], &elements)?)
}

fn table_of_call(call: &Call) -> Result<Tensor, Failure> {
    let rows = call.argument(0, "rows").and_then(Value::as_int).unwrap_or(4);
    table(call, rows.unsigned_abs())
}

#[expect(clippy::too_many_lines, reason = "a list")]
pub(crate) fn provider(stage: &Arc<Stage>) -> Provider {
    let counted = |name: &'static str| {
        let stage = Arc::clone(stage);
        move |call: &Call| {
            stage.count(name);
            table_of_call(call)
        }
    };
    let with = || Arc::clone(stage);
    let provider = Provider::new()
        .with(
            Endpoint::new("echo", |call: &Call| {
                let mut values = call.positional().to_vec();
                values.extend(
                    call.named().iter().map(|(name, value)| {
                        Value::Tuple(vec![name.as_str().into(), value.clone()])
                    }),
                );
                Ok(if values.len() == 1 { values.remove(0) } else { Value::Tuple(values) })
            })
            .cache(false),
        )
        .with(
            Endpoint::new("add", |call: &Call| Ok(number(call, 0, "a")? + number(call, 1, "b")?))
                .cache(false),
        )
        .with(Endpoint::new("add_once", |call: &Call| {
            Ok(number(call, 0, "a")? + number(call, 1, "b")?)
        }))
        .with(
            Endpoint::new("add_by_arguments", {
                let stage = with();
                move |call: &Call| {
                    stage.count("add_by_arguments");
                    Ok(number(call, 0, "a")? + number(call, 1, "b")?)
                }
            })
            .key(KeyRule::Arguments),
        )
        .with(
            Endpoint::new("scale", |call: &Call| {
                let Some(Value::Tensor(tensor)) = call.argument(0, "tensor") else {
                    return Err(Failure::new(Code::Capability, "a tensor is needed"));
                };
                let factor = number(call, 1, "factor")?;
                let mut elements = tensor.to_vec::<f64>()?;
                for element in &mut elements {
                    *element *= factor as f64;
                }
                Ok(Tensor::from_slice(call.arena(), tensor.shape(), &elements)?)
            })
            .cache(false),
        )
        .with(
            Endpoint::new("double_in_place", |call: &Call| {
                let Some(Value::Tensor(tensor)) = call.argument(0, "tensor") else {
                    return Err(Failure::new(Code::Capability, "a tensor is needed"));
                };
                let mut elements = tensor.to_vec::<f64>()?;
                for element in &mut elements {
                    *element *= 2.0;
                }
                tensor.write(&elements)?;
                Ok(Value::None)
            })
            .cache(false),
        )
        .with(Endpoint::new("make_table", counted("make_table")))
        .with(Endpoint::new("writable_table", counted("writable_table")).writable(true))
        .with(Endpoint::new("fresh_table", counted("fresh_table")).cache(false))
        .with(
            Endpoint::new("table_by_rows", counted("table_by_rows"))
                .key(KeyRule::computed(|call| Ok(format!("rows={}", number(call, 0, "rows")?))))
                .cache_format_key("rows={rows}"),
        )
        .with(Endpoint::new("managed_table", counted("managed_table")).managed(true))
        .with(Endpoint::new("managed_fresh", counted("managed_fresh")).managed(true).cache(false))
        .with(Endpoint::new("managed_nothing", |_: &Call| Ok(Value::None)).managed(true))
        .with(
            Endpoint::new("task_table", counted("task_table"))
                .execution(Execution::Task)
                .cache(false),
        )
        .with(
            Endpoint::new("task_managed", counted("task_managed"))
                .execution(Execution::Task)
                .managed(true),
        )
        .with(Endpoint::new("nothing", {
            let stage = with();
            move |_: &Call| {
                stage.count("nothing");
                Ok(Value::None)
            }
        }))
        .with(
            Endpoint::new("fail", |call: &Call| -> Result<Value, Failure> {
                let (kind, message) = (text(call, 0, "kind")?, text(call, 1, "message")?);
                Err(Failure::other(kind, message).with_traceback("line 1 of the endpoint"))
            })
            .cache(false),
        )
        .with(
            Endpoint::new("task_fail", |_: &Call| -> Result<Value, Failure> {
                Err(Failure::other("ValueError", "on purpose"))
            })
            .execution(Execution::Task)
            .cache(false),
        )
        .with(
            Endpoint::new("panics", |_: &Call| -> Result<Value, Failure> { panic!("on purpose") })
                .cache(false),
        )
        .with(
            Endpoint::new("builds", {
                let stage = with();
                move |call: &Call| {
                    let name = text(call, 0, "endpoint")?;
                    let count = stage.builds.lock().unwrap().get(&name).copied();
                    Ok(i64::try_from(count.unwrap_or(0)).unwrap())
                }
            })
            .cache(false),
        )
        .with(
            Endpoint::new("open", {
                let stage = with();
                move |call: &Call| {
                    stage.open(&text(call, 0, "door")?);
                    Ok(Value::None)
                }
            })
            .cache(false),
        )
        .with(
            Endpoint::new("keep", {
                let stage = with();
                move |call: &Call| {
                    let mut kept = stage.kept.lock().unwrap();
                    kept.extend(call.positional().iter().cloned());
                    Ok(i64::try_from(kept.len()).unwrap())
                }
            })
            .cache(false),
        );
    let slow = || {
        let stage = with();
        move |call: &Call| {
            let door = text(call, 0, "door")?;
            stage.count("slow");
            call.progress(1, 3, "at the door");
            let now = stage.inside.fetch_add(1, Ordering::SeqCst) + 1;
            stage.most_inside.fetch_max(now, Ordering::SeqCst);
            let passed = stage.pass(&door, call);
            stage.inside.fetch_sub(1, Ordering::SeqCst);
            if !passed {
                return Err(Failure::other("CancelledError", "told to stop"));
            }
            call.progress(3, 3, "through");
            let rows = call.argument(1, "rows").and_then(Value::as_int).unwrap_or(2);
            table(call, rows.unsigned_abs())
        }
    };
    let told = || {
        let stage = with();
        // Goes on for a while after it was told to stop, and ends as it is to.
        move |call: &Call| {
            while !call.cancelled() {
                std::thread::yield_now();
            }
            stage.open("it was told");
            stage.insist("it may go");
            let is_still_told = call.cancelled();
            if text(call, 0, "end")? == "returns" {
                return Ok(Value::Bool(is_still_told));
            }
            Err(Failure::other(if is_still_told { "Told" } else { "Untold" }, "on purpose"))
        }
    };
    provider
        .with(Endpoint::new("slow", slow()).cache(false))
        .with(Endpoint::new("slow_cached", slow()).key(KeyRule::Arguments))
        .with(Endpoint::new("slow_alone", slow()).key(KeyRule::Arguments).singleflight(false))
        .with(
            Endpoint::new("slow_serialized", slow())
                .key(KeyRule::Arguments)
                .concurrency(Concurrency::Serialized),
        )
        .with(Endpoint::new("slow_managed", slow()).key(KeyRule::Arguments).managed(true))
        .with(Endpoint::new("task_slow", slow()).execution(Execution::Task).cache(false))
        .with(
            Endpoint::new("task_slow_cached", slow())
                .execution(Execution::Task)
                .key(KeyRule::Arguments),
        )
        .with(
            Endpoint::new("task_stubborn", {
                let stage = with();
                // Told to stop, it takes its time; the second time it succeeds.
                move |call: &Call| {
                    if stage.count("task_stubborn") > 1 {
                        return Ok(Value::Int(2));
                    }
                    while !call.cancelled() {
                        std::thread::yield_now();
                    }
                    stage.open("it was told");
                    stage.insist("it may go");
                    Err(Failure::other("CancelledError", "told to stop"))
                }
            })
            .execution(Execution::Task)
            .key(KeyRule::Arguments),
        )
        .with(
            Endpoint::new("task_fail_at", {
                let stage = with();
                move |call: &Call| -> Result<Value, Failure> {
                    stage.insist(&text(call, 0, "door")?);
                    Err(Failure::other("ValueError", "on purpose"))
                }
            })
            .execution(Execution::Task)
            .cache(false),
        )
        .with(Endpoint::new("task_told", told()).execution(Execution::Task).cache(false))
        .with(
            Endpoint::new("task_told_cached", told())
                .execution(Execution::Task)
                .key(KeyRule::Arguments),
        )
        .with(
            Endpoint::new("insists", {
                let stage = with();
                move |call: &Call| {
                    let door = text(call, 0, "door")?;
                    stage.count(&format!("waiting at {door}"));
                    stage.insist(&door);
                    Ok(Value::None)
                }
            })
            .cache(false),
        )
        .with(
            Endpoint::new("length", {
                let stage = with();
                move |call: &Call| {
                    stage.count("length");
                    Ok(i64::try_from(text(call, 0, "text")?.len()).unwrap())
                }
            })
            .key(KeyRule::Arguments),
        )
        .with(
            Endpoint::new("most_inside", {
                let stage = with();
                move |_: &Call| Ok(i64::try_from(stage.most_inside.load(Ordering::SeqCst)).unwrap())
            })
            .cache(false),
        )
        .with(
            Endpoint::new("zeros", |call: &Call| {
                let bytes = number(call, 0, "bytes")?.unsigned_abs();
                Ok(Tensor::zeros(call.arena(), DType::U8, [bytes])?)
            })
            .key(KeyRule::Arguments),
        )
        .with(
            Endpoint::new("zeros_alone", |call: &Call| {
                let bytes = number(call, 0, "bytes")?.unsigned_abs();
                let region = shared_tensor::service::Region::allocate(bytes)?;
                let storage = shared_tensor::service::Storage::new(region, 0, bytes)?;
                let layout = shared_tensor::service::Layout::contiguous(DType::U8, [bytes]);
                Ok(Tensor::new(storage, layout)?)
            })
            .cache(false),
        )
        .with(
            Endpoint::new("undeliverable", {
                let stage = with();
                move |_: &Call| {
                    stage.count("undeliverable");
                    let mut value = Value::None;
                    for _ in 0..100 {
                        value = Value::List(vec![value]);
                    }
                    Ok(value)
                }
            })
            .managed(true),
        )
}
