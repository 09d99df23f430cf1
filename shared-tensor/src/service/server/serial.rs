//! One call of an endpoint at a time, without a thread that waits.

use std::collections::VecDeque;
use std::sync::Arc;

use super::core::Core;
use super::pool::{Job, Pool};
use crate::service::monitor::lock;

/// Those who wait for their turn; the endpoint is busy while its line exists.
#[derive(Default)]
pub(crate) struct Line {
    waiting: VecDeque<(Arc<Pool>, Job)>,
}

/// Runs `job` on `pool` when no other job of `endpoint` does.
pub(crate) fn submit(core: &Arc<Core>, endpoint: &Arc<str>, pool: &Arc<Pool>, job: Job) {
    let mut lines = lock(core.serial());
    if let Some(line) = lines.get_mut(endpoint) {
        line.waiting.push_back((Arc::clone(pool), job));
        return;
    }
    lines.insert(Arc::clone(endpoint), Line::default());
    drop(lines);
    start(core, endpoint, pool, job);
}

fn start(core: &Arc<Core>, endpoint: &Arc<str>, pool: &Arc<Pool>, job: Job) {
    let turn = Turn { core: Arc::clone(core), endpoint: Arc::clone(endpoint) };
    // A job that is dropped, because the pool is closed, ends its turn as well.
    drop(pool.submit(Box::new(move || {
        let turn = turn;
        job();
        drop(turn);
    })));
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
        if next.is_none() {
            lines.remove(&self.endpoint);
        }
        drop(lines);
        if let Some((pool, job)) = next {
            start(&self.core, &self.endpoint, &pool, job);
        }
    }
}
