//! The service through its public interface, between processes. The program starts itself again as a
//! server or a client, and kills, forks and starves it.

mod calls;
mod desk;
mod endpoints;
mod harness;
mod peer;
mod roles;

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(not(loom))]
    {
        if let Some((kind, path)) = peer::role() {
            roles::play(&kind, &path);
            return ExitCode::SUCCESS;
        }
        harness::run(&[("calls", calls::TESTS)])
    }
}
