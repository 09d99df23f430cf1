//! Threads that share a loader: every model is loaded once, lent to many, and evicted when it may.
//!
//! `cargo run -p tensor-cache --example loader`

use std::error::Error;
use std::io::{self, Write};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use tensor_cache::{
    Build, Built, Cache, Device, GetError, Lease, Lookup, News, Options, Request, Session,
};

const GPU: Device = Device(0);
const BUDGET: u64 = 100;
const CLIENTS: usize = 4;

/// A stand-in for something that takes long to load and much room.
struct Model {
    name: String,
    weights: Vec<u8>,
}

type Loader = Cache<String, Model, String>;

fn main() -> Result<(), Box<dyn Error>> {
    let cache: Loader = Cache::new(&Options::new().budget(GPU, BUDGET))?;
    let mut out = io::stdout();

    let (sender, told) = channel();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (cache, sender) = (&cache, sender.clone());
            scope.spawn(move || use_model(cache, client, &sender));
        }
    });
    drop(sender);
    for line in told {
        writeln!(out, "{line}")?;
    }
    let stats = cache.stats();
    writeln!(out, "{} build for {CLIENTS} clients", stats.builds)?;
    assert_eq!(stats.builds, 1);

    // A new model takes the room of what nobody uses...
    let session = cache.open_session();
    let large = get(&session, "large", 80)?;
    writeln!(out, "`small` had to go: {} eviction", cache.stats().evictions)?;
    // ...and what is in use stays, whoever asks.
    match get(&session, "huge", 60) {
        Err(refused) => writeln!(out, "`huge` is refused: {refused}")?,
        Ok(_) => return Err("there is no room for both".into()),
    }

    // A client that ends gives everything back, also what it left to its session.
    let _left = large.into_id();
    let released = session.close();
    writeln!(out, "the client ended and gave back {} lease", released.len())?;
    let huge = get(&cache.open_session(), "huge", 60)?;
    writeln!(out, "`{}` fits now, {} bytes", huge.name, huge.weights.len())?;
    Ok(())
}

fn get(
    session: &Session<String, Model, String>,
    name: &str,
    bytes: u64,
) -> Result<Lease<Model>, GetError<String>> {
    session.get_or_build(&Request::new(name.to_owned()), |build| Ok(load(build, bytes)))
}

fn load(build: &Build<String, Model, String>, bytes: u64) -> Built<Model> {
    let mut weights = Vec::new();
    for done in 0..bytes {
        weights.push(done as u8);
        build.progress(done + 1, bytes, "reading weights");
    }
    Built::new(Model { name: build.key().clone(), weights }).charge(GPU, bytes)
}

/// One client: builds the model if it is the first to ask, else watches.
fn use_model(cache: &Loader, client: usize, told: &Sender<String>) {
    let session = cache.open_session();
    let say = |line: String| told.send(line).expect("the main thread listens");
    let got = match session.lookup(&Request::new("small".to_owned())) {
        Ok(Lookup::Hit(lease)) => Ok((lease, "found it")),
        Ok(Lookup::Build(token, pending)) => {
            // The outcome comes to all who wait, this client among them.
            let _ = token.run(|build| Ok(load(build, 40)));
            pending.wait().map(|lease| (lease, "built it"))
        }
        Ok(Lookup::Join(mut pending)) => loop {
            match pending.next_news(None) {
                Ok(News::Progress(_)) => {}
                Ok(News::Ready(lease)) => break Ok((lease, "waited for it")),
                Err(error) => break Err(error),
            }
        },
        Err(error) => Err(error),
    };
    match got {
        Ok((model, how)) => say(format!("client {client} {how}: `{}`", model.name)),
        Err(error) => say(format!("client {client} failed: {error}")),
    }
}
