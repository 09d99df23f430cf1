//! Everything that takes more than one process: the program starts itself again as a scripted
//! peer and kills, stops, forks and confines it.

mod broadcast;
mod conformance;
mod death;
mod descriptors;
#[cfg(st_fault)]
mod fault;
mod file;
mod harness;
mod memories;
mod namespaces;
mod peer;
mod script;
#[expect(unsafe_code, reason = "fork, namespaces and mappings, behind safe functions")]
mod sys;
mod syscalls;
mod table;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(role) = peer::role() {
        script::play(&role);
        return ExitCode::SUCCESS;
    }
    harness::run(&[
        ("conformance", conformance::TESTS),
        ("death", death::TESTS),
        ("descriptors", descriptors::TESTS),
        ("namespaces", namespaces::TESTS),
        ("table", table::TESTS),
        ("file", file::TESTS),
        ("broadcast", broadcast::TESTS),
        ("syscalls", syscalls::TESTS),
        #[cfg(st_fault)]
        ("fault", fault::TESTS),
    ])
}
