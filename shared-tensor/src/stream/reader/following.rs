//! What a reader does when its stream's name leads elsewhere.

use std::sync::Arc;

use shm_lock::Wait;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::RingLoads;
use crate::stream::admin::successor;
use crate::stream::attachment::Attachment;
use crate::stream::reader::Reader;
use crate::stream::reader::sight::Sight;
use crate::stream::wait::{Since, wait_once};
use crate::sync::Ordering;

impl Reader {
    /// Whether the file was removed without a tombstone.
    pub(crate) fn name_is_gone(&self) -> Result<bool> {
        let current = self.attachment.segment.is_current().map_err(|source| {
            let message = format!("cannot look up stream `{}`: {source}", self.attachment.name());
            Error::with_source(ErrorKind::Os, message, source)
        })?;
        Ok(!matches!(current, shm_core::Current::Yes))
    }

    /// After the name was unlinked: attaches to its successor if the options say so. `true` when
    /// that happened; `false` when it is still awaited.
    pub(super) fn follow(&mut self, wait: &Wait<'_>, started: Since) -> Result<bool> {
        let name = self.attachment.name();
        if !self.options.reattach {
            return Err(Error::new(
                ErrorKind::Unlinked,
                format!(
                    "stream `{name}` was unlinked; this handle keeps its last frame, open the name \
                     again for a successor"
                ),
            ));
        }
        let Some(successor) = successor(&self.attachment, &self.namespace)? else {
            // The old word no longer changes: this sleeps one slice, or until the deadline.
            let signal = self.sight.signal();
            wait_once(&self.attachment, &mut self.spinner, signal, wait, started, |_| false)?;
            return Ok(false);
        };
        self.adopt(successor)?;
        Ok(true)
    }

    /// Whether this reader goes on with a successor of an unlinked stream.
    pub(crate) fn awaits_successors(&self) -> bool {
        self.options.reattach
    }

    /// Whether the options say so and the unlinked stream has a successor with a frame, which is
    /// read from here on. Until then the last frame of the old one is the newest there is.
    pub(crate) fn moves_on(&mut self) -> Result<bool> {
        if !self.options.reattach {
            return Ok(false);
        }
        match successor(&self.attachment, &self.namespace)? {
            Some(successor) if successor.ctl(Ordering::Acquire).count() > 0 => {
                self.adopt(successor)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn adopt(&mut self, successor: Arc<Attachment>) -> Result<()> {
        let (old, new) = (&self.attachment.layout, &successor.layout);
        if (old.dtype, &old.shape) != (new.dtype, &new.shape) {
            return Err(Error::new(
                ErrorKind::Changed,
                format!(
                    "stream `{}` was {}{} and is now {}{}: open it again",
                    self.attachment.name(),
                    old.dtype,
                    old.shape,
                    new.dtype,
                    new.shape
                ),
            ));
        }
        self.sight = Sight::of_host(&successor);
        self.attachment = successor;
        self.seen = 0;
        Ok(())
    }
}
