//! What the processes of a campaign tell each other, in memory that no death takes with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use shm_core::{Access, Kind, Namespace, Segment, SegmentName, SegmentOptions, SharedBytes};

const KIND: Kind = Kind { magic: *b"ST-BOARD", version: 1 };
const NAME: &str = "board";

/// Members of a crew.
pub(crate) const MEMBERS_MAX: usize = 64;
const COMPLAINTS_MAX: usize = 32;
const COMPLAINT_BYTES: usize = 256;

const FRONT: usize = 4096;
const WORDS: usize = 128;
const COMPLAINTS: usize = FRONT + WORDS * 8;
const LEDGER: usize = COMPLAINTS + COMPLAINTS_MAX * COMPLAINT_BYTES;

/// Words at fixed places.
#[derive(Clone, Copy, Debug)]
pub enum Word {
    /// Not zero: everybody is to end.
    Stop = 0,
    /// The highest count that anybody read.
    Highest = 1,
    /// Complaints so far.
    Complaints = 2,
    /// Frames read and found whole.
    Frames = 3,
    /// Leases read twice and found unchanged.
    Leases = 4,
    /// Attachments made and given up.
    Attachments = 5,
    /// Whole streams found under the name that others create and remove.
    Churned = 6,
    /// Copies that were made again because a writer was faster.
    Retries = 7,
    /// Most laps that one read took.
    LapsMax = 8,
}

/// Where progress is counted: one word per member from here on.
const PROGRESS: usize = 64;

/// Shared memory of a campaign.
#[derive(Debug)]
pub struct Board {
    bytes: SharedBytes,
    ledger: usize,
}

impl Board {
    /// Makes a board whose ledger has room for the first `ledger` counts of a stream.
    ///
    /// # Panics
    /// When there is no space.
    pub fn create(namespace: &Namespace, ledger: usize) -> Self {
        let options = SegmentOptions::new(KIND, (LEDGER + ledger * 8) as u64);
        let segment = options.create(namespace, &name(), |_| Ok(())).expect("a board");
        Self::map(&segment)
    }

    /// The board of this process's campaign.
    ///
    /// # Errors
    /// In words, when there is none.
    pub fn open(namespace: &Namespace) -> Result<Self, String> {
        let segment = Segment::open(namespace, &name(), Access::ReadWrite, KIND);
        Ok(Self::map(&segment.map_err(|error| error.to_string())?))
    }

    /// Removes the name.
    pub fn remove(namespace: &Namespace) {
        let _ = namespace.unlink(&name());
    }

    fn map(segment: &Segment) -> Self {
        let bytes = segment.map(0..segment.total_bytes(), Access::ReadWrite).expect("a mapping");
        let ledger = (bytes.len() - LEDGER) / 8;
        Self { bytes, ledger }
    }

    /// The word at a fixed place.
    pub fn word(&self, word: Word) -> &AtomicU64 {
        self.at(FRONT + word as usize * 8)
    }

    /// The value of a word.
    pub fn value(&self, word: Word) -> u64 {
        self.word(word).load(Ordering::Acquire)
    }

    /// Counts one more.
    pub fn count(&self, word: Word) {
        self.word(word).fetch_add(1, Ordering::Relaxed);
    }

    /// What the member at `index` has done so far; only goes up, and starts anew with each process.
    pub fn progress(&self, index: usize) -> &AtomicU64 {
        assert!(index < MEMBERS_MAX, "member {index} has no word");
        self.at(FRONT + (PROGRESS + index) * 8)
    }

    /// Whether everybody is to end.
    pub fn is_over(&self) -> bool {
        self.value(Word::Stop) != 0
    }

    /// Enters that `count` stands for the frame of `key`.
    ///
    /// # Errors
    /// In words, when somebody else has read another frame of that count. A count beyond the ledger
    /// is not entered.
    pub fn enter(&self, count: u64, key: u64) -> Result<(), String> {
        let index = usize::try_from(count).unwrap_or(usize::MAX);
        if index >= self.ledger {
            return Ok(());
        }
        let entry = self.at(LEDGER + index * 8);
        match entry.compare_exchange(0, key, Ordering::AcqRel, Ordering::Acquire) {
            Err(other) if other != key => {
                Err(format!("duplicate: count {count} is frame {key:#x} and frame {other:#x}"))
            }
            _ => Ok(()),
        }
    }

    /// Says that something which must hold does not.
    pub fn complain(&self, what: &str) {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let line = format!("{what} (process {}, at {seconds})", std::process::id());
        let index = self.word(Word::Complaints).fetch_add(1, Ordering::AcqRel) as usize;
        if index < COMPLAINTS_MAX {
            let text = &line.as_bytes()[..line.len().min(COMPLAINT_BYTES)];
            let written = self.bytes.write_from(COMPLAINTS + index * COMPLAINT_BYTES, text);
            assert!(written.is_ok(), "complaint {index} has its place");
        }
    }

    /// The complaints so far; of very many only the first.
    pub fn complaints(&self) -> Vec<String> {
        let count = (self.value(Word::Complaints) as usize).min(COMPLAINTS_MAX);
        let text = |index: usize| {
            let mut bytes = [0; COMPLAINT_BYTES];
            let read = self.bytes.read_into(COMPLAINTS + index * COMPLAINT_BYTES, &mut bytes);
            assert!(read.is_ok(), "complaint {index} has its place");
            String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
        };
        (0..count).map(text).collect()
    }

    fn at(&self, offset: usize) -> &AtomicU64 {
        self.bytes.at(offset).expect("a word of the board")
    }
}

fn name() -> SegmentName {
    SegmentName::new(NAME).expect("a name")
}
