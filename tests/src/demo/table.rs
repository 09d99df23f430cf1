//! Figures as rows of text.

use super::credit::Credit;
use super::photograph::FRAME_BYTES;
use super::report::{Read, Written};

/// What one act came to.
pub(super) struct Figures {
    pub(super) written: (Credit, Written),
    pub(super) read: Vec<(Credit, Read)>,
}

impl Figures {
    /// One row for the writer, one for each reader.
    fn rows(&self) -> Vec<String> {
        let (writer, written) = &self.written;
        let (rate, gigabytes) = rates(written.frames, written.elapsed_ns);
        let mut rows = vec![row([&format!("  {writer}"), &rate, &gigabytes, "", "", "", ""])];
        for (reader, read) in &self.read {
            let (rate, gigabytes) = rates(read.frames, read.elapsed_ns);
            rows.push(row([
                &format!("  {reader}"),
                &rate,
                &gigabytes,
                &time(read.latency_p50_ns),
                &time(read.latency_p99_ns),
                &thousands(read.missed),
                &thousands(read.frames),
            ]));
        }
        rows
    }

    /// The rates alone, in one line.
    pub(super) fn brief(&self) -> String {
        let (writer, written) = &self.written;
        let (written, _) = rates(written.frames, written.elapsed_ns);
        let read = self.read.iter().map(|(reader, read)| {
            let (rate, _) = rates(read.frames, read.elapsed_ns);
            format!(", {} {rate}", reader.role)
        });
        format!("   frames/s: {} {written}{}", writer.role, read.collect::<String>())
    }

    /// The whole act in one line.
    pub(super) fn summary(&self) -> String {
        let (_, written) = &self.written;
        let (rate, gigabytes) = rates(written.frames, written.elapsed_ns);
        let verified = self.read.iter().map(|(_, read)| read.frames).sum();
        format!(
            "   {rate} frames/s written, {gigabytes} GB/s; {} frames read and verified",
            thousands(verified)
        )
    }
}

/// The figures of a moment, under a head.
pub(super) fn block(figures: &Figures) -> Vec<String> {
    [vec![head()], figures.rows()].concat()
}

/// All acts, under one head.
pub(super) fn table(acts: &[(&str, Figures)]) -> Vec<String> {
    let mut rows = vec![head()];
    for (title, figures) in acts {
        rows.push(format!("   {title}"));
        rows.append(&mut figures.rows());
    }
    rows
}

fn head() -> String {
    row(["", "frames/s", "GB/s", "latency p50", "p99", "missed", "verified"])
}

fn row(cells: [&str; 7]) -> String {
    let [name, rate, gigabytes, p50, p99, missed, verified] = cells;
    let row =
        format!("   {name:<18}{rate:>8}{gigabytes:>6}{p50:>13}{p99:>8}{missed:>10}{verified:>10}");
    row.trim_end().to_owned()
}

/// Frames and gigabytes per second.
#[expect(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "figures for people")]
fn rates(frames: u64, elapsed_ns: u64) -> (String, String) {
    let per_second = frames as f64 * 1e9 / elapsed_ns.max(1) as f64;
    let gigabytes = per_second * FRAME_BYTES as f64 / 1e9;
    (thousands(per_second.round() as u64), format!("{gigabytes:.2}"))
}

/// 1234567 as `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A time in the unit that suits it.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(super) fn time(nanoseconds: u64) -> String {
    let value = nanoseconds as f64;
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..10_000 => format!("{:.1} us", value / 1e3),
        10_000..1_000_000 => format!("{:.0} us", value / 1e3),
        1_000_000..10_000_000 => format!("{:.1} ms", value / 1e6),
        10_000_000..1_000_000_000 => format!("{:.0} ms", value / 1e6),
        _ => format!("{:.1} s", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::super::credit::{Credit, Language};
    use super::{Figures, Read, Written, block, thousands, time};

    #[test]
    fn numbers_are_grouped() {
        let grouped = [0, 7, 999, 1_000, 12_345, 1_234_567].map(thousands);
        assert_eq!(grouped, ["0", "7", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn times_have_a_unit() {
        let times = [0, 999, 1_500, 85_400, 2_345_678, 45_000_000, 1_500_000_000].map(time);
        assert_eq!(times, ["0 ns", "999 ns", "1.5 us", "85 us", "2.3 ms", "45 ms", "1.5 s"]);
    }

    #[test]
    fn rates_are_over_the_time_of_the_act() {
        let written = Written { elapsed_ns: 500_000_000, frames: 600 };
        let read = Read { elapsed_ns: 2_000_000_000, frames: 20, missed: 4321, ..Read::default() };
        let writer = Credit { role: "writer", language: Language::Python };
        let reader = Credit { role: "next", language: Language::Rust };
        let figures = Figures { written: (writer, written), read: vec![(reader, read)] };
        let rows = block(&figures);
        assert!(rows.iter().all(|row| row.len() < 80));
        assert!(rows[1].contains(" 1,200 ") && rows[1].ends_with("1.11"), "{}", rows[1]);
        assert!(rows[2].contains(" 10 ") && rows[2].contains(" 4,321 "), "{}", rows[2]);
        assert_eq!(figures.brief(), "   frames/s: writer 1,200, next 10");
    }
}
