//! A number that a process has and a forked child has not.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::fault;

/// The page that the kernel zeroes in a forked child (S5).
static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
/// The kernel cannot zero a page at fork (before 4.14): ask for the pid every time.
static NO_PAGE: AtomicBool = AtomicBool::new(false);

/// A number that names this process: never zero, the same for its whole life, another one in a
/// forked child.
///
/// About a nanosecond: it is read from a page that the kernel wipes at `fork`. `exec` begins anew.
#[inline]
pub fn process_token() -> u64 {
    let page = PAGE.load(Ordering::Acquire);
    if !page.is_null() {
        // SAFETY: S5, the page is mapped, initialised (zero) and never unmapped.
        let token = unsafe { &*page }.load(Ordering::Relaxed);
        if token != 0 {
            return token;
        }
    }
    mint()
}

#[cold]
fn mint() -> u64 {
    let Some(page) = page() else {
        // The high bit keeps a pid from ever being zero.
        return 1 << 63
            | u64::from(rustix::process::getpid().as_raw_nonzero().get().unsigned_abs());
    };
    let fresh = fresh();
    match page.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => fresh,
        Err(of_another_thread) => of_another_thread,
    }
}

/// A number that no ancestor of this process can have had.
fn fresh() -> u64 {
    let mut bytes = [0; 8];
    let random = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
    let number = if random.is_ok_and(|filled| filled == bytes.len()) {
        u64::from_ne_bytes(bytes)
    } else {
        // Early boot, or a sandbox: pid and time tell ancestors apart just as well.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let pid = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
        (u64::from(pid) << 40) ^ (now.tv_sec.unsigned_abs() << 30) ^ now.tv_nsec.unsigned_abs()
    };
    number | 1
}

fn page() -> Option<&'static AtomicU64> {
    if NO_PAGE.load(Ordering::Relaxed) {
        return None;
    }
    let mut page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        let Ok(fresh) = map() else {
            NO_PAGE.store(true, Ordering::Relaxed);
            return None;
        };
        page = match PAGE.compare_exchange(
            ptr::null_mut(),
            fresh,
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) => fresh,
            // Another thread was first. Our page stays mapped, unused: 4 KiB, once per race.
            Err(first) => first,
        };
    }
    // SAFETY: S5.
    Some(unsafe { &*page })
}

fn map() -> std::io::Result<*mut AtomicU64> {
    fault::point("map token page")?;
    let length = rustix::param::page_size();
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing.
    let page =
        unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), length, access, MapFlags::PRIVATE) }?;
    fault::point("wipe token page on fork")?;
    // SAFETY: the range is exactly the mapping made above; the advice changes no byte of it now.
    unsafe { rustix::mm::madvise(page, length, Advice::LinuxWipeOnFork) }?;
    Ok(page.cast())
}
