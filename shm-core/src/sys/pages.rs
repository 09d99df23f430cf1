//! Pages of a mapping: advice, pinning, page sizes, and the signal mask of background threads.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{Mapping, fault, read_text};

/// What to ask the kernel about a range of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Fault every page in, for reading.
    PopulateRead,
    /// Fault every page in, for writing.
    PopulateWrite,
    /// Put the range on huge pages, now.
    Collapse,
    /// Keep the pages in memory.
    Lock,
}

impl Advice {
    pub(crate) fn call(self) -> &'static str {
        match self {
            Advice::PopulateRead => "madvise MADV_POPULATE_READ",
            Advice::PopulateWrite => "madvise MADV_POPULATE_WRITE",
            Advice::Collapse => "madvise MADV_COLLAPSE",
            Advice::Lock => "mlock",
        }
    }
}

/// Since Linux 6.1; not every libc names it.
const MADV_COLLAPSE: libc::c_int = 25;

impl Mapping {
    /// Gives `advice` on the pages that `range` touches.
    pub(crate) fn advise(&self, range: Range<usize>, advice: Advice) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let inside = self.pointer(range.start, range.len());
        // The mapping starts and ends on pages, so rounding outwards stays in it.
        let lead = inside.addr() % page_bytes();
        let start = inside.wrapping_sub(lead).cast::<libc::c_void>();
        let bytes = (lead + range.len()).next_multiple_of(page_bytes());
        fault::point(advice.call())?;
        let done = match advice {
            Advice::Lock => {
                // SAFETY: S1, S2, the pages are mapped; mlock changes no contents.
                unsafe { libc::mlock(start, bytes) }
            }
            Advice::PopulateRead => {
                // SAFETY: S1, S2, the pages are mapped; the advice changes no contents.
                unsafe { libc::madvise(start, bytes, libc::MADV_POPULATE_READ) }
            }
            Advice::PopulateWrite => {
                // SAFETY: as above.
                unsafe { libc::madvise(start, bytes, libc::MADV_POPULATE_WRITE) }
            }
            Advice::Collapse => {
                // SAFETY: as above; the kernel moves the pages, their contents stay.
                unsafe { libc::madvise(start, bytes, MADV_COLLAPSE) }
            }
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// The size of an ordinary page.
pub(crate) fn page_bytes() -> usize {
    rustix::param::page_size()
}

/// The size of the huge page that one page-table entry can map.
pub(crate) fn huge_page_bytes() -> usize {
    // Not a `OnceLock`: a child forked while another thread is inside would wait for ever. Threads
    // that meet here find out the same.
    static BYTES: AtomicUsize = AtomicUsize::new(0);
    let known = BYTES.load(Relaxed);
    if known != 0 {
        return known;
    }
    let bytes = read_text("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .filter(|&bytes: &usize| bytes.is_power_of_two() && bytes > page_bytes())
        .unwrap_or(2 << 20);
    BYTES.store(bytes, Relaxed);
    bytes
}

/// Blocks the signals of the calling thread that can wait for another one, so that the program's
/// handlers never run on a thread it does not know.
pub(crate) fn mask_signals() -> io::Result<()> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: S7, `set` is a live local; sigfillset initialises all of it.
    let filled = unsafe { libc::sigfillset(set.as_mut_ptr()) };
    if filled != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: initialised by sigfillset just above.
    let mut set = unsafe { set.assume_init() };
    for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP] {
        // SAFETY: S7, an initialised set and a valid signal number.
        unsafe { libc::sigdelset(&raw mut set, fault) };
    }
    // SAFETY: S7, an initialised set; the old one is not asked for.
    let code =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}
