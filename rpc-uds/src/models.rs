//! Loom models: every interleaving of a few threads around the desk and the gate.
//!
//! Time does not pass in a model. A wake-up that gets lost is a deadlock; each of the mutants listed
//! in `loom_mutants.txt` makes at least one of these models fail.

use std::collections::VecDeque;

use loom::sync::Arc;
use loom::thread;

use crate::desk::{Delivery, Desk, Outcome, Turn, Watch};
use crate::error::Lost;
use crate::gate::Gate;
use crate::sync::{Condvar, Mutex, lock};

/// More forced switches than this find little more and take far longer.
const PREEMPTIONS: usize = 3;

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.check(model);
}

/// What a socket is to a model: frames that come, or the end.
struct Socket {
    state: Mutex<Input>,
    came: Condvar,
}

#[derive(Default)]
struct Input {
    frames: VecDeque<Frame>,
    is_kicked: bool,
}

#[derive(Clone, Copy)]
enum Frame {
    Reply(u64),
    Push(u64),
    End,
}

struct Model {
    desk: Desk<u64>,
    socket: Socket,
    /// Replies that came after their callers had given up.
    late: Mutex<Vec<u64>>,
}

impl Model {
    fn new() -> Arc<Self> {
        let socket = Socket { state: Mutex::new(Input::default()), came: Condvar::new() };
        Arc::new(Self { desk: Desk::new(4), socket, late: Mutex::new(Vec::new()) })
    }

    /// The peer sends.
    fn send(&self, frame: Frame) {
        lock(&self.socket.state).frames.push_back(frame);
        self.socket.came.notify_all();
    }

    /// A blocking read.
    fn receive(&self) -> Frame {
        let mut input = lock(&self.socket.state);
        loop {
            match input.frames.pop_front() {
                // The end stays.
                Some(Frame::End) => {
                    input.frames.push_front(Frame::End);
                    return Frame::End;
                }
                Some(frame) => return frame,
                None => input = crate::sync::sleep(&self.socket.came, input, None),
            }
        }
    }

    /// What the watcher's poll is: over while there is something, whoever takes it then.
    fn poll(&self) {
        let mut input = lock(&self.socket.state);
        while input.frames.is_empty() && !input.is_kicked {
            input = crate::sync::sleep(&self.socket.came, input, None);
        }
        input.is_kicked = false;
    }

    /// Reads without waiting, if nobody else reads.
    fn receive_now(&self) {
        if !self.desk.lead_if_free() {
            return;
        }
        loop {
            let frame = lock(&self.socket.state).frames.pop_front();
            let Some(frame) = frame else { break };
            self.hand_out(frame);
        }
        self.desk.step_down();
    }

    fn hand_out(&self, frame: Frame) -> bool {
        match frame {
            Frame::Reply(id) => {
                match self.desk.deliver(id, id) {
                    Delivery::Taken | Delivery::Unwanted(_) => {}
                    Delivery::Late(reply) => lock(&self.late).push(reply),
                    Delivery::NeverAsked(id) => panic!("{id} was asked for"),
                }
                true
            }
            Frame::Push(push) => {
                let pushed = self.desk.push(push);
                assert_eq!(pushed.dropped, None);
                if pushed.kick {
                    lock(&self.socket.state).is_kicked = true;
                    self.socket.came.notify_all();
                }
                true
            }
            Frame::End => {
                assert_eq!(self.desk.lose(Lost::Closed), Lost::Closed);
                false
            }
        }
    }

    /// What a client's thread does from its request to its reply.
    fn wait(&self, id: u64) -> Result<u64, Lost> {
        loop {
            match self.desk.turn(id, None) {
                Turn::Done(Outcome::Here(reply)) => return Ok(reply),
                Turn::Done(Outcome::Cancelled) => return Ok(0),
                Turn::Lost(lost) => return Err(lost),
                Turn::Late => panic!("there is no deadline"),
                Turn::Lead => {}
            }
            loop {
                let goes_on = self.hand_out(self.receive());
                match self.desk.outcome(id) {
                    Some(Outcome::Here(reply)) => {
                        self.desk.step_down();
                        return Ok(reply);
                    }
                    Some(Outcome::Cancelled) => panic!("nobody cancels a leader here"),
                    None if goes_on => {}
                    None => {
                        self.desk.leave(id, true);
                        return Err(Lost::Closed);
                    }
                }
            }
        }
    }
}

#[test]
fn loom_everybody_gets_their_own_reply() {
    explore(|| {
        let model = Model::new();
        let ids: Vec<u64> = (0..2).map(|_| model.desk.enlist().expect("not lost")).collect();
        let callers: Vec<_> = ids
            .iter()
            .map(|&id| {
                let model = Arc::clone(&model);
                thread::spawn(move || model.wait(id))
            })
            .collect();
        for &id in ids.iter().rev() {
            model.send(Frame::Reply(id));
        }
        for (caller, id) in callers.into_iter().zip(ids) {
            assert_eq!(caller.join().expect("no panic"), Ok(id));
        }
    });
}

#[test]
fn loom_a_leader_that_has_its_reply_appoints_another() {
    explore(|| {
        let model = Model::new();
        let first = model.desk.enlist().expect("not lost");
        let second = model.desk.enlist().expect("not lost");
        let caller = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.wait(first))
        };
        let peer = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                model.send(Frame::Reply(first));
                model.send(Frame::Reply(second));
            })
        };
        assert_eq!(model.wait(second), Ok(second));
        assert_eq!(caller.join().expect("no panic"), Ok(first));
        peer.join().expect("no panic");
    });
}

#[test]
fn loom_who_gives_up_while_nobody_reads_appoints_another() {
    explore(|| {
        let model = Model::new();
        let patient = model.desk.enlist().expect("not lost");
        let hasty = model.desk.enlist().expect("not lost");
        assert!(model.desk.lead_if_free());
        let hasty = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                // Late, or appointed and then late: in a model a deadline passes at any time.
                match model.desk.turn(hasty, Some(std::time::Instant::now())) {
                    Turn::Lead => {
                        model.desk.leave(hasty, true);
                    }
                    Turn::Late => {
                        model.desk.leave(hasty, false);
                    }
                    other => panic!("{other:?}"),
                }
            })
        };
        let reader = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.desk.step_down())
        };
        model.send(Frame::Reply(patient));
        assert_eq!(model.wait(patient), Ok(patient));
        hasty.join().expect("no panic");
        reader.join().expect("no panic");
    });
}

#[test]
fn loom_a_reply_that_comes_too_late_is_had_once() {
    explore(|| {
        let model = Model::new();
        let patient = model.desk.enlist().expect("not lost");
        let hasty = model.desk.enlist().expect("not lost");
        let caller = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                let outcome = match model.desk.turn(hasty, Some(std::time::Instant::now())) {
                    Turn::Done(outcome) => Some(outcome),
                    Turn::Late => model.desk.abandon(hasty),
                    Turn::Lead => {
                        model.desk.step_down();
                        model.desk.abandon(hasty)
                    }
                    Turn::Lost(lost) => panic!("{lost:?}"),
                };
                usize::from(outcome == Some(Outcome::Here(hasty)))
            })
        };
        model.send(Frame::Reply(hasty));
        model.send(Frame::Reply(patient));
        assert_eq!(model.wait(patient), Ok(patient));
        let had = caller.join().expect("no panic");
        assert_eq!(had + lock(&model.late).len(), 1, "had by its caller, or afterwards");
        assert!(!model.desk.awaits_late(), "there is nothing to come");
    });
}

#[test]
fn loom_the_end_wakes_everybody() {
    explore(|| {
        let model = Model::new();
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let model = Arc::clone(&model);
                let id = model.desk.enlist().expect("not lost");
                thread::spawn(move || model.wait(id))
            })
            .collect();
        let id = model.desk.enlist().expect("not lost");
        model.send(Frame::End);
        assert_eq!(model.wait(id), Err(Lost::Closed));
        for caller in callers {
            assert_eq!(caller.join().expect("no panic"), Err(Lost::Closed));
        }
    });
}

#[test]
fn loom_losing_wakes_those_who_sleep() {
    explore(|| {
        let model = Model::new();
        assert!(model.desk.lead_if_free());
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let model = Arc::clone(&model);
                let id = model.desk.enlist().expect("not lost");
                thread::spawn(move || model.desk.turn(id, None))
            })
            .collect();
        // The leader loses the connection and keeps the lead: nobody is appointed.
        assert_eq!(model.desk.lose(Lost::Closed), Lost::Closed);
        for caller in callers {
            assert_eq!(caller.join().expect("no panic"), Turn::Lost(Lost::Closed));
        }
    });
}

#[test]
fn loom_a_cancelled_sleeper_wakes() {
    explore(|| {
        let model = Model::new();
        assert!(model.desk.lead_if_free());
        let id = model.desk.enlist().expect("not lost");
        let caller = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.desk.turn(id, None))
        };
        assert!(model.desk.cancel(id));
        assert_eq!(caller.join().expect("no panic"), Turn::Done(Outcome::Cancelled));
        model.desk.step_down();
    });
}

#[test]
fn loom_a_reply_wakes_its_caller_while_the_leader_reads_on() {
    explore(|| {
        let model = Model::new();
        assert!(model.desk.lead_if_free());
        let id = model.desk.enlist().expect("not lost");
        let caller = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.wait(id))
        };
        assert!(model.hand_out(Frame::Reply(id)));
        assert_eq!(caller.join().expect("no panic"), Ok(id));
        model.desk.step_down();
    });
}

#[test]
fn loom_a_push_wakes_one_who_waits_for_it() {
    explore(|| {
        let model = Model::new();
        assert!(model.desk.lead_if_free());
        let id = model.desk.enlist_for_push().expect("not lost");
        let caller = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.wait(id))
        };
        assert!(model.hand_out(Frame::Push(7)));
        assert_eq!(caller.join().expect("no panic"), Ok(7));
        model.desk.step_down();
    });
}

#[test]
fn loom_the_watcher_comes_back_after_a_slow_call() {
    explore(|| {
        let model = Model::new();
        assert!(model.desk.lead_if_free());
        let watcher = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.desk.watch())
        };
        model.desk.step_down();
        assert_eq!(watcher.join().expect("no panic"), Watch::Poll);
    });
}

#[test]
fn loom_a_push_reaches_the_watcher_whoever_reads_it() {
    explore(|| {
        let model = Model::new();
        let watcher = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                loop {
                    match model.desk.watch() {
                        Watch::HandOut(push) => return push,
                        Watch::Poll => {
                            model.poll();
                            model.receive_now();
                        }
                        Watch::End => panic!("nobody loses the connection here"),
                    }
                }
            })
        };
        let id = model.desk.enlist().expect("not lost");
        model.send(Frame::Push(7));
        model.send(Frame::Reply(id));
        assert_eq!(model.wait(id), Ok(id));
        assert_eq!(watcher.join().expect("no panic"), 7);
    });
}

#[test]
fn loom_a_closed_gate_is_empty_when_it_says_so() {
    explore(|| {
        let gate = Arc::new(Gate::new());
        let work = Arc::new(loom::cell::UnsafeCell::new(0));
        let worker = {
            let (gate, work) = (Arc::clone(&gate), Arc::clone(&work));
            thread::spawn(move || {
                if let Some(pass) = Gate::enter(&gate) {
                    // Loom sees an access to the cell that is not ordered with the other one.
                    work.with_mut(|_| ());
                    drop(pass);
                }
            })
        };
        gate.close();
        assert!(gate.wait_until_empty(None));
        assert!(Gate::enter(&gate).is_none());
        work.with_mut(|_| ());
        worker.join().expect("no panic");
    });
}
