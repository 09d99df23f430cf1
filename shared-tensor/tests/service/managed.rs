//! Objects, their handles and their leases.

use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use shared_tensor::service::{Client, Id, Released, Value};

use crate::desk::{Service, options, refcount, soon, stat, until};
use crate::harness::tests;

tests![
    references_are_counted_as_the_contract_says,
    a_lease_lives_as_long_as_a_tensor_of_it,
    one_releases_only_ones_own,
    leases_outlive_the_closing_of_their_client,
    a_lease_that_is_released_too_late_goes_soon,
    releasing_twice_or_nonsense_is_told,
    without_cache_each_call_makes_an_object,
    invalidated_objects_live_on_by_their_handles,
    nothing_has_no_handle,
    a_killed_client_leaves_no_lease,
    a_reply_that_is_not_wanted_any_more_leaves_no_lease,
];

fn references_are_counted_as_the_contract_says() {
    let service = Service::start();
    let client = service.client();
    let first = client.call("managed_table", (), options()).unwrap();
    let handle = first.handle.unwrap();
    let info = client.object_info(handle.object, options()).unwrap().unwrap();
    assert_eq!((info.refcount, &*info.endpoint), (1, "managed_table"));
    assert_eq!((info.object, info.server), (handle.object, handle.server));
    assert!(info.cache_key.is_some() && info.created_at <= info.last_accessed_at);
    let second = client.call("managed_table", (), options()).unwrap();
    assert_eq!(second.handle, first.handle);
    assert_eq!(refcount(&client, handle.object), Some(2));
    assert_eq!((stat(&client, "objects"), stat(&client, "cached_objects")), (1, 1));
    let lease = |answer: &shared_tensor::service::Answer| answer.lease.clone().unwrap();
    assert!(client.release_lease(&lease(&first), options()).unwrap());
    assert!(!client.release_lease(&lease(&first), options()).unwrap(), "once");
    assert_eq!(refcount(&client, handle.object), Some(1));
    assert!(client.release_lease(&lease(&second), options()).unwrap());
    assert_eq!(refcount(&client, handle.object), None, "gone with the last");
    // What is mapped stays.
    let elements = first.value.as_tensor().unwrap().to_vec::<f64>().unwrap();
    assert_eq!(elements[11], 11.0);
    // Whoever delivered it may have it in its hands for a moment more.
    until("the server has let go of it", || stat(&client, "objects") == 0);
    let third = client.call("managed_table", (), options()).unwrap();
    assert_ne!(third.handle.unwrap().object, handle.object);
}

fn a_lease_lives_as_long_as_a_tensor_of_it() {
    let service = Service::start();
    let client = service.client();
    let answer = client.call("managed_table", (), options()).unwrap();
    let object = answer.handle.unwrap().object;
    let tensor = answer.value.as_tensor().unwrap().clone();
    drop(answer);
    assert_eq!(refcount(&client, object), Some(1));
    let storage = tensor.storage().clone();
    drop(tensor);
    let view = storage.view().unwrap();
    drop(storage);
    assert_eq!(refcount(&client, object), Some(1), "a view is enough");
    drop(view);
    assert_eq!(refcount(&client, object), None);
}

fn one_releases_only_ones_own() {
    let service = Service::start();
    let (one, other) = (service.client(), service.client());
    let held = one.call("managed_table", (), options()).unwrap();
    let object = held.handle.unwrap().object;
    for _ in 0..4 {
        assert_eq!(other.release(&[object], options()).unwrap(), [None]);
    }
    assert_eq!(refcount(&one, object), Some(1));
    let lease = held.lease.clone().unwrap();
    assert!(!other.release_lease(&lease, options()).unwrap());
    assert!(lease.is_held(), "it is not the other's");
    let again = one.call("managed_table", (), options()).unwrap();
    assert!(one.clone().release_lease(&again.lease.unwrap(), options()).unwrap(), "one client");
    assert_eq!(refcount(&other, object), Some(1));
    let released = one.release(&[object], options()).unwrap();
    assert_eq!(released, [Some(Released { refcount: 0, destroyed: true })]);
    drop((held, lease));
    one.settle(soon());
    assert_eq!(stat(&other, "leases"), 0);
}

fn leases_outlive_the_closing_of_their_client() {
    let service = Service::start();
    let (client, other) = (service.client(), service.client());
    let call = || client.call("managed_table", (), options()).unwrap();
    let held = [call(), call(), call()];
    let object = held[0].handle.unwrap().object;
    let (tell, told) = mpsc::channel();
    let on_done = move |answer: Result<_, _>| tell.send(answer.unwrap()).unwrap();
    client.start_call("managed_table", (), options(), on_done).unwrap();
    let started = told.recv().unwrap();
    client.close();
    assert!(held.iter().chain([&started]).all(|it| it.lease.as_ref().unwrap().is_held()));
    assert_eq!((refcount(&other, object), client.regions_held()), (Some(4), 2));
    let left = |refcount| vec![Some(Released { refcount, destroyed: refcount == 0 })];
    assert_eq!(client.release(&[object], options()).unwrap(), left(3), "by its name");
    let [one, two, three] = held;
    assert!(client.release_lease(started.lease.as_ref().unwrap(), options()).unwrap());
    let after = call();
    client.close();
    assert_eq!(refcount(&other, object), Some(3));
    drop(after);
    client.settle(soon());
    assert_eq!(refcount(&other, object), Some(2), "by its end");
    for refcount in [1, 0] {
        assert_eq!(client.release(&[object], options()).unwrap(), left(refcount));
    }
    assert_eq!(client.release(&[object], options()).unwrap(), [None]);
    drop((one, two, three, started));
    until("no region is kept for nobody", || client.regions_held() == 0);
    until("nor a connection", || stat(&other, "sessions") == 2);
}

fn a_lease_that_is_released_too_late_goes_soon() {
    let service = Service::start();
    let client = service.client();
    let held = client.call("managed_table", (), options()).unwrap();
    let lease = held.lease.as_ref().unwrap();
    assert!(client.release_lease(lease, Duration::ZERO).unwrap_err().is_timeout());
    assert!(!client.release_lease(lease, options()).unwrap(), "it is over here");
    client.settle(soon());
    assert_eq!(stat(&client, "leases"), 0, "and there");
}

fn releasing_twice_or_nonsense_is_told() {
    let service = Service::start();
    let client = service.client();
    let held = client.call("managed_table", (), options()).unwrap();
    let again = client.call("managed_table", (), options()).unwrap();
    let object = held.handle.unwrap().object;
    let left = |refcount, destroyed| Some(Released { refcount, destroyed });
    let released = client.release(&[object, Id::random(), object, object], options()).unwrap();
    assert_eq!(released, [left(1, false), None, left(0, true), None]);
    drop((held, again));
    client.settle(soon());
    assert_eq!(client.object_info(Id::random(), options()).unwrap(), None);
}

fn without_cache_each_call_makes_an_object() {
    let service = Service::start();
    let client = service.client();
    let one = client.call("managed_fresh", (), options()).unwrap();
    let other = client.call("managed_fresh", (), options()).unwrap();
    assert_ne!(one.handle, other.handle);
    let object = one.handle.unwrap().object;
    let info = client.object_info(object, options()).unwrap().unwrap();
    assert_eq!((info.refcount, info.cache_key), (1, None));
    assert_eq!((stat(&client, "objects"), stat(&client, "cached_objects")), (2, 0));
    drop(one);
    assert_eq!(refcount(&client, object), None);
}

fn invalidated_objects_live_on_by_their_handles() {
    let service = Service::start();
    let client = service.client();
    let old = client.call("managed_table", (), options()).unwrap();
    assert_eq!(client.invalidate_endpoint("managed_table", options()).unwrap().entries, 1);
    let new = client.call("managed_table", (), options()).unwrap();
    assert_ne!(old.handle, new.handle);
    let object = old.handle.unwrap().object;
    assert_eq!(refcount(&client, object), Some(1));
    let released = client.release(&[object], options()).unwrap();
    assert_eq!(released, [Some(Released { refcount: 0, destroyed: true })]);
}

fn nothing_has_no_handle() {
    let service = Service::start();
    let client = service.client();
    for _ in 0..2 {
        let answer = client.call("managed_nothing", (), options()).unwrap();
        assert_eq!((answer.value, answer.handle), (Value::None, None));
        assert!(answer.lease.is_none());
    }
    assert_eq!((stat(&client, "objects"), stat(&client, "leases")), (0, 0));
}

fn a_killed_client_leaves_no_lease() {
    let service = Service::start();
    let client = service.client();
    let own = client.call("managed_table", (), options()).unwrap();
    let object = own.handle.unwrap().object;
    for _ in 0..5 {
        let mut peer = service.peer_client();
        for _ in 0..3 {
            peer.expect("hold managed_table", "held");
        }
        peer.expect("hold make_table", "held");
        assert_eq!(refcount(&client, object), Some(4));
        peer.kill();
        until("its leases are gone", || refcount(&client, object) == Some(1));
        until("all of them", || stat(&client, "leases") == 1);
        until("and its session", || stat(&client, "sessions") == 1);
    }
}

fn a_reply_that_is_not_wanted_any_more_leaves_no_lease() {
    let service = Service::start();
    let other = service.client();
    let held = other.call("managed_table", (), options()).unwrap();
    let object = held.handle.unwrap().object;
    let client = Client::options().driven(true).at(service.address());
    client.connect(soon()).unwrap();
    let started = client.start_call("managed_table", (), options(), |answer| {
        assert!(answer.is_err());
    });
    let started = started.unwrap();
    let readable = || {
        let descriptor = client.descriptor().unwrap();
        let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
        poll(&mut polled, None).unwrap();
    };
    // It is in the socket, and nobody has read it.
    readable();
    assert_eq!(refcount(&other, object), Some(2));
    assert!(started.cancel());
    until("the lease is given back", || {
        client.drive();
        refcount(&other, object) == Some(1)
    });
    until("the memory is let go of", || {
        client.drive();
        client.regions_held() == 0
    });
}
