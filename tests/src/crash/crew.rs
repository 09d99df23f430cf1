//! The processes at work, and the places of those that were killed.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::{Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::board::{Board, MEMBERS_MAX};
use super::worker::Duty;
use crate::{Namespace, Peer, Seed};

/// Nothing healthy takes this long; it ends a hang and measures nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Processes by their place: a killed one is replaced by another with the same duty.
#[derive(Debug)]
pub struct Crew<'a> {
    space: &'a Namespace,
    members: Vec<Member>,
}

/// One process.
#[derive(Debug)]
pub struct Member {
    /// What it does.
    pub duty: Duty,
    peer: Peer,
    index: usize,
}

impl<'a> Crew<'a> {
    /// Starts a process for each duty. Their choices follow from `seed`.
    pub fn start(space: &'a Namespace, duties: &[Duty], seed: &mut Seed) -> Self {
        assert!(duties.len() <= MEMBERS_MAX, "{} are too many for the board", duties.len());
        let member = |(index, duty): (usize, &Duty)| Member::start(space, *duty, index, seed);
        Self { space, members: duties.iter().enumerate().map(member).collect() }
    }

    /// Everybody.
    pub fn members(&mut self) -> &mut [Member] {
        &mut self.members
    }

    /// The place of the process `pid`.
    pub fn place_of(&self, pid: u32) -> Option<usize> {
        self.members.iter().position(|member| member.pid() == pid)
    }

    /// Puts a new process in the place of one that has ended.
    pub fn replace(&mut self, place: usize, board: &Board, seed: &mut Seed) {
        let member = &self.members[place];
        board.progress(member.index).store(0, Ordering::Release);
        self.members[place] = Member::start(self.space, member.duty, member.index, seed);
    }

    /// Kills everybody of a duty, for good.
    pub fn lose(&mut self, duty: Duty) {
        let everybody = std::mem::take(&mut self.members).into_iter();
        let (lost, left): (Vec<_>, Vec<_>) = everybody.partition(|member| member.duty == duty);
        self.members = left;
        for mut member in lost {
            member.strike();
            member.bury();
        }
    }

    /// Comes back when everybody has got on since now.
    ///
    /// # Errors
    /// Naming who did not.
    pub fn await_progress(&self, board: &Board) -> Result<(), String> {
        let before: Vec<u64> = self.members.iter().map(|it| it.progress(board)).collect();
        for (member, before) in self.members.iter().zip(before) {
            if !await_that(|| member.progress(board) != before || member.has_ended()) {
                let Member { duty, index, .. } = member;
                return Err(format!("hang: {duty} in place {index} does not get on"));
            }
        }
        Ok(())
    }

    /// Everybody who ended without being killed.
    pub fn deserters(&self) -> Vec<String> {
        let ended = self.members.iter().filter(|member| member.has_ended());
        ended.map(|member| format!("{} ended by itself", member.duty)).collect()
    }

    /// Waits until everybody has ended well; the board has told them to.
    ///
    /// # Errors
    /// Naming who did not.
    pub fn dismiss(self) -> Result<(), String> {
        for mut member in self.members {
            if !await_that(|| member.has_ended()) {
                return Err(format!("hang: {} does not end", member.duty));
            }
            let status = member.peer.wait();
            if !status.success() {
                return Err(format!("{} ended with {status}", member.duty));
            }
        }
        Ok(())
    }
}

impl Member {
    fn start(space: &Namespace, duty: Duty, index: usize, seed: &mut Seed) -> Self {
        let peer = Peer::role(space, &format!("{duty}:{index}:{}", seed.number()));
        Self { duty, peer, index }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.peer.pid().as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends SIGKILL, and does not wait for what comes of it.
    pub fn strike(&self) {
        let _ = kill_process(self.peer.pid(), Signal::KILL);
    }

    /// Waits for the end of somebody who was struck.
    pub fn bury(&mut self) {
        self.peer.wait();
    }

    /// Stops it.
    pub fn freeze(&mut self) {
        self.peer.freeze();
    }

    /// Lets it go on.
    pub fn thaw(&mut self) {
        self.peer.thaw();
    }

    /// What it has done so far.
    pub fn progress(&self, board: &Board) -> u64 {
        board.progress(self.index).load(Ordering::Acquire)
    }

    fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::Pid(self.peer.pid()), look);
        !matches!(status, Ok(None))
    }
}

/// Looks until something holds, but not for ever. Tells whether it came to hold.
pub fn await_that(mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() > deadline {
            return false;
        }
        // Not to synchronise: to leave the processor to those who are looked at.
        std::thread::sleep(Duration::from_micros(100));
    }
    true
}
