//! Order statistics, and durations as people read them.

/// What the rounds gave for one quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// `None` without values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        Some(Self { median: quantile(&sorted, 0.5), min, max })
    }
}

/// The value below which a share `q` of sorted values lies; 0 without values.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    #[expect(clippy::cast_sign_loss, reason = "a share and a length are not negative")]
    let at = (q * sorted.len() as f64) as usize;
    sorted[at.min(last)]
}

/// A duration in the unit that suits it, three digits of it.
pub fn duration(ns: f64) -> String {
    let (value, unit) = match ns.abs() {
        size if size < 1e3 => (ns, "ns"),
        size if size < 1e6 => (ns / 1e3, "us"),
        size if size < 1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    format!("{} {unit}", three_digits(value))
}

/// A figure in the unit that its name ends in: `_hz`, `_gb_s`, `_gflop_s`, `_percent`, `frames`;
/// nanoseconds otherwise.
pub fn shown(figure: &str, value: f64) -> String {
    let ends = |ending: &str| figure.ends_with(ending);
    if ends("_hz") {
        let (scaled, unit) = if value < 1e3 { (value, "Hz") } else { (value / 1e3, "kHz") };
        format!("{} {unit}", three_digits(scaled))
    } else if ends("_gb_s") {
        format!("{} GB/s", three_digits(value))
    } else if ends("_gflop_s") {
        format!("{} GFLOP/s", three_digits(value))
    } else if is_count(figure) {
        format!("{value:.0}")
    } else {
        duration(value)
    }
}

/// Whether a figure is a bare number.
pub fn is_count(figure: &str) -> bool {
    [".frames", "_percent"].iter().any(|ending| figure.ends_with(ending))
}

fn three_digits(value: f64) -> String {
    match value.abs() {
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_ends() {
        let spread = Spread::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of(&[]), None);
        assert!((quantile(&[1.0, 2.0, 3.0, 4.0], 0.99) - 4.0).abs() < f64::EPSILON);
    }

    #[test]
    fn durations_have_three_digits() {
        assert_eq!(duration(0.5), "0.50 ns");
        assert_eq!(duration(1_550.0), "1.55 us");
        assert_eq!(duration(23_400.0), "23.4 us");
        assert_eq!(duration(2.5e9), "2.50 s");
    }

    #[test]
    fn the_name_says_the_unit() {
        assert_eq!(shown("a.p50", 1_550.0), "1.55 us");
        assert_eq!(shown("a.rate_hz", 98_300.0), "98.3 kHz");
        assert_eq!(shown("a.io_gb_s", 7.258), "7.26 GB/s");
        assert_eq!(shown("a.work_gflop_s", 12.0), "12.0 GFLOP/s");
        assert_eq!(shown("big.huge_percent", 100.0), "100");
    }
}
