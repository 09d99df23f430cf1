//! The demo, with pictures made here: the photographs come with a package that a test does not
//! fetch.

use std::fs::{self, File};
use std::io::{self, PipeReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal};
use st_tests::{Namespace, Peer};

/// Pictures of other sizes and kinds than a frame, in a folder that goes with the value.
struct Pictures(PathBuf);

impl Pictures {
    fn new(space: &Namespace) -> Self {
        let unique = space.prefix().trim_end_matches('.');
        let folder = std::env::temp_dir().join(unique);
        fs::create_dir(&folder).expect("a folder for pictures");
        let pictures = Self(folder);
        for (index, color) in [png::ColorType::Rgb, png::ColorType::Grayscale].iter().enumerate() {
            pictures.draw(index, *color);
        }
        pictures
    }

    fn draw(&self, index: usize, color: png::ColorType) {
        let (width, height) = (50, 60);
        let file = File::create(self.0.join(format!("{index}.png"))).expect("a file");
        let mut encoder = png::Encoder::new(file, width, height);
        encoder.set_color(color);
        encoder.set_depth(png::BitDepth::Eight);
        let samples = width * height * color.samples() as u32;
        let samples: Vec<u8> = (0..samples).map(|sample| (sample * 7 % 251) as u8).collect();
        let mut writer = encoder.write_header().expect("a header");
        writer.write_image_data(&samples).expect("the samples");
    }

    fn paths(&self) -> Vec<PathBuf> {
        (0..2).map(|index| self.0.join(format!("{index}.png"))).collect()
    }
}

impl Drop for Pictures {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Starts the demo. What it and all processes that it starts say about failures comes out of the
/// pipe, which ends when the last of them has ended.
fn demo(space: &Namespace, seconds: &str, pictures: &[PathBuf]) -> (Peer, PipeReader) {
    let (complaints, ours) = io::pipe().expect("a pipe");
    let mut command = Command::new(env!("CARGO_BIN_EXE_st-demo"));
    command.args(["--seconds", seconds]).args(pictures).stderr(ours);
    (Peer::start(space, "demo", command), complaints)
}

/// Hears what it says until a line with `wanted`, which is returned.
fn hear_until(demo: &mut Peer, wanted: &str) -> String {
    loop {
        let line = demo.hear();
        if line.contains(wanted) {
            return line;
        }
    }
}

/// Waits until every process of the demo has ended, and returns what they complained about.
fn all_ended(mut complaints: PipeReader) -> String {
    let mut said = String::new();
    complaints.read_to_string(&mut said).expect("what the demo complains about");
    said
}

fn assert_nothing_left(demo: Pid) {
    let mine = format!("st-test-{demo}-");
    let entries = fs::read_dir("/dev/shm").expect("/dev/shm").flatten();
    let left: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&mine))
        .map(|entry| entry.path())
        .collect();
    assert!(left.is_empty(), "the demo left {left:?}");
}

#[test]
fn it_plays_to_its_end() {
    let space = Namespace::new("demo-plays");
    let pictures = Pictures::new(&space);
    let (mut demo, complaints) = demo(&space, "2", &pictures.paths());
    let pid = demo.pid();
    hear_until(&mut demo, "The writer is killed inside a write");
    hear_until(&mut demo, "The second writer owns the stream");
    let end = hear_until(&mut demo, "frames verified");
    let verified: u64 = end
        .split(' ')
        .nth(1)
        .and_then(|word| word.replace(',', "").parse().ok())
        .expect("a number");
    // A frame in each of four acts for each of three readers, and one when the writer has changed.
    assert!(verified >= 15, "{end}");
    assert!(demo.wait().success());
    assert_eq!(all_ended(complaints), "");
    assert_nothing_left(pid);
}

#[test]
fn interrupted_it_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        let space = Namespace::new("demo-interrupted");
        let pictures = Pictures::new(&space);
        let (mut demo, complaints) = demo(&space, "6000", &pictures.paths());
        let pid = demo.pid();
        hear_until(&mut demo, "Full speed");
        demo.signal(signal);
        assert_eq!(demo.wait().code(), Some(130));
        assert!(all_ended(complaints).contains("interrupted"));
        assert_nothing_left(pid);
    }
}

#[test]
fn killed_it_leaves_nothing() {
    let space = Namespace::new("demo-killed");
    let pictures = Pictures::new(&space);
    let (mut demo, complaints) = demo(&space, "6000", &pictures.paths());
    let pid = demo.pid();
    hear_until(&mut demo, "Full speed");
    demo.signal(Signal::KILL);
    assert_eq!(demo.wait().signal(), Some(Signal::KILL.as_raw()));
    all_ended(complaints);
    assert_nothing_left(pid);
}

#[test]
fn a_role_that_cannot_play_ends_it() {
    let space = Namespace::new("demo-python");
    let pictures = Pictures::new(&space);
    // Ends at once, as an interpreter without the wheel does.
    let mut arguments = vec![PathBuf::from("--python"), PathBuf::from("false")];
    arguments.extend(pictures.paths());
    let (mut demo, complaints) = demo(&space, "6000", &arguments);
    let pid = demo.pid();
    hear_until(&mut demo, "writer (Python)");
    assert!(!demo.wait().success());
    let said = all_ended(complaints);
    assert!(said.contains("`writer 1` ended instead of answering"), "{said}");
    assert_nothing_left(pid);
}

#[test]
fn what_is_no_photograph_is_refused() {
    let space = Namespace::new("demo-refused");
    let this = Path::new(file!()).with_extension("none");
    for path in [this, std::env::current_exe().expect("the path of this program")] {
        let (mut demo, complaints) = demo(&space, "2", std::slice::from_ref(&path));
        let pid = demo.pid();
        assert_eq!(demo.wait().code(), Some(1));
        let said = all_ended(complaints);
        assert!(said.contains(&*path.to_string_lossy()), "{said}");
        assert_nothing_left(pid);
    }
}
