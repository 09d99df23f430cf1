//! What this process hands out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use cuda_ipc::Chunk;

use super::Subject;

/// The offers of this process, as those see them who are asked.
#[derive(Debug, Default)]
pub(super) struct Counter {
    offers: RwLock<Vec<Entry>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    ticket: Ticket,
    subject: Subject,
    /// The offer has it: in a forked child the offer's is dropped, and what is in here never is.
    chunk: Weak<Chunk>,
}

/// Tells offers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

impl Counter {
    pub(super) fn add(&self, subject: Subject, chunk: &Arc<Chunk>) -> Ticket {
        // Relaxed: a number only has to be unique.
        let ticket = Ticket(self.next.fetch_add(1, Ordering::Relaxed));
        self.write().push(Entry { ticket, subject, chunk: Arc::downgrade(chunk) });
        ticket
    }

    /// Takes an offer away. Returns when nobody is being served any more, from it or another.
    pub(super) fn remove(&self, ticket: Ticket) {
        self.write().retain(|entry| entry.ticket != ticket);
    }

    /// Serves one request, which must not wait for anybody: no offer ends meanwhile.
    pub(super) fn serve<T>(
        &self,
        subject: &Subject,
        answer: impl FnOnce(Option<&Chunk>) -> T,
    ) -> T {
        let offers = self.read();
        let mut chunks = offers.iter().filter(|entry| entry.subject == *subject);
        let chunk = chunks.find_map(|entry| entry.chunk.upgrade());
        answer(chunk.as_deref())
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Entry>> {
        self.offers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Entry>> {
        self.offers.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;
    use crate::stream::holders::tests::{chunk, subject};

    #[test]
    fn an_offer_does_not_end_while_somebody_is_served() {
        let counter = Counter::default();
        let offered = chunk("frames");
        let ticket = counter.add(subject(1), &offered);
        let (tell, told) = channel();
        let (let_go, go) = channel::<()>();
        let is_served = AtomicBool::new(false);
        let (counter, is_served) = (&counter, &is_served);
        thread::scope(|scope| {
            scope.spawn(move || {
                counter.serve(&subject(1), |chunk| {
                    tell.send(chunk.is_some()).unwrap();
                    go.recv().unwrap();
                    is_served.store(true, Ordering::SeqCst);
                });
            });
            assert!(told.recv().unwrap(), "it is handed out");
            let ending = scope.spawn(|| {
                counter.remove(ticket);
                is_served.load(Ordering::SeqCst)
            });
            // Time for an end that does not wait.
            for _ in 0..10_000 {
                thread::yield_now();
            }
            let_go.send(()).unwrap();
            assert!(ending.join().unwrap(), "it ended under a request");
        });
        counter.serve(&subject(1), |chunk| assert!(chunk.is_none()));
    }

    #[test]
    fn only_what_was_asked_for_is_handed_out() {
        let counter = Counter::default();
        let (first, second) = (chunk("a"), chunk("b"));
        let ticket = counter.add(subject(1), &first);
        counter.add(subject(1), &first);
        counter.add(subject(2), &second);
        let is_here = |number| counter.serve(&subject(number), |chunk| chunk.is_some());
        assert_eq!([1, 2, 3].map(is_here), [true, true, false]);
        counter.remove(ticket);
        assert!(is_here(1), "another handle offers the same");
        drop(second);
        assert!(!is_here(2), "what nobody keeps is not handed out");
    }
}
