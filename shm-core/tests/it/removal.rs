//! Removal never takes the wrong generation, also when removers are killed half way.

use std::time::{Duration, Instant};

use shm_core::{
    Access, Current, Kind, OpenError, PurgeOptions, Segment, SegmentName, SegmentOptions, Unlinked,
};

use crate::harness::{KIND, PAGE, Peer, Role, Scratch, Watchdog, name};

/// Removers may remove only these.
const PREY: Kind = Kind { version: 100, ..KIND };
/// Only the owner may remove these. They follow a prey under the same name at once, so that a
/// remover that looked at the prey and acts late meets them.
const PROTECTED: Kind = Kind { version: 101, ..KIND };

/// Many names at a time, so that on a machine with few CPUs each turn of a process meets many.
const NAMES: usize = 16;

fn names() -> [SegmentName; NAMES] {
    std::array::from_fn(|index| name(&format!("contested {index}")))
}

fn own(role: &Role) {
    let ns = &role.namespace;
    let names = names();
    let create = |kind, name| {
        SegmentOptions::new(kind, PAGE)
            .create(ns, name, |_| Ok(()))
            .expect("only owners create, and there is one")
    };
    // A killed owner may have left some.
    for name in &names {
        ns.unlink(name).expect("removed");
    }
    Role::say("ready");
    loop {
        let prey = names.each_ref().map(|name| create(PREY, name));
        let mut protected = Vec::with_capacity(NAMES);
        for (prey, name) in prey.into_iter().zip(&names) {
            while prey.is_current().expect("a stat") == Current::Yes {
                std::thread::yield_now();
            }
            protected.push(create(PROTECTED, name));
        }
        for segment in protected {
            let generation = segment.generation();
            if segment.unlink().expect("removed") != Unlinked::Removed(generation) {
                return Role::say("WRONG");
            }
        }
        Role::say("round");
    }
}

fn remove(role: &Role) {
    let ns = &role.namespace;
    let names = names();
    Role::say("ready");
    for name in names.iter().cycle() {
        match Segment::open(ns, name, Access::ReadOnly, PREY) {
            Ok(prey) => {
                let generation = prey.generation();
                drop(prey);
                match ns.unlink_generation(name, generation).expect("removed") {
                    Unlinked::Removed(removed) => assert_eq!(removed, generation),
                    Unlinked::Absent => {}
                    Unlinked::Replaced(other) => assert_ne!(other, generation),
                }
            }
            Err(OpenError::NotFound { .. } | OpenError::Version { .. }) => {}
            Err(other) => panic!("open: {other}"),
        }
    }
}

#[test]
fn killed_removers_never_take_the_wrong_generation() {
    const LASTS: Duration = Duration::from_secs(4);
    const TEST: &str = "removal::killed_removers_never_take_the_wrong_generation";
    if let Some(role) = Role::mine() {
        match role.role.as_str() {
            "owner" => own(&role),
            _ => remove(&role),
        }
        return;
    }
    let _watchdog = Watchdog::start("removal under kills");
    let scratch = Scratch::new("removal");
    let spawn = |role| {
        let mut peer = Peer::spawn(TEST, role, &scratch);
        peer.expect("ready");
        peer
    };
    let mut removers: Vec<_> = (0..2).map(|_| spawn("remover")).collect();
    let mut owner = spawn("owner");
    let (started, mut rounds, mut kills) = (Instant::now(), 0, 0);
    // Longer where the machine is so busy that little has happened by then.
    while started.elapsed() < LASTS || kills <= 5 {
        // The owner's pace decides when the next one dies, so that it dies at some random step.
        assert_eq!(owner.hear().as_deref(), Some("round"), "a generation was removed by mistake");
        rounds += 1;
        if rounds % 4 == 0 {
            let victim = kills % removers.len();
            removers[victim].kill();
            removers[victim] = spawn("remover");
            kills += 1;
        }
        if rounds % 32 == 0 {
            owner.kill();
            owner = spawn("owner");
            kills += 1;
        }
    }
    drop(owner);
    drop(removers);
    println!("{} contested removals, {kills} kills, 0 wrong", rounds * NAMES);
    scratch.namespace().purge(&PurgeOptions::new()).expect("purged");
    assert_eq!(scratch.files(), [] as [&str; 0]);
}
