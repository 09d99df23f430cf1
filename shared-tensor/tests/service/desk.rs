//! What a test needs: a server in another process, and clients.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use shared_tensor::service::{Address, Client, Id, Value};

use crate::peer::Peer;
pub(crate) use crate::roles::{options, soon};

/// A directory of a test's own; empty at its end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("st-service-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("s")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let left: Vec<_> = std::fs::read_dir(&self.0).expect("it is there").flatten().collect();
        std::fs::remove_dir_all(&self.0).expect("it is ours");
        // What a killed server leaves is its socket and lock.
        let is_left = left.iter().any(|it| !it.file_name().to_string_lossy().starts_with('s'));
        if !std::thread::panicking() {
            assert!(!is_left, "left behind: {left:?}");
        }
    }
}

/// A server in another process, stopped at the end.
pub(crate) struct Service {
    pub(crate) peer: Peer,
    pub(crate) scratch: Scratch,
}

impl Service {
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    pub(crate) fn with(options: &str) -> Self {
        let scratch = Scratch::new();
        let peer = Peer::start(&format!("server+{options}"), &scratch.socket());
        Self { peer, scratch }
    }

    pub(crate) fn address(&self) -> Address {
        Address::at(self.scratch.socket())
    }

    pub(crate) fn client(&self) -> Client {
        Client::at(self.address())
    }

    pub(crate) fn peer_client(&self) -> Peer {
        Peer::start("client", &self.scratch.socket())
    }
}

/// A number of the server's statistics.
pub(crate) fn stat(client: &Client, name: &str) -> i64 {
    let info = client.server_info(options()).expect("a server");
    let stats = info.get("stats").expect("statistics");
    stats.get(name).and_then(Value::as_int).unwrap_or_else(|| panic!("no statistic `{name}`"))
}

/// How many leases there are on an object.
pub(crate) fn refcount(client: &Client, object: Id) -> Option<u64> {
    client.object_info(object, options()).expect("a server").map(|info| info.refcount)
}

/// How many descriptors a server or a client in another process has open.
pub(crate) fn descriptors(peer: &mut Peer) -> i64 {
    let memory = peer.ask("memory");
    memory.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a number")
}

/// Looks until it is so: what is looked at happens in another process, which tells nobody.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let watchdog = soon();
    while !is_so() {
        assert!(std::time::Instant::now() < watchdog, "in vain: {what}");
        std::thread::yield_now();
    }
}
