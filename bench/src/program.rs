//! One probe: a program that ends by itself and prints `name value` lines.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::probe::space;
use crate::{Fault, Outcome};

/// Longest run of a probe. Far above what any needs: it only ends what hangs.
const LIMIT: Duration = Duration::from_secs(240);

/// A program and its arguments.
#[derive(Clone, Debug)]
pub struct Program {
    path: OsString,
    arguments: Vec<String>,
}

impl Program {
    /// A program at a path.
    pub fn new(path: &Path, arguments: &[String]) -> Self {
        Self { path: path.into(), arguments: arguments.to_vec() }
    }

    /// Runs it, and returns what it measured, in the order of its lines.
    ///
    /// # Errors
    /// It cannot be started, fails, hangs, or prints something else.
    pub fn run(&self) -> Outcome<Vec<(String, f64)>> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).stdin(Stdio::null());
        command.env(space::VARIABLE, space::prefix());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        let child = child.map_err(|source| self.said(&format!("cannot be started: {source}")))?;
        let pid = rustix::process::Pid::from_child(&child);
        let (ended, watched) = mpsc::channel::<()>();
        let output = thread::scope(|scope| {
            scope.spawn(move || {
                if watched.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            });
            let output = child.wait_with_output();
            drop(ended);
            output
        })?;
        if !output.status.success() {
            return Err(self.said(&format!("ended with {}", output.status)));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let figures = text.lines().map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        figures.collect::<Option<Vec<_>>>().ok_or_else(|| self.said(&format!("printed `{text}`")))
    }

    fn said(&self, what: &str) -> Fault {
        let name = Path::new(&self.path).file_name().unwrap_or(&self.path).to_string_lossy();
        format!("`{name} {}` {what}", self.arguments.join(" ")).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Outcome<Vec<(String, f64)>> {
        Program::new(Path::new("/bin/sh"), &["-c".to_owned(), script.to_owned()]).run()
    }

    #[test]
    fn lines_are_figures() {
        let figures = shell("echo p50 1.5; echo p99 20").unwrap();
        assert_eq!(figures, [("p50".to_owned(), 1.5), ("p99".to_owned(), 20.0)]);
    }

    #[test]
    fn anything_else_is_told() {
        assert!(shell("exit 3").unwrap_err().to_string().contains("ended with"));
        assert!(shell("echo hello").unwrap_err().to_string().contains("printed `hello"));
    }
}
