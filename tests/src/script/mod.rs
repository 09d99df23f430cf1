//! What the scripted peer, `st-peer`, can be told.
//!
//! A line is a command and its words, between single blanks: `segment.create cam0 4096`. The answer
//! is one line, `ok` with what was asked for, or `error` with why not. Commands of one subject
//! share what stands before the dot and are a [`Subject`] in a file of their own.
//!
//! | command | answer |
//! |---|---|
//! | `hello` | `ok` and the process id |
//! | `barrier` | `ok barrier`: everything said before is done |
//! | `die` | none: SIGKILL, by its own hand |
//! | `abort` | none: SIGABRT |
//! | `fork COMMAND ; COMMAND ...` | `ok` and the answers of a forked child that does them and ends |
//! | `linger` | `ok` and the process id of a forked child that does nothing, for ever |
//! | `die_at_wake` | `ok`; the next wake-up of another process kills this one instead |
//! | `quit` | `ok`, then everything is dropped and the process ends |
//!
//! A peer whose tester is gone kills itself.

mod fork;
mod lock;
mod segment;
mod stream;
mod stream_hold;

pub use lock::Locks;
pub use segment::{KIND, Segments};
pub use stream::Streams;

use std::fmt::Display;
use std::io::{self, BufRead, Write};
use std::sync::mpsc;
use std::thread;

use rustix::process::{Signal, getpid, kill_process};

use crate::Place;

/// What a command comes to: the words after `ok`, or those after `error`.
pub type Answer = Result<String, String>;

/// Commands that share a subject, and what they hold between lines.
pub trait Subject {
    /// What stands before the dot.
    fn name(&self) -> &'static str;

    /// Carries out the command `verb`.
    ///
    /// # Errors
    /// The words after `error`.
    fn run(&mut self, verb: &str, words: &[&str]) -> Answer;
}

/// Answers the lines on standard input until `quit`.
///
/// # Errors
/// When this process was not started by a tester, or the tester cannot be answered any more.
pub fn serve() -> io::Result<()> {
    let space = Place::from_environment()?;
    let mut subjects: [Box<dyn Subject>; 3] = [
        Box::new(Segments::new(space.shm())),
        Box::new(Locks::new(space.stem("lock-"))),
        Box::new(Streams::new(space.shm())),
    ];
    let (heard, lines) = mpsc::channel();
    // On a thread, so that a command that blocks for ever does not outlive the tester.
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if heard.send(line).is_err() {
                return;
            }
        }
        die();
    });
    for line in lines {
        let quits = line == "quit";
        let answer = match answer(&mut subjects, &line) {
            Ok(words) if words.is_empty() => "ok".to_owned(),
            Ok(words) => format!("ok {words}"),
            Err(words) => format!("error {words}"),
        };
        writeln!(io::stdout().lock(), "{}", answer.replace('\n', " "))?;
        if quits {
            break;
        }
    }
    Ok(())
}

fn answer(subjects: &mut [Box<dyn Subject>], line: &str) -> Answer {
    let words: Vec<&str> = line.split(' ').collect();
    let (command, words) = words.split_first().ok_or("an empty line")?;
    match *command {
        "hello" => return Ok(getpid().to_string()),
        "barrier" => return Ok("barrier".to_owned()),
        "die" => die(),
        "abort" => std::process::abort(),
        "fork" => return fork::run(subjects, words),
        "linger" => return fork::linger(),
        "die_at_wake" => return fork::die_at_wake(),
        "quit" => return Ok(String::new()),
        _ => {}
    }
    let (name, verb) = command.split_once('.').unwrap_or((command, ""));
    let subject = subjects.iter_mut().find(|subject| subject.name() == name);
    subject.ok_or_else(|| format!("unknown command `{command}`"))?.run(verb, words)
}

/// Ends this process as a crash would: nothing is dropped, nothing is flushed.
fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    // Not reached: a process cannot outlive its own SIGKILL.
    std::process::abort()
}

/// The word at `index`, called `what`.
///
/// # Errors
/// When there are fewer.
pub fn word<'a>(words: &[&'a str], index: usize, what: &str) -> Result<&'a str, String> {
    words.get(index).copied().ok_or_else(|| format!("{what} is missing"))
}

/// The number at `index`, called `what`.
///
/// # Errors
/// When there is none.
pub fn number<T: std::str::FromStr>(words: &[&str], index: usize, what: &str) -> Result<T, String> {
    let text = word(words, index, what)?;
    text.parse().map_err(|_| format!("{what} is `{text}`, not a number"))
}

/// An error as the words after `error`.
pub fn said(error: impl Display) -> String {
    error.to_string()
}
