//! Which driver the tests run on.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Whether they run on a device, which must be there.
pub(crate) fn is_device() -> bool {
    env::var_os("ST_GPU").is_some_and(|it| it == "require")
}

pub(crate) fn is_chosen() -> bool {
    env::var_os("CUDA_IPC_DRIVER").is_some()
}

/// Runs this program on the driver for tests.
pub(crate) fn run_again() -> ExitCode {
    let folder = build("newest", &["-DVERSION=13000"]);
    let status = Command::new(env::current_exe().unwrap())
        .args(env::args_os().skip(1))
        .env("CUDA_IPC_DRIVER", &folder)
        .env("LD_LIBRARY_PATH", &folder)
        .env_remove("CUDA_VISIBLE_DEVICES")
        .status()
        .unwrap();
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs these tests in another process, set up by `how`, and sees all of them pass.
pub(crate) fn run_tests<N: AsRef<OsStr>>(
    tests: &[N],
    how: impl FnOnce(&mut Command) -> &mut Command,
) {
    let mut command = Command::new(env::current_exe().unwrap());
    let ran = how(command.args(tests).arg("--exact")).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains(&format!("{} passed; 0 failed", tests.len())), "{said}");
}

/// The folder with one.
pub(crate) fn build(label: &str, options: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("on-gpu-driver").join(label);
    std::fs::create_dir_all(&folder).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cuda-ipc/tests/it/driver/driver.c");
    // Another run of the tests may build the same.
    let fresh = folder.join(format!("fresh-{}", std::process::id()));
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-pthread"])
        .args(options)
        .arg(source)
        .arg("-o")
        .arg(&fresh)
        .status()
        .expect("a C compiler, called cc");
    assert!(status.success(), "the driver for tests compiles");
    std::fs::rename(fresh, folder.join("libcuda.so.1")).unwrap();
    folder
}
