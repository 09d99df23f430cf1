//! Words at places in somebody's memory that devices and processes write and wait for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering as Atomic;
use std::thread;
use std::time::Duration;

use crate::device::Context;
use crate::error::{DriverError, QueueError};
use crate::host::{HostRange, RegisterError};
use crate::mapping::Access;
use crate::registered;
use crate::sys::{self, HostMemory, Stream, WordCall};
use crate::waits;

/// By what a write or a wait is ordered against the work in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordering {
    /// By the device, in the stream: neither call waits.
    Device,
    /// By the host, where device or driver lack the operations: a write first waits for the stream, and
    /// a wait waits for the word before anything else is queued.
    Host,
}

/// One of several things to queue about words, see [`RangeWords::queue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordStep {
    /// What comes after it begins when the word is `value` or later.
    Wait {
        /// Where the word begins, in bytes.
        offset: u64,
        /// By signed distance, as for [`RangeWords::wait`].
        value: u64,
    },
    /// The word becomes `value` when what comes before it is done.
    Write {
        /// Where the word begins, in bytes.
        offset: u64,
        /// What is written.
        value: u64,
    },
}

/// Words of 64 bits in memory that somebody mapped, at offsets in bytes that are multiples of eight as
/// addresses, for the streams of one device. What the words mean, and who else writes them, is up to
/// whoever owns the memory.
///
/// Offsets may come from shared memory: one that leads out of the memory, or to no word, is an error and
/// touches nothing.
///
/// Two waits that wait for each other's writes never end; the driver does not see them. Give each word
/// one writer, and release what a dead one owes.
///
/// In a stream that is captured into a graph, words that the device orders go into the graph, with the
/// value that was given: each replay writes or waits for the same one. What the host orders is refused
/// there.
#[derive(Clone)]
pub struct RangeWords {
    context: Context,
    form: Form,
}

#[derive(Clone)]
enum Form {
    Device { range: HostRange, address: u64 },
    Host { memory: Arc<dyn HostMemory>, access: Access },
}

/// How rarely and how often a word is looked at where the device cannot wait for it.
const LOOK: (Duration, Duration) = (Duration::from_micros(20), Duration::from_millis(1));

impl RangeWords {
    /// Words anywhere in `memory`, which is [registered](HostRange::register) where the device can wait for
    /// them. With [`Access::Read`] streams wait for them only.
    pub fn new(
        context: &Context,
        memory: impl HostMemory,
        access: Access,
    ) -> Result<Self, RegisterError> {
        Self::over(context, Arc::new(memory), access)
    }

    /// Words anywhere in memory that is registered already.
    pub fn in_range(context: &Context, range: &HostRange) -> Result<Self, QueueError> {
        let form = if context.device().capabilities().stream_words {
            Form::Device { range: range.clone(), address: range.address(context)? }
        } else {
            Form::Host { memory: Arc::clone(range.memory()), access: range.access() }
        };
        Ok(Self { context: context.clone(), form })
    }

    pub(crate) fn over(
        context: &Context,
        memory: Arc<dyn HostMemory>,
        access: Access,
    ) -> Result<Self, RegisterError> {
        if !context.device().capabilities().stream_words {
            if access == Access::ReadWrite && !memory.is_writable() {
                return Err(RegisterError::ReadOnly);
            }
            return Ok(Self { context: context.clone(), form: Form::Host { memory, access } });
        }
        let range = registered::register(context, memory, access)?;
        let address = range.address(context).map_err(|error| match error {
            QueueError::Driver(error) => RegisterError::Driver(error),
            // The whole of a range lies in it.
            _ => RegisterError::Empty,
        })?;
        Ok(Self { context: context.clone(), form: Form::Device { range, address } })
    }

    /// By what they are ordered.
    pub fn ordering(&self) -> Ordering {
        match self.form {
            Form::Device { .. } => Ordering::Device,
            Form::Host { .. } => Ordering::Host,
        }
    }

    /// How many bytes they lie in.
    pub fn bytes(&self) -> u64 {
        self.memory().bytes() as u64
    }

    /// The value of one, as the host sees it, with everything that was written before it.
    pub fn load(&self, offset: u64) -> Result<u64, QueueError> {
        sys::load(&**self.memory(), offset)
    }

    /// Raises one to `value`, if it is not there yet: what a writer that has died will not do any more,
    /// so that whoever waits goes on.
    pub fn release(&self, offset: u64, value: u64) -> Result<(), QueueError> {
        self.check_access()?;
        let word = sys::word_to_write(&**self.memory(), offset)?;
        word.fetch_max(value, Atomic::AcqRel);
        Ok(())
    }

    /// Has the word become `value` when everything that is queued in `stream` so far is done.
    pub fn write(&self, stream: &Stream, offset: u64, value: u64) -> Result<(), QueueError> {
        self.queue(stream, &[WordStep::Write { offset, value }])
    }

    /// What is queued in `stream` from now on begins when the word is `value` or later: when it is at most
    /// 2^63 - 1 ahead, going round from the largest number to 0.
    pub fn wait(&self, stream: &Stream, offset: u64, value: u64) -> Result<(), QueueError> {
        self.queue(stream, &[WordStep::Wait { offset, value }])
    }

    /// Queues several waits and writes, one after the other, in one call of the driver for up to 255 of
    /// them; one by one, where the driver lacks that.
    ///
    /// # Errors
    ///
    /// If one step is wrong, none is queued. If the driver refuses, some of them may be.
    pub fn queue(&self, stream: &Stream, steps: &[WordStep]) -> Result<(), QueueError> {
        self.check(steps)?;
        match &self.form {
            Form::Device { range, address } => {
                let queue = || {
                    let queue = || queue_on_device(*address, stream, steps);
                    // A graph waits when it is replayed.
                    if waits::are_in(&**range.memory(), steps) && !stream.is_capturing()? {
                        return waits::noted(range.memory(), steps, queue);
                    }
                    queue()
                };
                Ok(range.used(&self.context, stream, queue)?)
            }
            Form::Host { memory, .. } => {
                if self.context.within(|| stream.is_capturing())? {
                    return Err(QueueError::Captured { what: "a word that the host orders" });
                }
                steps.iter().try_for_each(|step| self.step_on_host(&**memory, stream, *step))
            }
        }
    }

    /// Says that words are or will be queued in `stream`, as [`HostRange::used_on`] does.
    pub fn used_on(&self, stream: &Stream) -> Result<(), QueueError> {
        match &self.form {
            Form::Device { range, .. } => Ok(range.used_on(&self.context, stream)?),
            Form::Host { .. } => Ok(()),
        }
    }

    /// As [`queue`](Self::queue), for a stream that was named with [`used_on`](Self::used_on) and is not
    /// captured: neither is looked at again.
    ///
    /// # Errors
    ///
    /// As [`queue`](Self::queue).
    pub fn queue_on_known(&self, stream: &Stream, steps: &[WordStep]) -> Result<(), QueueError> {
        let Form::Device { range, address } = &self.form else { return self.queue(stream, steps) };
        self.check(steps)?;
        let queue = || queue_on_device(*address, stream, steps);
        let memory = range.memory();
        Ok(self.context.within(|| {
            if waits::are_in(&**memory, steps) {
                return waits::noted(memory, steps, queue);
            }
            queue()
        })?)
    }

    fn check(&self, steps: &[WordStep]) -> Result<(), QueueError> {
        for step in steps {
            let (WordStep::Wait { offset, .. } | WordStep::Write { offset, .. }) = *step;
            sys::check_word(&**self.memory(), offset)?;
            if matches!(step, WordStep::Write { .. }) {
                self.check_access()?;
            }
        }
        Ok(())
    }

    fn step_on_host(
        &self,
        memory: &dyn HostMemory,
        stream: &Stream,
        step: WordStep,
    ) -> Result<(), QueueError> {
        match step {
            WordStep::Write { offset, value } => {
                let word = sys::word_to_write(memory, offset)?;
                self.context.synchronize(stream)?;
                word.store(value, Atomic::Release);
            }
            WordStep::Wait { offset, value } => {
                let mut pause = LOOK.0;
                while sys::load(memory, offset)?.wrapping_sub(value).cast_signed() < 0 {
                    thread::sleep(pause);
                    pause = (pause * 2).min(LOOK.1);
                }
            }
        }
        Ok(())
    }

    fn memory(&self) -> &Arc<dyn HostMemory> {
        match &self.form {
            Form::Device { range, .. } => range.memory(),
            Form::Host { memory, .. } => memory,
        }
    }

    fn check_access(&self) -> Result<(), QueueError> {
        let access = match &self.form {
            Form::Device { range, .. } => range.access(),
            Form::Host { access, .. } => *access,
        };
        if access == Access::ReadWrite { Ok(()) } else { Err(QueueError::ReadOnly) }
    }
}

/// The address is that of the first byte for the device, whose context is current.
fn queue_on_device(address: u64, stream: &Stream, steps: &[WordStep]) -> Result<(), DriverError> {
    let call = |step: &WordStep| match *step {
        WordStep::Wait { offset, value } => WordCall::wait(address + offset, value),
        WordStep::Write { offset, value } => WordCall::write(address + offset, value),
    };
    match steps {
        [one] => stream.word(&call(one)),
        several => stream.words(&several.iter().map(call).collect::<Vec<_>>()),
    }
}

impl fmt::Debug for RangeWords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RangeWords")
            .field("device", &self.context.device().uuid())
            .field("bytes", &self.bytes())
            .field("ordering", &self.ordering())
            .finish_non_exhaustive()
    }
}
