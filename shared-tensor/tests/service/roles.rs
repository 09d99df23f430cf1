//! What peers do.

use std::io::stdin;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared_tensor::service::{
    Address, Arguments, CallOptions, Client, Server, ServerOptions, Value,
};

use crate::endpoints::{Stage, provider};
use crate::harness::say;

pub(crate) fn play(kind: &str, path: &Path) {
    match kind.split_once('+').unwrap_or((kind, "")) {
        ("server", options) => server(path, options),
        ("client", _) => client(path),
        _ => panic!("`{kind}` is no role"),
    }
}

fn orders() -> impl Iterator<Item = String> {
    stdin().lines().map(|line| line.expect("orders are text"))
}

/// Long enough for every machine.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(1000)
}

pub(crate) fn options() -> CallOptions<'static> {
    CallOptions::new().deadline(soon())
}

/// Options in words: `workers=1,ttl=0`.
fn server_options(words: &str) -> ServerOptions {
    words.split(',').filter(|word| !word.is_empty()).fold(Server::options(), |options, word| {
        let (name, value) = word.split_once('=').expect("a name and a value");
        match name {
            "workers" => options.max_workers(value.parse().unwrap()),
            "tasks" => options.max_tasks(value.parse().unwrap()),
            "ttl_ms" => options.result_ttl(Duration::from_millis(value.parse().unwrap())),
            "budget" => options.budget(shared_tensor::service::Place::Cpu, value.parse().unwrap()),
            name => panic!("no option `{name}`"),
        }
    })
}

fn server(path: &Path, words: &str) {
    let stage = Arc::<Stage>::default();
    let provider = provider(&stage);
    nested(&provider, path);
    crate::circles::provide(&provider, &stage, &Client::at(Address::at(path)));
    let server = server_options(words).serve(&Address::at(path), &provider).expect("a free path");
    say("ready");
    for order in orders() {
        match order.as_str() {
            "stop" => {
                let stopped = server.stop(Duration::from_secs(1000)).expect("not forked");
                say(&format!("drained {} left {}", stopped.is_drained, stopped.threads_left));
            }
            "memory" => say(&memory()),
            _ => panic!("`{order}` is no order"),
        }
    }
}

/// Descriptors, chunks and mappings of this process.
fn memory() -> String {
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("/proc is mounted").count();
    let (chunks, maps) = shared_tensor::service::accounting();
    format!("descriptors {descriptors} chunks {chunks} maps {maps}")
}

/// Endpoints that call others of their own server.
fn nested(provider: &shared_tensor::service::Provider, path: &Path) {
    use shared_tensor::service::{Call, Endpoint, Execution, Failure};
    let (path, at) = (path.to_owned(), path.to_owned());
    let call_other = move |call: &Call| {
        let client = Client::at(Address::at(&path));
        let (name, rest) = call.positional().split_first().expect("an endpoint to call");
        let arguments = Arguments { positional: rest.to_vec(), named: Vec::new() };
        let name = name.as_str().expect("a name");
        let answer = client.call_with(name, &arguments, options());
        let answer = answer.map_err(|error| match error.failure() {
            Some(failure) => failure.clone(),
            None => Failure::from(error),
        })?;
        Ok(answer.value)
    };
    let endpoint = |name: &str| Endpoint::new(name.to_owned(), call_other.clone());
    for added in [
        endpoint("calls").cache(false),
        endpoint("calls_as_task").cache(false).execution(Execution::Task),
        endpoint("calls_cached").key(shared_tensor::service::KeyRule::Arguments),
    ] {
        provider.register(added).expect("a new name");
    }
    for (name, other) in [("needs_itself", "needs_itself"), ("egg", "hen"), ("hen", "egg")] {
        let path = at.clone();
        let needs = move |_: &Call| match Client::at(Address::at(&path)).call(other, (), options())
        {
            Ok(answer) => Ok(answer.value),
            Err(error) => Err(error.failure().cloned().expect("a failure")),
        };
        provider.register(Endpoint::new(name, needs)).expect("a new name");
    }
}

/// A client that does what it is told: `call NAME ARGUMENTS` and so on.
fn client(path: &Path) {
    let client = Client::at(Address::at(path));
    client.connect(soon()).expect("a server");
    let mut held = Vec::new();
    say("ready");
    for order in orders() {
        let words: Vec<&str> = order.split(' ').collect();
        match words[..] {
            ["hold", endpoint, ref arguments @ ..] => {
                let arguments: Vec<Value> = arguments.iter().map(|word| value(word)).collect();
                match client.call(endpoint, arguments, options()) {
                    Ok(answer) => {
                        held.push(answer);
                        say("held");
                    }
                    Err(error) => say(&format!("error {error}")),
                }
            }
            ["sum"] => {
                let answer = held.last().expect("something held");
                let tensor = answer.value.as_tensor().expect("a tensor");
                let sum: f64 = tensor.to_vec::<f64>().expect("floats").iter().sum();
                say(&sum.to_string());
            }
            ["call", endpoint, ref arguments @ ..] => {
                let arguments: Vec<Value> = arguments.iter().map(|word| value(word)).collect();
                match client.call(endpoint, arguments, options()) {
                    Ok(answer) => say(&format!("{:?}", answer.value)),
                    Err(error) => say(&format!("error {error}")),
                }
            }
            ["drop"] => {
                held.clear();
                client.settle(soon());
                say("dropped");
            }
            ["memory"] => say(&memory()),
            _ => panic!("`{order}` is no order"),
        }
    }
}

fn value(word: &str) -> Value {
    word.parse::<i64>().map_or_else(|_| word.into(), Value::Int)
}
