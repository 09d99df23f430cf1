//! A server of files, with a key type, an error type and devices of its own: contents are read once,
//! lent to clients, and count against two budgets. Nothing but `tensor-cache` and `std`.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;

use tensor_cache::{
    Built, Cache, Device, FlightError, GetError, Key, LeaseId, Options, Request, Session,
};

const MEMORY: Device = Device(0);
const PAGES: Device = Device(1);

/// A file, grouped by its folder.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Path(PathBuf);

impl Key for Path {
    type Group = Option<PathBuf>;

    fn group(&self) -> Self::Group {
        self.0.parent().map(PathBuf::from)
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }
}

/// What reading comes to if it fails.
#[derive(Debug)]
struct Unreadable(io::ErrorKind);

impl fmt::Display for Unreadable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "unreadable: {}", self.0)
    }
}

type Contents = Cache<Path, Vec<u8>, Unreadable>;

/// What a client is to the server: a session, and numbers that went over a wire.
struct Client {
    session: Session<Path, Vec<u8>, Unreadable>,
    held: Vec<LeaseId>,
}

impl Client {
    fn read(&mut self, path: PathBuf) -> Result<usize, GetError<Unreadable>> {
        let lease = self.session.get_or_build(&Request::new(Path(path)), |build| {
            let bytes = fs::read(&build.key().0).map_err(|error| Unreadable(error.kind()))?;
            let (length, pages) = (bytes.len() as u64, bytes.len().div_ceil(4096) as u64);
            Ok(Built::new(bytes).charge(MEMORY, length).charge(PAGES, pages))
        })?;
        let length = lease.len();
        self.held.push(lease.into_id());
        Ok(length)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("tensor-cache-consumer-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let outcome = serve(&folder);
    fs::remove_dir_all(&folder)?;
    outcome
}

fn serve(folder: &std::path::Path) -> Result<(), Box<dyn Error>> {
    for name in ["one", "two", "three"] {
        fs::write(folder.join(name), vec![b'x'; 6000])?;
    }
    let cache = Contents::new(&Options::new().budget(MEMORY, 15_000).budget(PAGES, 100))?;
    let open = || Client { session: cache.open_session(), held: Vec::new() };

    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| open().read(folder.join("one")).map_err(|error| error.to_string()));
        }
    });
    assert_eq!(cache.stats().builds, 1, "four clients, one reading");

    let (mut first, mut second) = (open(), open());
    assert_eq!(first.read(folder.join("one"))?, 6000);
    assert_eq!(second.read(folder.join("two"))?, 6000);
    let refused = first.read(folder.join("three"));
    let Err(GetError::Flight(FlightError::OverBudget(over))) = refused else {
        return Err("there is no room for a third file".into());
    };
    assert_eq!((over.device, over.leased, over.holders.len()), (MEMORY, 12_000, 2));

    // Numbers come back from clients: each gives back its own, once.
    let lease = second.held[0];
    assert!(first.session.release(lease).is_none());
    assert!(second.session.release(lease).is_some());
    assert!(second.session.release(lease).is_none());
    assert_eq!(first.read(folder.join("three"))?, 6000);

    // A vanished client holds nothing, and a changed folder is read again.
    drop(first);
    assert_eq!(cache.stats().leases, 0);
    assert_eq!(cache.invalidate_group(&Some(folder.to_path_buf())).entries, 2);

    let missing = second.read(folder.join("four"));
    let told = missing.err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(told, "the build failed: unreadable: entity not found");
    let stats = cache.stats();
    let told = format!(
        "{} builds, {} hits, {} joins, {} evictions, {} failures",
        stats.builds, stats.hits, stats.joins, stats.evictions, stats.failures
    );
    Ok(writeln!(io::stdout(), "{told}")?)
}
