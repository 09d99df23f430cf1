//! A full file system: what fits is taken and said, what was asked for is refused in words.

use std::process::{Command, Stdio};

use st_tests::{Namespace, Peer, skip};

use super::field;

const MIB: u64 = 1 << 20;

/// A peer for which the directory of the names is a file system of `bytes` of its own.
fn confined(space: &Namespace, bytes: u64) -> Result<Peer, String> {
    let inside = |then: &str| {
        let mount =
            format!("mount --make-rprivate / && mount -t tmpfs -o size={bytes} none \"$0\"");
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &format!("{mount} && {then}")]);
        command.arg(space.directory()).arg(env!("CARGO_BIN_EXE_st-peer"));
        command
    };
    match inside("true").stdin(Stdio::null()).stderr(Stdio::piped()).output() {
        Ok(done) if done.status.success() => {}
        Ok(done) => return Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
        Err(error) => return Err(format!("unshare: {error}")),
    }
    let mut peer = Peer::start(space, "confined", inside("exec \"$1\""));
    peer.ask("hello");
    Ok(peer)
}

/// Removes the stream, and gives its memory back: a handle would keep it.
fn remove(peer: &mut Peer) {
    peer.ask("stream.unlink a");
    peer.ask("stream.close a");
}

#[test]
fn a_ring_that_does_not_fit_is_smaller_and_says_so() {
    let space = Namespace::in_private_directory("step-down");
    let mut peer = match confined(&space, 4 * MIB) {
        Ok(peer) => peer,
        Err(reason) => return skip("a_ring_that_does_not_fit_is_smaller_and_says_so", &reason),
    };
    // Eight slots would be the default; three are what fits beside the control pages.
    peer.ask(&format!("stream.create a {MIB}"));
    assert_eq!(field(&mut peer, "slots"), "3");
    let info = peer.ask("stream.info a");
    assert!(
        info.contains("space was short at creation: the ring has 3 slots instead of 8"),
        "{info}"
    );
    peer.ask("stream.write a 1 20");
    assert_eq!(peer.ask("stream.latest a"), "20 20 idle");
    remove(&mut peer);

    // Down to two and one, each with the guarantees that are lost.
    for (bytes, slots, lost) in
        [(3 * MIB / 2, 2, "nothing can be leased"), (3 * MIB, 1, "one slot")]
    {
        peer.ask(&format!("stream.create a {bytes}"));
        assert_eq!(field(&mut peer, "slots"), slots.to_string());
        let info = peer.ask("stream.info a");
        assert!(info.contains("space was short") && info.contains(lost), "{info}");
        peer.ask("stream.write a 1 5");
        assert_eq!(peer.ask("stream.latest a"), "5 5 idle");
        remove(&mut peer);
    }
    let told = peer.ask_refused(&format!("stream.create a {}", 4 * MIB));
    assert!(told.starts_with("NoSpace"), "{told}");
    peer.quit();
}

#[test]
fn slots_that_were_asked_for_are_refused_with_the_numbers() {
    let space = Namespace::in_private_directory("no-space");
    let mut peer = match confined(&space, 4 * MIB) {
        Ok(peer) => peer,
        Err(reason) => {
            return skip("slots_that_were_asked_for_are_refused_with_the_numbers", &reason);
        }
    };
    let told = peer.ask_refused(&format!("stream.create a {MIB} slots=8"));
    let names = ["NoSpace", "`a`", "bytes", "needed", "free of", "--shm-size"];
    assert!(names.iter().all(|name| told.contains(name)), "{told}");
    assert!(told.contains(&(4 * MIB).to_string()), "the size of the file system: {told}");
    // Nothing was taken: what fits still does.
    peer.ask(&format!("stream.create a {MIB} slots=3"));
    remove(&mut peer);
    peer.quit();
}
