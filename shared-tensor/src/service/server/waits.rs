//! Which calls wait for which, so that none waits for itself.
//!
//! A call that has not ended depends on those that were made within it. One that has not begun depends
//! on the call whose turn it is at its endpoint, or on the one that builds what it asks for. Whoever
//! is about to wait looks first whether that would close a circle:
//!
//! | turns that are waited for in it | what is done |
//! |---|---|
//! | one | who waits for it runs within it: whoever has the turn can do nothing before |
//! | none, or several | the wait is refused |
//!
//! What is not seen here: threads that a function starts, waits for tasks, and other servers. Those
//! waits end by their deadlines.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use tensor_cache::FlightId;

use super::Unfinished;
use crate::service::endpoint::{Asker, Flag};
use crate::service::failure::{Code, Failure};
use crate::service::monitor::lock;

#[derive(Default)]
pub(crate) struct Waits {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: HashMap<u64, Unended>,
    /// Those made within a call, by its number.
    within: HashMap<u64, Vec<u64>>,
    builders: HashMap<FlightId, u64>,
    turns: HashMap<Arc<str>, u64>,
}

struct Unended {
    endpoint: Arc<str>,
    parent: u64,
    awaits: Option<Awaited>,
    builds: Option<FlightId>,
    /// Of one that runs: what it is told by if it is to stop, and who asked for it.
    running: Option<(Arc<Flag>, Asker)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// Of its endpoint.
    Turn,
    Flight(FlightId),
}

/// What there is to be done by who is about to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It waits, and that is noted.
    Wait,
    /// This call, which waits for its turn, is to run now.
    Run(u64),
    /// It is not to wait: the endpoints of the circle, the first one again at its end.
    Refuse(Vec<Arc<str>>),
}

impl Waits {
    /// A call that was made within `parent`, or within none that is known here.
    pub(crate) fn begin(&self, number: u64, parent: u64, endpoint: &Arc<str>) {
        let (endpoint, awaits) = (Arc::clone(endpoint), None);
        let call = Unended { endpoint, parent, awaits, builds: None, running: None };
        let mut state = lock(&self.state);
        state.calls.insert(number, call);
        if parent != 0 {
            state.within.entry(parent).or_default().push(number);
        }
    }

    pub(crate) fn end(&self, number: u64) {
        let mut state = lock(&self.state);
        let Some(ended) = state.calls.remove(&number) else { return };
        if let Some(flight) = ended.builds {
            state.builders.remove(&flight);
        }
        if let Some(calls) = state.within.get_mut(&ended.parent) {
            calls.retain(|call| *call != number);
            if calls.is_empty() {
                state.within.remove(&ended.parent);
            }
        }
        drop(state);
        // Its flag may hold on to whoever watches it.
        drop(ended);
    }

    /// Its function begins.
    pub(crate) fn runs(&self, number: u64, flag: &Arc<Flag>, asker: Asker) {
        if let Some(call) = lock(&self.state).calls.get_mut(&number) {
            call.running = Some((Arc::clone(flag), asker));
        }
    }

    /// The calls whose functions have begun, and have not ended.
    pub(crate) fn running(&self) -> Vec<Unfinished> {
        let state = lock(&self.state);
        let mut running: Vec<(u64, Unfinished)> = Vec::new();
        for (number, call) in &state.calls {
            if let Some((_, asker)) = call.running {
                let endpoint = call.endpoint.to_string();
                running.push((*number, Unfinished { endpoint, asker }));
            }
        }
        running.sort_unstable_by_key(|(number, _)| *number);
        running.into_iter().map(|(_, call)| call).collect()
    }

    pub(crate) fn raise_all(&self) {
        lock(&self.state)
            .calls
            .values()
            .filter_map(|it| it.running.as_ref())
            .for_each(|(flag, _)| flag.raise());
    }

    /// It builds what others may wait for. Said before it waits for anything.
    pub(crate) fn builds(&self, number: u64, flight: FlightId) {
        let mut state = lock(&self.state);
        if let Some(call) = state.calls.get_mut(&number) {
            call.builds = Some(flight);
            state.builders.insert(flight, number);
        }
    }

    /// It is about to wait for a build.
    pub(crate) fn join(&self, number: u64, flight: FlightId) -> Step {
        let mut state = lock(&self.state);
        let builder = state.builders.get(&flight).copied();
        let path = |turns_max| builder.and_then(|it| state.path(it, number, turns_max));
        let Some(circle) = path(Some(1)).or_else(|| path(None)) else {
            state.note(number, Some(Awaited::Flight(flight)));
            return Step::Wait;
        };
        let in_line = circle.iter().copied().filter(|it| state.awaits(*it) == Some(Awaited::Turn));
        match in_line.collect::<Vec<_>>()[..] {
            [waiting] => Step::Run(waiting),
            _ => Step::Refuse(state.names(&circle)),
        }
    }

    /// It is about to wait for its turn.
    pub(crate) fn queue(&self, number: u64) -> Step {
        let mut state = lock(&self.state);
        let holder = state.calls.get(&number).and_then(|it| state.turns.get(&it.endpoint)).copied();
        if holder.is_some_and(|it| state.path(it, number, Some(0)).is_some()) {
            return Step::Run(number);
        }
        if let Some(circle) = holder.and_then(|it| state.path(it, number, None)) {
            return Step::Refuse(state.names(&circle));
        }
        state.note(number, Some(Awaited::Turn));
        Step::Wait
    }

    /// It is its turn.
    pub(crate) fn take_turn(&self, number: u64, endpoint: &Arc<str>) {
        let mut state = lock(&self.state);
        state.turns.insert(Arc::clone(endpoint), number);
        state.note(number, None);
    }

    /// It is nobody's turn.
    pub(crate) fn end_turns(&self, endpoint: &str) {
        lock(&self.state).turns.remove(endpoint);
    }

    /// It runs out of turn.
    pub(crate) fn run(&self, number: u64) {
        lock(&self.state).note(number, None);
    }
}

impl State {
    fn awaits(&self, number: u64) -> Option<Awaited> {
        self.calls.get(&number)?.awaits
    }

    fn note(&mut self, number: u64, awaited: Option<Awaited>) {
        if let Some(call) = self.calls.get_mut(&number) {
            call.awaits = awaited;
        }
    }

    /// Over whom `from` depends on `to`, both included, by way of at most so many turns.
    fn path(&self, from: u64, to: u64, turns_max: Option<usize>) -> Option<Vec<u64>> {
        // Each with who depends on it. With a limit, who is come by with fewer turns counts anew.
        let mut reached: Vec<((u64, usize), usize)> = vec![((from, 0), 0)];
        let mut seen = HashSet::from([(from, 0)]);
        let mut next = 0;
        while let Some(((at, turns), _)) = reached.get(next).copied() {
            if at == to {
                let mut path = vec![at];
                while next > 0 {
                    next = reached[next].1;
                    path.push(reached[next].0.0);
                }
                path.reverse();
                return Some(path);
            }
            let awaited = match self.awaits(at) {
                Some(Awaited::Flight(flight)) => self.builders.get(&flight).map(|it| (*it, turns)),
                Some(Awaited::Turn) => {
                    let holder = self.calls.get(&at).and_then(|it| self.turns.get(&it.endpoint));
                    holder.map(|it| (*it, turns + usize::from(turns_max.is_some())))
                }
                None => None,
            };
            let within = self.within.get(&at).into_iter().flatten().map(|call| (*call, turns));
            let found = awaited.into_iter().chain(within);
            let found = found.filter(|(_, turns)| turns_max.is_none_or(|most| *turns <= most));
            reached.extend(found.filter(|it| seen.insert(*it)).map(|it| (it, next)));
            next += 1;
        }
        None
    }

    fn names(&self, path: &[u64]) -> Vec<Arc<str>> {
        let names = path.iter().filter_map(|it| self.calls.get(it));
        let mut names: Vec<Arc<str>> = names.map(|call| Arc::clone(&call.endpoint)).collect();
        names.dedup();
        if names.len() == 1 {
            names.push(Arc::clone(&names[0]));
        }
        names
    }
}

/// What is said of a wait that is refused.
pub(crate) fn refusal(circle: &[Arc<str>]) -> Failure {
    let names: Vec<String> = circle.iter().map(|name| format!("`{name}`")).collect();
    let what = format!(
        "the call would wait for itself, each of these for the next: {}; make one of the calls \
         outside of the other",
        names.join(" -> ")
    );
    Failure::new(Code::Deadlock, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// A call of an endpoint that takes turns or not, within one that runs or none.
        Begin { endpoint: usize, parent: usize },
        /// One that runs, and within which none does, ends.
        End(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => (0..5_usize, 0..8_usize)
                .prop_map(|(endpoint, parent)| Event::Begin { endpoint, parent }),
            1 => (0..8_usize).prop_map(Event::End),
        ]
    }

    #[derive(Debug)]
    struct Made {
        number: u64,
        parent: u64,
        endpoint: usize,
        is_joining: bool,
        is_queued: bool,
    }

    /// Of endpoints 0 to 2 one call runs at a time; of 1 to 4 all calls that come meanwhile wait for one
    /// build.
    #[derive(Default)]
    struct Server {
        waits: Waits,
        made: Vec<Made>,
        refused: usize,
    }

    impl Server {
        fn name(endpoint: usize) -> Arc<str> {
            endpoint.to_string().into()
        }

        fn takes_turns(endpoint: usize) -> bool {
            endpoint < 3
        }

        fn running(&self) -> Vec<u64> {
            let runs = self.made.iter().filter(|it| !it.is_joining && !it.is_queued);
            runs.map(|it| it.number).collect()
        }

        fn begin(&mut self, number: u64, parent: u64, endpoint: usize) {
            self.waits.begin(number, parent, &Self::name(endpoint));
            let flight = flight(endpoint);
            let is_built = lock(&self.waits.state).builders.contains_key(&flight);
            let (mut is_joining, mut is_queued) = (false, false);
            if endpoint > 0 && is_built {
                is_joining = true;
                loop {
                    match self.waits.join(number, flight) {
                        Step::Wait => break,
                        Step::Run(waiting) => self.run(waiting),
                        Step::Refuse(circle) => return self.refuse(number, &circle),
                    }
                }
            } else if endpoint > 0 {
                self.waits.builds(number, flight);
            }
            if !is_joining && Self::takes_turns(endpoint) {
                let is_free = !lock(&self.waits.state).turns.contains_key(&Self::name(endpoint));
                if is_free {
                    self.waits.take_turn(number, &Self::name(endpoint));
                } else {
                    match self.waits.queue(number) {
                        Step::Wait => is_queued = true,
                        Step::Run(own) => assert_eq!(own, number),
                        Step::Refuse(circle) => return self.refuse(number, &circle),
                    }
                }
            }
            self.made.push(Made { number, parent, endpoint, is_joining, is_queued });
        }

        fn refuse(&mut self, number: u64, circle: &[Arc<str>]) {
            assert!(circle.len() > 1 && circle.first() == circle.last(), "{circle:?}");
            self.refused += 1;
            self.waits.end(number);
        }

        fn run(&mut self, number: u64) {
            self.waits.run(number);
            let made = self.made.iter_mut().find(|it| it.number == number).expect("it was made");
            assert!(std::mem::take(&mut made.is_queued), "only who waits for a turn is run");
        }

        /// Ends one that runs; `false` if there is none that can.
        fn end(&mut self, at: usize) -> bool {
            let can_end = |it: &&u64| !self.made.iter().any(|other| other.parent == **it);
            let able: Vec<u64> = self.running().iter().filter(can_end).copied().collect();
            if able.is_empty() {
                return false;
            }
            let number = able[at % able.len()];
            let place = self.made.iter().position(|it| it.number == number).expect("it is there");
            let ended = self.made.remove(place);
            let name = Self::name(ended.endpoint);
            let (built, had_turn) = {
                let state = lock(&self.waits.state);
                (state.calls[&number].builds, state.turns.get(&name) == Some(&number))
            };
            if built.is_some() {
                // Those who waited have their result.
                let joined = |it: &mut Made| it.is_joining && it.endpoint == ended.endpoint;
                for done in self.made.extract_if(.., joined) {
                    self.waits.end(done.number);
                }
            }
            self.waits.end(number);
            if had_turn {
                let next = self.made.iter_mut();
                match next.into_iter().find(|it| it.is_queued && it.endpoint == ended.endpoint) {
                    Some(next) => {
                        next.is_queued = false;
                        self.waits.take_turn(next.number, &name);
                    }
                    None => self.waits.end_turns(&name),
                }
            }
            true
        }
    }

    fn flight(endpoint: usize) -> FlightId {
        FlightId::from_raw(endpoint as u64)
    }

    proptest! {
        #[test]
        fn whatever_waits_comes_to_an_end(events in prop::collection::vec(event(), 1..80)) {
            let mut server = Server::default();
            let mut next = 0;
            for event in events {
                match event {
                    Event::Begin { endpoint, parent } => {
                        next += 1;
                        let running = server.running();
                        let parent = running.get(parent).copied().unwrap_or(0);
                        server.begin(next, parent, endpoint);
                    }
                    Event::End(at) => {
                        server.end(at);
                    }
                }
            }
            while server.end(0) {}
            prop_assert!(server.made.is_empty(), "for ever: {:?}", server.made);
            let state = lock(&server.waits.state);
            prop_assert!(state.calls.is_empty() && state.within.is_empty());
            prop_assert!(state.builders.is_empty() && state.turns.is_empty());
        }
    }

    #[test]
    fn only_circles_are_refused() {
        let waits = Waits::default();
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        for (number, parent, endpoint) in [(1, 0, &a), (2, 0, &b), (3, 1, &b), (4, 2, &a)] {
            waits.begin(number, parent, endpoint);
        }
        waits.take_turn(1, &a);
        waits.take_turn(2, &b);
        assert_eq!(waits.queue(3), Step::Wait);
        let Step::Refuse(circle) = waits.queue(4) else { panic!("a circle") };
        assert_eq!(refusal(&circle).message.matches("`a` -> `b` -> `a`").count(), 1);
        // A second call of the same parent waits for the first one, which ends without it.
        waits.end(4);
        waits.begin(5, 1, &b);
        assert_eq!(waits.queue(5), Step::Wait);
        // One that is made within whoever has the turn.
        waits.begin(6, 1, &a);
        assert_eq!(waits.queue(6), Step::Run(6));
    }
}
