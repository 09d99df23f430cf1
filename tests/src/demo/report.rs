//! The figures that a role reports to the stage, as one line of numbers.

macro_rules! reports {
    ($($(#[$doc:meta])* $report:ident { $($(#[$field_doc:meta])* $field:ident,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(super) struct $report {
            $($(#[$field_doc])* pub(super) $field: u64,)*
        }

        impl std::fmt::Display for $report {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let words = [$(self.$field.to_string(),)*];
                out.write_str(&words.join(" "))
            }
        }

        impl std::str::FromStr for $report {
            type Err = String;

            fn from_str(line: &str) -> Result<Self, String> {
                let mut words = line.split(' ');
                let mut next = |field: &str| {
                    let word = words.next().and_then(|word| word.parse().ok());
                    word.ok_or_else(|| format!("`{line}` is a report without {field}"))
                };
                Ok(Self { $($field: next(stringify!($field))?,)* })
            }
        }
    )*};
}

reports! {
    /// A writer, since the current act began.
    Written {
        elapsed_ns,
        /// Frames published.
        frames,
    }

    /// A reader, since the current act began.
    Read {
        elapsed_ns,
        /// Frames read for the first time and found right.
        frames,
        /// Frames that were published and overwritten before they were read.
        missed,
        /// Times that the newest frame was read again, and found right, because none came.
        again,
        /// Those at which the stream said that its writer had crashed.
        told_crashed,
        /// Frames that were not read in place but from a private copy.
        copies,
        /// From publication until the reader had the frame.
        latency_p50_ns,
        latency_p99_ns,
        /// Frames that were wrong, and reads that failed.
        faults,
        /// The count of the newest frame read, since ever.
        last_count,
        /// Frames read since ever.
        frames_ever,
        /// Frames missed since ever.
        missed_ever,
        /// The writer of the newest frame read.
        writer,
        /// The count of the first frame of that writer that was read.
        writer_first_count,
        /// When that frame was read, by the monotonic clock.
        writer_first_ns,
    }

    /// A writer that has taken over.
    TakenOver {
        /// When it owned the stream's lock, by the monotonic clock.
        owned_ns,
        /// 1 if it was told that its predecessor died with the lock.
        recovered,
    }
}

#[cfg(test)]
mod tests {
    use super::{TakenOver, Written};

    #[test]
    fn a_report_travels_as_a_line() {
        let report = TakenOver { owned_ns: u64::MAX, recovered: 1 };
        assert_eq!(report.to_string().parse(), Ok(report));
        let short = "7".parse::<Written>().unwrap_err();
        assert!(short.contains("without frames"), "{short}");
    }
}
