//! What is left when nobody offers any more: nothing.

use super::peer::Peer;
use super::scene::Scene;

#[test]
fn offers_and_fetches_leave_no_descriptors_threads_or_files() {
    let scene = Scene::new();
    let mut creator = Peer::start(&scene);
    let mut reader = Peer::start(&scene);
    creator.expect("create", "created");
    creator.expect("make frames", "made");
    // The first time sets things up that stay: handlers of forks, entries in the table.
    creator.expect("offer", "listed");
    reader.expect("fetch", "got frames");
    reader.expect("offer", "listed");
    reader.expect("withdraw", "withdrawn");
    creator.expect("withdraw", "withdrawn");
    let before = [creator.ask("usage"), reader.ask("usage")];
    for _ in 0..20 {
        // Two offers of one process share a socket.
        creator.expect("offer", "listed");
        creator.expect("offer", "listed");
        assert_eq!((scene.sockets().len(), scene.files()), (1, 2));
        for _ in 0..5 {
            reader.expect("fetch", "got frames");
        }
        reader.expect("offer", "listed");
        creator.expect("withdraw", "withdrawn");
        Peer::start(&scene).expect("fetch", "got frames");
        reader.expect("withdraw", "withdrawn");
    }
    assert_eq!([creator.ask("usage"), reader.ask("usage")], before);
    assert_eq!(scene.files(), 0);
}
