//! Frames in order, and the arithmetic of those that were missed.

use st_tests::Namespace;

use super::{field, guest, pair};

#[test]
fn every_frame_is_read_or_counted_as_missed() {
    const FRAMES: u64 = 20_000;
    let space = Namespace::new("in-order");
    let (mut writer, mut one) = pair(&space, 1000, "");
    let mut other = guest(&space);
    one.say(&format!("stream.follow a {FRAMES}"));
    other.say(&format!("stream.follow a {FRAMES}"));
    assert_eq!(writer.ask(&format!("stream.write a 1 {FRAMES}")), FRAMES.to_string());
    for reader in [&mut one, &mut other] {
        let told = reader.hear_ok();
        let (frames, missed) = told.split_once(' ').expect("two numbers");
        let number = |text: &str| text.parse::<u64>().expect("a number");
        assert_eq!(number(frames) + number(missed), FRAMES, "{told}");
    }
    writer.ask("stream.unlink a");
}

#[test]
fn a_reader_gets_what_the_ring_still_has() {
    let space = Namespace::new("history");
    let (mut writer, mut reader) = pair(&space, 1000, "slots=4");
    writer.ask("stream.write a 1 10");
    assert_eq!(reader.ask("stream.next a"), "7 7 6");
    assert_eq!(reader.ask("stream.next a"), "8 8 0");
    writer.ask("stream.write a 11");
    assert_eq!(reader.ask("stream.next a"), "9 9 0");
    writer.ask("stream.write a 12 3");
    assert_eq!(reader.ask("stream.next a"), "11 11 1");
    assert_eq!(reader.ask("stream.latest a"), "14 14 idle");
    reader.ask_refused("stream.next a 1");
    writer.ask("stream.unlink a");
}

#[test]
fn writers_of_two_processes_lose_no_count() {
    const EACH: u64 = 20_000;
    let space = Namespace::new("two-writers");
    let (mut one, mut other) = pair(&space, 4096, "");
    let mut reader = guest(&space);
    reader.say(&format!("stream.follow a {}", 2 * EACH));
    one.say(&format!("stream.write a 1 {EACH}"));
    other.say(&format!("stream.write a {} {EACH}", EACH + 1));
    let last = |text: String| text.parse::<u64>().expect("a number");
    let (one_last, other_last) = (last(one.hear_ok()), last(other.hear_ok()));
    assert_eq!(one_last.max(other_last), 2 * EACH);
    let told = reader.hear_ok();
    let (frames, missed) = told.split_once(' ').expect("two numbers");
    assert_eq!(last(frames.to_owned()) + last(missed.to_owned()), 2 * EACH);
    assert_eq!(field(&mut one, "frames"), (2 * EACH).to_string());
    assert_eq!(field(&mut one, "count"), (2 * EACH).to_string());
    assert_eq!(field(&mut one, "recoveries"), "0");
    one.ask("stream.unlink a");
}
