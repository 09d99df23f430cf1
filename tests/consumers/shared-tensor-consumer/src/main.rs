//! A server of word vectors in one process and four clients in others: one build, everybody reads the
//! same memory, and one of them is killed. Nothing but `shared-tensor` and `std`.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::error::Error;
use std::hash::{Hash, Hasher};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use shared_tensor::DType;
use shared_tensor::service::{
    Address, Arguments, Call, CallOptions, Client, Endpoint, Failure, Id, KeyRule, Layout,
    Provider, Server, TaskStatus, Tensor, Value,
};

const WORDS: [&str; 5] = ["region", "lease", "socket", "tensor", "page"];
const ROLE: &str = "CONSUMER_READS_FROM";

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(socket) = env::var_os(ROLE) {
        return read(Path::new(&socket));
    }
    let socket = env::temp_dir().join(format!("shared-tensor-consumer-{}", std::process::id()));
    let builds = Arc::new(AtomicU64::new(0));
    let server = Server::options().serve(&Address::at(&socket), &provider(&builds))?;
    play(&socket, &builds)?;
    let stopped = server.stop(Duration::from_secs(60))?;
    if !stopped.is_drained || socket.exists() {
        return Err("the server has left something".into());
    }
    writeln!(
        io::stdout(),
        "one build, four clients, one killed: its lease is gone, the others read on"
    )?;
    Ok(())
}

fn soon() -> CallOptions<'static> {
    Instant::now().checked_add(Duration::from_secs(120)).map_or_else(CallOptions::new, Into::into)
}

/// A vector that only depends on the word.
fn vector(word: &str, dimensions: u64) -> impl Iterator<Item = f32> {
    let mut hasher = DefaultHasher::new();
    word.hash(&mut hasher);
    let seed = hasher.finish() % 1000;
    (1..=dimensions).map(move |number| ((seed * number) % 97) as f32)
}

fn provider(builds: &Arc<AtomicU64>) -> Provider {
    let builds = Arc::clone(builds);
    let vectors = move |call: &Call| {
        builds.fetch_add(1, Ordering::Relaxed);
        let dimensions = call.argument(0, "dimensions").and_then(Value::as_int);
        let dimensions = dimensions.and_then(|it| u64::try_from(it).ok()).filter(|it| *it > 0);
        let dimensions =
            dimensions.ok_or_else(|| Failure::other("ValueError", "dimensions: at least one"))?;
        let mut all = Vec::new();
        for (done, word) in WORDS.iter().enumerate() {
            call.progress(done as u64, WORDS.len() as u64, *word);
            all.extend(vector(word, dimensions));
        }
        Ok(Tensor::from_slice(call.arena(), [WORDS.len() as u64, dimensions], &all)?)
    };
    let sum = |call: &Call| {
        let tensor = call.argument(0, "tensor").and_then(Value::as_tensor);
        let tensor = tensor.ok_or_else(|| Failure::other("TypeError", "a tensor is needed"))?;
        Ok(tensor.to_vec::<f32>()?.into_iter().map(f64::from).sum::<f64>())
    };
    Provider::new()
        .with(Endpoint::new("vectors", vectors).managed(true).key(KeyRule::Arguments))
        .with(Endpoint::new("sum", sum).cache(false))
}

/// A client: reads the vectors where they are, says what it found, and holds them until its input ends.
fn read(socket: &Path) -> Result<(), Box<dyn Error>> {
    let client = Client::at(Address::at(socket));
    let answer = client.call("vectors", [64], soon())?;
    let all = answer.value.as_tensor().ok_or("a tensor")?;
    let object = answer.handle.ok_or("a handle")?.object;
    let total: f32 = all.to_vec::<f32>()?.iter().sum();
    writeln!(io::stdout(), "{total} {object}")?;
    io::stdin().read_line(&mut String::new())?;
    let again: f32 = all.to_vec::<f32>()?.iter().sum();
    if again.to_bits() == total.to_bits() { Ok(()) } else { Err("the vectors have changed".into()) }
}

fn start(socket: &Path) -> Result<Child, Box<dyn Error>> {
    let mut command = Command::new(env::current_exe()?);
    command.env(ROLE, socket).stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command.spawn()?)
}

fn said(child: &mut Child) -> Result<(String, Id), Box<dyn Error>> {
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("a pipe")?).read_line(&mut line)?;
    let (total, object) = line.trim().split_once(' ').ok_or("a total and an object")?;
    Ok((total.to_owned(), Id::parse(object).ok_or("an object")?))
}

fn play(socket: &Path, builds: &AtomicU64) -> Result<(), Box<dyn Error>> {
    let mut children = (0..4).map(|_| start(socket)).collect::<Result<Vec<_>, _>>()?;
    let said = children.iter_mut().map(said).collect::<Result<Vec<_>, _>>()?;
    let object = said[0].1;
    if said.iter().any(|other| *other != said[0]) || builds.load(Ordering::Relaxed) != 1 {
        return Err(format!("four clients, one object, one build: {said:?}").into());
    }
    let client = Client::at(Address::at(socket));
    let leases = || -> Result<u64, shared_tensor::service::Error> {
        Ok(client.object_info(object, &soon())?.map_or(0, |info| info.refcount))
    };
    if leases()? != 4 {
        return Err("four clients hold four leases".into());
    }
    let mut victim = children.pop().ok_or("four clients")?;
    victim.kill()?;
    victim.wait()?;
    while leases()? == 4 {
        thread::yield_now();
    }
    values(&client)?;
    task(&client)?;
    for mut child in children {
        drop(child.stdin.take());
        if !child.wait()?.success() {
            return Err("a client has not ended well".into());
        }
    }
    while leases()? > 0 {
        thread::yield_now();
    }
    Ok(())
}

/// Views go back to where their memory is, and failures have a name.
fn values(client: &Client) -> Result<(), Box<dyn Error>> {
    let answer = client.call("vectors", [64], soon())?;
    let all = answer.value.as_tensor().ok_or("a tensor")?;
    let layout = Layout { dtype: DType::F32, shape: vec![64], strides: vec![1], offset: 3 * 64 };
    let tensor = Tensor::new(all.storage().clone(), layout)?;
    let sum = client.call("sum", Arguments::none().and_named("tensor", tensor), soon())?;
    let wanted: f64 = vector("tensor", 64).map(f64::from).sum();
    if sum.value != wanted.into() {
        return Err(format!("{:?}, and {wanted} is the sum", sum.value).into());
    }
    let refused = client.call("vectors", [0], soon()).err().ok_or("no dimensions at all")?;
    match refused.failure() {
        Some(failure) if failure.type_name == "ValueError" => Ok(()),
        _ => Err(refused.into()),
    }
}

/// A task tells how far it is, and its result is fetched later.
fn task(client: &Client) -> Result<(), Box<dyn Error>> {
    let notes = Arc::new(Mutex::new(0));
    let count = Arc::clone(&notes);
    let wait = soon().on_progress(move |_| {
        if let Ok(mut count) = count.lock() {
            *count += 1;
        }
    });
    let task = client.submit("vectors", &[8].into(), &soon())?;
    let info = client.wait_task(task, wait)?;
    let result = client.task_result(task, &soon())?;
    let shape = result.value.as_tensor().map(|tensor| tensor.shape().to_vec());
    // It may have ended before it was listened to.
    let told = notes.lock().map_or(0, |count| *count);
    if info.status != TaskStatus::Completed || shape != Some(vec![5, 8]) || told > WORDS.len() {
        return Err(format!("{info:?}, {shape:?}, told {told} times").into());
    }
    Ok(())
}
