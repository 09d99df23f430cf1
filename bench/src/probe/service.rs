//! The service in Rust: many clients at once, and clients that die.

use std::fmt::Display;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shared_tensor::DType;
use shared_tensor::service::{
    Address, Arguments as With, Call, CallOptions, Client, Code, Device, Endpoint, Failure, Layout,
    Provider, Server, Tensor, Value,
};

use super::company::{Companion, await_cue, ready};
use super::sample::{Arguments, now_ns, print, print_quantiles};
use super::space;
use crate::Outcome;
use crate::figures::quantile;

const PATIENCE: Duration = Duration::from_secs(60);

fn address() -> Address {
    Address::new(space::file_prefix(), Device::Cpu)
}

fn serve() -> Outcome<Server> {
    let provider = Provider::new()
        .with(Endpoint::new("nothing", |_| Ok(Value::None)).cache(false))
        .with(Endpoint::new("memory", memory).cache(false).managed(true));
    Ok(Server::options().serve(&address(), &provider)?)
}

/// As many bytes as the caller asks for, all of them written.
fn memory(call: &Call) -> Result<Tensor, Failure> {
    let refusal = |said: &dyn Display| Failure::new(Code::Other, said.to_string());
    let bytes = call.argument(0, "bytes").and_then(Value::as_int).map(u64::try_from);
    let bytes = bytes.and_then(Result::ok).ok_or_else(|| refusal(&"how many bytes?"))?;
    let storage = call.arena().allocate(bytes).map_err(|error| refusal(&error))?;
    let view = storage.view().map_err(|error| refusal(&error))?;
    if let Some(there) = view.bytes() {
        there.fill(0..there.len(), 1).map_err(|error| refusal(&error))?;
    }
    Tensor::new(storage, Layout::contiguous(DType::U8, [bytes])).map_err(|error| refusal(&error))
}

fn patient() -> CallOptions<'static> {
    CallOptions::new().deadline(Instant::now() + PATIENCE)
}

/// `service-load CLIENTS SECONDS`: calls a second of each client, all of them in this program.
pub(super) fn load(given: &mut Arguments) -> Outcome<()> {
    let clients = given.next::<usize>()?;
    let time = Duration::from_secs(given.next()?);
    let server = Companion::start("service-rust", &[])?;
    let (begin, is_over) = (Barrier::new(clients + 1), AtomicBool::new(false));
    let turns: Result<Vec<u64>, String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|_| scope.spawn(|| repeat(&begin, &is_over).map_err(|fault| fault.to_string())))
            .collect();
        begin.wait();
        thread::sleep(time);
        is_over.store(true, Ordering::Relaxed);
        threads.into_iter().map(|it| it.join().unwrap_or_else(|_| Err("panicked".into()))).collect()
    });
    let turns = turns?;
    server.finish()?;
    let per_second = |turns: u64| turns as f64 / time.as_secs_f64();
    let all = turns.iter().sum();
    print("all_hz", per_second(all));
    print("mean_hz", per_second(all) / clients as f64);
    print("worst_hz", per_second(turns.iter().copied().min().unwrap_or_default()));
    Ok(())
}

fn repeat(begin: &Barrier, is_over: &AtomicBool) -> Outcome<u64> {
    let client = Client::at(address());
    let first = client.call("nothing", With::none(), patient()).map(drop);
    begin.wait();
    first?;
    let mut turns = 0;
    while !is_over.load(Ordering::Relaxed) {
        client.call("nothing", With::none(), patient())?;
        turns += 1;
    }
    Ok(turns)
}

/// The server of the other probes, until the probe ends.
pub(super) fn server(_: &mut Arguments) -> Outcome<()> {
    let server = serve()?;
    ready()?;
    await_cue()?;
    if server.stop(PATIENCE)?.is_drained { Ok(()) } else { Err("calls were left".into()) }
}

/// `service-death RESIDENT_BYTES LENT_BYTES SAMPLES`: from the SIGKILL of a client, which has read what
/// it was lent, to the end of its lease; and of the same deaths, to where the kernel closes the files
/// of the client, before which nobody can know.
pub(super) fn death(given: &mut Arguments) -> Outcome<()> {
    let (resident, lent) = (given.next::<usize>()?, given.next::<usize>()?);
    let samples = given.next::<usize>()?;
    let server = serve()?;
    let (mut leases, mut files) = (Vec::new(), Vec::new());
    for _ in 0..samples {
        let mut client =
            Companion::start("service-lessee", &[resident, lent].map(|it| it.to_string()))?;
        if leased(&server) != Some(1) {
            return Err("the client has no lease".into());
        }
        let begun = now_ns();
        client.kill()?;
        // Asking all the while would take the processor that the kernel needs for its part.
        client.await_end()?;
        files.push((now_ns() - begun) as f64);
        while leased(&server) != Some(0) {
            thread::yield_now();
        }
        leases.push((now_ns() - begun) as f64);
        drop(client);
    }
    leases.sort_by(f64::total_cmp);
    files.sort_by(f64::total_cmp);
    print_quantiles(&leases);
    print("files_p50", quantile(&files, 0.50));
    print("files_p99", quantile(&files, 0.99));
    Ok(())
}

/// How many objects are lent.
fn leased(server: &Server) -> Option<i64> {
    server.info().get("stats")?.get("objects")?.as_int()
}

pub(super) fn lessee(given: &mut Arguments) -> Outcome<()> {
    let memory = vec![1_u8; given.next()?];
    let lent = given.next::<i64>()?;
    let client = Client::at(address());
    let answer = client.call("memory", With::none().and(lent), patient())?;
    let Value::Tensor(tensor) = &answer.value else { return Err("no tensor came".into()) };
    let view = tensor.storage().view()?;
    let bytes = view.bytes().ok_or("it has no memory")?;
    let mut page = [0; 4096];
    for at in (0..bytes.len()).step_by(page.len()) {
        let wanted = (bytes.len() - at).min(page.len());
        bytes.read_into(at, &mut page[..wanted])?;
    }
    ready()?;
    await_cue()?;
    drop((view, answer, memory));
    Ok(())
}
