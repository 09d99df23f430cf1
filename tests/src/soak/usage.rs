//! What a process has in use, as the kernel tells it.

use std::fs;
use std::path::Path;

use super::judge::Reading;

/// Reads the descriptors, threads and memory of a process into the figures of `who`.
pub(super) fn read(reading: &mut Reading, who: &str, process: &str) {
    let process = Path::new("/proc").join(process);
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    // One that was closed since it was listed leads nowhere, and did not stay.
    for target in descriptors.filter_map(|it| fs::read_link(it.path()).ok()) {
        reading.add(&format!("descriptors of {who}"), &kind(&target), 1);
    }
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    reading.add(&format!("threads of {who}"), "", field(&status, "Threads:"));
    reading.add(&format!("resident KiB of {who}"), "", field(&status, "VmRSS:"));
}

/// Where a descriptor leads, without the numbers that tell it from others like it.
fn kind(target: &Path) -> String {
    let mut kind = String::new();
    for letter in target.to_string_lossy().chars() {
        match letter {
            '0'..='9' if kind.ends_with('#') => {}
            '0'..='9' => kind.push('#'),
            other => kind.push(other),
        }
    }
    kind
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{field, kind};

    #[test]
    fn kinds_have_no_numbers() {
        assert_eq!(kind(Path::new("/proc/4711/task/12/stat")), "/proc/#/task/#/stat");
        assert_eq!(kind(Path::new("pipe:[1234]")), "pipe:[#]");
        assert_eq!(kind(Path::new("anon_inode:inotify")), "anon_inode:inotify");
    }

    #[test]
    fn fields_are_found_by_name() {
        let status = "Name:\tone\nVmRSS:\t    3164 kB\nThreads:\t2\n";
        assert_eq!((field(status, "VmRSS:"), field(status, "Threads:")), (3164, 2));
        assert_eq!(field(status, "VmSwap:"), 0);
    }
}
