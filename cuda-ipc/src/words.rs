//! Words that devices and processes write and wait for: the order between them, without the host.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering as Atomic;
use std::thread;
use std::time::Duration;

use crate::device::Context;
use crate::error::DriverError;
use crate::sys::{Pages, Registered, Stream};

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
        self.pages.bytes() / size_of::<u64>()
    }

    /// The value of one. Panics beyond the last.
    pub fn load(&self, index: usize) -> u64 {
        self.pages.word(index).load(Atomic::Acquire)
    }

    /// Raises one to `value`, if it is not there yet: what a writer that has died will not do any more,
    /// so that whoever waits goes on. Panics beyond the last.
    pub fn release(&self, index: usize, value: u64) {
        self.pages.word(index).fetch_max(value, Atomic::AcqRel);
    }

    /// Makes them known to the devices of this process.
    pub fn attach(self, context: &Context) -> Result<Arc<DeviceWords>, DriverError> {
        let is_native = context.device().capabilities().stream_words;
        if !is_native {
            let form = Form::Host(self.pages);
            return Ok(Arc::new(DeviceWords { context: context.clone(), form }));
        }
        let (registered, address) = context.within(|| {
            let registered = Registered::new(self.pages)?;
            let address = registered.device_address()?;
            Ok((registered, address))
        })?;
        let form = Form::Device { registered, address };
        Ok(Arc::new(DeviceWords { context: context.clone(), form }))
    }
}

impl AsFd for Words {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pages.descriptor()
    }
}

/// By what a write or a wait is ordered against the work in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordering {
    /// By the device, in the stream: neither call waits.
    Device,
    /// By the host, where device or driver lack the operations: a write first waits for the stream, and
    /// a wait waits for the word before anything else is queued.
    Host,
}

/// Words that streams of one device write and wait for.
///
/// Two waits that wait for each other's writes never end; the driver does not see them. Give each word
/// one writer, and release what a dead one owes.
#[derive(Debug)]
pub struct DeviceWords {
    context: Context,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Device { registered: Registered, address: u64 },
    Host(Pages),
}

/// How rarely and how often a word is looked at where the device cannot wait for it.
const LOOK: (Duration, Duration) = (Duration::from_micros(20), Duration::from_millis(1));

impl DeviceWords {
    fn pages(&self) -> &Pages {
        match &self.form {
            Form::Device { registered, .. } => registered.pages(),
            Form::Host(pages) => pages,
        }
    }

    /// By what they are ordered.
    pub fn ordering(&self) -> Ordering {
        match self.form {
            Form::Device { .. } => Ordering::Device,
            Form::Host(_) => Ordering::Host,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pages().bytes() / size_of::<u64>()
    }

    /// The value of one, as the host sees it. Panics beyond the last.
    pub fn load(&self, index: usize) -> u64 {
        self.pages().word(index).load(Atomic::Acquire)
    }

    /// As [`Words::release`].
    pub fn release(&self, index: usize, value: u64) {
        self.pages().word(index).fetch_max(value, Atomic::AcqRel);
    }

    /// Has the word become `value` when everything that is queued in `stream` so far is done.
    pub fn write(&self, stream: &Stream, index: usize, value: u64) -> Result<(), DriverError> {
        assert!(index < self.count(), "there is no word {index}");
        match &self.form {
            Form::Device { address, .. } => {
                let at = address + (index * size_of::<u64>()) as u64;
                self.context.within(|| stream.write(at, value))
            }
            Form::Host(pages) => {
                self.context.synchronize(stream)?;
                pages.word(index).store(value, Atomic::Release);
                Ok(())
            }
        }
    }

    /// What is queued in `stream` from now on begins when the word is `value` or later.
    pub fn wait(&self, stream: &Stream, index: usize, value: u64) -> Result<(), DriverError> {
        assert!(index < self.count(), "there is no word {index}");
        match &self.form {
            Form::Device { address, .. } => {
                let at = address + (index * size_of::<u64>()) as u64;
                self.context.within(|| stream.wait(at, value))
            }
            Form::Host(pages) => {
                let mut pause = LOOK.0;
                while pages.word(index).load(Atomic::Acquire).wrapping_sub(value).cast_signed() < 0
                {
                    thread::sleep(pause);
                    pause = (pause * 2).min(LOOK.1);
                }
                Ok(())
            }
        }
    }
}

impl AsFd for DeviceWords {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pages().descriptor()
    }
}
