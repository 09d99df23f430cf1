//! What came of a campaign.

use std::collections::BTreeMap;
use std::fmt;

use super::board::{Board, Word};
use super::worker::Duty;

/// Counts of a campaign.
#[derive(Debug, Default)]
pub struct Tally {
    /// Kills, by duty.
    pub kills: BTreeMap<Duty, u64>,
    /// Stops, by duty.
    pub stops: BTreeMap<Duty, u64>,
    /// Kills of somebody who had a slot claimed and not published.
    pub inside_slot: u64,
    /// Kills of somebody who held the lock and had no slot claimed.
    pub inside_lock: u64,
    /// Stops of somebody who held the lock.
    pub stopped_inside: u64,
    /// Streams that were used up.
    pub rounds: u64,
    /// Frames published.
    pub published: u64,
    /// Takeovers from the dead.
    pub recoveries: u64,
    /// Frames read and found whole.
    pub frames: u64,
    /// Leases looked at again and found unchanged.
    pub leases: u64,
    /// Attachments.
    pub attachments: u64,
    /// Whole streams found under the churned name.
    pub churned: u64,
    /// What must hold and did not.
    pub violations: Vec<String>,
}

impl Tally {
    /// All kills.
    pub fn kills(&self) -> u64 {
        self.kills.values().sum()
    }

    /// Adds what stands on a board that is about to go.
    pub(crate) fn take(&mut self, board: &Board) {
        self.frames += board.value(Word::Frames);
        self.leases += board.value(Word::Leases);
        self.attachments += board.value(Word::Attachments);
        self.churned += board.value(Word::Churned);
        self.violations.extend(board.complaints());
    }

    fn violations_of(&self, kind: &str) -> usize {
        self.violations.iter().filter(|line| line.contains(kind)).count()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<Duty, u64>| {
            let parts = counts.iter().map(|(duty, count)| format!("{duty} {count}"));
            parts.collect::<Vec<_>>().join(", ")
        };
        let mut row = |name: &str, value: String| writeln!(out, "  {name:<40}{value}");
        row("kills", format!("{}  ({})", self.kills(), list(&self.kills)))?;
        row("  of a slot's writer", self.inside_slot.to_string())?;
        row("  of a lock's holder between writes", self.inside_lock.to_string())?;
        row("  inside a slot or the lock", (self.inside_slot + self.inside_lock).to_string())?;
        let stops: u64 = self.stops.values().sum();
        row("stops", format!("{stops}  ({})", list(&self.stops)))?;
        row("  of a lock's holder", self.stopped_inside.to_string())?;
        row("streams", self.rounds.to_string())?;
        row("frames published", self.published.to_string())?;
        row("recoveries", self.recoveries.to_string())?;
        row("frames read, all whole", self.frames.to_string())?;
        row("leases read again, unchanged", self.leases.to_string())?;
        row("attachments", self.attachments.to_string())?;
        row("churned names opened", self.churned.to_string())?;
        for kind in ["torn", "lease", "back", "order", "duplicate", "hang", "unopenable"] {
            row(&format!("violations: {kind}"), self.violations_of(kind).to_string())?;
        }
        row("violations, all kinds", self.violations.len().to_string())?;
        for violation in &self.violations {
            writeln!(out, "  ! {violation}")?;
        }
        Ok(())
    }
}
