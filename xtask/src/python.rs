//! Python interpreters, tools fetched for them, and environments to try a wheel in.

use std::fs;
use std::path::{Path, PathBuf};

use crate::tally::Tally;
use crate::task::Task;
use crate::workspace::cache;
use crate::{Failure, Workspace, screen};

/// The oldest minor version of CPython 3 that the wheel supports.
const OLDEST_MINOR: u32 = 9;
/// Later minors are found as `python3` only; a gap in the numbers costs one failed lookup each.
const NEWEST_MINOR: u32 = 20;

/// A CPython that can load the wheel.
#[derive(Debug)]
pub(crate) struct Interpreter {
    pub(crate) program: PathBuf,
    /// Such as `3.12`.
    pub(crate) version: String,
    minor: u32,
}

/// Prints minor version, whether the interpreter can load a cp39-abi3 wheel, whether it can make
/// environments, and its own path.
const PROBE: &str = "
import importlib.util, platform, sys, sysconfig
loads = platform.python_implementation() == 'CPython' and not sysconfig.get_config_var('Py_GIL_DISABLED')
makes = all(importlib.util.find_spec(name) for name in ('venv', 'ensurepip'))
print(sys.version_info[0], sys.version_info[1], int(loads), int(makes), sys.executable)
";

/// All that are installed, one per minor version, the default `python3` first; and, in words, those
/// that cannot be used.
pub(crate) fn interpreters() -> Result<(Vec<Interpreter>, Vec<String>), Failure> {
    let mut found: Vec<Interpreter> = Vec::new();
    let mut unusable = Vec::new();
    for program in candidates() {
        let Ok(answer) = Task::new(&program).args(["-I", "-c", PROBE]).capture() else {
            continue;
        };
        match judge(&answer) {
            Ok(interpreter) if found.iter().all(|known| known.version != interpreter.version) => {
                found.push(interpreter);
            }
            Ok(_) => {}
            Err(reason) if unusable.contains(&reason) => {}
            Err(reason) => unusable.push(reason),
        }
    }
    if found.is_empty() {
        let mut message = format!(
            "no CPython 3.{OLDEST_MINOR} or later with the modules venv and ensurepip was found; \
             install one (on Debian and Ubuntu: python3-venv)"
        );
        for reason in unusable {
            message.push_str("; ");
            message.push_str(&reason);
        }
        return Err(Failure::new(message));
    }
    found[1..].sort_by_key(|interpreter| interpreter.minor);
    Ok((found, unusable))
}

fn judge(answer: &str) -> Result<Interpreter, String> {
    let fields: Vec<&str> = answer.trim().splitn(5, ' ').collect();
    let [major, minor, loads, makes, program] = fields[..] else {
        return Err(format!("an interpreter answered `{}`", answer.trim()));
    };
    let version = format!("{major}.{minor}");
    let minor: u32 = minor.parse().unwrap_or(0);
    if major != "3" || minor < OLDEST_MINOR {
        return Err(format!("{program} is Python {version}, older than 3.{OLDEST_MINOR}"));
    }
    if loads != "1" {
        return Err(format!("{program} does not load abi3 wheels (free-threaded, or not CPython)"));
    }
    if makes != "1" {
        return Err(format!("{program} lacks the modules venv and ensurepip"));
    }
    Ok(Interpreter { program: PathBuf::from(program), version, minor })
}

/// Names on PATH, and the versions that pyenv keeps off it.
fn candidates() -> Vec<PathBuf> {
    let on_path = (OLDEST_MINOR..=NEWEST_MINOR).map(|minor| format!("python3.{minor}"));
    let mut candidates: Vec<PathBuf> = ["python3", "python"]
        .map(str::to_owned)
        .into_iter()
        .chain(on_path)
        .map(PathBuf::from)
        .collect();
    let pyenv = std::env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".pyenv")));
    let versions = pyenv.and_then(|root| fs::read_dir(root.join("versions")).ok());
    let mut kept: Vec<PathBuf> = versions
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/python"))
        .collect();
    kept.sort();
    candidates.extend(kept);
    candidates
}

/// An environment in the user's cache with fetched tools, shared by all clones. Its name carries a
/// hash of what it holds, so it is never changed, only replaced by another.
#[derive(Debug)]
pub(crate) struct Tools {
    folder: PathBuf,
    /// The folders of packages that these stand on.
    below: Vec<PathBuf>,
}

impl Tools {
    /// Fetches the tools listed in `st-python/requirements/<list>.txt`, or finds them fetched.
    pub(crate) fn prepare(
        workspace: &Workspace,
        interpreter: &Interpreter,
        lists: &[&str],
    ) -> Result<Self, Failure> {
        Self::with(interpreter, &lists.join("-"), &listed(workspace, lists)?, &[])
    }

    /// As [`prepare`](Self::prepare), on top of these tools: what these have is not fetched again, and
    /// stays fetched when the lists change.
    pub(crate) fn and(
        &self,
        workspace: &Workspace,
        interpreter: &Interpreter,
        lists: &[&str],
    ) -> Result<Self, Failure> {
        self.and_with(interpreter, &lists.join("-"), &listed(workspace, lists)?, &[])
    }

    /// As [`with`](Self::with), on top of these tools.
    pub(crate) fn and_with(
        &self,
        interpreter: &Interpreter,
        label: &str,
        wanted: &[String],
        how: &[&str],
    ) -> Result<Self, Failure> {
        let mut below = self.below.clone();
        below.push(self.packages()?);
        Self::make(interpreter, label, wanted, how, below)
    }

    /// Fetches the packages `wanted`, with pip's options `how`, under a folder named after `label`.
    pub(crate) fn with(
        interpreter: &Interpreter,
        label: &str,
        wanted: &[String],
        how: &[&str],
    ) -> Result<Self, Failure> {
        Self::make(interpreter, label, wanted, how, Vec::new())
    }

    fn make(
        interpreter: &Interpreter,
        label: &str,
        wanted: &[String],
        how: &[&str],
        below: Vec<PathBuf>,
    ) -> Result<Self, Failure> {
        let program = interpreter.program.to_string_lossy();
        let parts = [&*program, &interpreter.version].into_iter();
        let parts = parts.chain(below.iter().filter_map(|it| it.to_str()));
        let key = fingerprint(parts.chain(wanted.iter().map(String::as_str)));
        let folder = cache()?.join(format!("{label}-{}-{key:016x}", interpreter.version));
        let tools = Self { folder, below };
        // Written last: an environment without it was interrupted while it was made.
        let complete = tools.folder.join("complete");
        if complete.exists() && tools.python().args(["-c", ""]).capture().is_ok() {
            return Ok(tools);
        }
        screen::line(&format!(
            "  fetching {} (kept in {})",
            wanted.join(", "),
            tools.folder.display()
        ));
        Task::new(&interpreter.program)
            .args(["-m", "venv", "--clear"])
            .args([&tools.folder])
            .run()?;
        refer(&packages(tools.python())?, &tools.below)?;
        // The pip that comes with an old interpreter cannot install into another environment.
        tools.pip(&["--upgrade", "pip>=23"], &[])?;
        tools.pip(how, wanted)?;
        fs::write(&complete, "").map_err(|error| {
            Failure::new(format!("{} cannot be written: {error}", complete.display()))
        })?;
        Ok(tools)
    }

    /// Its interpreter, not run yet.
    pub(crate) fn python(&self) -> Task {
        isolated(&self.folder)
    }

    /// Where its packages lie.
    pub(crate) fn packages(&self) -> Result<PathBuf, Failure> {
        packages(self.python())
    }

    /// Where its interpreter is.
    pub(crate) fn program(&self) -> PathBuf {
        self.folder.join("bin/python")
    }

    fn pip(&self, options: &[&str], wanted: &[String]) -> Result<(), Failure> {
        self.python().args(["-m", "pip", "install", "--quiet"]).args(options).args(wanted).run()
    }
}

/// Where the tests of faults find the other service.
const OTHER_SERVICE_ENV: &str = "ST_OTHER_SERVICE";

/// An environment made afresh for one run: the wheel, and the tools by reference.
#[derive(Debug)]
pub(crate) struct Venv {
    folder: PathBuf,
}

/// How long one test of pytest may take. A hang is a failure, with the stacks of all threads.
const TEST_LIMIT_S: u32 = 600;

impl Venv {
    pub(crate) fn fresh(
        folder: &Path,
        interpreter: &Interpreter,
        tools: &Tools,
    ) -> Result<Self, Failure> {
        Task::new(&interpreter.program)
            .args(["-m", "venv", "--clear", "--without-pip"])
            .args([folder])
            .run()?;
        let venv = Self { folder: folder.to_owned() };
        let mut all = vec![tools.packages()?];
        all.extend_from_slice(&tools.below);
        refer(&packages(venv.python())?, &all)?;
        Ok(venv)
    }

    pub(crate) fn install(&self, tools: &Tools, wheel: &Path) -> Result<(), Failure> {
        tools
            .python()
            .args(["-m", "pip", "--python"])
            .args([self.folder.join("bin/python")])
            .args(["install", "--quiet"])
            .args([wheel])
            .run()
    }

    /// Its interpreter, not run yet.
    pub(crate) fn python(&self) -> Task {
        isolated(&self.folder)
    }

    /// Where its interpreter is.
    pub(crate) fn program(&self) -> PathBuf {
        self.folder.join("bin/python")
    }

    /// Runs the tests in some folders of the tests, or for none of them all that there are. `other` is
    /// the interpreter that has the other service.
    pub(crate) fn pytest(
        &self,
        workspace: &Workspace,
        folders: &[&str],
        other: Option<&Path>,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let own = workspace.root.join("st-python/tests");
        let mut tests: Vec<PathBuf> = folders.iter().map(|it| own.join(it)).collect();
        if tests.is_empty() {
            tests.push(own);
            tests.extend(
                ["tests/demo", "tests/gpu", "tests/soak"].map(|it| workspace.root.join(it)),
            );
        }
        // From outside the clone: the package under test is the one installed.
        let python = match other {
            Some(program) => self.python().env(OTHER_SERVICE_ENV, program),
            None => self.python().without_env(OTHER_SERVICE_ENV),
        };
        python
            .args(["-m", "pytest", "-p", "no:cacheprovider", "-ra", "-m", "not nightly", "-c"])
            .args([workspace.root.join("pyproject.toml")])
            .args([format!("--timeout={TEST_LIMIT_S}")])
            .args(tests)
            .within(&self.folder)
            .tee(|line| *tally += Tally::of_pytest(line).unwrap_or_default())
    }
}

/// The packages that a file lists, one per line.
pub(crate) fn requirements(path: &Path) -> Result<Vec<String>, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("{} cannot be read: {error}", path.display())))?;
    let lines = text.lines().map(str::trim);
    Ok(lines.filter(|it| !it.is_empty() && !it.starts_with('#')).map(str::to_owned).collect())
}

/// torch, which is large and fetched for itself.
pub(crate) fn with_torch(
    workspace: &Workspace,
    interpreter: &Interpreter,
) -> Result<Tools, Failure> {
    screen::line("  torch is fetched once, some 3 GB, 6 GB on disk");
    Tools::prepare(workspace, interpreter, &["torch"])
}

/// torch, and models that run on it.
pub(crate) fn with_models(
    workspace: &Workspace,
    interpreter: &Interpreter,
) -> Result<Tools, Failure> {
    with_torch(workspace, interpreter)?.and(workspace, interpreter, &["test", "models"])
}

/// The service whose interface is kept. Its package has the name of ours.
const OTHER_SERVICE: &str = "shared-tensor==0.2.16";

/// A Python that has that one beside these tools.
pub(crate) fn with_other_service(
    workspace: &Workspace,
    interpreter: &Interpreter,
    tools: &Tools,
) -> Result<Venv, Failure> {
    // What it asks for beside these would replace NumPy by one that torch does not go with.
    let wanted = [OTHER_SERVICE, "cloudpickle"].map(str::to_owned);
    let theirs = tools.and_with(interpreter, "other-service", &wanted, &["--no-deps"])?;
    Venv::fresh(&workspace.target.join("python/other-service"), interpreter, &theirs)
}

/// The same without one of the packages.
pub(crate) fn with_models_but(
    workspace: &Workspace,
    interpreter: &Interpreter,
    without: &str,
) -> Result<Tools, Failure> {
    let lists = ["test", "models"];
    let mut wanted = listed(workspace, &lists)?;
    wanted.retain(|it| !it.starts_with(without));
    with_torch(workspace, interpreter)?.and_with(interpreter, &lists.join("-"), &wanted, &[])
}

/// The packages that some of `st-python/requirements` list.
fn listed(workspace: &Workspace, lists: &[&str]) -> Result<Vec<String>, Failure> {
    let mut wanted = Vec::new();
    for list in lists {
        let path = workspace.root.join(format!("st-python/requirements/{list}.txt"));
        wanted.extend(requirements(&path)?);
    }
    Ok(wanted)
}

/// Makes what lies in other folders of packages importable from this one.
fn refer(from: &Path, to: &[PathBuf]) -> Result<(), Failure> {
    if to.is_empty() {
        return Ok(());
    }
    let link = from.join("tools.pth");
    let lines: Vec<String> = to.iter().map(|folder| folder.display().to_string()).collect();
    fs::write(&link, lines.join("\n"))
        .map_err(|error| Failure::new(format!("{} cannot be written: {error}", link.display())))
}

fn isolated(folder: &Path) -> Task {
    Task::new(folder.join("bin/python")).without_env("PYTHONPATH").without_env("PYTHONHOME")
}

fn packages(python: Task) -> Result<PathBuf, Failure> {
    let query = "import sysconfig; print(sysconfig.get_path('platlib'))";
    Ok(PathBuf::from(python.args(["-c", query]).capture()?.trim()))
}

/// FNV-1a over the parts and their ends. A name for a folder, not a safeguard.
fn fingerprint<'a>(parts: impl Iterator<Item = &'a str>) -> u64 {
    let bytes = parts.flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::{fingerprint, judge};

    #[test]
    fn interpreters_are_judged_by_what_they_can_load() {
        let found = judge("3 12 1 1 /usr/bin/python 3.12\n").unwrap();
        assert_eq!(
            (found.version.as_str(), found.program.to_str()),
            ("3.12", Some("/usr/bin/python 3.12"))
        );
        assert!(judge("3 8 1 1 /p").unwrap_err().contains("older than 3.9"));
        assert!(judge("2 7 1 1 /p").unwrap_err().contains("Python 2.7"));
        assert!(judge("3 14 0 1 /p").unwrap_err().contains("abi3"));
        assert!(judge("3 12 1 0 /p").unwrap_err().contains("venv"));
        assert!(judge("hello").is_err());
    }

    #[test]
    fn fingerprints_tell_parts_apart() {
        assert_ne!(fingerprint(["ab", "c"].into_iter()), fingerprint(["a", "bc"].into_iter()));
        assert_eq!(fingerprint(["ab"].into_iter()), fingerprint(["ab"].into_iter()));
    }
}
