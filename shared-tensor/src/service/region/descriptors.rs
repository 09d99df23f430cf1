//! What there is to say of a process that has no descriptor left.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// Why a descriptor was refused. If there is none left: how many there are, and what to do.
pub(super) fn refused(error: &io::Error) -> String {
    if error.raw_os_error() != Some(Errno::MFILE.raw_os_error()) {
        return error.to_string();
    }
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.map_or_else(|| "all".to_owned(), |limit| limit.to_string());
    // Looking takes one as well.
    let used = fs::read_dir("/proc/self/fd").map_or(limit.clone(), |it| it.count().to_string());
    format!(
        "this process has {used} of the {limit} descriptors open that it may have, and every result \
         that is kept takes some: raise the limit (ulimit -n), or keep fewer results (cache=False, \
         managed=True, invalidate_endpoint_cache)"
    )
}

/// Why there is no region.
pub(super) fn unusable(error: &shm_core::RegionError) -> String {
    match error {
        shm_core::RegionError::Os { source, .. } => format!("{error}: {}", refused(source)),
        error => error.to_string(),
    }
}
