//! Words that devices and processes write and wait for: the order between them, without the host.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

use crate::device::Context;
use crate::error::QueueError;
use crate::host::RegisterError;
use crate::mapping::Access;
use crate::range_words::{Ordering, RangeWords};
use crate::sys::{self, HostMemory, Pages, Stream};

/// Words in an anonymous file, 64 bits each, 0 at first, that only ever grow.
///
/// Any process that has the descriptor may map it; a driver is needed for [`Words::attach`] only.
#[derive(Debug)]
pub struct Words {
    pages: Pages,
}

/// What was received as words is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WordsError {
    /// It is no memory file of sealed length and whole pages.
    #[error(
        "the descriptor is no file of words: expected a memfd of whole pages, its length sealed"
    )]
    Form,
    /// The system failed.
    #[error("words cannot be mapped: {0}")]
    System(#[from] io::Error),
}

impl Words {
    /// At least `count` of them; the length is rounded up to whole pages.
    pub fn create(count: usize) -> io::Result<Self> {
        let bytes = count.max(1).checked_mul(size_of::<u64>());
        let bytes = bytes.and_then(|it| it.checked_next_multiple_of(rustix::param::page_size()));
        let bytes = bytes.ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { pages: Pages::create(bytes)? })
    }

    /// Those of another process.
    pub fn open(descriptor: OwnedFd) -> Result<Self, WordsError> {
        let pages = Pages::open(descriptor)?.ok_or(WordsError::Form)?;
        Ok(Self { pages })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        count(&self.pages)
    }

    /// The value of one. Panics beyond the last.
    pub fn load(&self, index: usize) -> u64 {
        word(&self.pages, index).load(Atomic::Acquire)
    }

    /// Raises one to `value`, if it is not there yet: what a writer that has died will not do any more,
    /// so that whoever waits goes on. Panics beyond the last.
    pub fn release(&self, index: usize, value: u64) {
        word(&self.pages, index).fetch_max(value, Atomic::AcqRel);
    }

    /// Makes them known to the devices of this process.
    pub fn attach(self, context: &Context) -> Result<Arc<DeviceWords>, RegisterError> {
        let pages = Arc::new(self.pages);
        let memory = Arc::clone(&pages) as Arc<dyn HostMemory>;
        let words = RangeWords::over(context, memory, Access::ReadWrite)?;
        Ok(Arc::new(DeviceWords { pages, words }))
    }
}

impl AsFd for Words {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pages.descriptor()
    }
}

/// Words that streams of one device write and wait for.
///
/// Two waits that wait for each other's writes never end; the driver does not see them. Give each word
/// one writer, and release what a dead one owes.
#[derive(Debug)]
pub struct DeviceWords {
    pages: Arc<Pages>,
    words: RangeWords,
}

impl DeviceWords {
    /// By what they are ordered.
    pub fn ordering(&self) -> Ordering {
        self.words.ordering()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        count(&self.pages)
    }

    /// The value of one, as the host sees it. Panics beyond the last.
    pub fn load(&self, index: usize) -> u64 {
        word(&self.pages, index).load(Atomic::Acquire)
    }

    /// As [`Words::release`].
    pub fn release(&self, index: usize, value: u64) {
        word(&self.pages, index).fetch_max(value, Atomic::AcqRel);
    }

    /// Has the word become `value` when everything that is queued in `stream` so far is done. Panics
    /// beyond the last.
    pub fn write(&self, stream: &Stream, index: usize, value: u64) -> Result<(), QueueError> {
        self.words.write(stream, self.offset(index), value)
    }

    /// What is queued in `stream` from now on begins when the word is `value` or later. Panics beyond the
    /// last.
    pub fn wait(&self, stream: &Stream, index: usize, value: u64) -> Result<(), QueueError> {
        self.words.wait(stream, self.offset(index), value)
    }

    fn offset(&self, index: usize) -> u64 {
        assert!(index < self.count(), "there is no word {index}");
        offset(index)
    }
}

impl AsFd for DeviceWords {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pages.descriptor()
    }
}

fn count(pages: &Pages) -> usize {
    pages.bytes() / size_of::<u64>()
}

fn offset(index: usize) -> u64 {
    index as u64 * size_of::<u64>() as u64
}

fn word(pages: &Pages, index: usize) -> &AtomicU64 {
    assert!(index < count(pages), "there is no word {index}");
    sys::word_to_write(pages, offset(index)).expect("it is within the pages, which are writable")
}
