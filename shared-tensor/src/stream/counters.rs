//! The counters that every stream keeps, as figures.

use crate::stream::layout::{ReaderCounters, WriterCounters};
use crate::sync::{AtomicU64, Ordering};

macro_rules! figures {
    ($(#[$doc:meta])* $figures:ident of $words:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $figures {
            $($(#[$field_doc])* pub $field: u64,)*
        }

        impl $figures {
            pub(crate) fn load(words: &$words) -> Self {
                Self { $($field: words.$field.load(Ordering::Relaxed),)* }
            }

            /// Every figure with its name.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field),)*]
            }
        }
    };
}

figures! {
    /// What the write side did since the stream was created.
    WriterFigures of WriterCounters {
        /// Frames published.
        frames,
        /// Payload bytes published.
        bytes,
        /// Writes given up by their writer.
        aborts,
        /// Takeovers from a dead or vanished writer.
        recoveries,
        /// Frames dropped because their writer had been declared dead.
        fenced,
        /// Publications that made a wake-up system call.
        wakes,
        /// Soft pins taken from readers.
        pins_revoked,
        /// Slots passed over because they were leased.
        slots_skipped,
    }
}

figures! {
    /// What the read side of one process did since it attached.
    ReaderFigures of ReaderCounters {
        /// Frames read, copied or leased.
        frames,
        /// Payload bytes copied.
        bytes,
        /// Copies that a writer overtook and that were made again.
        retries,
        /// Soft pins set.
        pins,
        /// Leases taken.
        leases,
        /// Leases answered with a private copy because the ring had no slot to spare.
        lease_copies,
        /// Leases taken away by another process.
        leases_revoked,
        /// Waits for a frame that was not there yet.
        waits,
        /// Times that a wait went to sleep in the kernel.
        parks,
        /// Waits that ended while spinning.
        spin_hits,
        /// Frames that were published and never read.
        missed,
        /// Highest count read.
        last_count,
    }
}

/// Adds to a counter of which the caller is the only writer: the lock holder.
#[inline]
pub(crate) fn add_as_owner(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// Adds to a counter that threads of this process share.
#[inline]
pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
