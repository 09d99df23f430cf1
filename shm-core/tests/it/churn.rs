//! Many processes create, open and remove the same few names: no error but the expected ones, and
//! nobody ever sees half a segment.

use std::sync::atomic::{AtomicU64, Ordering};

use shm_core::{
    Access, CreateError, Namespace, OpenError, PurgeOptions, Segment, SegmentName, SegmentOptions,
};

use crate::harness::{KIND, PAGE, Peer, Role, Scratch, Watchdog, name};

const PROCESSES: usize = 4;
const STEPS: u64 = 4000;
const WORDS: usize = (PAGE as usize - 512) / 8;

fn create(ns: &Namespace, name: &SegmentName) -> Result<Segment, CreateError> {
    SegmentOptions::new(KIND, PAGE).create(ns, name, |segment| {
        let map = segment.map(0..PAGE, Access::ReadWrite).expect("mapped");
        let stamp = stamp(segment);
        for word in map.slice_at::<AtomicU64>(512, WORDS).expect("in bounds") {
            word.store(stamp, Ordering::Relaxed);
        }
        Ok(())
    })
}

fn stamp(segment: &Segment) -> u64 {
    let bytes = segment.generation().to_bytes();
    u64::from_le_bytes(bytes[..8].try_into().expect("eight of sixteen")) | 1
}

fn check_whole(segment: &Segment) {
    let map = segment.map(0..PAGE, Access::ReadWrite).expect("mapped");
    let stamp = stamp(segment);
    let words = map.slice_at::<AtomicU64>(512, WORDS).expect("in bounds");
    assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == stamp), "half a segment");
}

/// A xorshift: the steps of a peer follow from its seed alone.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn churn(ns: &Namespace, seed: u64, steps: u64) -> [u64; 4] {
    let mut dice = Dice(seed);
    let names = [name("one"), name("two")];
    let mut done = [0; 4];
    for _ in 0..steps {
        let name = &names[dice.roll(2) as usize];
        match dice.roll(12) {
            0..=3 => match Segment::open(ns, name, Access::ReadWrite, KIND) {
                Ok(segment) => {
                    check_whole(&segment);
                    done[0] += 1;
                }
                Err(OpenError::NotFound { .. }) => {}
                Err(other) => panic!("open: {other}"),
            },
            4..=6 => match create(ns, name) {
                Ok(_) => done[1] += 1,
                Err(CreateError::AlreadyExists { .. }) => {}
                Err(other) => panic!("create: {other}"),
            },
            7..=9 => match ns.unlink(name).unwrap_or_else(|error| panic!("unlink: {error}")) {
                shm_core::Unlinked::Removed(_) => done[2] += 1,
                shm_core::Unlinked::Absent => {}
                replaced @ shm_core::Unlinked::Replaced(_) => {
                    panic!("none was named: {replaced:?}")
                }
            },
            10 => {
                let scan = ns.scan().expect("scanned");
                assert!(scan.skipped.is_empty(), "an unopenable name: {:?}", scan.skipped);
                done[3] += 1;
            }
            _ => {
                let report = ns.purge(&PurgeOptions::new()).expect("purged");
                assert!(report.skipped.is_empty(), "an unopenable name: {:?}", report.skipped);
                assert!(report.failed.is_empty(), "a failed purge: {:?}", report.failed);
                done[3] += 1;
            }
        }
    }
    done
}

#[test]
fn open_create_unlink_from_many_processes() {
    if let Some(role) = Role::mine() {
        Role::barrier("ready");
        let done = churn(&role.namespace, role.role.parse().expect("a seed"), STEPS);
        Role::say(&done.map(|count| count.to_string()).join(" "));
        return;
    }
    let _watchdog = Watchdog::start("churn");
    let scratch = Scratch::new("churn");
    let test = "churn::open_create_unlink_from_many_processes";
    let mut peers: Vec<_> = (1..=PROCESSES)
        .map(|peer| Peer::spawn(test, &(peer * 0x9e37_79b9).to_string(), &scratch))
        .collect();
    for peer in &mut peers {
        peer.expect("ready");
    }
    for peer in &mut peers {
        peer.say("go");
    }
    let mut sum = [0u64; 4];
    for mut peer in peers {
        let said = peer.hear().expect("no panic in the peer");
        for (sum, count) in sum.iter_mut().zip(said.split(' ')) {
            *sum += count.parse::<u64>().expect("a count");
        }
        peer.succeed();
    }
    let [opened, created, removed, scanned] = sum;
    println!("{opened} opened, {created} created, {removed} removed, {scanned} scans");
    assert!(sum.iter().all(|&count| count > 100), "too few met: {sum:?}");
    scratch.namespace().purge(&PurgeOptions::new()).expect("purged");
    assert_eq!(scratch.files(), [] as [&str; 0]);
}

#[test]
fn nothing_is_left_by_killed_processes_and_every_name_opens() {
    const KILLS: u64 = 60;
    if let Some(role) = Role::mine() {
        Role::say("ready");
        churn(&role.namespace, role.role.parse().expect("a seed"), u64::MAX);
        return;
    }
    let _watchdog = Watchdog::start("churn under kills");
    let scratch = Scratch::new("churn");
    let ns = scratch.namespace();
    let test = "churn::nothing_is_left_by_killed_processes_and_every_name_opens";
    let mut dice = Dice(0x5eed);
    let spawn = |seed: u64| {
        let mut peer = Peer::spawn(test, &seed.to_string(), &scratch);
        peer.expect("ready");
        peer
    };
    let mut peers: Vec<_> = (1..=3).map(|seed| spawn(seed * 0x1234_5678)).collect();
    let mut found = 0;
    for kill in 0..KILLS {
        let victim = &mut peers[dice.roll(3) as usize];
        // Not to wait for anything: to kill at another moment each time.
        std::thread::sleep(std::time::Duration::from_micros(dice.roll(3000)));
        victim.kill();
        for text in ["one", "two"] {
            match Segment::open(ns, &name(text), Access::ReadWrite, KIND) {
                Ok(segment) => {
                    check_whole(&segment);
                    found += 1;
                }
                Err(OpenError::NotFound { .. }) => {}
                Err(other) => panic!("after kill {kill}: {other}"),
            }
        }
        *victim = spawn((kill + 10) * 0x9e37_79b9);
    }
    drop(peers);
    let report = ns.purge(&PurgeOptions::new()).expect("purged");
    assert!(report.skipped.is_empty() && report.live.is_empty(), "{report:?}");
    assert_eq!(scratch.files(), [] as [&str; 0]);
    println!("{KILLS} kills, {found} segments found whole afterwards");
    assert!(found > 0, "the names were never there");
}
