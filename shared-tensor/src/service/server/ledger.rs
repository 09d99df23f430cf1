//! What one client holds, so that a descriptor travels to it once.
//!
//! The server counts its deliveries that name regions. A client that has taken one in confirms the
//! regions with its next call; only then does the server name them without a descriptor, and notes
//! with which delivery it did so last. A client that lets go of a region asks to be forgotten, with
//! the last delivery that it has seen name it, and keeps the region until the answer. The answer is
//! no if there was a later one: it is on its way, before the answer on the same stream.
//!
//! So nothing that crosses or gets lost can make a server name what the client does not have:
//! - a delivery lost with a cancelled call was not confirmed, or named what the client keeps;
//! - a lost confirmation costs a descriptor that is sent once more;
//! - "forgotten" is said only if no delivery since the last one seen has named the region bare.
//!
//! Deliveries are numbered and sent under one lock, so that their numbers are in the order of the
//! stream.

use std::collections::HashMap;

use crate::service::wire::messages::{Custody, CustodyAt};

/// What a client confirms beyond that is not noted, and is sent with a descriptor each time.
const HELD_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    serial: u64,
    /// What is confirmed, with the serial of the last delivery that named it.
    held: HashMap<Custody, u64>,
}

impl Ledger {
    /// The number of the next delivery.
    pub(crate) fn next_serial(&self) -> u64 {
        self.serial + 1
    }

    pub(crate) fn holds(&self, custody: Custody) -> bool {
        self.held.contains_key(&custody)
    }

    /// The next delivery was sent, and named these.
    pub(crate) fn sent(&mut self, named: impl IntoIterator<Item = Custody>) {
        self.serial += 1;
        for custody in named {
            if let Some(last) = self.held.get_mut(&custody) {
                *last = self.serial;
            }
        }
    }

    /// The client has it, as of that delivery.
    pub(crate) fn confirm(&mut self, at: CustodyAt) {
        // A number of a delivery to come would make the client's next word count as the last one.
        if at.serial <= self.serial && self.held.len() < HELD_MAX {
            let last = self.held.entry(at.custody).or_insert(at.serial);
            *last = at.serial.max(*last);
        }
    }

    /// Whether the client may let go: it has seen the last delivery that named the region bare.
    pub(crate) fn forget(&mut self, at: CustodyAt) -> bool {
        match self.held.get(&at.custody) {
            Some(last) if *last > at.serial => false,
            _ => {
                self.held.remove(&at.custody);
                true
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }
}
