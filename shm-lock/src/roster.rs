//! The participant table: who takes part, in memory that every participant writes.
//!
//! An entry is empty, *claiming* (its new owner is writing it) or published. Ids come from one
//! counter and are never used twice, so an id is proof of identity where a pid is not. An entry
//! changes hands only by compare-and-swap from an id whose holder is gone.

use crate::sync::atomic::{AtomicU64, Ordering, fence};

/// The most participants that one lock word can tell apart.
pub const PARTICIPANTS_MAX: usize = 1022;

/// The largest id: a slot and an id fit one 64-bit word.
pub(crate) const ID_MAX: u64 = (1 << 48) - 1;

/// Marks an entry whose new owner is still writing it.
const CLAIMING: u64 = 1 << 63;

/// SYNC: entry-published. Whoever reads an id also reads what was written before it.
const PUBLISH: Ordering =
    if cfg!(st_mutant = "entry_published_early") { Ordering::Relaxed } else { Ordering::Release };

/// One entry of the participant table: 128 bytes, all-zero means never used.
///
/// Each entry has cache lines of its own, because its owner writes it often.
#[derive(Debug)]
#[cfg_attr(not(loom), repr(C, align(128)))]
#[cfg_attr(loom, repr(C))]
pub struct Participant {
    id: AtomicU64,
    pid: AtomicU64,
    uid: AtomicU64,
    start_ticks: AtomicU64,
    pid_namespace: AtomicU64,
    time_namespace: AtomicU64,
    /// Kept for a size-independent signal across pid namespaces, should one be added: zero today.
    life: AtomicU64,
    /// How many threads of this participant sleep on the lock.
    waiting: AtomicU64,
    reserved: [AtomicU64; 8],
}

/// The head of the participant table: 128 bytes, all-zero means that nobody ever joined.
#[derive(Debug)]
#[cfg_attr(not(loom), repr(C, align(128)))]
#[cfg_attr(loom, repr(C))]
pub struct Roster {
    /// The last id given out.
    last_id: AtomicU64,
    /// One more than the highest slot that was ever used.
    high_water: AtomicU64,
    reserved: [AtomicU64; 14],
}

#[cfg(not(loom))]
const _: () = {
    use std::mem::{align_of, offset_of, size_of};
    assert!(size_of::<Participant>() == 128 && align_of::<Participant>() == 128);
    assert!(offset_of!(Participant, id) == 0);
    assert!(offset_of!(Participant, pid) == 8);
    assert!(offset_of!(Participant, uid) == 16);
    assert!(offset_of!(Participant, start_ticks) == 24);
    assert!(offset_of!(Participant, pid_namespace) == 32);
    assert!(offset_of!(Participant, time_namespace) == 40);
    assert!(offset_of!(Participant, life) == 48);
    assert!(offset_of!(Participant, waiting) == 56);
    assert!(offset_of!(Participant, reserved) == 64);
    assert!(size_of::<Roster>() == 128 && align_of::<Roster>() == 128);
    assert!(offset_of!(Roster, last_id) == 0);
    assert!(offset_of!(Roster, high_water) == 8);
    assert!(size_of::<crate::LockWord>() == 4 && align_of::<crate::LockWord>() == 4);
};

/// Who a process is, as far as another one may judge by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The process, in its own pid namespace.
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    /// Field 22 of its stat file, in its own time namespace; 0 if it could not be read.
    pub(crate) start_ticks: u64,
    /// Inode of its pid namespace; 0 if it could not be read.
    pub(crate) pid_namespace: u64,
    /// Inode of its time namespace; 0 if it could not be read.
    pub(crate) time_namespace: u64,
}

/// What an entry says at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Empty,
    /// Being written by `id`: nothing else in it means anything yet.
    Claiming {
        id: u64,
    },
    Published {
        id: u64,
    },
}

impl Entry {
    pub(crate) fn id(self) -> Option<u64> {
        match self {
            Self::Empty => None,
            Self::Claiming { id } | Self::Published { id } => Some(id),
        }
    }

    fn from_word(word: u64) -> Self {
        match (word & !CLAIMING, word & CLAIMING != 0) {
            (0, _) => Self::Empty,
            (id, true) => Self::Claiming { id },
            (id, false) => Self::Published { id },
        }
    }

    fn to_word(self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Claiming { id } => id | CLAIMING,
            Self::Published { id } => id,
        }
    }
}

impl Participant {
    /// The id of whoever uses the entry or is about to; 0 if nobody does.
    pub fn id(&self) -> u64 {
        Entry::from_word(self.id.load(Ordering::Acquire)).id().unwrap_or(0)
    }

    /// An entry that was never used.
    pub fn new() -> Self {
        Self {
            id: AtomicU64::new(0),
            pid: AtomicU64::new(0),
            uid: AtomicU64::new(0),
            start_ticks: AtomicU64::new(0),
            pid_namespace: AtomicU64::new(0),
            time_namespace: AtomicU64::new(0),
            life: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            reserved: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    pub(crate) fn entry(&self) -> Entry {
        // SYNC: entry-published.
        Entry::from_word(self.id.load(Ordering::Acquire))
    }

    /// Moves the entry from `found` to claiming for `id`; false if it has changed since.
    pub(crate) fn claim(&self, found: Entry, id: u64) -> bool {
        let claimed = self
            .id
            .compare_exchange(
                found.to_word(),
                Entry::Claiming { id }.to_word(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_ok();
        // SYNC: entry-torn. A reader that sees any field written from here on must also see, when
        // it looks at the id again, that the entry has changed hands.
        fence(Ordering::Release);
        claimed
    }

    /// Writes who owns the claimed entry, then makes it valid.
    pub(crate) fn publish(&self, id: u64, identity: &Identity) {
        self.pid.store(identity.pid.into(), Ordering::Relaxed);
        self.uid.store(identity.uid.into(), Ordering::Relaxed);
        self.start_ticks.store(identity.start_ticks, Ordering::Relaxed);
        self.pid_namespace.store(identity.pid_namespace, Ordering::Relaxed);
        self.time_namespace.store(identity.time_namespace, Ordering::Relaxed);
        self.life.store(0, Ordering::Relaxed);
        self.waiting.store(0, Ordering::Relaxed);
        self.id.store(id, PUBLISH);
    }

    /// Empties the entry if it still belongs to `id`.
    pub(crate) fn leave(&self, id: u64) {
        // Failure means that somebody saw our byte free and claimed the entry: it is theirs.
        for held in [Entry::Published { id }, Entry::Claiming { id }] {
            let _ =
                self.id.compare_exchange(held.to_word(), 0, Ordering::Release, Ordering::Relaxed);
        }
    }

    /// The identity published by `id`, unless the entry is not, or no longer, that of `id`.
    pub(crate) fn identity_of(&self, id: u64) -> Option<Identity> {
        if self.entry() != (Entry::Published { id }) {
            return None;
        }
        let narrow = |word: &AtomicU64| word.load(Ordering::Relaxed) as u32;
        let identity = Identity {
            pid: narrow(&self.pid),
            uid: narrow(&self.uid),
            start_ticks: self.start_ticks.load(Ordering::Relaxed),
            pid_namespace: self.pid_namespace.load(Ordering::Relaxed),
            time_namespace: self.time_namespace.load(Ordering::Relaxed),
        };
        // SYNC: entry-torn. Ids are never reused, so an unchanged id means unchanged fields.
        if !cfg!(st_mutant = "torn_entry_unfenced") {
            fence(Ordering::Acquire);
        }
        (self.id.load(Ordering::Relaxed) == id).then_some(identity)
    }

    pub(crate) fn waiting(&self) -> &AtomicU64 {
        &self.waiting
    }
}

impl Default for Participant {
    fn default() -> Self {
        Self::new()
    }
}

impl Roster {
    /// A table that nobody has joined.
    pub fn new() -> Self {
        Self {
            last_id: AtomicU64::new(0),
            high_water: AtomicU64::new(0),
            reserved: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// How many slots have ever been used: entries from here on were never touched.
    #[inline]
    pub fn high_water(&self) -> usize {
        // SYNC: high-water. Whoever sees a participant act also sees its slot counted here.
        usize::try_from(self.high_water.load(Ordering::Acquire)).unwrap_or(usize::MAX)
    }

    pub(crate) fn raise_high_water(&self, slots: usize) {
        // SYNC: high-water.
        self.high_water.fetch_max(slots as u64, Ordering::AcqRel);
    }

    /// A fresh id, or what the damaged counter said.
    pub(crate) fn next_id(&self) -> Result<u64, u64> {
        // Relaxed: an id orders nothing, it only has to be unique.
        let id = self.last_id.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if id == 0 || id > ID_MAX { Err(id) } else { Ok(id) }
    }
}

impl Default for Roster {
    fn default() -> Self {
        Self::new()
    }
}
