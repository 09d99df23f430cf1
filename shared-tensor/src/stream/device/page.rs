//! The page of a stream that devices write, as their streams see it.

use cuda_ipc::{
    Access, Context, Ordering, QueueError, RangeWords, RegisterError, Stream, WordStep,
};

use crate::ring::device::Use;
use crate::ring::word::Seq;
use crate::stream::layout::{DEVICE_PAGE_OFFSET, DevicePage, Line, SlotWords};
use crate::sys::SharedPage;

/// The words of slots and lanes for the streams of one device.
#[derive(Clone, Debug)]
pub(super) struct Page {
    words: RangeWords,
}

const SLOT: usize = size_of::<Line<SlotWords>>();
const MIRRORED: usize = std::mem::offset_of!(SlotWords, mirrored);
const DONE: usize = std::mem::offset_of!(DevicePage, done);

impl Page {
    /// Registers the page in the control memory of a stream.
    pub(super) fn register(
        context: &Context,
        control: &shm_core::SharedBytes,
    ) -> Result<Option<Self>, RegisterError> {
        let range = DEVICE_PAGE_OFFSET..DEVICE_PAGE_OFFSET + size_of::<DevicePage>();
        let Ok(page) = control.slice(range) else { return Ok(None) };
        let words = RangeWords::new(context, SharedPage(page), Access::ReadWrite)?;
        Ok(Some(Self { words }))
    }

    /// By what they are ordered.
    pub(super) fn ordering(&self) -> Ordering {
        self.words.ordering()
    }

    /// Says that words will be queued in a stream.
    pub(super) fn used_on(&self, stream: &Stream) -> Result<(), QueueError> {
        self.words.used_on(stream)
    }

    /// Queues all of them, in order.
    pub(super) fn queue(
        &self,
        stream: &Stream,
        is_known: bool,
        steps: &[WordStep],
    ) -> Result<(), QueueError> {
        if steps.is_empty() {
            Ok(())
        } else if is_known {
            self.words.queue_on_known(stream, steps)
        } else {
            self.words.queue(stream, steps)
        }
    }
}

/// What comes next begins when the frame is complete.
pub(super) fn await_frame(slot: usize, seq: Seq) -> WordStep {
    WordStep::Wait { offset: (slot * SLOT) as u64, value: seq.ticket() }
}

/// What comes next begins when the frame is in the file.
pub(super) fn await_mirror(slot: usize, seq: Seq) -> WordStep {
    WordStep::Wait { offset: (slot * SLOT + MIRRORED) as u64, value: seq.ticket() }
}

/// The frame is in the file.
pub(super) fn mirrored(slot: usize, seq: Seq) -> WordStep {
    WordStep::Write { offset: (slot * SLOT + MIRRORED) as u64, value: seq.ticket() }
}

/// What comes next begins when the use is over.
pub(super) fn await_use(it: Use) -> WordStep {
    WordStep::Wait { offset: (DONE + it.lane * size_of::<u64>()) as u64, value: it.number }
}

/// The frame is complete.
pub(super) fn complete(slot: usize, seq: Seq) -> WordStep {
    WordStep::Write { offset: (slot * SLOT) as u64, value: seq.ticket() }
}

/// The use is over.
pub(super) fn end(it: Use) -> WordStep {
    WordStep::Write { offset: (DONE + it.lane * size_of::<u64>()) as u64, value: it.number }
}
