//! Which driver the tests run on.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Whether they run on a device, which must be there.
pub(crate) fn is_device() -> bool {
    env::var_os("ST_GPU").is_some_and(|it| it == "require")
}

pub(crate) fn is_chosen() -> bool {
    env::var_os("CUDA_IPC_DRIVER").is_some()
}

/// Runs this program on the test driver, as the newest there is.
pub(crate) fn run_again() -> ExitCode {
    let folder = build("newest", &["-DVERSION=13000"]);
    let own = env::current_exe().expect("an executable");
    let status = Command::new(own)
        .args(env::args_os().skip(1))
        .env("CUDA_IPC_DRIVER", &folder)
        .env("LD_LIBRARY_PATH", &folder)
        .env_remove("CUDA_VISIBLE_DEVICES")
        .status()
        .expect("it starts");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The folder with a test driver.
pub(crate) fn build(label: &str, options: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-ipc-driver").join(label);
    std::fs::create_dir_all(&folder).expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/driver/driver.c");
    // Another run of the tests may build the same.
    let fresh = folder.join(format!("fresh-{}", std::process::id()));
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror"])
        .args(options)
        .arg(source)
        .arg("-o")
        .arg(&fresh)
        .status()
        .expect("a C compiler, called cc");
    assert!(status.success(), "the test driver compiles");
    std::fs::rename(fresh, folder.join("libcuda.so.1")).expect("renamed");
    folder
}
