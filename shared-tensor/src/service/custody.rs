//! What this process holds of what a server lent, so that a descriptor comes once per connection.
//!
//! `server/ledger.rs` tells the protocol. This is the other side of it: a table of regions by name,
//! each with its users. A region without users is kept until the server has agreed that it will not
//! name it without a descriptor again.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::client::Link;
use super::monitor::lock;
use super::reaper::{self, Errand};
use super::region::Region;
use super::wire::DecodeError;
use super::wire::messages::{Custody, CustodyAt, RegionEntry};

/// The users of a region; its end says that there are none.
pub(crate) struct Hold {
    link: Weak<Link>,
    custody: Custody,
    process: u32,
    waiting: Arc<AtomicUsize>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        // In a forked child there is nobody to tell.
        if self.process == std::process::id() && self.link.strong_count() > 0 {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            reaper::send(Errand::Unused(Weak::clone(&self.link), self.custody));
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    state: Mutex<State>,
    order: Mutex<()>,
    /// How many ends of uses the reaper has not seen to yet.
    waiting: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Custody, Entry>,
    to_confirm: Vec<Custody>,
    seen: Seen,
}

/// Which deliveries were taken in. Threads take in their own, in any order.
#[derive(Debug, Default)]
struct Seen {
    /// This one, and all before it.
    all_until: u64,
    beyond: BTreeSet<u64>,
}

/// How many deliveries may overtake one: more only if a server numbers them wrongly.
const OVERTAKING_MAX: usize = 65_536;

impl Seen {
    fn note(&mut self, serial: u64) {
        self.beyond.insert(serial);
        if self.beyond.len() > OVERTAKING_MAX {
            self.all_until = self.beyond.last().copied().unwrap_or(0);
        }
        let Self { all_until, beyond } = self;
        while let Some(first) = beyond.first().filter(|first| **first <= *all_until + 1) {
            *all_until = (*first).max(*all_until);
            beyond.pop_first();
        }
    }
}

#[derive(Debug)]
struct Entry {
    region: Region,
    users: Weak<Hold>,
    /// The last delivery that named it, of those seen.
    serial: u64,
    /// Whether the server was ever told that it is here: it may know, and has to be asked.
    is_confirmed: bool,
}

/// What may be done about a region without users.
pub(crate) enum Unused {
    /// Nothing: it is in use again, or gone.
    No,
    /// The server never knew: it is gone.
    Dropped(Region),
    /// The server has to be asked.
    Ask(CustodyAt),
    /// The server has to be asked when another thread has taken in what came before: that may name
    /// the region, too.
    Later,
}

impl Table {
    /// Held by who looks at the table for what to tell the server, until that is sent: the server is
    /// to hear of it in the order in which it was true.
    pub(crate) fn order(&self) -> MutexGuard<'_, ()> {
        lock(&self.order)
    }

    /// Takes in what a delivery names.
    pub(crate) fn receive(
        &self,
        link: &Weak<Link>,
        serial: u64,
        entries: &[RegionEntry],
        descriptors: Vec<OwnedFd>,
    ) -> Result<Vec<Region>, DecodeError> {
        // Dropped after the lock, whatever comes: the end of a use may take it, too.
        let mut held = Vec::with_capacity(entries.len().min(256));
        let mut known_before = Vec::new();
        let mut descriptors = descriptors.into_iter();
        let mut state = lock(&self.state);
        if !entries.is_empty() {
            state.seen.note(serial);
        }
        for (number, entry) in entries.iter().enumerate() {
            entry.check()?;
            if let Some(region) = entry.volatile() {
                held.push(region);
                continue;
            }
            let custody = entry.custody();
            if entry.is_attached() {
                let what = "descriptor";
                let fd = descriptors.next();
                let fd = fd.ok_or(DecodeError::Reference { what, number: number as u64 })?;
                let region =
                    Region::adopt(fd, entry.id, entry.place(), entry.bytes, entry.rights());
                let region = region.map_err(|error| DecodeError::Region(error.to_string()))?;
                // One that is here already was not known to be, when this was sent: it is confirmed
                // once more. A confirmation that is under way is not taken back by that.
                state.to_confirm.push(custody);
                match state.entries.entry(custody) {
                    Slot::Occupied(_) => known_before.push(region),
                    Slot::Vacant(slot) => {
                        let users = Weak::new();
                        slot.insert(Entry { region, users, serial, is_confirmed: false });
                    }
                }
            }
            let known = state.entries.get_mut(&custody);
            let known =
                known.ok_or(DecodeError::Reference { what: "a region", number: number as u64 })?;
            if known.region.bytes() != entry.bytes {
                return Err(DecodeError::Region("its length has changed".to_owned()));
            }
            known.serial = known.serial.max(serial);
            let users = known.users.upgrade().unwrap_or_else(|| {
                let (link, waiting) = (Weak::clone(link), Arc::clone(&self.waiting));
                Arc::new(Hold { link, custody, process: std::process::id(), waiting })
            });
            known.users = Arc::downgrade(&users);
            held.push(known.region.held(users));
        }
        drop(state);
        if descriptors.next().is_some() { Err(DecodeError::Surplus) } else { Ok(held) }
    }

    /// What the next request tells the server.
    pub(crate) fn to_confirm(&self) -> Vec<CustodyAt> {
        let mut state = lock(&self.state);
        let asked = std::mem::take(&mut state.to_confirm);
        let confirm = |custody| {
            let entry = state.entries.get_mut(&custody)?;
            entry.is_confirmed = true;
            Some(CustodyAt { custody, serial: entry.serial })
        };
        asked.into_iter().filter_map(confirm).collect()
    }

    /// What to do about a region whose users are said to be gone.
    pub(crate) fn unused(&self, custody: Custody) -> Unused {
        let what = self.what_of(custody);
        if matches!(what, Unused::No | Unused::Dropped(_)) {
            self.seen_to();
        }
        what
    }

    fn what_of(&self, custody: Custody) -> Unused {
        let mut state = lock(&self.state);
        let Some(entry) = state.entries.get(&custody) else { return Unused::No };
        if entry.users.strong_count() > 0 {
            return Unused::No;
        }
        let (is_confirmed, serial) = (entry.is_confirmed, entry.serial);
        if is_confirmed && serial > state.seen.all_until {
            return Unused::Later;
        }
        // A confirmation that came after the question would make the server believe in it again.
        state.to_confirm.retain(|known| *known != custody);
        if is_confirmed {
            return Unused::Ask(CustodyAt { custody, serial });
        }
        let gone = state.entries.remove(&custody);
        gone.map_or(Unused::No, |entry| Unused::Dropped(entry.region))
    }

    /// The server has agreed to [`Unused::Ask`]; the region, if it goes now.
    pub(crate) fn forgotten(&self, at: CustodyAt) -> Option<Region> {
        self.seen_to();
        let mut state = lock(&self.state);
        // Named again since: it came with a descriptor, and may be confirmed again by now.
        state.entries.get(&at.custody).filter(|entry| entry.serial == at.serial)?;
        state.entries.remove(&at.custody).map(|entry| entry.region)
    }

    fn seen_to(&self) {
        let less = |count: usize| count.checked_sub(1);
        let _ = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// How many uses have ended that the reaper has not seen to yet: at most so many regions are kept
    /// without a user.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.state).entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::region::Rights;

    #[test]
    fn what_was_overtaken_is_waited_for() {
        let (table, region) = (Table::default(), Region::allocate(1).unwrap());
        let entry = |is_attached| RegionEntry::new(&region, Rights::Read, is_attached);
        let take = |serial, is_attached: bool| {
            let own = region.lend(Rights::Read).unwrap().unwrap();
            let descriptors = is_attached.then(|| own.try_clone().unwrap());
            let descriptors = descriptors.into_iter().collect();
            table.receive(&Weak::new(), serial, &[entry(is_attached)], descriptors).unwrap()
        };
        let custody = entry(true).custody();
        drop(take(1, true));
        table.to_confirm();
        // The thread that the second is for has not got to it.
        drop(take(3, false));
        assert!(matches!(table.unused(custody), Unused::Later));
        drop(take(2, false));
        assert!(matches!(table.unused(custody), Unused::Ask(at) if at.serial == 3));
    }

    #[test]
    fn deliveries_are_counted_in_any_order() {
        let mut seen = Seen::default();
        for (serial, all_until) in [(2, 0), (4, 0), (1, 2), (1, 2), (3, 4), (5, 5)] {
            seen.note(serial);
            assert_eq!(seen.all_until, all_until, "{serial}");
        }
        assert!(seen.beyond.is_empty());
        (0..2 * OVERTAKING_MAX as u64).for_each(|number| seen.note(10 + 2 * number));
        assert!(seen.beyond.len() <= OVERTAKING_MAX && seen.all_until > 5);
    }
}
