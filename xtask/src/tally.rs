//! Counting tests, over programs that each print their own counts.

use std::ops::AddAssign;

use crate::{Failure, screen};

/// How many tests did what.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl Tally {
    /// One check that ran as a whole.
    pub(crate) fn of(outcome: &Result<(), Failure>) -> Self {
        let failed = u32::from(outcome.is_err());
        Self { passed: 1 - failed, failed, skipped: 0 }
    }

    /// Reads a line such as `test result: ok. 5 passed; 0 failed; 1 ignored; ...`.
    pub(crate) fn of_libtest(line: &str) -> Option<Self> {
        let (_, counts) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
        let mut tally = Self::default();
        for part in counts.split("; ") {
            match part.split_once(' ')? {
                (count, "passed") => tally.passed = count.parse().ok()?,
                (count, "failed") => tally.failed = count.parse().ok()?,
                (count, "ignored") => tally.skipped = count.parse().ok()?,
                _ => {}
            }
        }
        Some(tally)
    }

    /// Reads a line such as `===== 2 failed, 5 passed, 1 skipped in 0.12s =====`.
    pub(crate) fn of_pytest(line: &str) -> Option<Self> {
        let (counts, time) = line.trim().trim_matches('=').trim().rsplit_once(" in ")?;
        if !time.split_whitespace().next()?.ends_with('s') {
            return None;
        }
        let mut tally = Self::default();
        for part in counts.split(", ") {
            let (count, what) = part.split_once(' ')?;
            let count: u32 = count.parse().ok()?;
            match what {
                "passed" => tally.passed += count,
                "failed" | "error" | "errors" => tally.failed += count,
                "skipped" | "deselected" => tally.skipped += count,
                _ => {}
            }
        }
        Some(tally)
    }

    /// A ring whose program failed without telling of a failed test has failed all the same.
    pub(crate) fn with(mut self, outcome: &Result<(), Failure>) -> Self {
        if outcome.is_err() && self.failed == 0 {
            self.failed = 1;
        }
        self
    }
}

/// What every ring of tests came to.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rings: Vec<(String, Tally)>,
    /// Tests that could not run here, each with its reason.
    skips: Vec<String>,
}

impl Report {
    /// Adds a ring. What made it fail is shown now, while it is near its output.
    pub(crate) fn add(
        &mut self,
        ring: impl Into<String>,
        tally: Tally,
        outcome: &Result<(), Failure>,
    ) {
        if let Err(failure) = outcome {
            screen::error(&failure.to_string());
        }
        self.rings.push((ring.into(), tally.with(outcome)));
    }

    pub(crate) fn add_skips(&mut self, skips: impl IntoIterator<Item = String>) {
        self.skips.extend(skips);
    }

    /// Prints the rings and, as the last line, the sum over all of them.
    pub(crate) fn close(self) -> Result<(), Failure> {
        let mut total = Tally::default();
        let mut rows = vec![["ring", "passed", "failed", "skipped"].map(str::to_owned).to_vec()];
        for (ring, tally) in self.rings {
            total += tally;
            let counts = [tally.passed, tally.failed, tally.skipped].map(|count| count.to_string());
            rows.push(std::iter::once(ring).chain(counts).collect());
        }
        screen::step("Result");
        screen::table(&rows);
        for skip in &self.skips {
            screen::line(&format!("  skipped: {skip}"));
        }
        let Tally { passed, failed, skipped } = total;
        screen::line(&format!("{passed} passed, {failed} failed, {skipped} skipped"));
        if failed == 0 { Ok(()) } else { Err(Failure::new(format!("{failed} failed"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;
    use crate::Failure;

    #[test]
    fn libtest_counts_are_read() {
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        assert_eq!(Tally::of_libtest(line), Some(Tally { passed: 5, failed: 2, skipped: 1 }));
        assert_eq!(Tally::of_libtest("test name ... ok"), None);
    }

    #[test]
    fn pytest_counts_are_read() {
        let line = "=== 1 failed, 5 passed, 2 skipped, 1 error in 0.12s ===";
        assert_eq!(Tally::of_pytest(line), Some(Tally { passed: 5, failed: 2, skipped: 2 }));
        assert_eq!(Tally::of_pytest("8 passed in 61.02s (0:01:01)").unwrap().passed, 8);
        assert_eq!(Tally::of_pytest("the tests live in tests"), None);
    }

    #[test]
    fn a_ring_that_did_not_even_run_has_failed() {
        let broken = Err(Failure::new("did not compile"));
        assert_eq!(Tally::default().with(&broken).failed, 1);
        assert_eq!(Tally { failed: 3, ..Tally::default() }.with(&broken).failed, 3);
        assert_eq!(Tally::of(&broken), Tally { passed: 0, failed: 1, skipped: 0 });
        assert_eq!(Tally::of(&Ok(())), Tally { passed: 1, failed: 0, skipped: 0 });
    }
}
