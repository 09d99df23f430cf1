//! The probes of our side: small programs, each in processes of its own.

mod attached;
mod both_ways;
mod company;
mod copy;
mod fan_out;
mod iceoryx2;
mod lifecycle;
mod lock;
mod place;
mod publish;
mod rate;
mod requests;
mod sample;
mod service;
mod silence;
pub mod space;
mod wake;

use crate::Outcome;
use sample::Arguments;

/// Runs the probe called `name`.
///
/// # Errors
/// No such probe, or what it met.
pub fn run(name: &str, arguments: Vec<String>) -> Outcome<()> {
    let mut arguments = Arguments::new(arguments);
    let given = &mut arguments;
    match name {
        "copy" => copy::run(given),
        "pingpong" => both_ways::run(given),
        "pingpong-echo" => both_ways::echo(given),
        "place" => place::run(given),
        "publish" => publish::run(given),
        "silence" => silence::run(given),
        "attached" => attached::run(given),
        "attached-one" => attached::one(given),
        "lock" => lock::run(given),
        "lock-rival" => lock::rival(given),
        "wake" => wake::run(given),
        "wake-sleeper" => wake::sleeper(given),
        "fanout" => fan_out::run(given),
        "fanout-sleeper" => fan_out::sleeper(given),
        "create" => lifecycle::small(given),
        "big" => lifecycle::big(given),
        "rate" => rate::run(given),
        "rate-reader" => rate::reader(given),
        "requests" => requests::run(given),
        "service-load" => service::load(given),
        "service-rust" => service::server(given),
        "service-death" => service::death(given),
        "service-lessee" => service::lessee(given),
        "requests-server" => requests::server(given),
        "iceoryx2-copy" => iceoryx2::copy(given),
        "iceoryx2-pingpong" => iceoryx2::both_ways(given),
        "iceoryx2-pingpong-echo" => iceoryx2::echo(given),
        "iceoryx2-wake" => iceoryx2::wake(given),
        "iceoryx2-wake-sleeper" => iceoryx2::sleeper(given),
        _ => Err(format!("no probe is called `{name}`").into()),
    }
}
