//! What the tests need of the kernel that no safe interface offers.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Leaves this process room for `more` descriptors than it has; what is returned undoes it.
pub(crate) fn limit_descriptors(more: u64) -> impl Fn() {
    let before = getrlimit(Resource::Nofile);
    let open = std::fs::read_dir("/proc/self/fd").expect("/proc").count() as u64;
    let limit = Rlimit { current: Some(open + more), maximum: before.maximum };
    setrlimit(Resource::Nofile, limit).expect("a lower limit");
    move || setrlimit(Resource::Nofile, before).expect("the old limit")
}

/// From now on these system calls of this process fail with EPERM, by a seccomp filter.
pub(crate) fn deny(numbers: &[i64]) -> io::Result<()> {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    // The number of the call is the first word of what the filter sees.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for number in numbers {
        let number = u32::try_from(*number).expect("a system call");
        filter.push(statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number));
        let denied = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
        filter.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, denied));
    }
    filter.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    let length = u16::try_from(filter.len()).expect("a short list");
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: takes numbers only.
    let promised = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program and what it points to live until the kernel has copied them.
    let set = || unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    if promised == 0 && set() == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Forks; `None` in the child, which must end by [`leave`].
pub(crate) fn fork() -> Option<u32> {
    // SAFETY: the child runs this crate's code and plain writes, and leaves without unwinding.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "a peer can fork: {}", io::Error::last_os_error());
    (child != 0).then(|| child.unsigned_abs())
}

/// Ends this process without running anything at exit.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(code) }
}

/// Becomes another user. Only for root, and for a peer of its own.
pub(crate) fn become_user(uid: u32) -> io::Result<()> {
    // SAFETY: changes this process's user, on all of its threads.
    match unsafe { libc::setuid(uid) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
