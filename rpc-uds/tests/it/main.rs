//! The crate through its public interface: in one process, and from many. The program starts itself
//! again as a peer, and kills, forks and starves it.

mod calls;
mod death;
mod descriptors;
mod desk;
mod endurance;
#[cfg(st_fault)]
mod fault;
mod feed;
mod forks;
mod fuzz;
mod golden;
mod harness;
mod hostile;
mod hostile_server;
mod isolation;
mod old_client;
mod paths;
mod peer;
mod random;
mod raw;
mod script;
mod stopping;
#[expect(unsafe_code, reason = "forks and another user, behind safe functions")]
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some((kind, path)) = peer::role() {
        script::play(&kind, &path);
        return ExitCode::SUCCESS;
    }
    harness::run(&[
        ("calls", calls::TESTS),
        ("descriptors", descriptors::TESTS),
        ("golden", golden::TESTS),
        ("fuzz", fuzz::TESTS),
        ("hostile", hostile::TESTS),
        ("hostile_server", hostile_server::TESTS),
        ("old_client", old_client::TESTS),
        ("paths", paths::TESTS),
        ("stopping", stopping::TESTS),
        ("death", death::TESTS),
        ("forks", forks::TESTS),
        ("isolation", isolation::TESTS),
        ("endurance", endurance::TESTS),
        #[cfg(st_fault)]
        ("fault", fault::TESTS),
    ])
}
