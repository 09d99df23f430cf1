//! Telling what grows from what only comes and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Figures of one moment: of each, how much of which kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading(BTreeMap<String, BTreeMap<String, u64>>);

/// What stays in use over a run that is divided into windows of equal length.
///
/// Whoever looks at a process may find it with a file open that it closes a moment later, as when
/// it asks whether the owner of a lock is dead. So a window counts of each kind only what every
/// reading in it found: what is lost for good stays until the end, a passing thing does not.
#[derive(Debug, Default)]
pub(super) struct Judge {
    windows: [Window; WINDOWS],
    /// The most that one reading found.
    peaks: BTreeMap<String, u64>,
    /// Kinds seen since the first window, by figure.
    seen: BTreeSet<(String, String)>,
}

/// One for warming up, three early ones, three in between, three late ones.
const WINDOWS: usize = 10;
const EARLY: [usize; 3] = [1, 2, 3];
const LATE: [usize; 3] = [7, 8, 9];
/// Fewer could all have hit a passing moment.
const READINGS_MIN: u64 = 10;

/// More than the allocator's moods, less than a page per second over ten minutes.
const SLACK_KIB: u64 = 1024;

#[derive(Debug, Default)]
struct Window {
    floor: Reading,
    readings: u64,
}

impl Reading {
    /// Adds `amount` of a kind to a figure. A figure of memory has `resident` in its name.
    pub(super) fn add(&mut self, figure: &str, kind: &str, amount: u64) {
        *self.0.entry(figure.to_owned()).or_default().entry(kind.to_owned()).or_default() += amount;
    }

    fn total(&self, figure: &str) -> u64 {
        self.0.get(figure).map_or(0, |kinds| kinds.values().sum())
    }

    fn amount(&self, figure: &str, kind: &str) -> u64 {
        self.0.get(figure).and_then(|kinds| kinds.get(kind)).copied().unwrap_or_default()
    }

    /// Keeps of each kind what is in `other` too.
    fn lower_to(&mut self, other: &Self) {
        for (figure, kinds) in &mut self.0 {
            for (kind, amount) in kinds {
                *amount = other.amount(figure, kind).min(*amount);
            }
        }
    }
}

impl Judge {
    /// Takes a reading at `elapsed` of the run, from 0 to 1.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a small number that is not negative"
    )]
    pub(super) fn take(&mut self, elapsed: f64, reading: &Reading) {
        let window = ((elapsed * WINDOWS as f64) as usize).min(WINDOWS - 1);
        for (figure, kinds) in &reading.0 {
            let peak = self.peaks.entry(figure.clone()).or_default();
            *peak = reading.total(figure).max(*peak);
            // While it warms up, a process opens much that it never opens again.
            for kind in kinds.keys().filter(|_| window > 0) {
                self.seen.insert((figure.clone(), kind.clone()));
            }
        }
        let window = &mut self.windows[window];
        window.readings += 1;
        if window.readings == 1 {
            window.floor = reading.clone();
        } else {
            window.floor.lower_to(reading);
        }
    }

    /// Readings so far.
    pub(super) fn readings(&self) -> u64 {
        self.windows.iter().map(|window| window.readings).sum()
    }

    /// What grew, in words; or that nobody can tell.
    pub(super) fn growth(&self) -> Vec<String> {
        let fewest = self.windows.iter().map(|window| window.readings).min().unwrap_or_default();
        if fewest < READINGS_MIN {
            return vec![format!(
                "{fewest} readings in a tenth of the run, of {READINGS_MIN}: run longer to judge"
            )];
        }
        self.peaks.keys().filter_map(|figure| self.growth_of(figure)).collect()
    }

    fn growth_of(&self, figure: &str) -> Option<String> {
        let (early, late) = (self.highest(&EARLY, figure), self.highest(&LATE, figure));
        let (before, after) = (early.total(figure), late.total(figure));
        let slack = if figure.contains("resident") { SLACK_KIB.max(before / 20) } else { 0 };
        if after <= before + slack {
            return None;
        }
        let kinds = late.0.get(figure).into_iter().flatten().filter_map(|(kind, amount)| {
            let more = amount.saturating_sub(early.amount(figure, kind));
            (more > 0 && !kind.is_empty()).then(|| format!("; {more} more of {kind}"))
        });
        Some(format!("growth: {figure} from {before} to {after}{}", kinds.collect::<String>()))
    }

    /// The floor of the window in which most of a figure stayed.
    fn highest(&self, windows: &[usize], figure: &str) -> &Reading {
        let floors = windows.iter().map(|index| &self.windows[*index].floor);
        floors.max_by_key(|floor| floor.total(figure)).expect("a window")
    }

    /// Kinds that were seen and stayed for no window, by figure.
    fn passing(&self) -> impl Iterator<Item = &(String, String)> {
        let stays =
            |window: &Window, seen: &(String, String)| window.floor.amount(&seen.0, &seen.1) > 0;
        self.seen.iter().filter(move |seen| !self.windows.iter().any(|it| stays(it, seen)))
    }
}

impl fmt::Display for Judge {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "  {:<36}{:>12}{:>12}{:>12}", "stays in use", "early", "late", "at most")?;
        for (figure, peak) in &self.peaks {
            let early = self.highest(&EARLY, figure).total(figure);
            let late = self.highest(&LATE, figure).total(figure);
            writeln!(out, "  {figure:<36}{early:>12}{late:>12}{peak:>12}")?;
        }
        for (figure, kind) in self.passing().filter(|(_, kind)| !kind.is_empty()) {
            writeln!(out, "  passing: {figure}: {kind}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Judge, Reading};

    const READINGS: u32 = 400;
    const DESCRIPTORS: &str = "descriptors of reader 0";

    /// Judges a run in which `figures` adds to each reading, by its number.
    fn judged(figures: impl Fn(u64, &mut Reading)) -> Judge {
        let mut judge = Judge::default();
        for number in 0..READINGS {
            let mut reading = Reading::default();
            reading.add(DESCRIPTORS, "/dev/null", 1);
            reading.add(DESCRIPTORS, "pipe:[#]", 2);
            figures(u64::from(number), &mut reading);
            judge.take(f64::from(number) / f64::from(READINGS), &reading);
        }
        judge
    }

    #[test]
    fn what_stays_the_same_does_not_grow() {
        assert_eq!(judged(|_, _| ()).growth(), [""; 0]);
    }

    #[test]
    fn what_passes_is_no_growth_however_often_it_is_seen() {
        // From the middle on, in nine readings of ten.
        let judge = judged(|number, reading| {
            if number > 200 && number % 10 != 0 {
                reading.add(DESCRIPTORS, "/proc/#/stat", 1);
                reading.add(DESCRIPTORS, "pipe:[#]", 3);
            }
        });
        assert_eq!(judge.growth(), [""; 0]);
        let said = judge.to_string();
        assert!(said.contains("passing: descriptors of reader 0: /proc/#/stat\n"), "{said}");
        assert!(!said.contains("passing: descriptors of reader 0: pipe"), "{said}");
        assert_eq!(judge.peaks[DESCRIPTORS], 7);
    }

    #[test]
    fn one_that_is_never_closed_is_growth() {
        // Opened at 45 % of the run, or within its last minute of ten.
        for opened in [180, 359] {
            let judge = judged(|number, reading| {
                if number > opened {
                    reading.add(DESCRIPTORS, "/proc/#/stat", 1);
                }
            });
            assert_eq!(
                judge.growth(),
                ["growth: descriptors of reader 0 from 3 to 4; 1 more of /proc/#/stat"]
            );
        }
    }

    #[test]
    fn one_with_every_kill_is_growth() {
        let judge = judged(|number, reading| reading.add(DESCRIPTORS, "pipe:[#]", number / 50));
        assert_eq!(
            judge.growth(),
            ["growth: descriptors of reader 0 from 5 to 10; 5 more of pipe:[#]"]
        );
    }

    #[test]
    fn a_leak_is_found_beside_what_passes() {
        let judge = judged(|number, reading| {
            reading.add(DESCRIPTORS, "/proc/#/stat", number % 2 + u64::from(number > 200));
        });
        assert_eq!(
            judge.growth(),
            ["growth: descriptors of reader 0 from 3 to 4; 1 more of /proc/#/stat"]
        );
    }

    #[test]
    fn a_leak_is_found_though_others_have_more() {
        let judge = judged(|number, reading| {
            reading.add("descriptors of writer 1", "pipe:[#]", 40);
            reading.add("names", "", 5 - number % 2 + u64::from(number > 200));
        });
        assert_eq!(judge.growth(), ["growth: names from 4 to 5"]);
    }

    #[test]
    fn memory_has_slack_and_time_to_warm_up() {
        let resident = |kib: fn(u64) -> u64| {
            judged(move |number, reading| {
                reading.add("resident KiB of reader 0", "", kib(number));
            })
        };
        let wavers = resident(|number| 10_000 + number.min(40) * 200 + number % 7 * 100);
        assert_eq!(wavers.growth(), [""; 0]);
        assert_eq!(resident(|number| 10_000 + number * 10).growth().len(), 1);
    }

    #[test]
    fn too_few_readings_judge_nothing() {
        let mut judge = Judge::default();
        judge.take(0.5, &Reading::default());
        assert!(judge.growth()[0].contains("run longer"));
    }
}
