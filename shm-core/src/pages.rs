//! Pages behind a view: asking for them, and telling what was obtained.

use std::fmt;
use std::io;
use std::ops::Range;

use crate::sys::{Advice, Mapping, huge_page_bytes, read_text};

/// What came of asking the kernel for pages.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Obtained {
    /// Bytes that were asked for: whole pages around the range.
    pub asked_bytes: usize,
    /// Bytes for which the kernel did it.
    pub obtained_bytes: usize,
    /// Why the rest was refused, if any was.
    pub refusal: Option<Refusal>,
}

impl Obtained {
    /// Whether everything that was asked for was obtained.
    pub fn is_complete(&self) -> bool {
        self.obtained_bytes == self.asked_bytes
    }

    pub(crate) fn add(&mut self, other: &Obtained) {
        self.asked_bytes += other.asked_bytes;
        self.obtained_bytes += other.obtained_bytes;
        if other.refusal.is_some() {
            self.refusal.clone_from(&other.refusal);
        }
    }
}

/// A system call that refused pages. Displays the call and the kernel's reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The system call.
    pub call: &'static str,
    /// Its `errno`.
    pub errno: i32,
}

impl Refusal {
    fn new(advice: Advice, error: &io::Error) -> Refusal {
        Refusal { call: advice.call(), errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = io::Error::from_raw_os_error(self.errno);
        write!(f, "{}: {reason}{}", self.call, advice_on(self.call, self.errno))
    }
}

impl std::error::Error for Refusal {}

fn advice_on(call: &str, errno: i32) -> &'static str {
    match (call, errno) {
        ("mlock", libc::ENOMEM | libc::EPERM | libc::EAGAIN) => {
            "; raise the limit on locked memory (`ulimit -l`)"
        }
        ("madvise MADV_COLLAPSE", libc::EINVAL) => {
            "; the kernel is older than 6.1 or does not do it for this file"
        }
        ("madvise MADV_COLLAPSE", libc::ENOMEM | libc::EAGAIN | libc::EBUSY) => {
            "; no huge page was free at this moment"
        }
        ("madvise MADV_POPULATE_WRITE" | "madvise MADV_POPULATE_READ", libc::EINVAL) => {
            "; the kernel is older than 5.14"
        }
        ("madvise MADV_POPULATE_WRITE" | "madvise MADV_POPULATE_READ", libc::EFAULT) => {
            "; the file system is full or the file was cut"
        }
        _ => "",
    }
}

/// Asks once for the whole of `range`.
pub(crate) fn obtain(mapping: &Mapping, range: Range<usize>, advice: Advice) -> Obtained {
    let asked_bytes = range.len();
    let error = loop {
        match mapping.advise(range.clone(), advice) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break error,
            Ok(()) => {
                return Obtained { asked_bytes, obtained_bytes: asked_bytes, refusal: None };
            }
        }
    };
    Obtained { asked_bytes, obtained_bytes: 0, refusal: Some(Refusal::new(advice, &error)) }
}

/// Faults `range` in, in the way that the mapping's access allows.
pub(crate) fn populate(mapping: &Mapping, range: Range<usize>) -> Obtained {
    let advice = if mapping.is_writable() { Advice::PopulateWrite } else { Advice::PopulateRead };
    obtain(mapping, range, advice)
}

/// Puts the huge pages that overlap `range` and lie wholly in the mapping in place, one by one, so
/// that one refusal costs one page.
pub(crate) fn collapse(mapping: &Mapping, range: Range<usize>) -> Obtained {
    let mut sum = Obtained::default();
    for block in huge_blocks(mapping, &range) {
        sum.add(&collapse_block(mapping, block));
    }
    sum
}

/// Puts one huge page in place. The kernel answers EAGAIN when something was in its way for an
/// instant, so it is asked a few times.
pub(crate) fn collapse_block(mapping: &Mapping, block: Range<usize>) -> Obtained {
    const TRIES: usize = 3;
    let mut obtained = Obtained::default();
    for _ in 0..TRIES {
        obtained = obtain(mapping, block.clone(), Advice::Collapse);
        match &obtained.refusal {
            Some(refusal) if refusal.errno == libc::EAGAIN => {}
            _ => break,
        }
    }
    obtained
}

/// The huge-page-sized blocks at huge-page-aligned addresses that overlap `range` and lie wholly in
/// the mapping, as offsets into it.
pub(crate) fn huge_blocks(
    mapping: &Mapping,
    range: &Range<usize>,
) -> impl Iterator<Item = Range<usize>> + use<> {
    let block = huge_page_bytes();
    let first = (block - mapping.base().addr() % block) % block;
    let from = range.start.saturating_sub(first) / block;
    let (end, len) = (if range.is_empty() { 0 } else { range.end }, mapping.len());
    (from..)
        .map(move |index| first + index * block)
        .take_while(move |&start| start < end && start + block <= len)
        .map(move |start| start..start + block)
}

/// What the kernel says is in memory of one mapping, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Residency {
    /// The length of the mapping.
    pub mapped_bytes: usize,
    /// What this process has in its page tables.
    pub resident_bytes: usize,
    /// The part of it that huge pages back.
    pub huge_bytes: usize,
    /// The part that is locked in memory.
    pub locked_bytes: usize,
}

impl Residency {
    pub(crate) fn of(address: usize) -> io::Result<Residency> {
        let text = read_text("/proc/self/smaps")?;
        Residency::parse(&text, address).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "the mapping is not in `/proc/self/smaps`")
        })
    }

    fn parse(smaps: &str, address: usize) -> Option<Residency> {
        let mut lines =
            smaps.lines().skip_while(|line| !bounds(line).is_some_and(|b| b.contains(&address)));
        let bounds = bounds(lines.next()?)?;
        let mut residency = Residency { mapped_bytes: bounds.len(), ..Residency::default() };
        for line in lines.take_while(|line| self::bounds(line).is_none()) {
            let Some((key, value)) = line.split_once(':') else { continue };
            let kib: Option<usize> =
                value.split_ascii_whitespace().next().and_then(|number| number.parse().ok());
            let bytes = kib.unwrap_or(0).saturating_mul(1024);
            match key {
                "Rss" => residency.resident_bytes += bytes,
                "Locked" => residency.locked_bytes += bytes,
                "AnonHugePages" | "ShmemPmdMapped" | "FilePmdMapped" => {
                    residency.huge_bytes += bytes;
                }
                // Pages of the huge page pool are not part of Rss.
                "Shared_Hugetlb" | "Private_Hugetlb" => {
                    residency.huge_bytes += bytes;
                    residency.resident_bytes += bytes;
                }
                _ => {}
            }
        }
        Some(residency)
    }
}

/// The addresses of an smaps line that opens a mapping.
fn bounds(line: &str) -> Option<Range<usize>> {
    let (start, rest) = line.split_once('-')?;
    let (end, _) = rest.split_once(' ')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}
