//! A daemon of MPS, for as long as this program runs again under it.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

const CONTROL: &str = "nvidia-cuda-mps-control";
const PIPES: &str = "CUDA_MPS_PIPE_DIRECTORY";
const LOGS: &str = "CUDA_MPS_LOG_DIRECTORY";
const IS_THERE: &str = "ST_BENCH_MPS";

/// Whether this process was started under it.
pub(crate) fn is_there() -> bool {
    std::env::var_os(IS_THERE).is_some()
}

/// The daemon, in a folder of its own. Ended with the value.
struct Daemon {
    folder: PathBuf,
}

impl Daemon {
    fn start() -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("st-mps-{}", std::process::id()));
        let made = ["pipe", "log"].map(|name| std::fs::create_dir_all(folder.join(name)));
        let daemon = Self { folder };
        made.into_iter().collect::<Result<(), _>>().map_err(|error| error.to_string())?;
        let ended = daemon.control().arg("-d").status();
        match ended {
            Ok(status) if status.success() => Ok(daemon),
            Ok(status) => Err(format!("{CONTROL} -d: {status}")),
            Err(error) => Err(format!("{CONTROL}: {error}")),
        }
    }

    fn control(&self) -> Command {
        let mut command = Command::new(CONTROL);
        self.within(&mut command);
        command
    }

    fn within<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env(PIPES, self.folder.join("pipe")).env(LOGS, self.folder.join("log"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let quit = || -> std::io::Result<()> {
            let mut control = self.control().stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
            control.stdin.take().map_or(Ok(()), |mut input| input.write_all(b"quit\n"))?;
            control.wait().map(drop)
        };
        // One that never came has nothing to end.
        let _ = quit();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs this program again under a daemon. Without one nothing is measured, which is a failure.
pub(crate) fn within() -> ExitCode {
    let daemon = match Daemon::start() {
        Ok(daemon) => daemon,
        Err(reason) => {
            eprintln!("nothing is measured under MPS, which cannot be had: {reason}");
            return ExitCode::FAILURE;
        }
    };
    let mut again = Command::new(std::env::current_exe().expect("a program"));
    let again = again.args(std::env::args_os().skip(1)).env(IS_THERE, "1");
    let status = daemon.within(again).status().expect("it starts");
    drop(daemon);
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
