//! The steps of `tests/service/behaviour.json`, which other languages do as well.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value as Json;
use shared_tensor::service::{Answer, Arena, Arguments, Client, Error, Failure, Id, Tensor, Value};

use crate::desk::{Service, options, soon};
use crate::harness::{say, tests};

tests![a_client_sees_what_the_script_says];

fn a_client_sees_what_the_script_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/service/behaviour.json");
    let text = std::fs::read_to_string(path).expect("the script is part of the repository");
    let script: Json = serde_json::from_str(&text).expect("the script is JSON");
    let service = Service::start();
    let mut actor = Actor {
        client: service.client(),
        elsewhere: service.client(),
        saved: HashMap::new(),
        tasks: HashMap::new(),
        arena: Arena::new(),
    };
    let steps = script["steps"].as_array().expect("a list of steps");
    for (number, step) in steps.iter().enumerate() {
        actor.play(step).unwrap_or_else(|what| panic!("step {number}, {step}: {what}"));
    }
    say(&format!("{} steps", steps.len()));
}

struct Actor {
    client: Client,
    elsewhere: Client,
    saved: HashMap<String, Answer>,
    tasks: HashMap<String, Id>,
    arena: Arena,
}

type Outcome = Result<Json, Error>;

impl Actor {
    fn play(&mut self, step: &Json) -> Result<(), String> {
        let outcome = self.act(step);
        match (&step["error"], outcome) {
            (Json::Null, Ok(found)) => match step.get("is") {
                Some(expected) if !matches(expected, &found) => Err(format!("found {found}")),
                _ => Ok(()),
            },
            (Json::Null, Err(error)) => Err(format!("failed: {error}")),
            (_, Ok(found)) => Err(format!("found {found}, and no failure")),
            (expected, Err(Error::Failed(failure))) => told(expected, &failure),
            (_, Err(error)) => Err(format!("failed otherwise: {error}")),
        }
    }

    fn act(&mut self, step: &Json) -> Outcome {
        let endpoint = step["endpoint"].as_str().unwrap_or_default();
        let with = step["with"].as_str().unwrap_or_default().to_owned();
        let save = step["save"].as_str().unwrap_or_default().to_owned();
        let arguments = self.arguments(step);
        Ok(match step["do"].as_str().expect("something to do") {
            "ping" => self.client.ping(soon()).is_ok().into(),
            "call" => {
                let answer = self.client.call(endpoint, arguments.clone(), options())?;
                if let Some(expected) = step.get("argument_is") {
                    let argument = json(&arguments.positional[0]);
                    assert!(matches(expected, &argument), "the argument is {argument}");
                }
                if let Some(shape) = step.get("shape") {
                    assert_eq!(&json(&answer.value)["shape"], shape);
                }
                let found = json(&answer.value);
                self.saved.insert(save, answer);
                found
            }
            "call_elsewhere" => {
                // What another process would see: this one's private pages are not looked at.
                let answer = self.elsewhere.call(endpoint, arguments, options())?;
                let Value::Tensor(tensor) = &answer.value else { return Ok(json(&answer.value)) };
                let region = tensor.storage().view_as(shared_tensor::service::Access::ReadOnly);
                let bytes = region.expect("it can be mapped");
                let mut copy = vec![0; tensor.storage().bytes() as usize];
                bytes.bytes().expect("memory").read_into(0, &mut copy).expect("in bounds");
                let elements: Vec<f64> = copy
                    .chunks_exact(8)
                    .map(|it| f64::from_ne_bytes(it.try_into().expect("eight bytes")))
                    .collect();
                described(tensor, &elements)
            }
            "write" => {
                let elements = step["elements"].as_array().expect("elements");
                let elements: Vec<f64> =
                    elements.iter().map(|it| it.as_f64().expect("a number")).collect();
                let tensor = self.saved[&with].value.as_tensor().expect("a tensor");
                tensor.write(&elements).expect("it may be written");
                Json::Null
            }
            "drop" => {
                self.saved.remove(&with);
                Json::Null
            }
            "object" => {
                let object = self.saved[&with].handle.expect("a handle").object;
                let info = self.client.object_info(object, options())?;
                info.map_or(Json::Null, |info| {
                    serde_json::json!({"refcount": info.refcount, "endpoint": info.endpoint})
                })
            }
            "same_object" => {
                let names = step["with"].as_array().expect("two names");
                let handle =
                    |index: usize| self.saved[names[index].as_str().expect("a name")].handle;
                (handle(0) == handle(1)).into()
            }
            "release" => {
                let lease = self.saved[&with].lease.clone().expect("a lease");
                self.client.release_lease(&lease, options())?.into()
            }
            "release_unknown" => {
                self.client.release(&[Id::random()], options())?[0].is_some().into()
            }
            "invalidate_call" => {
                let hit = self.client.invalidate_call(endpoint, &arguments, options())?;
                (hit.entries > 0).into()
            }
            "invalidate_endpoint" => {
                self.client.invalidate_endpoint(endpoint, options())?.entries.into()
            }
            "submit" => {
                let task = self.client.submit(endpoint, &arguments, options())?;
                self.tasks.insert(save, task);
                Json::Null
            }
            "wait" => {
                let info = self.client.wait_task(self.tasks[&with], options())?;
                info.status.name().into()
            }
            "result" => json(&self.client.task_result(self.tasks[&with], options())?.value),
            "cancel" => self.client.cancel_task(self.tasks[&with], false, options())?.into(),
            other => panic!("`{other}` cannot be done"),
        })
    }

    fn arguments(&self, step: &Json) -> Arguments {
        let positional = step["args"].as_array().into_iter().flatten();
        let named = step["kwargs"].as_object().into_iter().flatten();
        Arguments {
            positional: positional.map(|it| self.value(it)).collect(),
            named: named.map(|(name, it)| (name.clone(), self.value(it))).collect(),
        }
    }

    fn value(&self, json: &Json) -> Value {
        match json {
            Json::Null => Value::None,
            Json::Bool(it) => (*it).into(),
            Json::Number(it) => {
                it.as_i64().map_or_else(|| it.as_f64().expect("a float").into(), Value::Int)
            }
            Json::String(it) => it.as_str().into(),
            Json::Array(items) => Value::List(items.iter().map(|it| self.value(it)).collect()),
            Json::Object(pairs) if pairs.contains_key("tensor") => {
                let numbers = |name: &str| {
                    let list = pairs[name].as_array().expect("a list");
                    list.iter().map(|it| it.as_f64().expect("a number")).collect::<Vec<f64>>()
                };
                let shape: Vec<u64> =
                    serde_json::from_value(pairs["shape"].clone()).expect("a list of sizes");
                let made = Tensor::from_slice(&self.arena, shape, &numbers("elements"));
                made.expect("a tensor of the script").into()
            }
            Json::Object(pairs) if pairs.contains_key("tuple") => {
                let Value::List(items) = self.value(&pairs["tuple"]) else { panic!("a list") };
                Value::Tuple(items)
            }
            Json::Object(pairs) if pairs.contains_key("bytes") => {
                let bytes = pairs["bytes"].as_array().expect("a list");
                Value::Bytes(bytes.iter().map(|it| it.as_u64().expect("a byte") as u8).collect())
            }
            Json::Object(pairs) => {
                Value::dict(pairs.iter().map(|(key, it)| (key.clone(), self.value(it))))
            }
        }
    }
}

fn told(expected: &Json, failure: &Failure) -> Result<(), String> {
    let is_code = expected["code"] == failure.code.number();
    let is_type = expected["type"].as_str().is_none_or(|it| it == failure.type_name);
    let is_said = expected["says"].as_str().is_none_or(|it| failure.message.contains(it));
    if is_code && is_type && is_said { Ok(()) } else { Err(format!("failed with {failure:?}")) }
}

/// Equal, numbers as numbers.
fn matches(expected: &Json, found: &Json) -> bool {
    match (expected, found) {
        (Json::Number(one), Json::Number(other)) => one.as_f64() == other.as_f64(),
        (Json::Array(one), Json::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| matches(one, other))
        }
        (Json::Object(one), Json::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, it)| other.get(key).is_some_and(|other| matches(it, other)))
        }
        _ => expected == found,
    }
}

fn json(value: &Value) -> Json {
    match value {
        Value::None => Json::Null,
        Value::Bool(it) => (*it).into(),
        Value::Int(it) => (*it).into(),
        Value::Float(it) => (*it).into(),
        Value::Str(it) => it.as_str().into(),
        Value::Bytes(it) => serde_json::json!({"bytes": it}),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Tuple(items) => {
            serde_json::json!({"tuple": items.iter().map(json).collect::<Vec<_>>()})
        }
        Value::Dict(pairs) => pairs
            .iter()
            .map(|(key, it)| (key.as_str().expect("text").to_owned(), json(it)))
            .collect(),
        Value::Tensor(tensor) => described(tensor, &tensor.to_vec::<f64>().expect("floats")),
        other => panic!("the script has no word for {other:?}"),
    }
}

fn described(tensor: &Tensor, elements: &[f64]) -> Json {
    serde_json::json!({
        "tensor": tensor.dtype().name(), "shape": tensor.shape(), "elements": elements,
    })
}
