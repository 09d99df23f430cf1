//! Killing processes at random while they use a stream, and checking what is left.
//!
//! A [`Campaign`] keeps a crew of processes at work on one stream (writers, readers, followers,
//! lessees, attachers) and on one name (churners). It kills or stops one after the other, at a
//! random moment, half of the time whoever holds the lock. It looks at the control words right
//! after each kill, so that it can say how many kills landed where it hurts.
//!
//! What must hold, always:
//! - a frame that is read is whole ([`crate::frame`]), and a leased one does not change;
//! - counts never go back, neither for one reader nor from one reader to the next;
//! - a count stands for one frame, whoever reads it ([`Board`] keeps a ledger);
//! - everybody alive gets on, a stopped process is never taken for a dead one;
//! - a name leads to a whole stream or to nothing, and at the end nothing is left.

mod board;
mod campaign;
mod crew;
mod sight;
mod tally;
mod worker;

pub use board::{Board, Word};
pub use campaign::{Campaign, Plan};
pub use crew::{Crew, Member, await_that};
pub use sight::{Sight, Snapshot};
pub use tally::Tally;
pub use worker::{CHURNED, Duty, STREAM, report};
