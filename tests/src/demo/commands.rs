//! What the stage says to a role, line by line, and what the role answers.

use std::fmt::Display;
use std::io::{self, BufRead, Write};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

/// The lines on standard input, looked at between two frames.
pub(super) struct Commands(Receiver<String>);

/// What there is to do.
pub(super) enum Command {
    Line(String),
    /// The stage is gone: so must be whoever it started, and the stream.
    Orphaned,
}

impl Commands {
    pub(super) fn listen() -> Self {
        let (heard, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                if heard.send(line).is_err() {
                    return;
                }
            }
        });
        Self(lines)
    }

    /// Waits for the next one.
    pub(super) fn wait(&self) -> Command {
        self.0.recv().map_or(Command::Orphaned, Command::Line)
    }

    /// The next one, if there is one already.
    pub(super) fn poll(&self) -> Option<Command> {
        match self.0.try_recv() {
            Ok(line) => Some(Command::Line(line)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Command::Orphaned),
        }
    }
}

/// Answers that it is done, with what was asked for.
pub(super) fn done(words: impl Display) {
    say(&format!("ok {words}"));
}

/// Answers that it cannot be done.
pub(super) fn refuse(why: impl Display) {
    say(&format!("error {why}").replace('\n', " "));
}

fn say(line: &str) {
    // A stage that no longer listens is noticed by its commands coming to an end.
    let _ = writeln!(io::stdout().lock(), "{line}");
}
