//! Holders that die, stop, and come back.

use rustix::process::Signal;

use super::peer::Peer;
use super::scene::Scene;

/// A creator that offers, and a reader that has fetched from it and offers, too.
fn creator_and_reader(scene: &Scene) -> (Peer, Peer) {
    let mut creator = Peer::start(scene);
    creator.expect("create", "created");
    creator.expect("make frames", "made");
    creator.expect("offer", "listed");
    let mut reader = Peer::start(scene);
    reader.expect("fetch", "got frames");
    reader.expect("offer", "listed");
    (creator, reader)
}

#[test]
fn a_stream_outlives_its_creator() {
    let scene = Scene::new();
    let (mut creator, reader) = creator_and_reader(&scene);
    creator.kill();
    let mut third = Peer::start(&scene);
    third.expect("fetch", "got frames");
    third.expect("offer", "listed");
    drop((creator, reader));
    let mut fourth = Peer::start(&scene);
    fourth.expect("fetch", "got frames");
    third.expect("withdraw", "withdrawn");
    scene.sweep();
}

#[test]
fn a_holder_that_is_about_to_be_listed_is_waited_for() {
    let scene = Scene::new();
    let mut creator = Peer::start(&scene);
    creator.expect("create", "created");
    creator.expect("make frames", "made");
    let mut reader = Peer::start(&scene);
    reader.say("fetch");
    // It has attached, so it is about to look.
    let stream = scene.open();
    while stream.info().participants.len() < 3 {
        std::thread::yield_now();
    }
    creator.expect("offer", "listed");
    assert_eq!(reader.hear(), "got frames");
    creator.expect("withdraw", "withdrawn");
}

#[test]
fn the_last_holders_death_is_told_by_name() {
    let scene = Scene::new();
    let (mut creator, mut reader) = creator_and_reader(&scene);
    let mut third = Peer::start(&scene);
    creator.kill();
    reader.kill();
    let answer = third.ask("fetch");
    assert!(answer.starts_with("NoHolder: "), "{answer}");
    assert!(answer.contains("`frames`") && answer.contains("unlink"), "{answer}");
    scene.sweep();
}

#[test]
fn a_holder_that_ends_in_order_is_not_asked() {
    let scene = Scene::new();
    let (mut creator, mut reader) = creator_and_reader(&scene);
    creator.expect("withdraw", "withdrawn");
    let mut third = Peer::start(&scene);
    third.expect("fetch", "got frames");
    reader.expect("withdraw", "withdrawn");
    assert_eq!(scene.files(), 0, "the sockets went with the offers");
    let answer = Peer::start(&scene).ask("look");
    assert!(answer.starts_with("NoHolder: "), "{answer}");
    // Whoever still has the chunk brings the stream back.
    third.expect("offer", "listed");
    Peer::start(&scene).expect("fetch", "got frames");
    third.expect("withdraw", "withdrawn");
}

#[test]
fn a_stopped_holder_is_passed_over() {
    let scene = Scene::new();
    let (mut creator, mut reader) = creator_and_reader(&scene);
    creator.signal(Signal::STOP);
    let mut third = Peer::start(&scene);
    third.expect("fetch", "got frames");
    reader.expect("withdraw", "withdrawn");
    let answer = third.ask("fetch 200");
    assert!(answer.starts_with("Timeout: waited "), "stopped is not dead: {answer}");
    assert!(answer.contains("one of 1 processes"), "{answer}");
    let answer = third.ask("interrupted");
    assert!(answer.starts_with("Interrupted: "), "{answer}");
    third.say("fetch");
    creator.signal(Signal::CONT);
    assert_eq!(third.hear(), "got frames", "asked again");
    creator.expect("withdraw", "withdrawn");
}

#[test]
fn a_process_gets_its_own_without_asking_anybody() {
    let scene = Scene::new();
    let (creator, mut reader) = creator_and_reader(&scene);
    creator.signal(Signal::STOP);
    for socket in scene.sockets() {
        std::fs::remove_file(socket).unwrap();
    }
    reader.expect("look", "got frames");
    let mut third = Peer::start(&scene);
    let answer = third.ask("look");
    assert!(answer.contains("one of 2 processes"), "{answer}");
    assert!(answer.contains("no server listens"), "{answer}");
    drop((creator, reader));
    scene.sweep();
}

#[test]
fn what_the_killed_left_is_removed_by_the_next_holder() {
    let scene = Scene::new();
    let (mut creator, mut reader) = creator_and_reader(&scene);
    creator.kill();
    assert_eq!((scene.sockets().len(), scene.files()), (2, 4), "each with its lock");
    let mut third = Peer::start(&scene);
    third.expect("fetch", "got frames");
    third.expect("offer", "listed");
    assert_eq!((scene.sockets().len(), scene.files()), (2, 4), "one went, one came");
    Peer::start(&scene).expect("fetch", "got frames");
    reader.expect("withdraw", "withdrawn");
    third.expect("withdraw", "withdrawn");
}
