//! Calls that clients come back for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use shared_tensor::service::{
    Address, Arguments, Call, CallOptions, Client, Endpoint, Execution, Failure, Id, KeyRule,
    Native, Output, Provider, Server, ServerOptions, TaskStatus, Value,
};

use crate::desk::{Scratch, Service, descriptors, options, refcount, soon, stat, until};
use crate::harness::tests;

tests![
    a_task_runs_to_its_end,
    calls_of_task_endpoints_wait_for_them,
    failures_of_tasks_keep_their_type,
    the_end_is_pushed_to_all_who_wait,
    a_wait_that_is_too_short_tells_how_far_it_is,
    what_has_not_begun_can_be_cancelled,
    who_stops_a_shared_build_stops_it_for_nobody_else,
    who_comes_to_a_build_that_was_given_up_gets_another_one,
    who_comes_just_as_a_build_is_given_up_gets_another_one,
    who_has_waited_and_gone_is_let_go_of,
    what_runs_is_asked_to_stop,
    what_was_told_to_stop_has_been_whoever_comes_then,
    who_never_looks_whether_to_stop_fails_by_itself,
    progress_reaches_every_waiter,
    each_fetch_is_a_reference_of_its_own,
    results_go_with_those_who_fetched_them,
    results_that_nobody_fetches_go_in_time,
    results_whose_end_takes_long_keep_no_other_one,
    at_capacity_the_oldest_ended_task_goes,
    who_fills_the_table_keeps_no_other_client_out,
    a_task_that_calls_a_task_needs_no_second_worker,
    calls_that_are_started_tell_when_they_are_done,
    an_event_loop_needs_no_thread,
];

fn submit(client: &Client, endpoint: &str, arguments: impl Into<Arguments>) -> Id {
    client.submit(endpoint, arguments, options()).unwrap()
}

fn a_task_runs_to_its_end() {
    let service = Service::start();
    let client = service.client();
    let task = submit(&client, "task_table", ());
    let info = client.wait_task(task, options()).unwrap();
    assert_eq!(
        (info.id, info.status, &*info.endpoint),
        (task, TaskStatus::Completed, "task_table")
    );
    assert!(info.created_at <= info.started_at.unwrap());
    assert!(info.started_at.unwrap() <= info.completed_at.unwrap());
    assert_eq!((info.error_type, info.object), (None, None));
    let answer = client.task_result(task, options()).unwrap();
    assert_eq!(answer.value.as_tensor().unwrap().to_vec::<f64>().unwrap()[5], 5.0);
    // Direct endpoints can be submitted, too, cached ones as well.
    let task = submit(&client, "add", [2, 3]);
    client.wait_task(task, options()).unwrap();
    assert_eq!(client.task_result(task, options()).unwrap().value, Value::Int(5));
    for _ in 0..2 {
        let task = submit(&client, "make_table", ());
        let info = client.wait_task(task, options()).unwrap();
        assert_eq!(info.status, TaskStatus::Completed);
        client.task_result(task, options()).unwrap();
    }
    assert_eq!((stat(&client, "task_submissions"), stat(&client, "task_count")), (4, 4));
    let unknown = client.task_status(Id::random(), options()).unwrap_err();
    assert_eq!(unknown.failure().unwrap().code.number(), 5);
}

fn calls_of_task_endpoints_wait_for_them() {
    let service = Service::start();
    let client = service.client();
    let answer = client.call("task_table", (), options()).unwrap();
    assert_eq!(answer.value.as_tensor().unwrap().shape(), [4, 3]);
    let managed = client.call("task_managed", (), options()).unwrap();
    let object = managed.handle.unwrap().object;
    assert_eq!(refcount(&client, object), Some(1));
    let tasks = client.list_tasks(Some(TaskStatus::Completed), options()).unwrap();
    assert_eq!(tasks.len(), 2);
    assert_eq!(tasks[1].object, Some(object));
    let hit = client.call("task_managed", (), options()).unwrap();
    assert_eq!(hit.handle, managed.handle);
    assert_eq!(stat(&client, "task_count"), 2, "what is there needs no task");
}

fn failures_of_tasks_keep_their_type() {
    let service = Service::start();
    let client = service.client();
    let failed = client.call("task_fail", (), options()).unwrap_err();
    let failure = failed.failure().unwrap();
    assert_eq!((failure.code.number(), &*failure.type_name), (5, "ValueError"));
    let task = submit(&client, "task_fail", ());
    let info = client.wait_task(task, options()).unwrap();
    assert_eq!(info.status, TaskStatus::Failed);
    assert_eq!(info.error_type.as_deref(), Some("ValueError"));
    assert_eq!(info.error_message.as_deref(), Some("on purpose"));
    let failed = client.task_result(task, options()).unwrap_err();
    assert_eq!(failed.failure().unwrap().message, "on purpose");
}

fn the_end_is_pushed_to_all_who_wait() {
    let service = Service::with("workers=1");
    let client = service.client();
    let task = submit(&client, "task_slow", ["door"]);
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let client = service.client();
            std::thread::spawn(move || client.wait_task(task, options()).unwrap().status)
        })
        .collect();
    until("it runs", || client.task_status(task, options()).unwrap().status == TaskStatus::Running);
    let early = client.task_result(task, options()).unwrap_err();
    assert!(early.failure().unwrap().message.contains("is not complete"), "{early}");
    // Nobody's wait holds a worker.
    client.call("open", ["door"], options()).unwrap();
    for waiting in waiting {
        assert_eq!(waiting.join().unwrap(), TaskStatus::Completed);
    }
}

fn a_wait_that_is_too_short_tells_how_far_it_is() {
    let service = Service::start();
    let client = service.client();
    let task = submit(&client, "task_slow", ["door"]);
    until("it runs", || client.task_status(task, options()).unwrap().progress.is_some());
    let short = CallOptions::new().deadline(Instant::now() + Duration::from_millis(20));
    let info = client.wait_task(task, short).unwrap();
    assert_eq!(info.status, TaskStatus::Running);
    let progress = info.progress.unwrap();
    assert_eq!((progress.done, progress.total, &*progress.note), (1, 3, "at the door"));
    client.call("open", ["door"], options()).unwrap();
    assert_eq!(client.wait_task(task, options()).unwrap().status, TaskStatus::Completed);
}

fn what_has_not_begun_can_be_cancelled() {
    let service = Service::with("workers=1");
    let client = service.client();
    let first = submit(&client, "task_slow", ["door"]);
    let second = submit(&client, "task_slow", ["door"]);
    until("the first runs", || {
        client.task_status(first, options()).unwrap().status == TaskStatus::Running
    });
    assert!(!client.cancel_task(first, false, options()).unwrap(), "it runs");
    assert!(client.cancel_task(second, false, options()).unwrap());
    assert!(!client.cancel_task(second, false, options()).unwrap(), "it is over");
    let info = client.wait_task(second, options()).unwrap();
    assert_eq!((info.status, info.started_at), (TaskStatus::Cancelled, None));
    let failed = client.task_result(second, options()).unwrap_err();
    assert_eq!(failed.failure().unwrap().code.number(), 5);
    client.call("open", ["door"], options()).unwrap();
    client.wait_task(first, options()).unwrap();
    let builds = client.call("builds", ["slow"], options()).unwrap().value;
    assert_eq!(builds, Value::Int(1), "the second never ran");
}

fn what_runs_is_asked_to_stop() {
    let service = Service::start();
    let client = service.client();
    let task = submit(&client, "task_slow", ["never"]);
    until("it runs", || client.task_status(task, options()).unwrap().status == TaskStatus::Running);
    assert!(client.cancel_task(task, true, options()).unwrap());
    assert_eq!(client.wait_task(task, options()).unwrap().status, TaskStatus::Cancelled);
}

fn what_was_told_to_stop_has_been_whoever_comes_then() {
    for endpoint in ["task_told", "task_told_cached"] {
        for end in ["fails", "returns"] {
            let service = Service::start();
            let (one, other) = (service.client(), service.client());
            let call = one.start_call(endpoint, [end], options(), drop).unwrap();
            let listed = || other.list_tasks(Some(TaskStatus::Running), options()).unwrap();
            until("it runs", || !listed().is_empty());
            let task = listed()[0].id;
            assert!(call.cancel());
            // Whoever passes this door comes after the function was told.
            other.call("slow", ["it was told"], options()).unwrap();
            let (done, ended) = mpsc::channel();
            let on_done = move |info: Result<_, _>| done.send(info.unwrap()).unwrap();
            other.start_wait_task(task, options(), on_done).unwrap();
            // Comes after the wait, over the same connection.
            other.start_call("open", ["it may go"], options(), drop).unwrap();
            let info = ended.recv().unwrap();
            if end == "fails" {
                assert_eq!(info.status, TaskStatus::Cancelled, "{endpoint}");
                assert_eq!(info.error_type.as_deref(), Some("Told"), "{endpoint}");
            } else {
                assert_eq!(info.status, TaskStatus::Completed, "{endpoint}");
                let value = other.task_result(task, options()).unwrap().value;
                assert_eq!(value, Value::Bool(true), "{endpoint}: it stays told");
            }
        }
    }
}

fn who_never_looks_whether_to_stop_fails_by_itself() {
    let service = Service::start();
    let client = service.client();
    let task = submit(&client, "task_fail_at", ["door"]);
    until("it runs", || client.task_status(task, options()).unwrap().status == TaskStatus::Running);
    assert!(client.cancel_task(task, true, options()).unwrap());
    client.call("open", ["door"], options()).unwrap();
    let info = client.wait_task(task, options()).unwrap();
    assert_eq!((info.status, info.error_type.as_deref()), (TaskStatus::Failed, Some("ValueError")));
}

fn progress_reaches_every_waiter() {
    let service = Service::start();
    let client = service.client();
    let told = Arc::new(Mutex::new(Vec::new()));
    let listen = |who: &'static str| {
        let told = Arc::clone(&told);
        move |progress: &shared_tensor::service::Progress| {
            told.lock().unwrap().push((who, progress.done));
        }
    };
    let (done, wait) = mpsc::channel();
    for who in ["call", "joins"] {
        let done = done.clone();
        let told = options().on_progress(listen(who));
        client
            .start_call("slow_cached", ["door"], told, move |answer| {
                done.send(answer.is_ok()).unwrap();
            })
            .unwrap();
    }
    let seen = |who: &str, step| told.lock().unwrap().contains(&(who, step));
    until("both are told", || seen("call", 1) && seen("joins", 1));
    client.call("open", ["door"], options()).unwrap();
    assert!(wait.recv().unwrap() && wait.recv().unwrap());
    assert!(seen("call", 3) && seen("joins", 3), "{told:?}");
    let task = submit(&client, "task_slow", ["other door"]);
    let waiting = {
        let (client, options) = (client.clone(), options().on_progress(listen("task")));
        std::thread::spawn(move || client.wait_task(task, options).unwrap().status)
    };
    until("it is told", || seen("task", 1));
    client.call("open", ["other door"], options()).unwrap();
    assert_eq!(waiting.join().unwrap(), TaskStatus::Completed);
    assert!(seen("task", 3));
}

fn each_fetch_is_a_reference_of_its_own() {
    let service = Service::start();
    let client = service.client();
    let task = submit(&client, "task_managed", ());
    let object = client.wait_task(task, options()).unwrap().object.unwrap();
    assert_eq!(refcount(&client, object), Some(1), "the task's own");
    let first = client.task_result(task, options()).unwrap();
    assert_eq!(refcount(&client, object), Some(1), "handed over");
    assert!(first.handle.is_some_and(|handle| handle.object == object));
    let second = client.task_result(task, options()).unwrap();
    assert_eq!(refcount(&client, object), Some(2));
    drop(first);
    assert_eq!(refcount(&client, object), Some(1));
    assert!(second.value.as_tensor().is_some());
}

fn results_go_with_those_who_fetched_them() {
    let service = Service::start();
    let client = service.client();
    let task = submit(&client, "task_table", ());
    client.wait_task(task, options()).unwrap();
    let first = client.task_result(task, options()).unwrap();
    let second = client.task_result(task, options()).unwrap();
    assert_eq!(first.value, second.value);
    drop((first, second));
    client.settle(soon());
    assert_eq!(stat(&client, "leases"), 0);
    let gone = client.task_result(task, options()).unwrap_err();
    assert!(gone.failure().unwrap().message.contains("has been released since"), "{gone}");
}

fn results_that_nobody_fetches_go_in_time() {
    let service = Service::with("ttl_ms=50");
    let client = service.client();
    let task = submit(&client, "task_managed", ());
    // An idle server does it: what is looked at is no task.
    until("it is dropped", || stat(&client, "task_count") == 0);
    until("and what it held", || (stat(&client, "leases"), stat(&client, "objects")) == (0, 0));
    assert!(client.task_status(task, options()).is_err());
}

/// Something whose end waits until it may, and panics.
struct Unwilling(Mutex<mpsc::Receiver<()>>);

impl Drop for Unwilling {
    fn drop(&mut self) {
        let _ = self.0.lock().unwrap().recv();
        panic!("on purpose");
    }
}

fn results_whose_end_takes_long_keep_no_other_one() {
    let scratch = Scratch::new();
    let (let_go, held) = mpsc::channel();
    let unwilling = Mutex::new(Some(Unwilling(held.into())));
    let provider = Provider::new()
        .with(
            Endpoint::new("unwilling", move |_: &Call| {
                let native: Native = Arc::new(unwilling.lock().unwrap().take());
                Ok(Output::from(Value::Int(1)).with_native(native))
            })
            .cache(false),
        )
        .with(Endpoint::new("willing", |_: &Call| Ok(2)).cache(false));
    let address = Address::at(scratch.socket());
    let server = Server::options().result_ttl(Duration::ZERO).serve(&address, &provider).unwrap();
    let client = Client::at(address);
    submit(&client, "unwilling", ());
    until("it is over", || stat(&client, "task_count") == 0);
    for _ in 0..3 {
        submit(&client, "willing", ());
        until("it is over as well", || stat(&client, "task_count") == 0);
    }
    let_go.send(()).unwrap();
    let stopped = server.stop(Duration::from_secs(120)).unwrap();
    assert!(stopped.is_drained, "{stopped:?}");
}

fn at_capacity_the_oldest_ended_task_goes() {
    let service = Service::with("tasks=3,workers=1");
    let client = service.client();
    let ended: Vec<Id> = (0..3).map(|n| submit(&client, "add", [n, n])).collect();
    for task in &ended {
        client.wait_task(*task, options()).unwrap();
    }
    let slow: Vec<Id> = (0..3).map(|_| submit(&client, "task_slow", ["door"])).collect();
    assert!(client.task_status(ended[2], options()).is_err());
    let refused = client.submit("add", [1, 1], options()).unwrap_err();
    assert!(refused.failure().unwrap().message.contains("capacity exceeded"), "{refused}");
    client.call("open", ["door"], options()).unwrap();
    for task in slow {
        assert_eq!(client.wait_task(task, options()).unwrap().status, TaskStatus::Completed);
    }
}

fn a_task_that_calls_a_task_needs_no_second_worker() {
    let service = Service::with("workers=1");
    let client = service.client();
    let nested = |outer: &[&str]| {
        let mut arguments: Vec<Value> = outer.iter().map(|it| Value::from(*it)).collect();
        arguments.extend([Value::from("add"), 20.into(), 22.into()]);
        arguments
    };
    let task = nested(&["calls_as_task", "calls_as_task"]);
    assert_eq!(client.call("calls_as_task", task, options()).unwrap().value, Value::Int(42));
    let direct = nested(&["calls", "calls_as_task", "calls"]);
    assert_eq!(client.call("calls", direct, options()).unwrap().value, Value::Int(42));
    let mut deep = vec![Value::from("calls_as_task"); 30];
    deep.extend(nested(&[]));
    assert_eq!(client.call("calls_as_task", deep, options()).unwrap().value, Value::Int(42));
}

fn calls_that_are_started_tell_when_they_are_done() {
    let service = Service::start();
    let client = service.client();
    let (done, wait) = mpsc::channel();
    for number in 0..50_i64 {
        let done = done.clone();
        let arguments = [number, number].into();
        client
            .start_call("add", &arguments, options(), move |answer| {
                done.send(answer.unwrap().value.as_int().unwrap()).unwrap();
            })
            .unwrap();
    }
    let mut sums: Vec<i64> = wait.iter().take(50).collect();
    sums.sort_unstable();
    assert_eq!(sums, (0..50).map(|it| it * 2).collect::<Vec<_>>());
    let (done, wait) = mpsc::channel();
    let started = client
        .start_call("slow", ["never"], options(), move |answer| {
            done.send(answer.map(drop)).unwrap();
        })
        .unwrap();
    assert!(started.cancel());
    assert!(wait.recv().unwrap().is_err());
    assert!(!started.cancel());
    let late = CallOptions::new().deadline(Instant::now() + Duration::from_millis(300));
    let (done, wait) = mpsc::channel();
    client
        .start_call("slow", ["never"], late, move |answer| {
            done.send(answer.unwrap_err().is_timeout()).unwrap();
        })
        .unwrap();
    assert!(wait.recv().unwrap());
    // Leases of started calls are this client's own.
    let (done, wait) = mpsc::channel();
    client
        .start_call("managed_table", (), options(), move |answer| {
            done.send(answer.unwrap()).unwrap();
        })
        .unwrap();
    let answer = wait.recv().unwrap();
    let object = answer.handle.unwrap().object;
    assert!(client.release(&[object], options()).unwrap()[0].is_some());
    drop(answer);
}

fn an_event_loop_needs_no_thread() {
    use rustix::event::{PollFd, PollFlags, poll};

    let service = Service::start();
    let client = Client::options().driven(true).at(service.address());
    client.connect(soon()).unwrap();
    let done = Arc::new(Mutex::new(Vec::new()));
    for number in 0..10_i64 {
        let done = Arc::clone(&done);
        let arguments = [number, 1].into();
        client
            .start_call("add", &arguments, options(), move |answer| {
                done.lock().unwrap().push(answer.unwrap().value);
            })
            .unwrap();
    }
    while done.lock().unwrap().len() < 10 {
        let descriptor = client.descriptor().unwrap();
        let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
        poll(&mut polled, None).unwrap();
        client.drive();
    }
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    // A thread may end between being listed and being looked at.
    let names = threads.flat_map(|it| std::fs::read_to_string(it.path().join("comm")));
    assert_eq!(names.filter(|name| name.starts_with("rpc-uds")).count(), 0);
}

fn who_stops_a_shared_build_stops_it_for_nobody_else() {
    let service = Service::start();
    let client = service.client();
    let running = |task| {
        until("it runs", || {
            client.task_status(task, options()).unwrap().status == TaskStatus::Running
        });
    };
    let first = submit(&client, "task_slow_cached", ["door"]);
    running(first);
    let second = submit(&client, "task_slow_cached", ["door"]);
    running(second);
    assert!(client.cancel_task(first, true, options()).unwrap());
    // The function looks whether it is to stop between one count and the next.
    let looks = || client.call("builds", ["looking at door"], options()).unwrap().value;
    let before = looks().as_int().unwrap();
    until("it has looked and goes on", || looks().as_int().unwrap() > before + 1);
    assert_eq!(client.task_status(second, options()).unwrap().status, TaskStatus::Running);
    client.call("open", ["door"], options()).unwrap();
    assert_eq!(client.wait_task(second, options()).unwrap().status, TaskStatus::Completed);
    // Of all who wait each has to ask.
    let both = [0, 1].map(|_| submit(&client, "task_slow_cached", ["never"]));
    for task in both {
        running(task);
        assert!(client.cancel_task(task, true, options()).unwrap());
    }
    for task in both {
        assert_eq!(client.wait_task(task, options()).unwrap().status, TaskStatus::Cancelled);
    }
}

fn who_comes_to_a_build_that_was_given_up_gets_another_one() {
    let service = Service::start();
    let (one, other) = (service.client(), service.client());
    let task = submit(&one, "task_stubborn", ());
    until("it runs", || one.task_status(task, options()).unwrap().status == TaskStatus::Running);
    assert!(one.cancel_task(task, true, options()).unwrap());
    one.call("slow", ["it was told"], options()).unwrap();
    let joined = stat(&one, "cache_hits");
    let second = std::thread::spawn(move || other.call("task_stubborn", (), options()));
    until("the other one waits for it", || stat(&one, "cache_hits") > joined);
    one.call("open", ["it may go"], options()).unwrap();
    assert_eq!(second.join().unwrap().unwrap().value, Value::Int(2));
    assert_eq!(one.wait_task(task, options()).unwrap().status, TaskStatus::Cancelled);
}

/// The other one comes before, while or after it ends: never does it get the failure of one that gave up.
fn who_comes_just_as_a_build_is_given_up_gets_another_one() {
    // Kept failures answer those who ask for the same, but not those of builds that were given up.
    for kept in [Duration::ZERO, Duration::from_secs(1000)] {
        come_just_as_builds_are_given_up(Server::options().keep_failures(kept));
    }
}

fn come_just_as_builds_are_given_up(how: ServerOptions) {
    let scratch = Scratch::new();
    let runs: Arc<[AtomicU64; 300]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
    let may_go = Arc::new(AtomicU64::new(0));
    let (counted, open) = (Arc::clone(&runs), Arc::clone(&may_go));
    let stubborn = move |call: &Call| {
        let round: u64 = call.get(0, "round")?;
        let index = usize::try_from(round)?;
        if counted[index].fetch_add(1, Ordering::SeqCst) == 0 {
            while open.load(Ordering::SeqCst) <= round {
                if call.cancelled() {
                    return Err(Failure::other("Told", "it was told to stop"));
                }
                std::thread::yield_now();
            }
        }
        Ok(round)
    };
    let stubborn = Endpoint::new("stubborn", stubborn).key(KeyRule::Arguments);
    let provider = Provider::new().with(stubborn.execution(Execution::Task));
    let address = Address::at(scratch.socket());
    let server = how.serve(&address, &provider).unwrap();
    let (one, other) = (Client::at(address.clone()), Client::at(address));
    other.connect(soon()).unwrap();
    for round in 0..300_u64 {
        let task = submit(&one, "stubborn", [round]);
        until("it runs", || runs[usize::try_from(round).unwrap()].load(Ordering::SeqCst) == 1);
        let answer = std::thread::scope(|scope| {
            let call = scope.spawn(|| other.call("stubborn", [round], options()));
            one.cancel_task(task, true, options()).unwrap();
            // For the case that the other one was first.
            may_go.store(round + 1, Ordering::SeqCst);
            call.join().unwrap()
        });
        let value = answer.unwrap_or_else(|error| panic!("round {round}: {error}")).value;
        assert_eq!(u64::try_from(&value), Ok(round));
    }
    assert!(server.stop(Duration::from_secs(120)).unwrap().is_drained);
}

fn who_fills_the_table_keeps_no_other_client_out() {
    let service = Service::with("workers=1,tasks=4");
    let (greedy, modest) = (service.client(), service.client());
    let waiting: Vec<Id> = (0..4).map(|_| submit(&greedy, "task_slow", ["door"])).collect();
    let full = |client: &Client| client.submit("task_slow", ["door"], options());
    assert!(full(&greedy).unwrap_err().failure().unwrap().message.contains("capacity"));
    let own = [submit(&modest, "task_slow", ["door"]), submit(&modest, "task_slow", ["door"])];
    for client in [&modest, &greedy] {
        assert!(full(client).unwrap_err().failure().unwrap().message.contains("capacity"));
    }
    greedy.call("open", ["door"], options()).unwrap();
    for task in own.iter().chain(&waiting) {
        assert_eq!(modest.wait_task(*task, options()).unwrap().status, TaskStatus::Completed);
    }
}

fn who_has_waited_and_gone_is_let_go_of() {
    let mut service = Service::start();
    let client = service.client();
    let ended = submit(&client, "task_table", ["unused"]);
    client.wait_task(ended, options()).unwrap();
    let running = submit(&client, "task_slow", ["door"]);
    let before = descriptors(&mut service.peer);
    for _ in 0..20 {
        let visitor = service.client();
        visitor.wait_task(ended, options().on_progress(|_| ())).unwrap();
        let brief = CallOptions::new().deadline(Instant::now() + Duration::from_millis(1));
        drop(visitor.wait_task(running, brief.on_progress(|_| ())));
    }
    until("the visitors' sessions are over", || stat(&client, "sessions") == 1);
    // A session is over before its socket is closed.
    until("their descriptors are closed", || descriptors(&mut service.peer) <= before + 2);
    client.call("open", ["door"], options()).unwrap();
    client.wait_task(running, options()).unwrap();
}
