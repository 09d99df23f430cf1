//! Doubts about those who live.
//!
//! What is waited for may never come although its process lives: a context that is lost, by what one kernel did,
//! does nothing more, and that is known there alone, often to another library only. So who has waited for a while
//! asks those who have the stream on a GPU, who then ask their drivers, and say in the stream's file what
//! came of it. No answer is waited for: who is asked may be stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::ring::word::Seq;
use crate::stream::attachment::Attachment;
use crate::stream::device::watch::Watched;
use crate::stream::holders;

/// How long something is waited for before there are doubts, and how often they come.
const PATIENCE: Duration = Duration::from_secs(1);

/// When others were asked last, and whether that goes on.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    last: Option<Instant>,
    is_asking: Arc<AtomicBool>,
}

impl Doubts {
    /// Whether it is time to look after this process's own contexts, as something is waited for, or is left in
    /// closed streams; then others are asked after theirs, in a thread of its own.
    pub(super) fn have_come(&mut self, left: &[Watched], is_leaving: bool) -> bool {
        if self.last.is_some_and(|last| last.elapsed() < PATIENCE) {
            return false;
        }
        let is_old = |it: &&Watched| it.since.is_some_and(|since| since.elapsed() >= PATIENCE);
        let mut holds: Vec<_> = left.iter().filter(is_old).map(|it| Arc::clone(&it.hold)).collect();
        if holds.is_empty() && !is_leaving {
            return false;
        }
        self.last = Some(Instant::now());
        holds.sort_by_key(Arc::as_ptr);
        holds.dedup_by_key(|hold| Arc::as_ptr(hold));
        if !holds.is_empty() && !self.is_asking.swap(true, Ordering::AcqRel) {
            let asking = Arc::clone(&self.is_asking);
            let ask = move || {
                for hold in &holds {
                    ask_others(&hold.attachment);
                }
                asking.store(false, Ordering::Release);
            };
            if thread::Builder::new().name("st-ask".into()).spawn(ask).is_err() {
                self.is_asking.store(false, Ordering::Release);
            }
        }
        true
    }
}

/// What somebody without a GPU waits for, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsure {
    ticket: u64,
    since: Instant,
}

/// Says that a frame is waited for where no GPU waits; after a while others are asked, in a thread of its own.
pub(crate) fn arise(attachment: &Arc<Attachment>, seq: Seq) {
    let ticket = seq.ticket();
    let now = Instant::now();
    {
        let Some(mut own) = attachment.try_on_gpu() else { return };
        let unsure = own.unsure.get_or_insert(Unsure { ticket, since: now });
        if unsure.ticket == ticket && now - unsure.since < PATIENCE {
            return;
        }
        let is_same = unsure.ticket == ticket;
        *unsure = Unsure { ticket, since: now };
        if !is_same {
            return;
        }
    }
    let attachment = Arc::clone(attachment);
    // Without a thread, later.
    let _ = thread::Builder::new().name("st-ask".into()).spawn(move || ask_others(&attachment));
}

/// Has those who have the stream on a GPU find out whether their contexts are lost.
fn ask_others(attachment: &Attachment) {
    if let Ok(member) = attachment.member()
        && let Ok(me) = member.me()
    {
        holders::ask_after_contexts(&member.memory, &member.peers(), me);
    }
}
