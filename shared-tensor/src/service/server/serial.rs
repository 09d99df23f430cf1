//! One call of an endpoint at a time, without a thread that waits.

use std::collections::VecDeque;
use std::sync::Arc;

use tensor_cache::FlightId;

use super::core::Core;
use super::pool::{Job, Pool};
use super::waits::{Step, refusal};
use crate::service::failure::Failure;
use crate::service::monitor::lock;

/// A job that is told if it is not to run.
pub(crate) type Begin = Box<dyn FnOnce(Result<(), Failure>) + Send>;

/// Those who wait for their turn; the endpoint is busy while its line exists.
#[derive(Default)]
pub(crate) struct Line {
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    number: u64,
    pool: Arc<Pool>,
    begin: Begin,
}

/// Runs the call `number` on `pool` when no other one of `endpoint` does.
pub(crate) fn submit(
    core: &Arc<Core>,
    endpoint: &Arc<str>,
    number: u64,
    pool: &Arc<Pool>,
    begin: Begin,
) {
    let waiting = Waiting { number, pool: Arc::clone(pool), begin };
    let mut lines = lock(core.serial());
    let Some(line) = lines.get_mut(endpoint) else {
        lines.insert(Arc::clone(endpoint), Line::default());
        core.waits().take_turn(number, endpoint);
        drop(lines);
        start(core, endpoint, waiting);
        return;
    };
    match core.waits().queue(number) {
        Step::Wait => line.waiting.push_back(waiting),
        Step::Run(_) => {
            drop(lines);
            waiting.run();
        }
        Step::Refuse(circle) => {
            drop(lines);
            (waiting.begin)(Err(refusal(&circle)));
        }
    }
}

/// Notes that the call `number` waits for a build.
///
/// # Errors
/// The failure of the call, if it would wait for ever.
pub(crate) fn join(core: &Arc<Core>, number: u64, flight: FlightId) -> Result<(), Failure> {
    loop {
        match core.waits().join(number, flight) {
            Step::Wait => return Ok(()),
            Step::Run(waiting) => run_now(core, waiting),
            Step::Refuse(circle) => return Err(refusal(&circle)),
        }
    }
}

/// Runs one that waits for its turn. Its turn may just have come.
fn run_now(core: &Arc<Core>, number: u64) {
    let mut lines = lock(core.serial());
    let found = lines.values_mut().find_map(|line| {
        let place = line.waiting.iter().position(|it| it.number == number)?;
        line.waiting.remove(place)
    });
    core.waits().run(number);
    drop(lines);
    if let Some(waiting) = found {
        waiting.run();
    }
}

impl Waiting {
    fn run(self) {
        let begin = self.begin;
        // Dropping it tells those who wait for it.
        drop(self.pool.submit(Box::new(move || begin(Ok(())))));
    }
}

fn start(core: &Arc<Core>, endpoint: &Arc<str>, next: Waiting) {
    let turn = Turn { core: Arc::clone(core), endpoint: Arc::clone(endpoint) };
    let Waiting { pool, begin, .. } = next;
    // A job that is dropped, because the pool is closed, ends its turn as well.
    let job: Job = Box::new(move || {
        let turn = turn;
        begin(Ok(()));
        drop(turn);
    });
    drop(pool.submit(job));
}

/// Lets the next one begin when it ends, however that is.
struct Turn {
    core: Arc<Core>,
    endpoint: Arc<str>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lines = lock(self.core.serial());
        if self.core.is_stopping() {
            // Nobody's turn comes any more.
            let line = lines.remove(&self.endpoint);
            drop(lines);
            drop(line);
            return;
        }
        let next = lines.get_mut(&self.endpoint).and_then(|line| line.waiting.pop_front());
        if let Some(next) = &next {
            self.core.waits().take_turn(next.number, &self.endpoint);
        } else {
            lines.remove(&self.endpoint);
            self.core.waits().end_turns(&self.endpoint);
        }
        drop(lines);
        if let Some(next) = next {
            start(&self.core, &self.endpoint, next);
        }
    }
}
