//! Named shared-memory segments and anonymous memory regions for the processes of one Linux host.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "shm-core runs on Linux only: it needs /dev/shm, memfd, O_TMPFILE and open-file-description \
     locks. macOS and Windows have no counterpart with the same guarantees."
);
#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!(
    "shm-core needs a 64-bit little-endian target: offsets in shared memory are 64 bits wide, and \
     its layout is fixed to one byte order."
);

mod attach;
mod cgroup;
mod creator;
mod error;
mod header;
mod headroom;
mod identity;
mod listing;
mod name;
mod namespace;
mod options;
mod pages;
mod patience;
mod populate;
mod probe;
mod purge;
mod region;
mod removal;
mod segment;
mod stage;
mod view;

#[expect(unsafe_code, reason = "mappings, racing copies and system calls; see its invariants")]
mod sys;

pub use creator::Creator;
pub use error::{
    CreateError, ListError, MapError, NamespaceError, OpenError, RegionError, ReserveError,
    UnlinkError,
};
pub use header::HEADER_BYTES;
pub use headroom::{Resource, Shortage};
pub use identity::{Access, Generation, Identity, Kind};
pub use listing::{Listing, Owner, Scan, Skipped};
pub use name::{NAME_BYTES_MAX, NameError, SegmentName};
pub use namespace::Namespace;
pub use options::{OpenOrCreateError, SegmentOptions};
pub use pages::{Obtained, Refusal, Residency};
pub use populate::{Populate, PopulateReport, Populator};
pub use purge::{PurgeOptions, PurgeReport};
pub use region::{Region, RegionOptions};
pub use removal::Unlinked;
pub use segment::{Current, Segment};
pub use sys::Shared;
pub use view::{OutOfBounds, SharedBytes, ViewError};
