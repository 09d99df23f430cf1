//! One thread that gives back what is not used any more.
//!
//! Tensors end wherever the last one who uses them lets go: in the middle of a computation, under
//! locks of others, in a collector of garbage. There nothing is said on a socket and nothing
//! unmapped: it is left to this thread.
//!
//! It waits for no server: one that does not read or answer is asked again later, and keeps nobody
//! else's things from being given back. Nothing is given up while its connection lives.

use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rpc_uds::{CallError, Message, PendingCall};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shm_lock::PerProcess;

use super::client::{Forgetting, Link};
use super::monitor::lock;
use super::region::Map;
use super::wire::messages::{Custody, CustodyAt, LeaseEntry};

/// Something to do.
pub(crate) enum Errand {
    /// There are leases that are not needed any more.
    Leases(Arc<Link>),
    /// A region has no users any more.
    Unused(Weak<Link>, Custody),
    /// A mapping that may have its last user here.
    Unmap(Arc<Map>),
    /// A call was given up whose reply may be on its way.
    Late(Weak<Link>),
    /// Everything before this that concerns these connections is done when it is dropped.
    Mark(Sender<()>, Vec<Weak<Link>>),
}

/// How soon a server is asked again about a region of which something was on its way, and a reply
/// that comes too late is looked for again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long an answer is waited for at once; later it is looked for now and then.
const BRIEF: Duration = Duration::from_millis(20);
/// How many errands are done at once, and how much is said in one message.
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
            Reaper::default().carry_out(vec![errand]);
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

/// How long that is waited for if nothing else is said.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Comes back when everything that was left to the thread so far, and concerns these connections, is
/// done, or at the deadline.
pub(crate) fn settle(links: Vec<Weak<Link>>, deadline: Option<Instant>) {
    let is_started = REAPER.get().is_some_and(|reaper| lock(reaper).is_some());
    if !is_started {
        return;
    }
    let (mark, done) = mpsc::channel();
    send(Errand::Mark(mark, links));
    let left =
        deadline.map_or(PATIENCE, |deadline| deadline.saturating_duration_since(Instant::now()));
    // It is dropped, never sent.
    let _ = done.recv_timeout(left);
}

fn live(errands: &Receiver<Errand>) {
    let mut reaper = Reaper::default();
    loop {
        let first = match reaper.due {
            None => errands.recv().ok(),
            Some(due) => {
                match errands.recv_timeout(due.saturating_duration_since(Instant::now())) {
                    Ok(errand) => Some(errand),
                    Err(mpsc::RecvTimeoutError::Timeout) => None,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        if first.is_none() && reaper.due.is_none() {
            return;
        }
        let mut batch: Vec<Errand> = first.into_iter().collect();
        while batch.len() < BATCH && !matches!(batch.last(), Some(Errand::Mark(..))) {
            let Ok(errand) = errands.try_recv() else { break };
            batch.push(errand);
        }
        reaper.carry_out(batch);
    }
}

/// What is still to be done.
#[derive(Default)]
struct Reaper {
    owed: Vec<Owed>,
    late: Vec<Weak<Link>>,
    marks: Vec<(Sender<()>, Vec<Weak<Link>>)>,
    /// When it is tried again.
    due: Option<Instant>,
}

/// What one connection is to be told.
struct Owed {
    link: Weak<Link>,
    has_leases: bool,
    unused: Vec<Custody>,
    /// What was sent and is not answered.
    asked: Option<(PendingCall, Asked)>,
}

enum Asked {
    Leases(Vec<LeaseEntry>),
    Forget(Vec<CustodyAt>),
}

impl Reaper {
    fn carry_out(&mut self, batch: Vec<Errand>) {
        // Kept until all is said: a connection whose last user left goes after that.
        let mut links = Vec::new();
        for errand in batch {
            match errand {
                Errand::Leases(link) => {
                    self.of(&Arc::downgrade(&link)).has_leases = true;
                    links.push(link);
                }
                Errand::Unused(link, custody) => self.of(&link).unused.push(custody),
                Errand::Unmap(map) => drop(map),
                Errand::Late(link) => {
                    if !self.late.iter().any(|known| Weak::ptr_eq(known, &link)) {
                        self.late.push(link);
                    }
                }
                Errand::Mark(mark, links) => self.marks.push((mark, links)),
            }
        }
        for owed in &mut self.owed {
            // Whose connection is over has nothing to be told.
            let link = owed.link.upgrade().filter(|link| !link.is_lost());
            if link.is_none_or(|link| owed.pay(&link)) {
                *owed = Owed::new(Weak::new());
            }
        }
        self.owed.retain(|owed| owed.link.strong_count() > 0);
        self.late.retain(|link| link.upgrade().is_some_and(|link| link.sweep()));
        let is_owed = |link: &Weak<Link>| {
            self.owed.iter().any(|it| Weak::ptr_eq(&it.link, link) && !it.is_left_to_a_loop())
        };
        self.marks.retain(|(_, links)| links.iter().any(is_owed));
        let is_more = !self.owed.is_empty() || !self.late.is_empty();
        self.due = is_more.then(|| Instant::now() + AGAIN);
    }

    fn of(&mut self, link: &Weak<Link>) -> &mut Owed {
        let known = self.owed.iter().position(|it| Weak::ptr_eq(&it.link, link));
        let index = known.unwrap_or_else(|| {
            self.owed.push(Owed::new(Weak::clone(link)));
            self.owed.len() - 1
        });
        &mut self.owed[index]
    }
}

impl Owed {
    fn new(link: Weak<Link>) -> Self {
        Self { link, has_leases: false, unused: Vec::new(), asked: None }
    }

    /// Whether there is only an answer to come, which an event loop reads that the one who waits may
    /// be keeping from it.
    fn is_left_to_a_loop(&self) -> bool {
        self.asked.is_some() && self.link.upgrade().is_some_and(|link| link.is_driven())
    }

    /// Says what is to be said, as far as the server reads and answers; whether that was all.
    fn pay(&mut self, link: &Arc<Link>) -> bool {
        // What a server asks to be asked again is: later.
        let mut again = Vec::new();
        let mut patience = Duration::ZERO;
        loop {
            if let Some((mut call, asked)) = self.asked.take() {
                let Some(answer) = answer_to(link, &mut call, patience) else {
                    self.asked = Some((call, asked));
                    break;
                };
                match (answer, asked) {
                    (Ok(_), Asked::Leases(_)) => {}
                    (Ok(message), Asked::Forget(asked)) => {
                        again.extend(link.forgotten(&message, asked));
                    }
                    (Err(CallError::Refused(_)), Asked::Leases(leases)) => {
                        link.give_back_again(leases);
                        self.has_leases = true;
                        break;
                    }
                    (Err(CallError::Refused(_)), Asked::Forget(asked)) => {
                        again.extend(asked.into_iter().map(|at| at.custody));
                        break;
                    }
                    // The connection is over.
                    (Err(_), _) => return true,
                }
            }
            patience = BRIEF;
            if self.has_leases {
                match link.start_giving_back() {
                    Ok(Some((call, leases))) => self.asked = Some((call, Asked::Leases(leases))),
                    Ok(None) => self.has_leases = false,
                    Err(CallError::TimedOut { .. }) => break,
                    Err(_) => return true,
                }
            } else if !self.unused.is_empty() {
                let unused = self.unused.split_off(self.unused.len().saturating_sub(BATCH));
                match link.start_forgetting(&unused) {
                    Ok(Forgetting { asked, later }) => {
                        self.asked = asked.map(|(call, asked)| (call, Asked::Forget(asked)));
                        again.extend(later);
                    }
                    Err(CallError::TimedOut { .. }) => {
                        self.unused.extend(unused);
                        break;
                    }
                    Err(_) => return true,
                }
            } else {
                break;
            }
        }
        self.unused.extend(again);
        self.asked.is_none() && !self.has_leases && self.unused.is_empty()
    }
}

/// The answer, if it comes soon.
fn answer_to(
    link: &Link,
    call: &mut PendingCall,
    patience: Duration,
) -> Option<Result<Message, CallError>> {
    let until = Instant::now() + patience;
    loop {
        if !link.is_driven() {
            // Its end is told by the call.
            let _ = link.rpc.try_receive();
        }
        let answer = call.try_wait();
        if answer.is_some() || link.is_driven() || Instant::now() >= until {
            return answer;
        }
        if let Ok(socket) = link.rpc.descriptor() {
            // Somebody else may read it, and then the socket is not readable any more.
            let slice = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
            let _ = poll(&mut [PollFd::new(&socket.as_fd(), PollFlags::IN)], Some(&slice));
        }
    }
}
