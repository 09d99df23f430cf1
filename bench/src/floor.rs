//! The floor programs: compiled here and now, so that they stand on this machine's C library.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, screen};

/// Sources of the floors, part of the clone that this program was built from.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/floors");
const OPTIONS: [&str; 5] = ["-O3", "-std=gnu11", "-Wall", "-Wextra", "-pthread"];

/// The compiler's first line about itself, and where the programs are.
#[derive(Debug)]
pub struct Floors {
    /// The compiler.
    pub compiler: String,
    folder: PathBuf,
}

impl Floors {
    /// Compiles every floor into a folder beside this program.
    ///
    /// # Errors
    /// No C compiler (`$CC`, else `cc`), or it refuses a source.
    pub fn build() -> Outcome<Self> {
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let version = Command::new(&compiler).arg("--version").output().map_err(|source| {
            format!("`{compiler}` cannot be run: {source}: install a C compiler or set CC")
        })?;
        let version = String::from_utf8_lossy(&version.stdout);
        let folder = std::env::current_exe()?.with_file_name("floors");
        std::fs::create_dir_all(&folder)?;
        for entry in std::fs::read_dir(SOURCES)? {
            let source = entry?.path();
            if source.extension().is_some_and(|ending| ending == "c") {
                compile(&compiler, &source, &folder)?;
            }
        }
        let floors = Self { compiler: version.lines().next().unwrap_or_default().into(), folder };
        screen::line(&format!("  floors: {} {}", floors.compiler, OPTIONS.join(" ")));
        Ok(floors)
    }

    /// Where a floor is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn compile(compiler: &str, source: &Path, folder: &Path) -> Outcome<()> {
    let name = source.file_stem().ok_or("a floor without a name")?;
    let status =
        Command::new(compiler).args(OPTIONS).arg("-o").arg(folder.join(name)).arg(source).status();
    if status?.success() {
        return Ok(());
    }
    Err(format!("`{compiler}` does not compile {}", source.display()).into())
}
