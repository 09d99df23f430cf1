//! What the tests need of the kernel that no safe interface offers.

use std::io;

/// Forks; `None` in the child, which must end by [`leave`].
pub(crate) fn fork() -> Option<u32> {
    // SAFETY: the child runs this crate's code and plain writes, and leaves without unwinding.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "a test can fork: {}", io::Error::last_os_error());
    (child != 0).then(|| child.unsigned_abs())
}

/// Ends this process without running anything at exit.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(code) }
}

/// Sets or removes a variable of the environment. Tests run one at a time, and no other thread of the
/// program reads the environment meanwhile.
pub(crate) fn set_variable(name: &str, value: Option<&std::path::Path>) {
    match value {
        // SAFETY: see above.
        Some(value) => unsafe { std::env::set_var(name, value) },
        // SAFETY: see above.
        None => unsafe { std::env::remove_var(name) },
    }
}
