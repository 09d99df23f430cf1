//! Endpoints and clients that say what they take, in Rust's own types.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shared_tensor::service::{
    Address, Arena, Arguments, Call, Client, Code, Endpoint, Error, Failure, KeyRule, Place,
    Provider, RegisterError, Server, Tensor, Value,
};

use crate::desk::{Scratch, options};
use crate::harness::tests;

tests![
    arguments_and_results_keep_their_types,
    what_is_not_as_wanted_is_named_by_endpoint_and_argument,
    surplus_arguments_are_refused_where_they_are_declared,
    calls_are_looked_at_before_their_cached_results,
    a_failure_that_goes_on_is_told_once,
    room_is_reserved_before_a_function_runs,
    registration_fails_by_type,
];

const PATIENCE: Duration = Duration::from_secs(1000);

/// A server in this process, and a client of it.
fn served(endpoints: Vec<Endpoint>, budget: Option<u64>) -> (Scratch, Server, Client) {
    let scratch = Scratch::new();
    let provider = endpoints.into_iter().fold(Provider::new(), Provider::with);
    let mut how = Server::options();
    if let Some(bytes) = budget {
        how = how.budget(Place::Cpu, bytes);
    }
    let server = how.serve(&Address::at(scratch.socket()), &provider).unwrap();
    let client = Client::at(Address::at(scratch.socket()));
    (scratch, server, client)
}

fn failure(answer: Result<shared_tensor::service::Answer, Error>) -> Failure {
    answer.unwrap_err().failure().expect("the endpoint's").clone()
}

fn arguments_and_results_keep_their_types() {
    let count = |call: &Call| {
        let words: Vec<&str> = call.get(0, "words")?;
        let step: u32 = call.get_or(1, "step", 1)?;
        let mut counts = BTreeMap::new();
        for word in words {
            *counts.entry(word.to_owned()).or_insert(0_u32) += step;
        }
        Ok(counts)
    };
    let scaled = |call: &Call| {
        let (table, factor): (&Tensor, f64) = (call.get(0, "table")?, call.get(1, "factor")?);
        let view = table.view::<f64>()?;
        view.iter().enumerate().try_for_each(|(at, it)| view.set(&[at as u64], it * factor))?;
        Ok(())
    };
    let (_scratch, server, client) = served(
        vec![
            Endpoint::new("count", count).key(KeyRule::Arguments),
            Endpoint::new("scaled", scaled).cache(false),
        ],
        None,
    );
    let words = vec!["a", "b", "a"];
    let counts = client.call("count", (words.clone(), 2), PATIENCE).unwrap().value;
    let wanted = BTreeMap::from([("a".to_owned(), 4_u8), ("b".to_owned(), 2)]);
    assert_eq!(BTreeMap::try_from(&counts), Ok(wanted));
    let once = client.call("count", (words.clone(),), options()).unwrap().value;
    assert_eq!(once.get("a").map(u8::try_from), Some(Ok(2)));
    let local = server.call("count", (words.clone(),), PATIENCE).unwrap();
    assert_eq!(local.value(), &once);
    for _ in 0..200 {
        let late = server.call("count", (words.clone(),), Duration::ZERO).unwrap_err();
        assert_eq!(late.type_name, "TimeoutError", "although it is there");
    }
    let table = Tensor::from_slice(&Arena::new(), [3], &[1.0, 2.0, 3.0]).unwrap();
    assert!(client.call("scaled", (&table, 2), PATIENCE).unwrap().value.is_none());
    assert_eq!(table.to_vec::<f64>().unwrap(), [2.0, 4.0, 6.0], "in place");
    let task = client.submit("scaled", (&table, 0.5), PATIENCE).unwrap();
    client.wait_task(task, PATIENCE).unwrap();
    assert_eq!(client.task_result(task, PATIENCE).unwrap().value, Value::None);
    assert_eq!(table.row(2).unwrap().to_vec::<f64>().unwrap(), [3.0]);
    assert!(server.stop(Duration::from_secs(60)).unwrap().is_drained);
}

fn what_is_not_as_wanted_is_named_by_endpoint_and_argument() {
    let half = |call: &Call| Ok(call.get::<f64>(0, "number")? / 2.0);
    let (_scratch, _server, client) = served(vec![Endpoint::new("half", half).cache(false)], None);
    assert_eq!(client.call("half", [3], PATIENCE).unwrap().value, Value::Float(1.5));
    let wrong = failure(client.call("half", ["3"], PATIENCE));
    assert_eq!((wrong.code, &*wrong.type_name), (Code::Arguments, "TypeError"));
    let said = "Endpoint 'half', argument 0 (`number`): a float is wanted, and a str is there";
    assert_eq!(wrong.message, said);
    let missing = failure(client.call("half", (), PATIENCE));
    assert_eq!(missing.message, "Endpoint 'half', argument 0 (`number`): it is missing");
}

fn surplus_arguments_are_refused_where_they_are_declared() {
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    let add = move |call: &Call| {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(call.get::<i64>(0, "a")? + call.get_or(1, "b", 0)?)
    };
    let one = |_: &Call| Ok(1);
    let add = Endpoint::new("add", add).parameters(["a", "b"]).key(KeyRule::Arguments);
    let (_scratch, server, client) = served(
        vec![add, Endpoint::new("none", one).parameters([""; 0]), Endpoint::new("any", one)],
        None,
    );
    assert_eq!(client.call("add", [1, 2], PATIENCE).unwrap().value, Value::Int(3));
    let named = Arguments::none().and_named("b", 2).and_named("a", 1);
    assert_eq!(client.call("add", &named, PATIENCE).unwrap().value, Value::Int(3));
    let refused = |arguments: &Arguments| {
        let wrong = failure(client.call("add", arguments, PATIENCE));
        assert_eq!((wrong.code, &*wrong.type_name), (Code::Arguments, "TypeError"));
        assert_eq!(server.call("add", arguments, PATIENCE).unwrap_err().message, wrong.message);
        wrong.message
    };
    let many = refused(&[1, 2, 3].into());
    assert_eq!(many, "Endpoint 'add' takes a, b: 3 arguments by place were given");
    let unknown = refused(&Arguments::none().and(1).and_named("c", 2));
    assert_eq!(unknown, "Endpoint 'add' takes a, b: an argument `c` was given");
    let twice = refused(&Arguments::none().and(1).and_named("a", 2));
    assert_eq!(twice, "Endpoint 'add' takes a, b: `a` was given twice, by place and by name");
    assert_eq!(runs.load(Ordering::SeqCst), 2, "refused ones do not run");
    for _ in 0..2 {
        // The second time its one result is there.
        let none = failure(client.call("none", [1], PATIENCE)).message;
        assert_eq!(none, "Endpoint 'none' takes no arguments: 1 arguments by place were given");
        client.call("none", (), PATIENCE).unwrap();
    }
    assert_eq!(client.call("any", [1], PATIENCE).unwrap().value, Value::Int(1), "as ever");
}

fn calls_are_looked_at_before_their_cached_results() {
    let odd = |arguments: &Arguments| match arguments.positional.as_slice() {
        [Value::Int(number)] if number % 2 == 1 => Ok(()),
        _ => Err(Failure::new(Code::Configuration, "one odd number")),
    };
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    let once = move |_: &Call| Ok(i64::try_from(counted.fetch_add(1, Ordering::SeqCst)).unwrap());
    let (_scratch, server, client) = served(vec![Endpoint::new("once", once).accept(odd)], None);
    for _ in 0..2 {
        // The second time its one result is there.
        for wrong in [Arguments::none(), [2].into(), [1, 3].into()] {
            let refused = failure(client.call("once", &wrong, PATIENCE));
            assert_eq!((refused.code, &*refused.message), (Code::Configuration, "one odd number"));
            let within = server.call("once", &wrong, PATIENCE).unwrap_err();
            assert_eq!(within.message, refused.message);
        }
        assert_eq!(client.call("once", [3], PATIENCE).unwrap().value, Value::Int(0));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

fn a_failure_that_goes_on_is_told_once() {
    let scratch = Scratch::new();
    let address = Address::at(scratch.socket());
    let inner = Client::at(address.clone());
    let fails = |_: &Call| -> Result<Value, Failure> { Err(Failure::other("KeyError", "no row")) };
    let passes = move |_: &Call| Ok(inner.call("fails", (), PATIENCE)?.value);
    let provider = Provider::new()
        .with(Endpoint::new("fails", fails).cache(false))
        .with(Endpoint::new("passes", passes).cache(false));
    let server = Server::options().serve(&address, &provider).unwrap();
    let failed = Client::at(address).call("passes", (), PATIENCE).unwrap_err();
    assert_eq!(failed.to_string(), "Remote error [7]: no row");
    assert_eq!(failed.code(), Some(Code::Other));
    assert_eq!(failed.failure().map(|it| &*it.type_name), Some("KeyError"));
    let local = || -> Result<(), Box<dyn std::error::Error>> {
        server.call("fails", (), PATIENCE)?;
        Ok(())
    };
    assert_eq!(local().unwrap_err().to_string(), "Remote error [7]: no row");
    assert!(server.stop(Duration::from_secs(60)).unwrap().is_drained);
}

fn room_is_reserved_before_a_function_runs() {
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    let zeros = move |call: &Call| {
        counted.fetch_add(1, Ordering::SeqCst);
        let bytes: u64 = call.get(0, "bytes")?;
        Ok(Tensor::zeros(call.arena(), shared_tensor::DType::U8, [bytes])?)
    };
    let zeros = Endpoint::new("zeros", zeros).key(KeyRule::Arguments).reserve(Place::Cpu, 60_000);
    let (_scratch, server, client) = served(vec![zeros], Some(100_000));
    let held = client.call("zeros", [50_000], PATIENCE).unwrap();
    let refused = failure(client.call("zeros", [10_000], PATIENCE));
    assert_eq!((refused.code, runs.load(Ordering::SeqCst)), (Code::OverBudget, 1), "{refused}");
    assert_eq!(refused.type_name, "OverBudget");
    let said = "no room for 60000 bytes on cpu: its budget is 100000 bytes, 50000 are leased";
    assert!(refused.message.starts_with(said), "{refused}");
    drop(held);
    client.settle(PATIENCE);
    // What it took in the end counts, not what was reserved.
    let small: Vec<_> =
        (1..3).map(|number| client.call("zeros", [number * 10_000], PATIENCE).unwrap()).collect();
    assert_eq!(small[1].value.as_tensor().unwrap().elements(), 20_000);
    drop(small);
    client.settle(PATIENCE);
    assert!(server.stop(Duration::from_secs(60)).unwrap().is_drained);
}

fn registration_fails_by_type() {
    let provider = Provider::new().with(Endpoint::new("one", |_: &Call| Ok(1)));
    let again = || -> Result<(), Box<dyn std::error::Error>> {
        provider.register(Endpoint::new("one", |_: &Call| Ok(2)))?;
        Ok(())
    };
    let error = again().unwrap_err();
    let error = error.downcast_ref::<RegisterError>().expect("its type");
    assert!(matches!(error, RegisterError::Taken { name } if &**name == "one"));
    assert_eq!(error.code().number(), 2);
}
