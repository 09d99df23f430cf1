//! The service through its public interface, between processes. The program starts itself again as a
//! server or a client, and kills, forks and starves it.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test")]
#![expect(clippy::float_cmp, clippy::cast_precision_loss, reason = "small whole numbers")]

mod behaviour;
mod cached;
mod calls;
mod circles;
mod death;
mod desk;
mod endpoints;
mod harness;
mod hostile;
mod managed;
mod peer;
mod places;
mod roles;
mod sharing;
mod started;
#[expect(unsafe_code, reason = "forks and variables, behind safe functions")]
mod sys;
mod tasks;
mod types;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some((kind, path)) = peer::role() {
        roles::play(&kind, &path);
        return ExitCode::SUCCESS;
    }
    harness::run(&[
        ("calls", calls::TESTS),
        ("types", types::TESTS),
        ("circles", circles::TESTS),
        ("sharing", sharing::TESTS),
        ("cached", cached::TESTS),
        ("managed", managed::TESTS),
        ("tasks", tasks::TESTS),
        ("started", started::TESTS),
        ("death", death::TESTS),
        ("places", places::TESTS),
        ("hostile", hostile::TESTS),
        ("behaviour", behaviour::TESTS),
    ])
}
