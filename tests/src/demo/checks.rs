//! What must hold for the stream as a whole, beside the frames that each reader checks itself.

use shared_tensor::stream::{Phase, StreamInfo};

use super::credit::Credit;
use super::report::{Read, TakenOver};

type Check = Result<(), String>;

/// The writer has claimed a slot of the ring, and is about to be killed there.
pub(super) fn is_inside_a_write(info: &StreamInfo, count: u64) -> Check {
    if info.phase != Phase::Writing || info.count != count {
        return Err(format!(
            "the writer holds frame {} open, and the stream is not being written ({:?} after {})",
            count + 1,
            info.phase,
            info.count
        ));
    }
    Ok(())
}

/// A writer that never finishes its write, alive or dead, costs no reader the last good frame.
pub(super) fn goes_on(reader: Credit, read: &Read, count: u64) -> Check {
    if read.frames != 0 || read.last_count != count {
        let last = read.last_count;
        return Err(format!(
            "reader `{reader}` has frame {last}, and {count} is the last good one"
        ));
    }
    Ok(())
}

/// After the takeover every read says that the last write crashed.
pub(super) fn is_told(reader: Credit, read: &Read) -> Check {
    if read.told_crashed != read.again {
        return Err(format!(
            "reader `{reader}` was told of the crash at {} of {} reads",
            read.told_crashed, read.again
        ));
    }
    Ok(())
}

/// The successor knows that it is one, and the stream has counted it.
pub(super) fn is_recovered(taken: &TakenOver, info: &StreamInfo) -> Check {
    if taken.recovered != 1 || info.writer.recoveries != 1 {
        return Err(format!(
            "the second writer owns the stream and was not told of the death of the first \
             ({} recoveries)",
            info.writer.recoveries
        ));
    }
    Ok(())
}

/// The half-written frame was never seen: its count went to the successor's first frame.
pub(super) fn is_succeeded(reader: Credit, read: &Read, count: u64) -> Check {
    if (read.writer, read.writer_first_count) != (2, count) {
        return Err(format!(
            "reader `{reader}` has frame {} of writer {} first, and not {count} of writer 2",
            read.writer_first_count, read.writer
        ));
    }
    Ok(())
}

/// Every frame that was published was read or counted as missed.
pub(super) fn is_accounted_for(reader: Credit, read: &Read, count: u64) -> Check {
    let Read { frames_ever, missed_ever, .. } = *read;
    if frames_ever + missed_ever != count {
        return Err(format!(
            "reader `{reader}` read {frames_ever} and missed {missed_ever} of {count} frames"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::credit::Language;
    use super::{Credit, Read, goes_on, is_accounted_for, is_succeeded, is_told};

    #[test]
    fn each_check_can_fail() {
        let reader = Credit { role: "next", language: Language::Rust };
        let good = Read {
            last_count: 7,
            again: 3,
            told_crashed: 3,
            frames_ever: 5,
            missed_ever: 2,
            writer: 2,
            writer_first_count: 7,
            ..Read::default()
        };
        assert_eq!(goes_on(reader, &good, 7), Ok(()));
        assert!(goes_on(reader, &good, 8).is_err());
        assert!(goes_on(reader, &Read { frames: 1, ..good }, 7).is_err());

        assert_eq!(is_told(reader, &good), Ok(()));
        assert!(is_told(reader, &Read { told_crashed: 2, ..good }).is_err());

        assert_eq!(is_succeeded(reader, &good, 7), Ok(()));
        assert!(is_succeeded(reader, &good, 8).is_err());
        assert!(is_succeeded(reader, &Read { writer: 1, ..good }, 7).is_err());

        assert_eq!(is_accounted_for(reader, &good, 7), Ok(()));
        assert!(is_accounted_for(reader, &good, 8).is_err());
    }
}
