//! The two ends of "a descriptor travels once", over two streams that deliver in order and at any time, to
//! a client whose threads take in what came in any order.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Weak;

use proptest::prelude::*;

use super::custody::{Table, Unused};
use super::region::{Region, Rights};
use super::server::Ledger;
use super::wire::messages::{Custody, CustodyAt, RegionEntry};

const REGIONS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The server delivers a result that lies in some of the regions.
    Deliver([bool; REGIONS]),
    /// A thread of the client takes in what came for it, perhaps before another one does that was to
    /// be quicker; of a call that was given up it keeps nothing.
    Receive { which: usize, is_wanted: bool },
    /// The client lets go of a result.
    LetGo(usize),
    /// The client makes a call, which confirms what it has.
    Call,
    /// The client asks to be forgotten as a holder of a region that nobody uses.
    Forget(usize),
    /// The server takes in what came first; a call that it refuses confirms nothing.
    Serve { is_refused: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<[bool; REGIONS]>().prop_map(Step::Deliver),
        4 => (prop_oneof![Just(0_usize), 0_usize..4], any::<bool>())
            .prop_map(|(which, is_wanted)| Step::Receive { which, is_wanted }),
        3 => (0_usize..8).prop_map(Step::LetGo),
        2 => Just(Step::Call),
        3 => (0..REGIONS).prop_map(Step::Forget),
        5 => prop::bool::weighted(0.2).prop_map(|is_refused| Step::Serve { is_refused }),
    ]
}

enum ToClient {
    Delivery { serial: u64, entries: Vec<RegionEntry>, descriptors: Vec<OwnedFd> },
    Forgotten(CustodyAt, bool),
}

enum ToServer {
    Confirm(Vec<CustodyAt>),
    Forget(CustodyAt),
}

struct World {
    regions: Vec<Region>,
    ledger: Ledger,
    table: Table,
    to_client: VecDeque<ToClient>,
    to_server: VecDeque<ToServer>,
    /// What the client has of results that it uses.
    used: Vec<Vec<Region>>,
}

impl World {
    fn new() -> Self {
        let regions = (0..REGIONS).map(|_| Region::allocate(4096).expect("a page")).collect();
        Self {
            regions,
            ledger: Ledger::default(),
            table: Table::default(),
            to_client: VecDeque::new(),
            to_server: VecDeque::new(),
            used: Vec::new(),
        }
    }

    fn custody(&self, region: usize) -> Custody {
        RegionEntry::new(&self.regions[region], Rights::Write, false).custody()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Deliver(named) => self.deliver(named),
            Step::Receive { which, is_wanted } => self.receive(which, is_wanted),
            Step::LetGo(at) if !self.used.is_empty() => {
                drop(self.used.swap_remove(at % self.used.len()));
            }
            Step::LetGo(_) => {}
            Step::Call => {
                let confirmed = self.table.to_confirm();
                self.to_server.push_back(ToServer::Confirm(confirmed));
            }
            Step::Forget(region) => {
                if let Unused::Ask(at) = self.table.unused(self.custody(region)) {
                    self.to_server.push_back(ToServer::Forget(at));
                }
            }
            Step::Serve { is_refused } => match self.to_server.pop_front() {
                Some(ToServer::Confirm(_)) if is_refused => {}
                Some(ToServer::Confirm(confirmed)) => {
                    for at in confirmed {
                        self.ledger.confirm(at);
                    }
                }
                Some(ToServer::Forget(at)) => {
                    let is_forgotten = self.ledger.forget(at);
                    self.to_client.push_back(ToClient::Forgotten(at, is_forgotten));
                }
                None => {}
            },
        }
    }

    fn deliver(&mut self, named: [bool; REGIONS]) {
        let (mut entries, mut descriptors) = (Vec::new(), Vec::new());
        for region in self.regions.iter().zip(named).filter(|it| it.1).map(|it| it.0) {
            let custody = RegionEntry::new(region, Rights::Write, false).custody();
            let is_attached = !self.ledger.holds(custody);
            if is_attached {
                let own = region.lend(Rights::Write).expect("writable").expect("one");
                descriptors.push(own.as_fd().try_clone_to_owned().expect("a descriptor"));
            }
            entries.push(RegionEntry::new(region, Rights::Write, is_attached));
        }
        let serial = self.ledger.next_serial();
        if !entries.is_empty() {
            self.ledger.sent(entries.iter().map(RegionEntry::custody));
        }
        self.to_client.push_back(ToClient::Delivery { serial, entries, descriptors });
    }

    fn receive(&mut self, which: usize, is_wanted: bool) {
        let which = which % self.to_client.len().max(1);
        match self.to_client.remove(which) {
            Some(ToClient::Delivery { serial, entries, descriptors }) => {
                let held = self.table.receive(&Weak::new(), serial, &entries, descriptors);
                let held = held.expect("the client has what the server names");
                if is_wanted {
                    self.used.push(held);
                }
            }
            Some(ToClient::Forgotten(at, true)) => drop(self.table.forgotten(at)),
            Some(ToClient::Forgotten(_, false)) | None => {}
        }
    }

    /// Everything that is under way comes, and nobody uses anything any more.
    fn come_to_rest(&mut self) {
        self.used.clear();
        // Each round takes in what came; an answer may be no as long as something was on its way.
        for _ in 0..4 {
            while !self.to_client.is_empty() || !self.to_server.is_empty() {
                self.step(Step::Receive { which: 0, is_wanted: false });
                self.step(Step::Serve { is_refused: false });
            }
            for region in 0..REGIONS {
                self.step(Step::Forget(region));
            }
        }
    }
}

proptest! {
    #[test]
    fn the_server_names_nothing_that_the_client_does_not_have(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.come_to_rest();
        prop_assert_eq!(world.table.len(), 0, "what nobody uses goes");
        prop_assert_eq!(world.ledger.len(), 0, "and the server knows it");
    }
}
