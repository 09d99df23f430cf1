//! Commands of a peer to itself: forking, and dying at a chosen point.

use std::fs::File;
use std::io::{Read, Write};

use rustix::process::{WaitOptions, waitpid};

use super::{Answer, Subject, answer, said};
use crate::sys::{self, Fork};

/// Forks. The child carries out the commands between ` ; ` with what it inherited and ends; their
/// answers come back between ` ; `.
pub(super) fn run(subjects: &mut [Box<dyn Subject>], words: &[&str]) -> Answer {
    let commands = words.join(" ");
    in_child(|| {
        let answers = commands.split(" ; ").map(|command| match answer(subjects, command) {
            Ok(words) => format!("ok {words}").trim_end().to_owned(),
            Err(words) => format!("error {words}"),
        });
        answers.collect::<Vec<_>>().join(" ; ")
    })
}

/// Runs `work` in a forked child, and returns what it says.
///
/// # Errors
/// When the child dies of it.
pub(super) fn in_child(work: impl FnOnce() -> String) -> Answer {
    let (mine, theirs) = std::io::pipe().map_err(said)?;
    match sys::fork().map_err(said)? {
        Fork::Child => {
            drop(mine);
            let said = work();
            let mut theirs = theirs;
            let written = theirs.write_all(said.as_bytes());
            sys::exit_now(i32::from(written.is_err()));
        }
        Fork::Parent(child) => {
            drop(theirs);
            let mut said_there = String::new();
            File::from(std::os::fd::OwnedFd::from(mine))
                .read_to_string(&mut said_there)
                .map_err(said)?;
            let status = waitpid(Some(child), WaitOptions::empty()).map_err(said)?;
            match status {
                Some((_, status)) if status.exit_status() == Some(0) => Ok(said_there),
                other => Err(format!("the child ended with {other:?} after `{said_there}`")),
            }
        }
    }
}

/// Forks a child that does nothing, for ever; its process id.
pub(super) fn linger() -> Answer {
    match sys::fork().map_err(said)? {
        Fork::Parent(child) => Ok(child.to_string()),
        Fork::Child => loop {
            std::thread::park();
        },
    }
}

/// Arranges for this process to die when it is about to wake others.
pub(super) fn die_at_wake() -> Answer {
    sys::die_at_wake().map_err(said)?;
    Ok(String::new())
}
