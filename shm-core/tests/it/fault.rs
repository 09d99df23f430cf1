//! Every kernel call fails, or is the process's last: call 1, call 2, and so on, until a scenario
//! completes without reaching the fault. After each run nothing unopenable is left, and after a
//! purge nothing at all.

use std::io::Read;
use std::process::{ExitStatus, Stdio};

use shm_core::{
    Access, Namespace, Populate, PurgeOptions, Region, RegionOptions, Segment, SegmentOptions,
};

use crate::harness::{KIND, PAGE, PeerCommand, Role, Scratch, alone, name};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn create(ns: &Namespace) -> Outcome {
    let options = SegmentOptions::new(KIND, 4 * PAGE).mode(0o660).group(0);
    let segment = options.create(ns, &name("a"), |segment| {
        let map = segment.map(0..PAGE, Access::ReadWrite).map_err(std::io::Error::other)?;
        map.write_from(512, b"whole").map_err(std::io::Error::other)
    })?;
    drop(segment);
    Ok(())
}

fn open(ns: &Namespace) -> Outcome {
    let segment = Segment::open(ns, &name("old"), Access::ReadWrite, KIND)?;
    segment.reserve(0..segment.total_bytes())?;
    let map = segment.map(0..segment.total_bytes(), Access::ReadWrite)?;
    map.populate(0..map.len())?;
    Populate::new(map).spawn()?.wait();
    segment.is_attached()?;
    segment.is_current()?;
    segment.reopen()?;
    Ok(())
}

fn life(ns: &Namespace) -> Outcome {
    create(ns)?;
    let segment = Segment::open(ns, &name("a"), Access::ReadOnly, KIND)?;
    segment.unlink()?;
    let options = SegmentOptions::new(KIND, PAGE);
    options.open_or_create(ns, &name("a"), |_| Ok(()))?;
    options.open_or_create(ns, &name("old"), |_| Ok(()))?;
    ns.unlink(&name("a"))?;
    Ok(())
}

fn purge(ns: &Namespace) -> Outcome {
    ns.purge(&PurgeOptions::new().dry_run(true))?;
    ns.purge(&PurgeOptions::new())?;
    Ok(())
}

fn region(_: &Namespace) -> Outcome {
    let mut region = Region::create("r", PAGE, &RegionOptions::new().huge_pages(true))?;
    region.map(0..region.total_bytes(), Access::ReadWrite)?.write_from(0, b"x")?;
    region.seal()?;
    Region::from_fd(region.read_only_fd()?)?;
    Ok(())
}

fn play(role: &Role) {
    let scenario: fn(&Namespace) -> Outcome = match role.role.as_str() {
        "create" => create,
        "open" => open,
        "life" => life,
        "purge" => purge,
        _ => region,
    };
    match scenario(&role.namespace) {
        Ok(()) => Role::say("ok"),
        Err(error) => Role::say(&format!("error: {error}")),
    }
}

/// Runs one scenario with a fault at call `at`; tells how it ended and whether it met the fault.
fn run(test: &str, scenario: &str, route: &str, effect: &str, at: u32, dir: &Scratch) -> Ended {
    let mut command = PeerCommand::new(test, scenario, dir.directory());
    let inner = command.command();
    inner.env("ST_FAULT", effect).env("ST_FAULT_AT", at.to_string());
    inner.env("ST_CREATE_ROUTE", route).stderr(Stdio::piped());
    let mut peer = command.spawn();
    let said = peer.hear();
    let mut errors = String::new();
    peer.stderr().read_to_string(&mut errors).expect("text");
    Ended { status: peer.end(), said, met: errors.contains("fault: ") }
}

#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    said: Option<String>,
    met: bool,
}

/// Whatever happened: names open, contents are whole, and a purge leaves nothing.
fn check_integrity(scratch: &Scratch, context: &str) {
    let ns = scratch.namespace();
    let scan = ns.scan().expect("scanned");
    assert!(scan.skipped.is_empty(), "{context}: unopenable {:?}", scan.skipped);
    for listing in &scan.segments {
        assert!(!listing.attached, "{context}: {listing:?} is attached by nobody alive");
        let segment = Segment::open(ns, &listing.name, Access::ReadWrite, KIND)
            .unwrap_or_else(|error| panic!("{context}: {error}"));
        if listing.name == name("a") && segment.total_bytes() == 4 * PAGE {
            let map = segment.map(0..PAGE, Access::ReadOnly).expect("mapped");
            let mut text = [0; 5];
            map.read_into(512, &mut text).expect("in bounds");
            assert_eq!(&text, b"whole", "{context}: named before it was whole");
        }
    }
    let report = ns.purge(&PurgeOptions::new()).expect("purged");
    assert!(report.failed.is_empty() && report.live.is_empty(), "{context}: {report:?}");
    assert_eq!(scratch.files(), [] as [&str; 0], "{context}: left after a purge");
}

fn every_fault(test: &'static str, effects: &[&str]) {
    if let Some(role) = Role::of_peer() {
        return play(&role);
    }
    // In a process of its own, because the check asks who is attached.
    alone(test, || every_scenario(test, effects));
}

fn every_scenario(test: &str, effects: &[&str]) {
    for (scenario, routes) in [
        ("create", &["", "proc", "temporary", "link"][..]),
        ("life", &["", "temporary", "link"]),
        ("open", &[""]),
        ("purge", &[""]),
        ("region", &[""]),
    ] {
        for (route, effect) in routes.iter().flat_map(|r| effects.iter().map(move |e| (*r, *e))) {
            let mut faults = 0;
            loop {
                let at = faults + 1;
                let scratch = Scratch::new("fault");
                let ns = scratch.namespace();
                SegmentOptions::new(KIND, 2 * PAGE)
                    .create(ns, &name("old"), |_| Ok(()))
                    .expect("created");
                let context = format!("{scenario} by `{route}`, {effect} at call {at}");
                let ended = run(test, scenario, route, effect, at, &scratch);
                let killed = std::os::unix::process::ExitStatusExt::signal(&ended.status);
                match killed {
                    None => assert!(ended.status.success(), "{context}: {ended:?}"),
                    Some(signal) => assert_eq!((signal, effect), (9, "kill"), "{context}"),
                }
                check_integrity(&scratch, &context);
                if !ended.met {
                    assert_eq!(ended.said.as_deref(), Some("ok"), "{context}: {ended:?}");
                    break;
                }
                faults += 1;
            }
            println!("{scenario} by `{route}`: {effect} at each of {faults} calls");
            assert!(faults > 5, "{scenario} makes more calls than {faults}");
        }
    }
}

#[test]
fn a_kill_before_any_call_leaves_nothing_unopenable() {
    every_fault("fault::a_kill_before_any_call_leaves_nothing_unopenable", &["kill"]);
}

#[test]
fn an_error_of_any_call_leaves_nothing_unopenable() {
    every_fault("fault::an_error_of_any_call_leaves_nothing_unopenable", &["error", "error-from"]);
}
