//! What becomes of clients of releases that know less.

use std::process;
use std::time::{Duration, Instant};

use rpc_uds::Request;

use super::Server;
use crate::service::region::{Region, Rights, volatile_tests};
use crate::service::value::{Layout, Storage, Tensor, Value};
use crate::service::wire::messages::{
    CallHead, Delivery, FEATURES, FailureEntry, VOLATILE, answer, ask, decode, encode,
};
use crate::service::{Address, Call, Client, Code, Endpoint, Failure, Provider};
use crate::tensor::DType;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

#[test]
fn what_they_cannot_open_is_refused_by_name() {
    let in_place = |_: &Call| {
        let region = volatile_tests::lent(volatile_tests::handle(40, 0, 4096));
        let storage = Storage::new(region, 0, 64)?;
        Ok(Tensor::new(storage, Layout::contiguous(DType::U8, [64]))?)
    };
    let provider = Provider::new()
        .with(Endpoint::new("in_place", in_place).cache(false))
        .with(Endpoint::new("for_readers", in_place));
    let path = std::env::temp_dir().join(format!("st-older-clients-{}", process::id()));
    let server = Server::options().serve(&Address::at(&path), &provider).unwrap();
    let asked = |endpoint, features| {
        let (regions, confirmed) = (Vec::new(), Vec::new());
        let head = CallHead { endpoint, ticket: 0, parent: 0, regions, confirmed };
        // A payload without storages and arguments.
        let body = [encode(&head), vec![0, 0, 0]].concat();
        let older = rpc_uds::Client::options().features(features).connect(&path, soon()).unwrap();
        older.call(Request::new(ask::CALL, &body), soon()).unwrap()
    };
    let refused = asked("in_place", FEATURES & !VOLATILE);
    assert_eq!(refused.tag, answer::FAILED);
    let failure: Failure = decode::<FailureEntry>(&refused.body).unwrap().0.into();
    assert_eq!(failure.code, Code::Capability);
    assert!(failure.message.contains("this client's release does not know"), "{failure}");
    let taken = asked("in_place", FEATURES);
    assert_eq!(taken.tag, answer::DONE);
    let (delivery, _) = decode::<Delivery>(&taken.body).unwrap();
    assert!(delivery.lease.is_some(), "its maker keeps it though the endpoint keeps nothing");
    assert_eq!(delivery.regions.len(), 1);

    // Whoever is to read cannot be kept from writing, and whoever has it here finds it.
    let client = Client::at(Address::at(&path));
    let error = client.call("for_readers", (), soon()).unwrap_err();
    assert!(error.to_string().contains("declare the endpoint `writable`"), "{error}");
    let answer = client.call("in_place", (), soon()).unwrap();
    let Value::Tensor(tensor) = &answer.value else { panic!("{:?}", answer.value) };
    let region = tensor.storage().region().unwrap();
    assert_eq!((region.address_here(), region.rights()), (Some(4096), Rights::Write));

    // What another process made goes nowhere.
    let astray = Region::their_volatile(
        cuda_ipc::Uuid::from_bytes([7; 16]),
        crate::service::Id::random(),
        volatile_tests::handle(41, 0, 64),
    );
    let storage = Storage::new(astray.made_by(Some(1)), 0, 64).unwrap();
    let tensor = Tensor::new(storage, Layout::contiguous(DType::U8, [64])).unwrap();
    let error = client.call("in_place", [tensor], soon()).unwrap_err();
    assert!(error.to_string().contains("goes back to that server"), "{error}");
    assert!(server.stop(Duration::from_secs(600)).unwrap().is_drained);
}
