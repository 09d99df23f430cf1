//! What the bundle weighs.

use std::fs;
use std::path::Path;

use crate::{Failure, screen};

/// Travels as one upload.
pub(crate) const BYTES_MAX: u64 = 60_000_000;
/// How many of the largest files a refusal names.
const NAMED: usize = 8;

/// All files under a folder, from it, with their bytes, the largest first.
pub(crate) fn files(folder: &Path) -> std::io::Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    collect(folder, "", &mut found)?;
    found.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    Ok(found)
}

fn collect(folder: &Path, prefix: &str, found: &mut Vec<(String, u64)>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{path}/"), found)?;
        } else {
            found.push((path, entry.metadata()?.len()));
        }
    }
    Ok(())
}

/// Shows the weight of each part, and refuses too much.
pub(crate) fn judge(files: &[(String, u64)], bytes_max: u64) -> Result<(), Failure> {
    let mut parts: Vec<(&str, u64)> = Vec::new();
    for (path, bytes) in files {
        let part = path.split('/').next().unwrap_or(path);
        match parts.iter_mut().find(|(known, _)| *known == part) {
            Some((_, sum)) => *sum += bytes,
            None => parts.push((part, *bytes)),
        }
    }
    parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let total: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    parts.push(("all", total));
    let rows = parts.iter().map(|(part, bytes)| vec![megabytes(*bytes), (*part).to_owned()]);
    screen::table(&rows.collect::<Vec<_>>());
    if total <= bytes_max {
        return Ok(());
    }
    let largest = files.iter().take(NAMED);
    let largest = largest.map(|(path, bytes)| format!("{path} {}", megabytes(*bytes)));
    Err(Failure::new(format!(
        "the bundle has {}, more than {}; the largest files are {}",
        megabytes(total),
        megabytes(bytes_max),
        largest.collect::<Vec<_>>().join(", ")
    )))
}

fn megabytes(bytes: u64) -> String {
    let tenths = bytes.div_ceil(100_000);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::{judge, megabytes};

    fn sizes(sizes: &[(&str, u64)]) -> Vec<(String, u64)> {
        sizes.iter().map(|(path, bytes)| ((*path).to_owned(), *bytes)).collect()
    }

    #[test]
    fn too_much_is_refused_by_name() {
        let files = sizes(&[("programs/large", 50), ("wheel/w.whl", 30), ("run.sh", 1)]);
        assert!(judge(&files, 81).is_ok());
        let said = judge(&files, 80).unwrap_err().to_string();
        assert!(said.contains("programs/large") && said.contains("wheel/w.whl"), "{said}");
    }

    #[test]
    fn megabytes_are_rounded_up() {
        assert_eq!(megabytes(0), "0.0 MB");
        assert_eq!(megabytes(1), "0.1 MB");
        assert_eq!(megabytes(60_000_000), "60.0 MB");
    }
}
