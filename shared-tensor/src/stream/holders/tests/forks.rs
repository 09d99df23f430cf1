//! Forked children of holders.

use super::peer::Peer;
use super::scene::Scene;

#[test]
fn a_child_offers_nothing_and_removes_nothing_of_its_parents() {
    let scene = Scene::new();
    let mut parent = Peer::start(&scene);
    parent.expect("create", "created");
    parent.expect("make frames", "made");
    parent.expect("offer", "listed");
    parent.expect("fork", "forked");
    let mut child = parent;
    // From here on orders go to the child; its parent lives, and answers.
    child.expect("withdraw", "withdrawn");
    assert_eq!(scene.files(), 2, "the parent's socket and its lock");
    let mut third = Peer::start(&scene);
    third.expect("fetch", "got frames");
    // Not what it inherited, but what its parent hands out over the socket.
    child.expect("fetch", "got frames");

    // The parent dies: nobody keeps its socket, or its line, in its place.
    child.kill();
    let answer = third.ask("look");
    assert!(answer.starts_with("NoHolder: "), "{answer}");
    // The child offers on its own account.
    child.expect("offer", "listed");
    assert_eq!(scene.files(), 2, "what the parent left was removed");
    third.expect("fetch", "got frames");
    child.expect("withdraw", "withdrawn");
    child.end();
}
