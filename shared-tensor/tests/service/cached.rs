//! One build for many.

use std::sync::mpsc;
use std::thread;

use shared_tensor::service::{Arguments, CallOptions, Client, Code, Value};

use crate::desk::{Service, options, soon, stat, until};
use crate::harness::tests;

tests![
    one_key_per_endpoint_unless_said_otherwise,
    keys_by_arguments_and_computed_keys,
    keys_by_arguments_hold_for_long_texts,
    eight_clients_at_once_build_once,
    without_singleflight_each_builds,
    serialized_builds_one_at_a_time,
    nothing_is_a_value_too,
    invalidation_beats_a_build_in_progress,
    a_build_that_needs_itself_is_refused,
    hits_are_answered_while_every_worker_is_busy,
    budgets_refuse_what_has_no_room_and_evict_what_nobody_holds,
    who_holds_one_result_at_a_time_stays_within_the_budget,
    what_cannot_be_delivered_is_not_kept,
];

fn builds(client: &Client, of: &str) -> i64 {
    client.call("builds", [of], options()).unwrap().value.as_int().unwrap()
}

fn one_key_per_endpoint_unless_said_otherwise() {
    let service = Service::start();
    let client = service.client();
    assert_eq!(client.call("add_once", [1, 2], options()).unwrap().value, Value::Int(3));
    assert_eq!(client.call("add_once", [5, 6], options()).unwrap().value, Value::Int(3));
    assert_eq!((stat(&client, "cache_hits"), stat(&client, "cache_misses")), (1, 1));
}

fn keys_by_arguments_and_computed_keys() {
    let service = Service::start();
    let client = service.client();
    let sum = |a, b| client.call("add_by_arguments", [a, b], options()).unwrap().value;
    assert_eq!((sum(1, 2), sum(5, 6), sum(1, 2)), (3.into(), 11.into(), 3.into()));
    assert_eq!(builds(&client, "add_by_arguments"), 2);
    let rows = |arguments: Arguments| {
        let answer = client.call("table_by_rows", arguments, options()).unwrap();
        answer.value.as_tensor().unwrap().shape()[0]
    };
    let named = |rows: i64| Arguments::none().and_named("rows", rows);
    assert_eq!(
        (rows([3].into()), rows([5].into()), rows(named(3)), rows([3].into())),
        (3, 5, 3, 3)
    );
    assert_eq!(builds(&client, "table_by_rows"), 2, "the key is what counts");
    let failed = client.call("table_by_rows", (), options()).unwrap_err();
    assert_eq!(failed.failure().unwrap().type_name, "TypeError", "of the key");
}

fn keys_by_arguments_hold_for_long_texts() {
    let service = Service::start();
    let client = service.client();
    // Longer ones than this travel in memory of their own.
    let long = "a".repeat(100_000);
    let others = [format!("{long}b"), format!("b{long}"), "a".repeat(65_536), "a".repeat(65_537)];
    for text in [&long, &long].into_iter().chain(&others).chain(&others) {
        let length = client.call("length", [text.as_str()], options()).unwrap().value;
        assert_eq!(length.as_int(), i64::try_from(text.len()).ok());
    }
    assert_eq!(builds(&client, "length"), 5);
    let hit = client.invalidate_call("length", [long.as_str()], options()).unwrap();
    assert_eq!(hit.entries, 1);
    let tensor = client.call("make_table", (), options()).unwrap().value;
    let refused = client.call("length", [tensor], options()).unwrap_err();
    assert!(refused.to_string().contains("cannot be made of tensors"), "{refused}");
}

fn eight_clients_at_once_build_once() {
    let service = Service::start();
    let mut peers: Vec<_> = (0..4).map(|_| service.peer_client()).collect();
    let client = service.client();
    let address = service.address();
    let own: Vec<_> = (0..4)
        .map(|_| {
            let client = Client::at(address.clone());
            thread::spawn(move || {
                let answer = client.call("slow_cached", ["once"], options()).unwrap();
                answer.value.as_tensor().unwrap().to_vec::<f64>().unwrap()
            })
        })
        .collect();
    for peer in &mut peers {
        peer.say("hold slow_cached once");
    }
    until("all have asked", || stat(&client, "cache_hits") + stat(&client, "cache_misses") == 8);
    client.call("open", ["once"], options()).unwrap();
    let sums: Vec<_> = own.into_iter().map(|it| it.join().unwrap()).collect();
    assert!(sums.iter().all(|it| *it == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    for peer in &mut peers {
        assert_eq!(peer.hear(), "held");
        peer.expect("sum", "15");
    }
    assert_eq!(builds(&client, "slow"), 1);
    assert_eq!(stat(&client, "cache_misses"), 1);
}

fn without_singleflight_each_builds() {
    let service = Service::start();
    let client = service.client();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let client = service.client();
            thread::spawn(move || client.call("slow_alone", ["door"], options()).unwrap())
        })
        .collect();
    until("each builds", || builds(&client, "waiting at door") == 3);
    client.call("open", ["door"], options()).unwrap();
    for thread in threads {
        drop(thread.join().unwrap());
    }
    client.call("slow_alone", ["door"], options()).unwrap();
    assert_eq!(builds(&client, "slow"), 3, "and the first is kept");
}

fn serialized_builds_one_at_a_time() {
    let service = Service::start();
    let client = service.client();
    let threads: Vec<_> = (0..6_i64)
        .map(|rows| {
            let client = service.client();
            let arguments = Arguments::none().and("door").and(rows);
            thread::spawn(move || client.call("slow_serialized", arguments, options()).unwrap())
        })
        .collect();
    until("all are queued", || stat(&client, "inflight_calls") == 6);
    client.call("open", ["door"], options()).unwrap();
    for thread in threads {
        drop(thread.join().unwrap());
    }
    assert_eq!(client.call("most_inside", (), options()).unwrap().value, Value::Int(1));
    assert_eq!(builds(&client, "slow"), 6);
}

fn nothing_is_a_value_too() {
    let service = Service::start();
    let client = service.client();
    for _ in 0..3 {
        assert_eq!(client.call("nothing", (), options()).unwrap().value, Value::None);
    }
    assert_eq!(builds(&client, "nothing"), 1);
    let none = Arguments::none();
    assert_eq!(client.invalidate_call("nothing", &none, options()).unwrap().entries, 1);
    assert_eq!(client.invalidate_call("nothing", &none, options()).unwrap().entries, 0);
    for rows in [1_i64, 2, 3] {
        client.call("table_by_rows", [rows], options()).unwrap();
    }
    let one = Arguments::from([2]);
    assert_eq!(client.invalidate_call("table_by_rows", &one, options()).unwrap().entries, 1);
    assert_eq!(client.invalidate_endpoint("table_by_rows", options()).unwrap().entries, 2);
    assert_eq!(stat(&client, "cache_invalidations"), 4);
    let unknown = client.invalidate_endpoint("no_such", options()).unwrap_err();
    assert_eq!(unknown.failure().unwrap().code.number(), 2);
}

fn invalidation_beats_a_build_in_progress() {
    let service = Service::start();
    let client = service.client();
    let waiting = {
        let client = service.client();
        thread::spawn(move || client.call("slow_cached", ["door"], options()).unwrap())
    };
    until("it builds", || builds(&client, "waiting at door") == 1);
    let arguments = Arguments::from(["door"]);
    let hit = client.invalidate_call("slow_cached", &arguments, options()).unwrap();
    assert_eq!((hit.entries, hit.builds), (0, 1));
    client.call("open", ["door"], options()).unwrap();
    waiting.join().unwrap();
    client.call("slow_cached", ["door"], options()).unwrap();
    assert_eq!(builds(&client, "slow"), 2, "the first was not kept");
    client.call("slow_cached", ["door"], options()).unwrap();
    assert_eq!(builds(&client, "slow"), 2);
}

fn a_build_that_needs_itself_is_refused() {
    let service = Service::with("workers=1");
    let client = service.client();
    for endpoint in ["needs_itself", "egg", "hen"] {
        let refused = client.call(endpoint, (), options()).unwrap_err();
        let failure = refused.failure().unwrap();
        assert_eq!(
            (failure.code, &*failure.type_name),
            (Code::Deadlock, "WouldDeadlock"),
            "{failure}"
        );
        assert!(failure.message.contains(endpoint), "{failure}");
    }
    let nested = ["calls_cached", "add"].map(Value::from).into_iter();
    let arguments: Vec<Value> = nested.chain([1.into(), 2.into()]).collect();
    assert_eq!(client.call("calls_cached", arguments, options()).unwrap().value, Value::Int(3));
}

fn hits_are_answered_while_every_worker_is_busy() {
    let service = Service::with("workers=2");
    let client = service.client();
    let table = client.call("make_table", (), options()).unwrap();
    let managed = client.call("managed_table", (), options()).unwrap();
    let (tell, told) = mpsc::channel();
    let ask = || {
        let (client, tell) = (service.client(), tell.clone());
        let options = options().on_progress(move |_| tell.send(()).unwrap());
        thread::spawn(move || client.call("slow", ["door"], options).is_err())
    };
    let mut busy = vec![ask(), ask()];
    told.iter().take(2).for_each(drop);
    busy.extend([ask(), ask()]);
    until("the others wait", || stat(&client, "calls_waiting") == 2);
    let again = client.call("make_table", (), options()).unwrap();
    assert_eq!(again.value, table.value);
    let hit = client.call("managed_table", (), options()).unwrap();
    assert_eq!(hit.handle, managed.handle);
    client.ping(soon()).unwrap();
    client.endpoints(options()).unwrap();
    client.invalidate_endpoint("make_table", options()).unwrap();
    assert_eq!(stat(&client, "calls_waiting"), 2);
    let late = client.call("add", [1, 2], CallOptions::new().deadline(std::time::Instant::now()));
    assert!(late.unwrap_err().is_timeout());
    drop(service.peer);
    for thread in busy {
        assert!(thread.join().unwrap(), "the server is gone");
    }
}

fn budgets_refuse_what_has_no_room_and_evict_what_nobody_holds() {
    let service = Service::with("budget=100000");
    let client = service.client();
    let held = client.call("zeros", [60_000], options()).unwrap();
    let refused = client.call("zeros", [50_000], options()).unwrap_err();
    let failure = refused.failure().unwrap();
    assert_eq!((failure.code, &*failure.type_name), (Code::OverBudget, "OverBudget"));
    assert!(failure.message.contains("60000"), "{failure}");
    drop(held);
    client.settle(soon());
    client.call("zeros", [50_000], options()).unwrap();
    assert_eq!(stat(&client, "evictions"), 1);
}

fn who_holds_one_result_at_a_time_stays_within_the_budget() {
    let service = Service::with("budget=1000000");
    let client = service.client();
    for round in 0..2000_i64 {
        // Two of them have no room.
        let answer = client.call("zeros", [600_000 + round], options());
        assert!(answer.is_ok(), "round {round}: {answer:?}");
    }
    // The next ones come over another connection.
    client.settle(soon());
    for round in 0..500_i64 {
        let told = options().on_progress(|_| ());
        let answer = client.call("zeros", [700_000 + round], told);
        assert!(answer.is_ok(), "round {round}: {answer:?}");
    }
    client.settle(soon());
}

fn what_cannot_be_delivered_is_not_kept() {
    let service = Service::start();
    let client = service.client();
    for round in 1..=3 {
        let refused = client.call("undeliverable", (), options()).unwrap_err();
        let failure = refused.failure().unwrap();
        assert_eq!(failure.code.number(), 3);
        assert_eq!(builds(&client, "undeliverable"), round, "nothing was replayed");
    }
    for name in ["cache_entries", "objects", "cached_objects", "leases"] {
        assert_eq!(stat(&client, name), 0, "{name}");
    }
}
