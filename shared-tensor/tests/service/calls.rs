//! Values there and back.

use std::time::{Duration, Instant};

use shared_tensor::DType;
use shared_tensor::service::{
    Access, Address, Arena, Arguments, BigInt, CallOptions, Client, Code, Error, Layout, Object,
    Rights, Storage, TaskStatus, Tensor, Value,
};

use crate::desk::{Service, options, stat};
use crate::harness::tests;

tests![
    plain_values_come_back_as_they_went,
    a_tensor_argument_is_the_clients_memory,
    views_ties_and_objects_keep_their_storages,
    results_are_new_memory_of_the_server,
    failures_carry_code_type_and_traceback,
    panics_are_failures,
    what_is_late_already_is_not_asked,
    arguments_that_cannot_travel_are_refused_here,
];

fn plain_values_come_back_as_they_went() {
    let service = Service::start();
    let client = service.client();
    let long = "é".repeat(200_000);
    let values = [
        Value::None,
        true.into(),
        false.into(),
        i64::MIN.into(),
        Value::BigInt(BigInt::parse("123456789012345678901234567890").unwrap()),
        0.1.into(),
        f64::INFINITY.into(),
        "text".into(),
        long.into(),
        Value::Bytes(vec![0, 255]),
        Value::Bytes(vec![7; 1 << 20]),
        Value::List(vec![1.into(), Value::List(vec![])]),
        Value::Tuple(vec![Value::None]),
        Value::Dict(vec![(1.into(), "one".into()), (Value::Tuple(vec![]), Value::None)]),
    ];
    for value in values {
        let answer = client.call("echo", [value.clone()], options()).unwrap();
        assert_eq!(answer.value, value);
        assert!(answer.handle.is_none() && answer.lease.is_none());
    }
    let arguments = Arguments::none().and(1).and_named("b", 2);
    let answer = client.call("add", arguments, options()).unwrap();
    assert_eq!(answer.value, Value::Int(3));
}

fn a_tensor_argument_is_the_clients_memory() {
    let service = Service::start();
    let client = service.client();
    let arena = Arena::new();
    let tensor = Tensor::from_slice(&arena, [2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap();
    client.call("double_in_place", [tensor.clone()], options()).unwrap();
    assert_eq!(tensor.to_vec::<f64>().unwrap(), [2.0, 4.0, 6.0, 8.0], "it wrote to our memory");
    let answer = client.call("echo", [tensor.clone()], options()).unwrap();
    let Value::Tensor(back) = answer.value else { panic!("a tensor") };
    assert_eq!(back, tensor, "the same bytes of the same file");
    let region = |tensor: &Tensor| tensor.storage().region().unwrap().identity();
    assert_eq!(region(&back), region(&tensor));
    back.write(&[0.0; 4]).unwrap();
    assert_eq!(tensor.to_vec::<f64>().unwrap(), [0.0; 4]);
}

fn views_ties_and_objects_keep_their_storages() {
    let service = Service::start();
    let client = service.client();
    let arena = Arena::new();
    let base = Tensor::from_slice(&arena, [2, 3], &[0_i16, 1, 2, 3, 4, 5]).unwrap();
    let view = |shape: Vec<u64>, strides: Vec<i64>, offset| {
        let layout = Layout { dtype: DType::I16, shape, strides, offset };
        Tensor::new(base.storage().clone(), layout).unwrap()
    };
    let transposed = view(vec![3, 2], vec![1, 3], 0).with_requires_grad(true);
    let scalar = view(vec![], vec![], 5);
    let empty = Tensor::zeros(&arena, DType::BF16, [0, 4]).unwrap();
    let none = Tensor::new(Storage::empty(), Layout::contiguous(DType::F8E4M3, [0])).unwrap();
    let object = Object {
        kind: "test".to_owned(),
        manifest: vec![1, 2, 3].into(),
        storages: vec![base.storage().clone(), arena.allocate(10).unwrap()],
    };
    let value = Value::List(vec![
        base.clone().into(),
        Value::dict([("transposed", transposed.into())]),
        Value::Tuple(vec![scalar.into(), empty.into(), none.into()]),
        object.into(),
    ]);
    let answer = client.call("echo", [value.clone()], options()).unwrap();
    assert_eq!(answer.value, value);
    let Value::List(items) = &answer.value else { panic!("a list") };
    let storage = items[0].as_tensor().unwrap().storage();
    let Value::Object(object) = &items[3] else { panic!("an object") };
    assert_eq!(storage, &object.storages[0]);
    let transposed = items[1].get("transposed").unwrap().as_tensor().unwrap();
    assert_eq!(transposed.to_vec::<i16>().unwrap(), [0, 3, 1, 4, 2, 5]);
    assert!(transposed.requires_grad());
}

fn results_are_new_memory_of_the_server() {
    let service = Service::start();
    let client = service.client();
    let arena = Arena::new();
    let tensor = Tensor::from_slice(&arena, [3], &[1.0, 2.0, 3.0]).unwrap();
    let arguments = Arguments::none().and(tensor.clone()).and_named("factor", 3);
    let answer = client.call("scale", arguments, options()).unwrap();
    let scaled = answer.value.as_tensor().unwrap();
    assert_eq!(scaled.to_vec::<f64>().unwrap(), [3.0, 6.0, 9.0]);
    let region = scaled.storage().region().unwrap();
    assert_ne!(region, tensor.storage().region().unwrap());
    assert_eq!(region.rights(), Rights::Write, "neither cached nor managed");
    let view = scaled.storage().view_as(Access::Shared).unwrap();
    assert!(view.bytes().unwrap().is_writable());
}

fn failures_carry_code_type_and_traceback() {
    let service = Service::start();
    let client = service.client();
    let failure = |endpoint: &str, arguments: Vec<Value>| {
        let failed = client.call(endpoint, arguments, options());
        let Err(Error::Failed(failure)) = failed else { panic!("{failed:?}") };
        failure
    };
    let own = failure("fail", vec!["KeyError".into(), "no such row".into()]);
    assert_eq!((own.code, &*own.type_name), (Code::Other, "KeyError"));
    assert_eq!(own.traceback.as_deref(), Some("line 1 of the endpoint"));
    assert_eq!(own.to_string(), "no such row");
    assert_eq!(Error::Failed(own).to_string(), "Remote error [7]: no such row");
    let unknown = failure("no_such", vec![]);
    assert_eq!(
        (unknown.code, &*unknown.message),
        (Code::Provider, "Endpoint 'no_such' is not registered")
    );
    assert_eq!(failure("scale", vec![1.into()]).code, Code::Capability);
    let long = failure("fail", vec!["E".into(), "é".repeat(100_000).into()]);
    assert_eq!(long.message.len(), 65_536);
}

fn panics_are_failures() {
    let service = Service::start();
    let client = service.client();
    for _ in 0..10 {
        let failed = client.call("panics", (), options()).unwrap_err();
        let failure = failed.failure().expect("a failure");
        assert_eq!((failure.code, &*failure.message), (Code::Panic, "on purpose"));
        assert_eq!(failure.type_name, "Panic");
    }
    assert_eq!(client.call("add", [1, 2], options()).unwrap().value, Value::Int(3));
}

fn what_is_late_already_is_not_asked() {
    let service = Service::start();
    let client = service.client();
    client.call("make_table", (), options()).unwrap();
    let asked = || stat(&client, "requests_processed");
    let task = client.submit("task_table", (), options()).unwrap();
    client.wait_task(task, options()).unwrap();
    client.settle(options());
    let before = asked();
    for _ in 0..200 {
        // It is there, and would often be here before anybody looks at the clock.
        let late = client.call("make_table", (), Instant::now()).unwrap_err();
        assert!(late.is_timeout(), "{late:?}");
        assert!(client.ping(Duration::ZERO).unwrap_err().is_timeout());
        assert!(client.submit("task_table", (), Duration::ZERO).unwrap_err().is_timeout());
        let told = CallOptions::new().timeout(Duration::ZERO).on_progress(|_| ());
        assert!(client.call("make_table", (), told).unwrap_err().is_timeout());
        let started = client.start_call("make_table", (), Duration::ZERO, |_| panic!("not called"));
        assert!(started.unwrap_err().is_timeout());
    }
    assert_eq!(asked() - before, 1, "nothing was asked but this");
    // At its deadline a wait tells what there is to know, which takes a question.
    let known = client.wait_task(task, Duration::ZERO).unwrap();
    assert_eq!(known.status, TaskStatus::Completed);
    let nowhere = Client::at(Address::at("/nonexistent/socket"));
    assert!(nowhere.call("make_table", (), Duration::ZERO).unwrap_err().is_timeout());
}

fn arguments_that_cannot_travel_are_refused_here() {
    let service = Service::start();
    let client = service.client();
    let mut deep = Value::None;
    for _ in 0..70 {
        deep = Value::Tuple(vec![deep]);
    }
    let refused = |value: Value| {
        let refused = client.call("echo", [value], options()).unwrap_err();
        assert!(matches!(refused, Error::Arguments(_)), "{refused:?}");
        refused.to_string()
    };
    assert!(refused(deep).contains("nested deeper than 64"));
    assert!(refused(Value::Dict(vec![(Value::List(vec![]), 1.into())])).contains("key"));
    let many: Vec<Value> = vec!["x".repeat(60_000).into(); 400];
    assert!(refused(Value::List(many)).contains("put large things into tensors"));
    assert_eq!(client.call("add", [1, 2], options()).unwrap().value, Value::Int(3));
}
