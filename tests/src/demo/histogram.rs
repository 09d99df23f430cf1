//! Latencies, counted by size class.

/// Halvings of a size class: values are told apart to 1/32, 3 %.
const DIVISION_BITS: u32 = 5;
const DIVISIONS: usize = 1 << DIVISION_BITS;
const CLASSES: usize = (u64::BITS - DIVISION_BITS + 1) as usize * DIVISIONS;

/// Counts of values in nanoseconds, exact below 32 and to 3 % above. Of fixed size, so that
/// recording allocates nothing and takes the same time for the first value and the millionth.
#[derive(Debug)]
pub(super) struct Histogram {
    counts: Box<[u64; CLASSES]>,
    total: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { counts: Box::new([0; CLASSES]), total: 0 }
    }

    pub(super) fn record(&mut self, value: u64) {
        self.counts[class(value)] += 1;
        self.total += 1;
    }

    /// The value that `permille` of 1000 values do not exceed; 0 when nothing was recorded.
    pub(super) fn quantile(&self, permille: u64) -> u64 {
        let wanted = (self.total * permille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (class, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return lowest(class);
            }
        }
        0
    }
}

/// Values below 32 have a class each; above, the 5 bits after the leading one tell classes apart.
fn class(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(DIVISION_BITS + 1);
    shift as usize * DIVISIONS + (value >> shift) as usize
}

/// The lowest value of a class.
fn lowest(class: usize) -> u64 {
    let shift = (class / DIVISIONS).saturating_sub(1);
    ((class - shift * DIVISIONS) as u64) << shift
}

#[cfg(test)]
mod tests {
    use super::{CLASSES, Histogram, class, lowest};

    #[test]
    fn classes_are_in_order_and_no_wider_than_a_thirty_second() {
        for bit in 0..u64::BITS {
            for value in [1_u64 << bit, (1_u64 << bit) | 1, u64::MAX >> bit] {
                let class = class(value);
                assert!(class < CLASSES);
                assert!(lowest(class) <= value && value - lowest(class) <= value / 32, "{value}");
            }
        }
        assert_eq!((class(31), class(32), class(63), class(64)), (31, 32, 63, 64));
    }

    #[test]
    fn quantiles_are_found() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(500), 0);
        (1..=1000).for_each(|value| histogram.record(value));
        let (half, most) = (histogram.quantile(500), histogram.quantile(990));
        assert!((485..=500).contains(&half) && (960..=990).contains(&most), "{half} {most}");
    }
}
