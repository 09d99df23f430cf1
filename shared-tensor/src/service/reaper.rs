//! One thread that gives back what is not used any more.
//!
//! Tensors end wherever the last one who uses them lets go: in the middle of a computation, under
//! locks of others, in a collector of garbage. There nothing is said on a socket and nothing
//! unmapped: it is left to this thread.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use shm_lock::PerProcess;

use super::client::Link;
use super::monitor::lock;
use super::region::Map;
use super::wire::messages::{Custody, LeaseEntry};

/// Something to do.
pub(crate) enum Errand {
    /// A lease is not needed any more.
    Lease(Arc<Link>, LeaseEntry),
    /// A region has no users any more.
    Unused(Weak<Link>, Custody),
    /// A mapping that may have its last user here.
    Unmap(Arc<Map>),
    /// A call was given up whose reply may be on its way.
    Late(Weak<Link>),
    /// Everything before this is done when it is dropped.
    Mark(Sender<()>),
}

/// How soon a server is asked again about a region of which something was on its way, and a reply
/// that comes too late is looked for again.
const AGAIN: Duration = Duration::from_millis(200);
/// How many errands are done at once.
const BATCH: usize = 256;

static REAPER: PerProcess<Mutex<Option<Sender<Errand>>>> = PerProcess::new();

/// Leaves an errand to the thread. Without one, the errand is done here.
pub(crate) fn send(errand: Errand) {
    let mut errand = errand;
    let mut reaper = lock(REAPER.get_or_init(Mutex::default));
    loop {
        if let Some(sender) = &*reaper {
            match sender.send(errand) {
                Ok(()) => return,
                Err(mpsc::SendError(back)) => errand = back,
            }
        }
        let (sender, errands) = mpsc::channel();
        let builder = thread::Builder::new().name("st-reaper".to_owned()).stack_size(512 * 1024);
        if builder.spawn(move || live(&errands)).is_err() {
            drop(reaper);
            carry_out(vec![errand], &mut Vec::new());
            return;
        }
        *reaper = Some(sender);
    }
}

/// Leaves a mapping to the thread.
pub(crate) fn unmap(map: Arc<Map>) {
    // A forked child has no thread, and what it does not use.
    if map.is_of_this_process() {
        send(Errand::Unmap(map));
    }
}

/// Comes back when everything that was left to the thread so far is done, or at the deadline.
pub(crate) fn settle(deadline: Option<Instant>) {
    let is_started = REAPER.get().is_some_and(|reaper| lock(reaper).is_some());
    if !is_started {
        return;
    }
    let (mark, done) = mpsc::channel();
    send(Errand::Mark(mark));
    let left = deadline.map_or(Duration::from_secs(10), |deadline| {
        deadline.saturating_duration_since(Instant::now())
    });
    // It is dropped, never sent.
    let _ = done.recv_timeout(left);
}

fn live(errands: &Receiver<Errand>) {
    let mut again: Vec<(Instant, Errand)> = Vec::new();
    loop {
        let next = again.iter().map(|(due, ..)| *due).min();
        let first = match next {
            None => errands.recv().ok(),
            Some(due) => {
                match errands.recv_timeout(due.saturating_duration_since(Instant::now())) {
                    Ok(errand) => Some(errand),
                    Err(mpsc::RecvTimeoutError::Timeout) => None,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        if first.is_none() && next.is_none() {
            return;
        }
        let mut batch: Vec<Errand> = first.into_iter().collect();
        while batch.len() < BATCH && !matches!(batch.last(), Some(Errand::Mark(_))) {
            let Ok(errand) = errands.try_recv() else { break };
            batch.push(errand);
        }
        let now = Instant::now();
        let due = again.extract_if(.., |(due, _)| *due <= now).map(|(_, errand)| errand);
        batch.splice(0..0, due);
        carry_out(batch, &mut again);
    }
}

/// What one connection is to be told.
struct Told {
    link: Arc<Link>,
    leases: Vec<LeaseEntry>,
    unused: Vec<Custody>,
}

fn carry_out(batch: Vec<Errand>, again: &mut Vec<(Instant, Errand)>) {
    let mut told: Vec<Told> = Vec::new();
    let mut marks = Vec::new();
    let mut of = |link: Arc<Link>| -> usize {
        if let Some(index) = told.iter().position(|it| Arc::ptr_eq(&it.link, &link)) {
            return index;
        }
        told.push(Told { link, leases: Vec::new(), unused: Vec::new() });
        told.len() - 1
    };
    let mut sorted = Vec::new();
    let mut late: Vec<Weak<Link>> = Vec::new();
    for errand in batch {
        match errand {
            Errand::Lease(link, lease) => sorted.push((of(link), Ok(lease))),
            Errand::Unused(link, custody) => {
                if let Some(link) = link.upgrade() {
                    sorted.push((of(link), Err(custody)));
                }
            }
            Errand::Unmap(map) => drop(map),
            Errand::Late(link) => late.push(link),
            Errand::Mark(mark) => marks.push(mark),
        }
    }
    for (index, what) in sorted {
        match what {
            Ok(lease) => told[index].leases.push(lease),
            Err(custody) => told[index].unused.push(custody),
        }
    }
    for Told { link, leases, unused } in told {
        if !leases.is_empty() {
            link.give_back(&leases);
        }
        for custody in link.forget(&unused) {
            let errand = Errand::Unused(Arc::downgrade(&link), custody);
            again.push((Instant::now() + AGAIN, errand));
        }
    }
    late.sort_unstable_by_key(Weak::as_ptr);
    late.dedup_by(|one, other| Weak::ptr_eq(one, other));
    for link in late {
        if link.upgrade().is_some_and(|link| link.sweep()) {
            again.push((Instant::now() + AGAIN, Errand::Late(link)));
        }
    }
    drop(marks);
}
