//! What the tests need of the kernel that no safe interface offers. Linux, and this test program,
//! only; every block does what the manual page of its call says and touches no memory of Rust's
//! that it is not given.

use std::ffi::{CString, c_int};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64};

fn checked(result: c_int) -> io::Result<c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Forks; `None` in the child. Peers have one thread when they fork, or their child only waits.
pub(crate) fn fork() -> Option<u32> {
    // SAFETY: see the function's comment.
    let child = checked(unsafe { libc::fork() }).expect("a peer can fork");
    (child != 0).then(|| child.unsigned_abs())
}

/// Forks a child with this very pid, if the kernel lets us choose.
pub(crate) fn fork_with_pid(pid: u32) -> io::Result<u32> {
    #[repr(C)]
    #[derive(Default)]
    struct CloneArguments {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    let wanted = [libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?];
    let arguments = CloneArguments {
        exit_signal: libc::SIGCHLD as u64,
        set_tid: wanted.as_ptr().addr() as u64,
        set_tid_size: 1,
        ..CloneArguments::default()
    };
    // SAFETY: without flags this is a fork; the child below makes system calls only.
    let child = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>())
    };
    match child {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // What it inherits must hold nothing.
            close_all_from(3);
            sleep_for_good()
        }
        _ => Ok(pid),
    }
}

/// Waits to be killed, for five minutes.
pub(crate) fn sleep_for_good() -> ! {
    // SAFETY: a timer whose signal ends this process.
    unsafe { libc::alarm(300) };
    loop {
        // SAFETY: returns only after a signal handler, of which there is none.
        unsafe { libc::pause() };
    }
}

/// Ends this process when the thread that started it ends.
pub(crate) fn die_with_parent() {
    // SAFETY: sets an attribute of this process.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Ends the calling thread only, whichever it is.
pub(crate) fn end_this_thread() -> ! {
    // SAFETY: the thread is gone afterwards and its stack is used by nobody else.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("a thread does not survive its exit")
}

pub(crate) fn wait_until_leader_is_a_zombie() {
    loop {
        let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
        if status.contains("State:\tZ") {
            return;
        }
        std::thread::yield_now();
    }
}

pub(crate) fn close_all_from(first: u32) {
    // SAFETY: closes descriptors behind the library's back, which is the point of the test.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    assert_eq!(closed, 0, "close_range works since Linux 5.9");
}

pub(crate) fn open_descriptors() -> usize {
    // One of them is the folder being read.
    fs::read_dir("/proc/self/fd").expect("/proc is mounted").count() - 1
}

pub(crate) fn allow_core_dumps() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: reads the structure it is given.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) };
}

pub(crate) fn allow_descriptors(count: u64) -> bool {
    let limit = libc::rlimit { rlim_cur: count, rlim_max: count };
    // SAFETY: reads the structure it is given.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0 }
}

/// From here on `read`, `write` and the end of the thread are all this thread may ask for; any
/// other system call kills it.
pub(crate) fn allow_no_system_calls() {
    // SAFETY: sets an attribute of this thread.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) };
    assert_eq!(set, 0, "strict mode exists since Linux 2.6");
}

pub(crate) fn unshare(what: c_int) -> io::Result<()> {
    // SAFETY: changes the namespaces of this process.
    checked(unsafe { libc::unshare(what) }).map(drop)
}

/// Moves this process, which must have one thread, into a time namespace that is ahead.
pub(crate) fn shift_time() -> io::Result<()> {
    prepare_time_namespace()?;
    let namespace = File::open("/proc/self/ns/time_for_children")?;
    // SAFETY: changes the namespace of this process.
    checked(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWTIME) }).map(drop)
}

/// Children of this process will live in a time namespace that is ahead.
pub(crate) fn prepare_time_namespace() -> io::Result<()> {
    unshare(libc::CLONE_NEWTIME)?;
    fs::write("/proc/self/timens_offsets", "monotonic 10000 0\nboottime 10000 0\n")
}

/// Mounts over `/proc`, in a mount namespace of this process's own.
pub(crate) fn mount_over_proc(kind: &str, options: &str) -> io::Result<()> {
    unshare(libc::CLONE_NEWNS)?;
    mount("none", "/", None, libc::MS_REC | libc::MS_PRIVATE, "")?;
    mount(kind, "/proc", Some(kind), 0, options)
}

fn mount(
    source: &str,
    target: &str,
    kind: Option<&str>,
    flags: libc::c_ulong,
    options: &str,
) -> io::Result<()> {
    let text = |text: &str| CString::new(text).expect("no NUL in a literal");
    let (source, target, options) = (text(source), text(target), text(options));
    let kind = kind.map(text);
    let kind = kind.as_ref().map_or(ptr::null(), |kind| kind.as_ptr());
    // SAFETY: reads four strings that live until it returns.
    let mounted = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, options.as_ptr().cast())
    };
    checked(mounted).map(drop)
}

/// A shared lock on one byte of a file, held until the result is dropped.
pub(crate) fn hold_byte(path: &Path, byte: u64) -> OwnedFd {
    let file = File::open(path).expect("the file exists");
    assert!(set_byte(&file, byte, libc::F_RDLCK));
    file.into()
}

/// Whether nobody holds a lock on the byte.
pub(crate) fn is_byte_free(path: &Path, byte: u64) -> bool {
    let file = File::options().read(true).write(true).open(path).expect("the file exists");
    set_byte(&file, byte, libc::F_WRLCK)
}

fn set_byte(file: &File, byte: u64, kind: c_int) -> bool {
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: i64::try_from(byte).expect("a byte that files can have"),
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: reads the structure it is given.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) == 0 }
}

/// The same description under another number, as a careless owner of memory would give it.
pub(crate) fn duplicate(file: &OwnedFd) -> OwnedFd {
    // SAFETY: makes a new descriptor.
    let copy = checked(unsafe { libc::dup(file.as_raw_fd()) }).expect("a descriptor is free");
    // SAFETY: just made, owned by nobody else.
    unsafe { OwnedFd::from_raw_fd(copy) }
}

/// One page of a file, shared between peers.
pub(crate) struct SharedPage(*mut libc::c_void);

impl SharedPage {
    const LENGTH: usize = 4096;

    pub(crate) fn open(path: &Path) -> Self {
        Self::map(path, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// Words of this page must only be read.
    pub(crate) fn open_read_only(path: &Path) -> Self {
        Self::map(path, libc::PROT_READ)
    }

    fn map(path: &Path, access: c_int) -> Self {
        let mut options = File::options();
        options.read(true).write(access & libc::PROT_WRITE != 0);
        let file = options.open(path).expect("the page's file exists");
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), Self::LENGTH, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(start, libc::MAP_FAILED);
        Self(start)
    }

    pub(crate) fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < Self::LENGTH / 4);
        // SAFETY: inside the mapping, which lives as long as `self`; any bits are valid.
        unsafe { &*self.0.cast::<AtomicU32>().wrapping_add(index) }
    }

    pub(crate) fn wide_word(&self, index: usize) -> &AtomicU64 {
        assert!(index < Self::LENGTH / 8);
        // SAFETY: inside the mapping, which lives as long as `self`; any bits are valid.
        unsafe { &*self.0.cast::<AtomicU64>().wrapping_add(index) }
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own and borrowed by nobody any more.
        unsafe { libc::munmap(self.0, Self::LENGTH) };
    }
}
