//! Lanes: in which order the uses of one process end.

use cuda_ipc::StreamId;

use crate::ring::device::Use;
use crate::stream::layout::LANES_PER_SEAT;

/// A queue of work of this process: its device's number here, and which of the streams there it is.
pub(super) type Queue = (usize, StreamId);

/// The lanes of one seat. Each belongs to one queue at a time, whose work ends in the order in which it
/// was queued, so that a number says how far it has come.
#[derive(Debug)]
pub(super) struct Lanes {
    first: usize,
    all: [Lane; LANES_PER_SEAT],
    turns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    queue: Option<Queue>,
    /// The number of its last use that was queued: what others wait for.
    last: u64,
    /// The last number that was given to a use, which the driver may have refused.
    given: u64,
    /// When it was last asked for, to give away the one that was not for longest.
    turn: u64,
}

/// The next use of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) it: Use,
    /// What has to end first: the last use of the lane by another queue, for which this one waits.
    pub(super) after: Option<Use>,
}

impl Lanes {
    /// Those from `first` on, whose last uses have these numbers.
    pub(super) fn new(first: usize, last: [u64; LANES_PER_SEAT]) -> Self {
        let all = last.map(|last| Lane { last, given: last, ..Lane::default() });
        Self { first, all, turns: 0 }
    }

    /// The next use by a queue; `None` is one that nobody knows again. `is_over` tells of uses of these lanes.
    /// When its end is queued it is [noted](Self::note). One that is not is nobody's to wait for, and its number
    /// no other use's: the driver may have queued what it says that it refused.
    pub(super) fn next(&mut self, queue: Option<Queue>, is_over: impl Fn(Use) -> bool) -> Next {
        let last = |index: usize, lane: &Lane| Use { lane: self.first + index, number: lane.last };
        let own = self.all.iter().position(|lane| queue.is_some() && lane.queue == queue);
        let index = own.unwrap_or_else(|| {
            let by_age = |&index: &usize| {
                let lane = &self.all[index];
                (!is_over(last(index, lane)), lane.turn)
            };
            (0..LANES_PER_SEAT).min_by_key(by_age).unwrap_or_default()
        });
        let before = last(index, &self.all[index]);
        let after = (own.is_none() && !is_over(before)).then_some(before);
        let lane = &mut self.all[index];
        lane.given += 1;
        Next { it: Use { number: lane.given, ..before }, after }
    }

    /// Notes that the end of a use is queued.
    pub(super) fn note(&mut self, queue: Option<Queue>, it: Use) {
        self.turns += 1;
        let index = it.lane.checked_sub(self.first);
        if let Some(lane) = index.and_then(|index| self.all.get_mut(index)) {
            *lane = Lane { queue, last: it.number, turn: self.turns, ..*lane };
        }
    }

    /// Whether a queue has the lane of a use, so that what comes next in it comes after that: who takes a
    /// lane over waits for its last use.
    pub(super) fn has(&self, queue: Queue, it: Use) -> bool {
        let lane = it.lane.checked_sub(self.first).and_then(|index| self.all.get(index));
        lane.is_some_and(|lane| lane.queue == Some(queue))
    }

    /// The last use of each.
    pub(super) fn last(&self) -> impl Iterator<Item = Use> {
        let lanes = self.all.iter().enumerate();
        lanes.map(|(index, lane)| Use { lane: self.first + index, number: lane.last })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn queue(number: usize) -> Queue {
        (0, StreamId::of_handle(number))
    }

    impl Lanes {
        /// The next use, queued.
        fn queued(&mut self, queue: Option<Queue>, is_over: impl Fn(Use) -> bool) -> Next {
            let next = self.next(queue, is_over);
            self.note(queue, next.it);
            next
        }
    }

    /// By those who take its lane over, and by whoever lets go of the seat.
    #[test]
    fn nobody_waits_for_a_use_that_was_refused() {
        let mut lanes = Lanes::new(0, [0; LANES_PER_SEAT]);
        let refused = lanes.next(Some(queue(1)), |it| it.number == 0);
        assert!(lanes.last().all(|it| it.number == 0));
        assert!(!lanes.has(queue(1), refused.it));
        let next = lanes.queued(Some(queue(2)), |it| it.number == 0);
        assert_eq!(next.after, None);
        assert_ne!(next.it, refused.it, "whatever the driver did with the first one");
    }

    #[test]
    fn a_queue_that_was_refused_a_lane_leaves_it_to_who_has_it() {
        let mut lanes = Lanes::new(0, [0; LANES_PER_SEAT]);
        for number in 0..LANES_PER_SEAT {
            lanes.queued(Some(queue(number)), |it| it.number == 0);
        }
        let refused = lanes.next(Some(queue(9)), |it| it.number == 0);
        assert_eq!(refused.after, Some(Use { lane: 0, number: 1 }));
        let after = lanes.queued(Some(queue(8)), |it| it.number == 0).after;
        assert_eq!(after, Some(Use { lane: 0, number: 1 }), "which was queued");
    }

    #[test]
    fn a_queue_keeps_its_lane_and_counts_on() {
        let mut lanes = Lanes::new(8, [5, 0, 0, 0]);
        let nothing_ends = |it: Use| it.number == 5 && it.lane == 8 || it.number == 0;
        let first = lanes.queued(Some(queue(1)), nothing_ends);
        assert_eq!(first, Next { it: Use { lane: 8, number: 6 }, after: None });
        let other = lanes.queued(Some(queue(2)), nothing_ends);
        assert_eq!(other, Next { it: Use { lane: 9, number: 1 }, after: None });
        let again = lanes.queued(Some(queue(1)), nothing_ends);
        assert_eq!(again, Next { it: Use { lane: 8, number: 7 }, after: None });
    }

    #[test]
    fn a_lane_that_has_ended_is_given_away_first() {
        let mut lanes = Lanes::new(0, [0; LANES_PER_SEAT]);
        for number in 0..LANES_PER_SEAT {
            lanes.queued(Some(queue(number)), |it| it.number == 0);
        }
        let fifth = lanes.queued(Some(queue(9)), |it| it.lane == 2);
        assert_eq!(fifth, Next { it: Use { lane: 2, number: 2 }, after: None });
        let devices = lanes.queued(Some((1, StreamId::of_handle(0))), |it| it.lane == 1);
        assert_eq!(devices.it.lane, 1, "the handle of another device is another queue");
    }

    #[test]
    fn a_queue_that_nobody_knows_again_has_no_lane_for_itself() {
        let mut lanes = Lanes::new(0, [0; LANES_PER_SEAT]);
        let first = lanes.queued(None, |it| it.number == 0);
        let second = lanes.queued(None, |it| it.number == 0);
        assert_ne!(first.it.lane, second.it.lane);
        let third = lanes.queued(Some(queue(3)), |it| it.number == 0).it;
        assert!(lanes.has(queue(3), third));
        assert!(!lanes.has(queue(3), first.it));
        assert!(!lanes.has(queue(3), Use { lane: 99, number: 1 }));
    }

    #[test]
    fn who_takes_over_a_lane_waits_for_its_last_use() {
        let mut lanes = Lanes::new(0, [0; LANES_PER_SEAT]);
        for number in 0..LANES_PER_SEAT {
            lanes.queued(Some(queue(number)), |it| it.number == 0);
        }
        // The longest unasked for.
        lanes.queued(Some(queue(0)), |_| false);
        let fifth = lanes.queued(Some(queue(9)), |_| false);
        let last = Use { lane: 1, number: 1 };
        assert_eq!(fifth, Next { it: Use { lane: 1, number: 2 }, after: Some(last) });
        assert_eq!(lanes.last().nth(1), Some(Use { lane: 1, number: 2 }));
    }
}
