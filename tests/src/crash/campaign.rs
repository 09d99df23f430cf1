//! One stream after the other, and one death after the other.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shared_tensor::DType;
use shared_tensor::stream::{OnFull, Stream, StreamOptions};
use shm_core::Namespace as ShmNamespace;

use super::board::{Board, Word};
use super::crew::{Crew, await_that};
use super::sight::Sight;
use super::tally::Tally;
use super::worker::{CHURNED, Duty, STREAM, look_at_churned};
use crate::{Namespace, Seed, frame};

/// Counts that a ledger has room for: more than a round reaches, mostly.
const LEDGER: usize = 1 << 20;
/// Kills and stops until the next stream.
const ROUND: u64 = 25;

const CREW: [Duty; 10] = [
    Duty::Writer,
    Duty::Writer,
    Duty::Writer,
    Duty::Reader,
    Duty::Reader,
    Duty::Follower,
    Duty::Lessee,
    Duty::Lessee,
    Duty::Attacher,
    Duty::Churner,
];

/// What a campaign is to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Kills.
    pub iterations: u64,
    /// Where its choices start.
    pub seed: u64,
}

/// A campaign at work.
#[derive(Debug)]
pub struct Campaign<'a> {
    space: &'a Namespace,
    shm: ShmNamespace,
    seed: Seed,
    tally: Tally,
}

impl<'a> Campaign<'a> {
    /// Carries a plan out, and says how far it is after every stream.
    pub fn run(space: &'a Namespace, plan: Plan, mut tell: impl FnMut(&Tally)) -> Tally {
        let tally = Tally::default();
        let mut campaign = Self { space, shm: space.shm(), seed: Seed::new(plan.seed), tally };
        while campaign.tally.kills() < plan.iterations {
            let kills = ROUND.min(plan.iterations - campaign.tally.kills());
            let hung = campaign.round(kills);
            campaign.tally.rounds += 1;
            tell(&campaign.tally);
            if let Err(what) = hung {
                campaign.tally.violations.push(what);
                break;
            }
        }
        campaign.tally
    }

    /// One stream, `kills` deaths. An error ends the campaign: what is left says nothing any more.
    fn round(&mut self, kills: u64) -> Result<(), String> {
        let slots = 3 + self.seed.below(6) as usize;
        // 64 bytes to 1 MiB, as many of each power of two; rarely a multiple of a word.
        let power = 6 + self.seed.below(15);
        let bytes =
            ((1 << power) - self.seed.below(1 << (power - 2)) * u64::from(power > 6)).max(64);
        let options = StreamOptions::new(DType::U8, [bytes]).slots(slots);
        let stream = options
            .namespace(self.shm.clone())
            .create(STREAM)
            .map_err(|error| error.to_string())?;
        let board = Board::create(&self.shm, LEDGER);
        let sight = Sight::open(&self.shm, STREAM);
        let mut crew = Crew::start(self.space, &CREW, &mut self.seed);
        let outcome = self.strike_often(kills, &mut crew, &board, &sight);
        // Nobody takes their places, and with them what they had leased.
        crew.lose(Duty::Lessee);
        board.word(Word::Stop).store(1, Ordering::Release);
        // The last words of whoever is left count before the fact that somebody hung.
        let dismissed = crew.dismiss();
        let published = sight.look();
        self.tally.published += published.count;
        self.tally.recoveries += published.recoveries;
        let whole = self.check_what_is_left(&stream);
        drop(sight);
        self.tally.take(&board);
        let removed = stream.unlink().map_err(|error| error.to_string());
        let _ = shared_tensor::stream::unlink(&self.shm, CHURNED);
        Board::remove(&self.shm);
        let about = format!("K = {slots}, {bytes} bytes");
        let of_this_round = |what: String| format!("{what} ({about})");
        outcome.and(dismissed).and(whole).and(removed.map(drop)).map_err(of_this_round)?;
        if self.tally.violations.is_empty() { Ok(()) } else { Err(format!("violation at {about}")) }
    }

    fn strike_often(
        &mut self,
        kills: u64,
        crew: &mut Crew<'_>,
        board: &Board,
        sight: &Sight,
    ) -> Result<(), String> {
        crew.await_progress(board)?;
        let end = self.tally.kills() + kills;
        while self.tally.kills() < end {
            self.wait_a_little();
            let place = self.choose(crew, sight);
            if self.seed.once_in(8) {
                self.stop(place, crew, sight)?;
            } else {
                self.kill(place, crew, board, sight)?;
            }
            if self.seed.once_in(10) {
                crew.await_progress(board)?;
            }
            let deserters = crew.deserters();
            if !deserters.is_empty() {
                return Err(deserters.join(", "));
            }
        }
        crew.await_progress(board)
    }

    /// So that each death finds everybody somewhere else.
    fn wait_a_little(&mut self) {
        let end = Instant::now() + Duration::from_micros(self.seed.below(2000));
        while Instant::now() < end {
            std::thread::yield_now();
        }
    }

    /// Half of the time whoever holds the lock, if somebody does; else anybody.
    fn choose(&mut self, crew: &Crew<'_>, sight: &Sight) -> usize {
        let any = self.seed.below(CREW.len() as u64) as usize;
        if self.seed.once_in(2) {
            return any;
        }
        sight.holder().and_then(|pid| crew.place_of(pid)).unwrap_or(any)
    }

    fn kill(
        &mut self,
        place: usize,
        crew: &mut Crew<'_>,
        board: &Board,
        sight: &Sight,
    ) -> Result<(), String> {
        let before = sight.look();
        let victim = &mut crew.members()[place];
        let (pid, duty) = (victim.pid(), victim.duty);
        victim.strike();
        let struck = sight.look();
        victim.bury();
        let dead = sight.look();
        *self.tally.kills.entry(duty).or_default() += 1;
        crew.replace(place, board, &mut self.seed);
        if !await_that(|| sight.look().count > dead.count + 1 || !crew.deserters().is_empty()) {
            return Err(format!("hang: nothing is published after the death of a {duty}"));
        }
        // It held the lock when it was struck, and it never let go: somebody had to recover it.
        let recovered = sight.look().recoveries > before.recoveries;
        if struck.holder == Some(pid) && recovered {
            if struck.is_writing {
                self.tally.inside_slot += 1;
            } else {
                self.tally.inside_lock += 1;
            }
        }
        if duty == Duty::Churner {
            look_at_churned(&self.shm)?;
        }
        Ok(())
    }

    /// A stopped process is alive: it keeps what it holds, and nobody else waits for it.
    fn stop(&mut self, place: usize, crew: &mut Crew<'_>, sight: &Sight) -> Result<(), String> {
        let member = &mut crew.members()[place];
        let (pid, duty) = (member.pid(), member.duty);
        member.freeze();
        *self.tally.stops.entry(duty).or_default() += 1;
        let stopped = sight.look();
        if stopped.holder == Some(pid) {
            self.tally.stopped_inside += 1;
            // Several looks at the holder by those who wait for the lock.
            std::thread::sleep(Duration::from_millis(self.seed.below(20)));
            let later = sight.look();
            if later.holder != Some(pid) || later.recoveries != stopped.recoveries {
                return Err(format!("false death: a stopped {duty} lost the lock"));
            }
        } else if !await_that(|| sight.look().count > stopped.count) {
            return Err(format!("hang: nothing is published while a {duty} is stopped"));
        }
        crew.members()[place].thaw();
        Ok(())
    }

    /// With everybody gone, the stream is as good as new.
    fn check_what_is_left(&self, stream: &Stream) -> Result<(), String> {
        let said = |error: shared_tensor::Error| format!("what is left: {error}");
        let mut reader = stream.reader();
        let frame = reader.latest().map_err(said)?;
        frame::verify(frame.bytes()).map_err(|torn| format!("torn: {torn}"))?;
        let info = stream.info();
        let others: Vec<_> = info
            .participants
            .iter()
            .filter(|it| it.alive && it.pid != std::process::id())
            .collect();
        if !others.is_empty() {
            return Err(format!("what is left: the dead count as alive: {others:?}"));
        }
        let mut writer = stream.writer().map_err(said)?;
        let mut leases = Vec::new();
        for key in 1..=info.leases_max as u64 {
            let bytes = frame::frame(stream.frame_bytes(), key);
            let count = writer.write(&bytes).map_err(said)?;
            let lease = reader.lease(OnFull::Copy).map_err(said)?;
            if lease.is_copy() || lease.publication().count != count {
                return Err(format!("what is left: lease {key} of {} is none", info.leases_max));
            }
            leases.push(lease);
        }
        look_at_churned(&self.shm).map(drop)
    }
}
