//! Calls that wait for each other in a circle.

use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use shared_tensor::service::{
    Address, Arguments, Call, Client, Concurrency, Endpoint, Execution, Failure, KeyRule, Provider,
    Server, Value,
};

use crate::desk::{Scratch, Service, options, stat, until};
use crate::endpoints::Stage;
use crate::harness::tests;

tests![
    of_two_that_wait_for_each_other_one_is_refused,
    the_same_within_one_process,
    who_is_needed_by_whoever_has_the_turn_runs_within_it,
    siblings_wait_for_one_build,
];

/// Calls an endpoint from within one.
type Ask = Arc<dyn Fn(&str, Arguments) -> Result<Value, Failure> + Send + Sync>;

fn asking(client: &Client) -> Ask {
    let client = client.clone();
    Arc::new(move |endpoint, arguments| match client.call(endpoint, arguments, options()) {
        Ok(answer) => Ok(answer.value),
        Err(error) => Err(error.failure().cloned().expect("a failure")),
    })
}

/// Endpoints that call others of their own server.
pub(crate) fn provide(provider: &Provider, stage: &Arc<Stage>, client: &Client) {
    meeting(provider, stage, &asking(client));
    let (own, ask) = (Arc::clone(stage), asking(client));
    let sum = move |call: &Call| {
        let most = call.argument(0, "most").and_then(Value::as_int).unwrap_or(0);
        if most == 0 {
            return Ok(own.count("sum of nothing").try_into().map_or(Value::None, Value::Int));
        }
        own.open("the sum is begun");
        own.pass("the others have come", call);
        ask("sum", [most - 1].into())
    };
    let sum = Endpoint::new("sum", sum);
    let sum = sum.key(KeyRule::Arguments).concurrency(Concurrency::Serialized);
    provider.register(sum).expect("a new name");
    let (own, client) = (Arc::clone(stage), client.clone());
    let siblings = move |_: &Call| {
        let (tell, told) = mpsc::channel();
        for _ in 0..2 {
            let tell = tell.clone();
            let arguments = ["siblings"].into();
            let done = move |outcome: Result<_, _>| tell.send(outcome.is_ok()).unwrap();
            client.start_call("slow_cached", &arguments, options(), done).expect("a server");
        }
        own.open("siblings");
        Ok(Value::List(told.iter().take(2).map(Value::Bool).collect()))
    };
    provider.register(Endpoint::new("siblings", siblings).cache(false)).expect("a new name");
}

/// Pairs of endpoints that take turns, each of which is entered, waits until the other one is as well,
/// and calls it.
fn meeting(provider: &Provider, stage: &Arc<Stage>, ask: &Ask) {
    for kind in ["", "_kept", "_task"] {
        let [left, right] = ["left", "right"].map(|name| format!("{name}{kind}"));
        for (name, other) in [(&left, &right), (&right, &left)] {
            let (stage, ask) = (Arc::clone(stage), Arc::clone(ask));
            let (own, other) = (name.clone(), other.clone());
            let run = move |call: &Call| {
                if call.positional() == ["inner".into()] {
                    return Ok(Value::Int(1));
                }
                stage.open(&format!("{own} is in"));
                stage.pass(&format!("{other} is in"), call);
                ask(&other, ["inner"].into())
            };
            let endpoint = Endpoint::new(name.clone(), run).concurrency(Concurrency::Serialized);
            let endpoint = match kind {
                "_kept" => endpoint.key(KeyRule::Arguments),
                "_task" => endpoint.cache(false).execution(Execution::Task),
                _ => endpoint.cache(false),
            };
            provider.register(endpoint).expect("a new name");
        }
    }
}

fn of_two_that_wait_for_each_other_one_is_refused() {
    let service = Service::with("workers=2");
    let (mut one, mut other) = (service.peer_client(), service.peer_client());
    for kind in ["", "_kept", "_task"] {
        let [left, right] = ["left", "right"].map(|name| format!("{name}{kind}"));
        one.say(&format!("call {left} meet"));
        other.say(&format!("call {right} meet"));
        let mut told = [one.hear(), other.hear()];
        told.sort();
        assert_eq!(told[0], "Int(1)", "{told:?}");
        let refused = &told[1];
        assert!(refused.contains("the call would wait for itself"), "{refused}");
        assert!(refused.contains(&left) && refused.contains(&right), "{refused}");
        // Everybody's turn comes again.
        one.expect(&format!("call {right} inner"), "Int(1)");
        other.expect(&format!("call {left} inner"), "Int(1)");
    }
}

fn the_same_within_one_process() {
    let scratch = Scratch::new();
    let server = Arc::new(OnceLock::<Server>::new());
    // The server has its endpoints, and is not to be kept by them.
    let (own, provider) = (Arc::downgrade(&server), Provider::new());
    let ask: Ask = Arc::new(move |endpoint, arguments| {
        let server = own.upgrade().expect("it is there");
        let server = server.get().expect("it serves");
        let made = server.invoke(endpoint, &arguments, None, None, &|| false)?;
        Ok(made.value().clone())
    });
    meeting(&provider, &Arc::default(), &ask);
    let serving = Server::options().max_workers(2).serve(&Address::at(scratch.socket()), &provider);
    server.set(serving.expect("a free path")).expect("set once");
    for kind in ["", "_kept"] {
        let told = std::thread::scope(|scope| {
            let meet = ["left", "right"].map(|name| {
                let (ask, name) = (&ask, format!("{name}{kind}"));
                scope.spawn(move || ask(&name, ["meet"].into()))
            });
            meet.map(|it| it.join().expect("no panic"))
        });
        let refused = told.iter().filter_map(|it| it.as_ref().err());
        let refused: Vec<_> = refused.map(|failure| &*failure.type_name).collect();
        assert_eq!(refused, ["WouldDeadlock"], "{told:?}");
    }
    // On this thread, and not where the last call ends.
    assert!(server.get().expect("it serves").stop(Duration::from_secs(120)).unwrap().is_drained);
}

fn who_is_needed_by_whoever_has_the_turn_runs_within_it() {
    let service = Service::with("workers=2");
    let (mut one, mut other) = (service.peer_client(), service.peer_client());
    let client = service.client();
    one.say("call sum 1");
    client.call("slow", ["the sum is begun"], options()).expect("it begins");
    // Takes its place in line; the sum that has the turn then asks for the same.
    other.say("call sum 0");
    until("it waits for its turn", || stat(&client, "inflight_calls") == 2);
    client.call("open", ["the others have come"], options()).expect("no failure");
    assert_eq!((one.hear(), other.hear()), ("Int(1)".to_owned(), "Int(1)".to_owned()));
}

fn siblings_wait_for_one_build() {
    let service = Service::start();
    let client = service.client();
    let both = Value::List(vec![true.into(), true.into()]);
    assert_eq!(client.call("siblings", (), options()).unwrap().value, both);
    let builds = client.call("builds", ["slow"], options()).unwrap();
    assert_eq!(builds.value, Value::Int(1));
}
