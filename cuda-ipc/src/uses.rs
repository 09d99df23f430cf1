//! Streams with work on something, and when they are done with it.

use std::sync::Arc;

use crate::device::Context;
use crate::error::DriverError;
use crate::idle;
use crate::sys::{Event, Stream};

/// The streams that were named, each once; and moments in streams that may be gone by now.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    uses: Vec<Use>,
    moments: Moments,
}

/// The stream goes before what it is a stream of.
#[derive(Debug)]
struct Use {
    stream: Stream,
    context: Context,
}

/// What comes when everything is done that was queued at some moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moments {
    events: Vec<(Arc<Event>, Context)>,
}

/// With so many streams or moments it is looked whether some of them can be forgotten.
const MANY: usize = 16;

impl Uses {
    pub(crate) fn note(&mut self, context: &Context, stream: &Stream) {
        let is_known = |it: &Use| {
            // The default stream has the same handle in every context.
            it.stream.as_raw() == stream.as_raw()
                && it.context.device().ordinal() == context.device().ordinal()
        };
        if self.uses.iter().any(is_known) {
            return;
        }
        if self.uses.len() >= MANY {
            self.uses.retain(|it| !it.is_over());
        }
        self.uses.push(Use { stream: stream.noted(), context: context.clone() });
    }

    /// Notes a moment, recorded already.
    pub(crate) fn note_moment(&mut self, context: &Context, event: Event) {
        if self.moments.events.len() >= MANY {
            // What cannot be told is kept.
            self.moments.events.retain(|it| !has_come(it).unwrap_or(false));
        }
        self.moments.events.push((Arc::new(event), context.clone()));
    }

    /// The same once more, to be looked at without a lock.
    pub(crate) fn copied(&self) -> Self {
        let copied = |it: &Use| Use { stream: it.stream.noted(), context: it.context.clone() };
        Self { uses: self.uses.iter().map(copied).collect(), moments: self.moments.clone() }
    }

    /// What comes when all that is queued in them is done; `None` while one of them is captured. Streams
    /// that have nothing to do take no event; the default stream has if one for which it waits has.
    pub(crate) fn recorded(&self) -> Result<Option<Moments>, DriverError> {
        for it in &self.uses {
            if it.context.within(|| it.stream.is_capturing())? {
                return Ok(None);
            }
        }
        let mut moments = self.moments.clone();
        for Use { stream, context } in &self.uses {
            let event = context.within(|| {
                let is_told = !stream.is_default() || idle::default_is_known_to_count_others();
                if is_told && stream.is_idle()? {
                    return Ok(None);
                }
                let event = Event::create()?;
                event.record(stream)?;
                Ok(Some(event))
            })?;
            moments.events.extend(event.map(|event| (Arc::new(event), context.clone())));
        }
        Ok(Some(moments))
    }
}

impl Use {
    /// Whether nothing is queued in the stream, and nobody is left who could queue more.
    fn is_over(&self) -> bool {
        let is_idle = || Ok(!self.stream.is_capturing()? && self.stream.is_idle()?);
        self.stream.is_nobodys() && self.context.within(is_idle).unwrap_or(false)
    }
}

impl Moments {
    pub(crate) fn have_come(&self) -> Result<bool, DriverError> {
        for event in &self.events {
            if !has_come(event)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn has_come((event, context): &(Arc<Event>, Context)) -> Result<bool, DriverError> {
    context.within(|| event.has_come())
}
