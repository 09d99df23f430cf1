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
    // Writing would make every page of a private mapping its own.
    let writes = mapping.is_writable() && !mapping.is_private();
    let advice = if writes { Advice::PopulateWrite } else { Advice::PopulateRead };
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
    /// The length of the kernel's areas, whole pages.
    pub mapped_bytes: usize,
    /// What this process has in its page tables.
    pub resident_bytes: usize,
    /// The part of it that huge pages back.
    pub huge_bytes: usize,
    /// The part that is locked in memory.
    pub locked_bytes: usize,
}

impl Residency {
    pub(crate) fn of(mapping: &Mapping) -> io::Result<Residency> {
        let text = read_text("/proc/self/smaps")?;
        let start = mapping.base().addr();
        Ok(Residency::parse(&text, start..start + mapping.len()))
    }

    /// Sums up the kernel's areas that lie in `range`. There may be several: locking a part, for
    /// one, splits an area.
    fn parse(smaps: &str, range: Range<usize>) -> Residency {
        let mut residency = Residency::default();
        let mut inside = false;
        for line in smaps.lines() {
            if let Some(area) = area(line) {
                inside = area.start < range.end && range.start < area.end;
                residency.mapped_bytes += if inside { area.len() } else { 0 };
            } else if inside && let Some((key, value)) = line.split_once(':') {
                residency.count(key, value);
            }
        }
        residency
    }

    fn count(&mut self, key: &str, value: &str) {
        let kib = value.split_ascii_whitespace().next().and_then(|number| number.parse().ok());
        let bytes = kib.unwrap_or(0_usize).saturating_mul(1024);
        match key {
            "Rss" => self.resident_bytes += bytes,
            "Locked" => self.locked_bytes += bytes,
            "AnonHugePages" | "ShmemPmdMapped" | "FilePmdMapped" => self.huge_bytes += bytes,
            // Pages of the huge page pool are not part of Rss.
            "Shared_Hugetlb" | "Private_Hugetlb" => {
                self.huge_bytes += bytes;
                self.resident_bytes += bytes;
            }
            _ => {}
        }
    }
}

/// The addresses of an smaps line that opens an area.
fn area(line: &str) -> Option<Range<usize>> {
    let (start, rest) = line.split_once('-')?;
    let (end, _) = rest.split_once(' ')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f0000000000-7f0000004000 rw-s 00000000 00:1a 7 /dev/shm/x
Size:                 16 kB
Rss:                   8 kB
ShmemPmdMapped:        0 kB
Locked:                0 kB
VmFlags: rd wr sh mr mw me ms sd
7f0000004000-7f0000006000 rw-s 00004000 00:1a 7 /dev/shm/x-1 y
Size:                  8 kB
Rss:                   8 kB
ShmemPmdMapped:        4 kB
Locked:                8 kB
7f0000006000-7f0000008000 rw-p 00000000 00:00 0
Rss:                   4 kB
";

    #[test]
    fn all_areas_of_a_mapping_are_summed_up_and_no_others() {
        let of = |start, end| Residency::parse(SMAPS, start..end);
        let both = of(0x7f00_0000_0000, 0x7f00_0000_5001);
        assert_eq!((both.mapped_bytes, both.resident_bytes), (0x6000, 0x4000));
        assert_eq!((both.huge_bytes, both.locked_bytes), (0x1000, 0x2000));
        let last = of(0x7f00_0000_6000, 0x7f00_0000_7000);
        assert_eq!((last.mapped_bytes, last.resident_bytes), (0x2000, 0x1000));
        assert_eq!(of(0x1000, 0x2000), Residency::default());
    }

    #[test]
    fn refusals_say_what_to_do() {
        let shown = |call, errno| Refusal { call, errno }.to_string();
        assert!(
            shown("mlock", libc::ENOMEM)
                .ends_with("; raise the limit on locked memory (`ulimit -l`)")
        );
        assert!(shown("madvise MADV_COLLAPSE", libc::EINVAL).contains("older than 6.1"));
        assert!(shown("madvise MADV_COLLAPSE", libc::ENOMEM).contains("no huge page was free"));
        assert!(shown("madvise MADV_POPULATE_READ", libc::EINVAL).contains("older than 5.14"));
        assert!(shown("madvise MADV_POPULATE_WRITE", libc::EFAULT).contains("full"));
        assert!(!shown("mlock", libc::EIO).contains(';'));
    }
}
