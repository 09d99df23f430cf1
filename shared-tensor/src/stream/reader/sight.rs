//! Which frames a reader finds: those that were published, or of those the ones in a mirror.
//!
//! A device that reads a published frame waits for it by itself. Without one, a frame of a GPU is there when
//! it has been copied to the stream's file.

use std::sync::Arc;

use crate::ring::word::{Ctl, Phase};
use crate::ring::{Look, RingLoads as _, newest, newest_in_file, published_until};
use crate::stream::attachment::Attachment;
use crate::stream::reader::{OnWriting, Reader};
use crate::stream::wait::{Signal, is_found_lost, writer_has_left};

/// Where a reader's frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Every published frame is there.
    Published,
    /// Those that are in the file of a mirrored stream.
    Mirror,
}

impl Sight {
    pub(super) fn of_host(attachment: &Attachment) -> Self {
        if attachment.layout.is_mirrored() { Self::Mirror } else { Self::Published }
    }

    /// The newest frame that is there.
    #[inline]
    pub(super) fn look(self, attachment: &Attachment) -> Look {
        match self {
            Self::Published => newest(attachment),
            Self::Mirror => newest_in_file(attachment),
        }
    }

    /// The count of the newest frame that is there.
    #[inline]
    pub(super) fn reach(self, attachment: &Attachment, ctl: Ctl) -> u64 {
        match self {
            Self::Published => ctl.count(),
            Self::Mirror => published_until(attachment, ctl)
                .filter(|found| attachment.is_in_file(found.slot, found.seq))
                .map(|found| found.seq.frame())
                .max()
                .unwrap_or_default(),
        }
    }

    /// Whether a frame after this one is there.
    #[inline]
    pub(super) fn reaches_beyond(self, attachment: &Attachment, after: u64, ctl: Ctl) -> bool {
        ctl.count() > after && self.reach(attachment, ctl) > after
    }

    /// What changes when another frame is there.
    pub(super) fn signal(self) -> Signal {
        match self {
            Self::Published => Signal::Publication,
            Self::Mirror => Signal::Arrival,
        }
    }

    /// Whether what is on its way now, written or published and not there, will never be: the one who was
    /// to see to it is gone.
    pub(super) fn awaits_the_dead(self, attachment: &Arc<Attachment>, ctl: Ctl) -> bool {
        match ctl.phase() {
            Phase::Writing => writer_has_left(attachment, ctl),
            _ if self == Self::Published => false,
            _ => match newest(&**attachment) {
                Look::Frame(found) => is_found_lost(attachment, &found),
                _ => false,
            },
        }
    }
}

impl Reader {
    /// For a device: every published frame is there, and waits are for those who have calls of a driver to make.
    pub(in crate::stream) fn of_device(mut self) -> Self {
        self.sight = Sight::Published;
        self.spinner = self.spinner.of_device();
        self
    }

    pub(in crate::stream) fn signal(&self) -> Signal {
        self.sight.signal()
    }

    pub(in crate::stream) fn reaches_beyond(&self, after: u64, ctl: Ctl) -> bool {
        self.sight.reaches_beyond(&self.attachment, after, ctl)
    }

    /// Whether the newest frame is not there yet.
    fn lags(&self, ctl: Ctl) -> bool {
        self.sight == Sight::Mirror && self.sight.reach(&self.attachment, ctl) < ctl.count()
    }

    /// Whether a frame is being written, or on its way to the file.
    pub(super) fn is_behind(&self, ctl: Ctl) -> bool {
        ctl.phase() == Phase::Writing || self.lags(ctl)
    }

    /// Whether this reader waits until the frame that is on its way is there.
    pub(crate) fn awaits_writer(&self, ctl: Ctl) -> bool {
        self.options.on_writing == OnWriting::Wait && self.is_behind(ctl)
    }

    /// Whether the write that this reader waits for will never end.
    pub(crate) fn awaits_the_dead(&self, ctl: Ctl) -> bool {
        self.awaits_writer(ctl) && self.sight.awaits_the_dead(&self.attachment, ctl)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use shm_core::Namespace;

    use crate::stream::StreamOptions;
    use crate::tensor::DType;

    #[test]
    fn who_reads_with_a_device_looks_for_longer() {
        let prefix = format!("st-sight.{}.", std::process::id());
        let namespace = Namespace::new("/dev/shm", &prefix).expect("a prefix");
        let options = StreamOptions::new(DType::U8, [8]).namespace(namespace);
        let stream = options.create("it").expect("a stream");
        let of_host = stream.reader().spinner;
        let of_device = stream.reader().of_device().spinner;
        assert_eq!(of_device, of_host.of_device());
        assert_ne!(of_device, of_host);
        stream.unlink().unwrap();
    }
}
