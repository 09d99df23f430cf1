//! Finding the other programs of this package.

use std::path::{Path, PathBuf};

/// The program `name`, which cargo put beside the one that runs, or one folder above it.
///
/// For programs and for examples; an integration test says `env!("CARGO_BIN_EXE_<name>")`, which
/// cargo also builds when it is missing.
///
/// # Panics
/// When there is none.
pub fn beside(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the path of this program");
    let folders = this.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        let near = this.parent().unwrap_or(Path::new("/")).display();
        panic!("no program `{name}` in {near}: build it with `cargo build -p st-tests --bins`")
    })
}
