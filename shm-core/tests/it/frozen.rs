//! A process is frozen before call 1, 2, and so on of an operation; others act meanwhile; then it
//! goes on. Every race between two steps is played once, on purpose.

use shm_core::{
    Access, Current, Generation, Namespace, OpenError, PurgeOptions, Segment, SegmentOptions,
    UnlinkError, Unlinked,
};

use crate::harness::{KIND, PAGE, Peer, PeerCommand, Role, Scratch, alone, name};

fn create(ns: &Namespace) -> Segment {
    SegmentOptions::new(KIND, PAGE).create(ns, &name("a"), |_| Ok(())).expect("created")
}

/// The generation that a remover was to remove, looked up before it started.
const STALE: &str = "SHM_CORE_TEST_STALE";

/// The roles that are frozen.
fn act(role: &Role) {
    let ns = &role.namespace;
    match role.role.as_str() {
        "remover" => {
            let hex = std::env::var(STALE).expect("told by the test");
            let stale = u128::from_str_radix(&hex, 16).expect("a generation").to_be_bytes();
            let stale = Generation::from_bytes(stale);
            ns.unlink_generation(&name("a"), stale).expect("one or the other");
        }
        "purger" => drop(ns.purge(&PurgeOptions::new()).expect("purged")),
        "opener" => {
            let opened = Segment::open(ns, &name("a"), Access::ReadOnly, KIND).expect("opened");
            Role::say(&opened.generation().to_string());
        }
        "creator" => {
            let made = create(ns);
            Role::barrier(&made.generation().to_string());
        }
        other => panic!("no role {other}"),
    }
}

/// The roles that act meanwhile.
fn meanwhile(role: &Role) -> bool {
    let ns = &role.namespace;
    match role.role.as_str() {
        // Tells the generation that it put in the place of the old one.
        "replacer" => match ns.unlink(&name("a")) {
            Ok(Unlinked::Removed(_) | Unlinked::Absent) => {
                Role::say(&create(ns).generation().to_string());
            }
            Err(UnlinkError::Busy { .. }) => Role::say("busy"),
            other => panic!("{other:?}"),
        },
        // Holds what it opened, and tells whether that kept its name.
        "holder" => match Segment::open(ns, &name("a"), Access::ReadOnly, KIND) {
            Ok(segment) => {
                Role::barrier("held");
                let kept = segment.is_current().expect("a stat") == Current::Yes;
                Role::say(if kept { "kept" } else { "lost" });
            }
            Err(OpenError::NotFound { .. }) => Role::say("absent"),
            Err(OpenError::Busy { .. }) => Role::say("busy"),
            Err(other) => panic!("{other}"),
        },
        _ => return false,
    }
    true
}

fn play(role: &Role) {
    if !meanwhile(role) {
        act(role);
    }
}

fn actor(test: &str, role: &str, scratch: &Scratch) -> Peer {
    let mut command = PeerCommand::new(test, role, scratch.directory());
    // Whoever is frozen does not get out of the way, so waiting long is no use.
    command.command().env("ST_PATIENCE_MS", "20");
    command.spawn()
}

/// Starts `role`, to meet `effect` at its call `at`.
fn start(test: &str, role: &str, effect: &str, at: &str, scratch: &Scratch) -> Peer {
    let mut command = PeerCommand::new(test, role, scratch.directory());
    let route = if role == "creator" { "temporary" } else { "" };
    command
        .command()
        .env("ST_FAULT", effect)
        .env("ST_FAULT_AT", at)
        .env("ST_CREATE_ROUTE", route)
        .env(STALE, current(scratch).concat());
    command.spawn()
}

/// Runs `role` frozen before its call `at`; `None`: it ended without that many calls.
fn freeze(test: &str, role: &str, at: usize, scratch: &Scratch) -> Option<Peer> {
    let mut peer = start(test, role, "stop", &at.to_string(), scratch);
    if peer.froze() {
        return Some(peer);
    }
    peer.succeed();
    None
}

/// A directory in which `role` finds what it acts on: a dead segment, or for the creator nothing.
fn set_up(role: &str) -> Scratch {
    let scratch = Scratch::new("frozen");
    if role != "creator" {
        create(scratch.namespace());
    }
    scratch
}

/// Whether a purge leaves nothing.
fn clean_up(scratch: &Scratch, context: &str) {
    scratch.namespace().purge(&PurgeOptions::new()).expect("purged");
    assert_eq!(scratch.files(), [] as [&str; 0], "{context}");
}

/// Plays `scene` with `role` frozen before each of its calls.
fn at_every_call(test: &'static str, role: &str, scene: impl Fn(&Scratch, Peer, usize)) {
    // In a process of its own, because purges ask who is attached.
    alone(test, || at_calls_from_one(test, role, &scene));
}

fn at_calls_from_one(test: &str, role: &str, scene: &impl Fn(&Scratch, Peer, usize)) {
    let calls = calls_of(test, role);
    for at in 1..=calls {
        let scratch = set_up(role);
        let frozen = freeze(test, role, at, &scratch).expect("a call of the trial");
        scene(&scratch, frozen, at);
        clean_up(&scratch, &format!("{role} frozen at call {at}"));
    }
    println!("{role} frozen before each of {calls} calls");
}

/// How many calls `role` makes when nobody disturbs it, by killing it before each.
fn calls_of(test: &str, role: &str) -> usize {
    let killed = (1..).take_while(|at| {
        let trial = set_up(role);
        let ended = start(test, role, "kill", &at.to_string(), &trial).end().success();
        clean_up(&trial, &format!("{role} killed at call {at}"));
        !ended
    });
    let calls = killed.count();
    assert!(calls >= 5, "{role} makes more calls than {calls}");
    calls
}

fn current(scratch: &Scratch) -> Vec<String> {
    let listed = scratch.namespace().list().expect("listed");
    listed.iter().map(|listing| listing.generation.to_string()).collect()
}

#[test]
fn a_late_remover_never_takes_the_next_generation() {
    const TEST: &str = "frozen::a_late_remover_never_takes_the_next_generation";
    if let Some(role) = Role::of_peer() {
        return play(&role);
    }
    at_every_call(TEST, "remover", |scratch, mut remover, at| {
        let mut replacer = actor(TEST, "replacer", scratch);
        let put = replacer.hear().expect("an answer");
        replacer.succeed();
        remover.thaw();
        remover.succeed();
        let expected = if put == "busy" { vec![] } else { vec![put] };
        assert_eq!(current(scratch), expected, "frozen at call {at}");
    });
}

#[test]
fn a_late_purge_never_takes_what_was_opened_meanwhile() {
    const TEST: &str = "frozen::a_late_purge_never_takes_what_was_opened_meanwhile";
    if let Some(role) = Role::of_peer() {
        return play(&role);
    }
    at_every_call(TEST, "purger", |scratch, mut purger, at| {
        let mut holder = actor(TEST, "holder", scratch);
        let held = holder.hear().expect("an answer");
        purger.thaw();
        purger.succeed();
        if held == "held" {
            holder.say("look");
            assert_eq!(holder.hear().as_deref(), Some("kept"), "frozen at call {at}");
        } else {
            assert_eq!(current(scratch), [] as [&str; 0], "{held}, frozen at call {at}");
        }
        holder.succeed();
    });
}

#[test]
fn a_late_opener_gets_what_the_name_leads_to() {
    const TEST: &str = "frozen::a_late_opener_gets_what_the_name_leads_to";
    if let Some(role) = Role::of_peer() {
        return play(&role);
    }
    at_every_call(TEST, "opener", |scratch, mut opener, at| {
        let mut replacer = actor(TEST, "replacer", scratch);
        let put = replacer.hear().expect("an answer");
        replacer.succeed();
        opener.thaw();
        assert_eq!(opener.hear(), Some(put), "frozen at call {at}");
        opener.succeed();
    });
}

/// On the route with a temporary name, which a purge could mistake for a dead creator's.
#[test]
fn a_purge_spares_a_slow_creator() {
    const TEST: &str = "frozen::a_purge_spares_a_slow_creator";
    if let Some(role) = Role::of_peer() {
        return play(&role);
    }
    at_every_call(TEST, "creator", |scratch, mut creator, at| {
        actor(TEST, "purger", scratch).succeed();
        creator.thaw();
        let made = creator.hear().unwrap_or_else(|| panic!("failed, frozen at call {at}"));
        assert_eq!(current(scratch), [made], "frozen at call {at}");
        creator.succeed();
    });
}

/// The last call of a purge that meets a creator frozen before its call `at`.
fn last_call_of_a_purge(test: &str, at: usize) -> usize {
    let scratch = set_up("creator");
    let mut creator = start(test, "creator", "stop", &at.to_string(), &scratch);
    assert!(creator.froze(), "the creator makes this call");
    // Each is dropped, which kills it, so that its locks are not in the next one's way.
    let frozen = (1..).take_while(|&call| freeze(test, "purger", call, &scratch).is_some());
    let last = frozen.count();
    drop(creator);
    clean_up(&scratch, "a killed creator");
    last
}

/// A creator pauses before one call and again before a later one. A purge has looked during the
/// first pause and removes during the second. Whatever the two calls, the creator succeeds.
#[test]
fn a_slow_purge_and_a_slow_creator_agree() {
    const TEST: &str = "frozen::a_slow_purge_and_a_slow_creator_agree";
    if let Some(role) = Role::of_peer() {
        return play(&role);
    }
    alone(TEST, || {
        let calls = calls_of(TEST, "creator");
        for at in 1..calls {
            let last = last_call_of_a_purge(TEST, at);
            for later in at + 1..=calls {
                let scratch = set_up("creator");
                let pauses = format!("{at},{later}");
                let mut creator = start(TEST, "creator", "stop", &pauses, &scratch);
                assert!(creator.froze(), "before {at}");
                let purger = freeze(TEST, "purger", last, &scratch);
                creator.thaw();
                assert!(creator.froze(), "before {later}");
                if let Some(mut purger) = purger {
                    purger.thaw();
                    purger.succeed();
                }
                creator.thaw();
                let made = creator.hear().unwrap_or_else(|| panic!("failed, paused at {pauses}"));
                assert_eq!(current(&scratch), [made], "paused at {pauses}");
                creator.succeed();
                clean_up(&scratch, &pauses);
            }
        }
        println!("every two of {calls} calls of a creator, with a purge in between");
    });
}
