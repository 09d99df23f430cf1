//! Random builds and waits, and all paths between actors as the judge.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Decision, Machine, Refusal};
use crate::{Actor, FlightId, Request, WaiterId};

const ACTORS: usize = 5;
const KEYS: u32 = 6;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// An actor asks for a key: builds it, or waits for it and says so.
    Ask(usize, u32),
    /// An actor stops waiting.
    Leave(usize),
    /// A build ends.
    Finish(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..ACTORS, 0..KEYS).prop_map(|(actor, key)| Step::Ask(actor, key)),
        1 => (0_usize..8).prop_map(Step::Leave),
        1 => (0_usize..8).prop_map(Step::Finish),
    ]
}

#[derive(Default)]
struct Graph {
    /// Who builds what.
    builds: Vec<(FlightId, u32, usize)>,
    /// Who waits for whom, and for what.
    waits: Vec<(WaiterId, usize, FlightId)>,
}

impl Graph {
    /// Whether `from` waits, over however many others, for `to`.
    fn reaches(&self, from: usize, to: usize) -> bool {
        let mut reached = vec![from];
        let mut next = 0;
        while let Some(actor) = reached.get(next).copied() {
            next += 1;
            for (_, _, flight) in self.waits.iter().filter(|(_, waiting, _)| *waiting == actor) {
                let builder = self.builds.iter().find(|(id, ..)| id == flight).map(|it| it.2);
                reached.extend(builder.filter(|builder| !reached.contains(builder)));
            }
        }
        reached.contains(&to)
    }
}

proptest! {
    #[test]
    fn a_wait_is_refused_if_and_only_if_it_closes_a_circle(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let actors: Vec<Actor> = (0..ACTORS).map(|_| Actor::unique()).collect();
        let mut machine: Machine<u32, (), String> = Machine::new(&[], 0);
        let session = machine.open_session();
        let mut graph = Graph::default();
        for step in steps {
            match step {
                Step::Ask(actor, key) => {
                    let request = Request::new(key).on_behalf_of(actors[actor]);
                    let built = graph.builds.iter().find(|build| build.1 == key).copied();
                    match (machine.lookup(0, session, &request), built) {
                        (Ok(Decision::Hit(_)), None) => {}
                        (Ok(Decision::Build { flight, waiter }), None) => {
                            machine.build_as(flight, Some(actors[actor]));
                            // The builder takes the value when it has built it.
                            machine.leave(0, waiter);
                            graph.builds.push((flight, key, actor));
                        }
                        (Ok(Decision::Join { flight, waiter }), Some((_, _, builder))) => {
                            prop_assert!(!graph.reaches(builder, actor), "a circle was let through");
                            graph.waits.push((waiter, actor, flight));
                        }
                        (Err(Refusal::WouldDeadlock(chain)), Some((_, _, builder))) => {
                            prop_assert!(graph.reaches(builder, actor), "{chain:?} is no circle");
                            prop_assert_eq!(chain.first(), chain.last());
                            prop_assert!(chain.contains(&key.to_string()));
                        }
                        _ => prop_assert!(false, "the machine and the graph know different builds"),
                    }
                }
                Step::Leave(at) if !graph.waits.is_empty() => {
                    let (waiter, ..) = graph.waits.remove(at % graph.waits.len());
                    machine.leave(0, waiter);
                }
                Step::Finish(at) if !graph.builds.is_empty() => {
                    let (flight, ..) = graph.builds.remove(at % graph.builds.len());
                    let finished = machine.finish(0, flight, Arc::new(()), crate::Charges::none());
                    prop_assert!(matches!(finished, Some(Ok(_))));
                    graph.waits.retain(|(.., awaited)| *awaited != flight);
                }
                Step::Leave(_) | Step::Finish(_) => {}
            }
            machine.check();
        }
    }
}
