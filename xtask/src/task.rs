//! Running other programs.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Failure, screen};

/// Where a shown command is cut, at the next argument.
const SHOWN_BYTES: usize = 200;

/// A program to run, shown before it starts.
#[derive(Debug)]
pub(crate) struct Task {
    command: Command,
    limit: Option<Duration>,
}

impl Task {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program), limit: None }
    }

    /// The cargo that runs this xtask.
    pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        Self::new(program).args(arguments)
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, list: impl IntoIterator<Item = S>) -> Self {
        self.command.args(list);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub(crate) fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Kills the program when it runs longer. For programs that are to end by themselves.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Runs it on this terminal.
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        self.show();
        let child = self.spawn()?;
        let status = self.wait(child)?;
        self.judge(status)
    }

    /// Becomes the program, which then has the terminal and its Ctrl-C to itself. Comes back only
    /// when that fails.
    pub(crate) fn replace(mut self) -> Failure {
        let error = self.command.exec();
        self.lost(&error)
    }

    /// Runs it, and hands every line of its standard output to `each` after showing it.
    pub(crate) fn tee(mut self, mut each: impl FnMut(&str)) -> Result<(), Failure> {
        self.show();
        self.command.stdout(Stdio::piped());
        let mut child = self.spawn()?;
        let output = child.stdout.take();
        self.hand_on(child, output, |line| {
            screen::line(line);
            each(line);
        })
    }

    /// Runs it, and hands every line of its standard error to `each` without showing any.
    pub(crate) fn tee_errors(mut self, each: impl FnMut(&str)) -> Result<(), Failure> {
        self.show();
        self.command.stderr(Stdio::piped());
        let mut child = self.spawn()?;
        let output = child.stderr.take();
        self.hand_on(child, output, each)
    }

    fn hand_on(
        &self,
        child: Child,
        output: Option<impl Read>,
        mut each: impl FnMut(&str),
    ) -> Result<(), Failure> {
        let lines = output.map(BufReader::new);
        // Read here and wait there, so that the limit also ends a program that says nothing.
        let status = thread::scope(|scope| {
            let waiter = scope.spawn(|| self.wait(child));
            for line in lines.into_iter().flat_map(|pipe| pipe.split(b'\n')).map_while(Result::ok) {
                each(&String::from_utf8_lossy(&line));
            }
            waiter.join().unwrap_or_else(|_| Err(Failure::new("waiting for a program panicked")))
        })?;
        self.judge(status)
    }

    /// Runs it without showing anything, and returns what it wrote.
    pub(crate) fn capture(mut self) -> Result<String, Failure> {
        let output =
            self.command.stdin(Stdio::null()).output().map_err(|error| self.lost(&error))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::new(format!("{} failed: {}", self.shown(), said.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it with its standard error on this terminal, and returns its standard output.
    pub(crate) fn read(mut self) -> Result<String, Failure> {
        self.show();
        self.command.stderr(Stdio::inherit());
        let output = self.command.output().map_err(|error| self.lost(&error))?;
        self.judge(output.status)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it out of sight, and returns how it ended, which may be badly, and its standard output.
    pub(crate) fn observe(mut self) -> Result<(ExitStatus, String), Failure> {
        self.show();
        let output = self.command.output().map_err(|error| self.lost(&error))?;
        Ok((output.status, String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    fn spawn(&mut self) -> Result<Child, Failure> {
        self.command.spawn().map_err(|error| self.lost(&error))
    }

    fn wait(&self, mut child: Child) -> Result<ExitStatus, Failure> {
        let Some(limit) = self.limit else {
            return child.wait().map_err(|error| self.lost(&error));
        };
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = child.try_wait().map_err(|error| self.lost(&error))? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                // Killing fails only when it has just ended; either way it is then reaped.
                let _ = child.kill();
                let _ = child.wait();
                return Err(Failure::new(format!("{} ran longer than {limit:?}", self.shown())));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn judge(&self, status: ExitStatus) -> Result<(), Failure> {
        if status.success() {
            return Ok(());
        }
        Err(Failure::new(format!("{} ended with {status}", self.shown())))
    }

    fn lost(&self, error: &std::io::Error) -> Failure {
        Failure::new(format!("{} cannot be run: {error}", self.shown()))
    }

    fn show(&self) {
        screen::line(&format!("  $ {}", self.shown()));
    }

    /// The command as one would type it, cut where it gets long.
    fn shown(&self) -> String {
        let program = Path::new(self.command.get_program());
        let name = program.file_name().unwrap_or(program.as_os_str());
        let mut shown = name.to_string_lossy().into_owned();
        for argument in self.command.get_args() {
            if shown.len() > SHOWN_BYTES {
                shown.push_str(" ...");
                break;
            }
            shown.push(' ');
            shown.push_str(&argument.to_string_lossy());
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Task;

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let failure = Task::new("sleep").args(["600"]).limit(Duration::from_millis(50)).run();
        assert!(failure.unwrap_err().to_string().contains("sleep 600 ran longer than"));
    }

    #[test]
    fn every_line_is_handed_on() {
        let mut lines = Vec::new();
        let outcome =
            Task::new("printf").args(["one\\ntwo\\n"]).tee(|line| lines.push(line.to_owned()));
        assert!(outcome.is_ok());
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn failing_is_told_with_the_command() {
        let failure = Task::new("false").run().unwrap_err().to_string();
        assert!(failure.starts_with("false ended with"), "{failure}");
        assert!(Task::new("no-such-program-anywhere").run().is_err());
    }
}
