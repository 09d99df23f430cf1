//! The only unsafe of the test ring: what a test does to its own process.
//!
//! Invariants:
//! - T1: whoever forks here is a peer, whose other threads wait in the kernel and hold no lock of
//!   the standard library; libc's own locks are taken over `fork` by libc.
//! - T2: a filter program is a constant array that lives on the stack of the call that hands it to
//!   the kernel, which copies it.

use std::io;

use rustix::process::Pid;

/// On which side of a fork this is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fork {
    /// The new process.
    Child,
    /// The one that forked, and its child.
    Parent(Pid),
}

/// Forks this process.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: T1.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => Ok(Fork::Child),
        _ => Pid::from_raw(pid).filter(|_| pid > 0).map(Fork::Parent).ok_or_else(last_error),
    }
}

/// Ends this process at once: nothing is dropped, nothing is flushed.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes no pointers and does not come back.
    unsafe { libc::_exit(code) }
}

/// From now on the kernel kills this process when the calling thread is about to wake sleepers of
/// another process: after it has published, before anybody is told.
pub(crate) fn die_at_wake() -> io::Result<()> {
    const NUMBER: u32 = 0;
    /// The low half of the second argument, on little-endian machines.
    const OPERATION: u32 = 24;
    // Without the flag for futexes of one process, which the standard library uses.
    const WAKE: u32 = libc::FUTEX_WAKE.cast_unsigned();
    let load = |offset| bpf(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let unless_equal =
        |value, skip| bpf(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skip, value);
    let answer = |value| bpf(libc::BPF_RET | libc::BPF_K, 0, 0, value);
    let mut program = [
        load(NUMBER),
        unless_equal(libc::SYS_futex as u32, 3),
        load(OPERATION),
        unless_equal(WAKE, 1),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: takes numbers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(last_error());
    }
    // SAFETY: T2.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if set == 0 { Ok(()) } else { Err(last_error()) }
}

fn bpf(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

fn last_error() -> io::Error {
    io::Error::last_os_error()
}
