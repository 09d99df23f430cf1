//! More holders than lines.

use super::peer::Peer;
use super::scene::Scene;
use crate::stream::layout::SEATS;

#[test]
fn forty_processes_share_thirty_two_lines() {
    let scene = Scene::new();
    let mut creator = Peer::start(&scene);
    creator.expect("create", "created");
    creator.expect("make frames", "made");
    creator.expect("offer", "listed");
    let mut peers = vec![creator];
    while peers.len() < 40 {
        let mut peer = Peer::start(&scene);
        peer.expect("fetch", "got frames");
        peers.push(peer);
    }
    // All at once, so that they meet at the lines.
    peers[1..].iter_mut().for_each(|peer| peer.say("offer"));
    let answers: Vec<_> = peers[1..].iter_mut().map(Peer::hear).collect();
    let listed = 1 + answers.iter().filter(|answer| *answer == "listed").count();
    let unlisted = answers.iter().filter(|answer| *answer == "unlisted").count();
    assert_eq!((listed, unlisted), (SEATS, 40 - SEATS), "{answers:?}");
    assert_eq!(scene.sockets().len(), SEATS, "who is not listed does not listen");

    // Those who are not listed hold the chunk all the same, and take the lines of the dead.
    let is_unlisted = |at: usize| at > 0 && answers[at - 1] == "unlisted";
    for at in (0..40).filter(|&at| !is_unlisted(at)) {
        peers[at].kill();
    }
    let answer = Peer::start(&scene).ask("look");
    assert!(answer.starts_with("NoHolder: "), "{answer}");
    for at in (0..40).filter(|&at| is_unlisted(at)) {
        peers[at].expect("look", "got frames");
        peers[at].expect("withdraw", "withdrawn");
        peers[at].expect("offer", "listed");
    }
    assert_eq!(scene.sockets().len(), 40 - SEATS, "what the dead left was removed");
    Peer::start(&scene).expect("fetch", "got frames");
    for at in (0..40).filter(|&at| is_unlisted(at)) {
        peers[at].expect("withdraw", "withdrawn");
    }
}
