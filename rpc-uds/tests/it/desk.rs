//! The server that most tests talk to: what it does is the request's tag.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use rpc_uds::{Call, Client, Connection, Handler, Refusal, Server, ServerOptions};

/// Answered by a worker with what came.
pub(crate) const ECHO: u16 = 1;
/// Answered on the connection's thread with what came.
pub(crate) const FAST_ECHO: u16 = 2;
/// Answered by a worker when the test opens the door, or the request is cancelled.
pub(crate) const WAIT: u16 = 3;
/// Control lane: what came.
pub(crate) const INFO: u16 = 4;
/// The handler panics on a worker.
pub(crate) const PANIC: u16 = 5;
/// The handler panics on the connection's thread.
pub(crate) const FAST_PANIC: u16 = 6;
/// Never answered.
pub(crate) const FORGET: u16 = 7;
/// Pushes what came as often as the tag of the first byte says, then answers.
pub(crate) const PUSH: u16 = 8;
/// Answered with as many bytes as the body says, little-endian.
pub(crate) const LONG: u16 = 9;
/// Answered by a worker when the test opens the door, whoever cancels it.
pub(crate) const STUBBORN: u16 = 10;
/// The same on the connection's thread.
pub(crate) const FAST_STUBBORN: u16 = 11;
/// From now on the session panics when it is dropped.
pub(crate) const BOMB: u16 = 12;

/// Counters change without the lock, so whoever waits for one looks this often.
const SLICE: Duration = Duration::from_millis(2);

/// What the server has seen, and a door for requests that wait.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connected: AtomicUsize,
    pub(crate) disconnected: AtomicUsize,
    pub(crate) waiting: AtomicUsize,
    pub(crate) cancelled: AtomicUsize,
    sessions_dropped: AtomicUsize,
    door: Mutex<bool>,
    moved: Condvar,
}

impl Seen {
    pub(crate) fn open_door(&self) {
        *self.door.lock().expect("nobody panics in here") = true;
        self.moved.notify_all();
    }

    /// Waits, with the watchdog as the only limit, until `is_so`.
    pub(crate) fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let mut door = self.door.lock().expect("nobody panics in here");
        while !is_so(self) {
            door = self.moved.wait_timeout(door, SLICE).expect("nobody panics in here").0;
        }
    }

    pub(crate) fn until_gone(&self, count: usize) {
        self.until(|seen| seen.disconnected.load(Ordering::SeqCst) >= count);
    }

    pub(crate) fn sessions_dropped(&self) -> usize {
        self.sessions_dropped.load(Ordering::SeqCst)
    }
}

pub(crate) struct Echo(pub(crate) Arc<Seen>);

impl Echo {
    fn wait_for_door(&self, call: Call) {
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        let mut door = self.0.door.lock().expect("nobody panics in here");
        while !*door {
            door = self.0.moved.wait(door).expect("nobody panics in here");
        }
        drop(door);
        echo(call);
    }
}

#[derive(Debug)]
pub(crate) struct Session {
    seen: Arc<Seen>,
    is_bomb: AtomicBool,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.seen.sessions_dropped.fetch_add(1, Ordering::SeqCst);
        assert!(!self.is_bomb.load(Ordering::SeqCst), "as the test wants it");
    }
}

fn echo(call: Call) {
    let Call { tag, body, descriptors, responder, .. } = call;
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    // The client may be gone: no concern of this test server.
    let _ = responder.reply(tag, &body, &descriptors);
}

impl Handler for Echo {
    type Session = Session;

    fn connected(&self, _: &Connection) -> Result<Session, Refusal> {
        self.0.connected.fetch_add(1, Ordering::SeqCst);
        Ok(Session { seen: Arc::clone(&self.0), is_bomb: AtomicBool::new(false) })
    }

    fn is_control(&self, tag: u16) -> bool {
        tag == INFO
    }

    fn fast(&self, session: &Arc<Session>, call: Call) -> Option<Call> {
        match call.tag {
            FAST_ECHO => echo(call),
            FAST_STUBBORN => self.wait_for_door(call),
            BOMB => {
                session.is_bomb.store(true, Ordering::SeqCst);
                echo(call);
            }
            FAST_PANIC => panic!("as the test wants it"),
            _ => return Some(call),
        }
        None
    }

    fn call(&self, _: &Arc<Session>, call: Call) {
        match call.tag {
            ECHO | INFO => echo(call),
            WAIT => {
                self.0.waiting.fetch_add(1, Ordering::SeqCst);
                let mut door = self.0.door.lock().expect("nobody panics in here");
                while !*door && !call.responder.is_cancelled() {
                    door = self.0.moved.wait_timeout(door, SLICE).expect("nobody panics in here").0;
                }
                drop(door);
                if call.responder.is_cancelled() {
                    self.0.cancelled.fetch_add(1, Ordering::SeqCst);
                }
                echo(call);
            }
            STUBBORN => self.wait_for_door(call),
            PANIC => panic!("as the test wants it"),
            PUSH => {
                let connection = call.responder.connection();
                for number in 0..u16::from(call.body[0]) {
                    let descriptors: Vec<_> = call.descriptors.iter().map(AsFd::as_fd).collect();
                    let _ = connection.push(number, &call.body[1..], &descriptors);
                }
                echo(call);
            }
            LONG => {
                let length = call.body.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                // Some tests ask for whatever chance says.
                let _ = call.reply(LONG, &vec![7; length.min(1 << 20) as usize]);
            }
            _ => drop(call),
        }
    }

    fn disconnected(&self, _: &Arc<Session>, _: &Connection) {
        self.0.disconnected.fetch_add(1, Ordering::SeqCst);
        self.0.moved.notify_all();
    }
}

/// A folder of its own for one test, removed at the end; it must be empty by then.
#[derive(Debug)]
pub(crate) struct Place(PathBuf, &'static str);

impl Place {
    pub(crate) fn new() -> Self {
        Self::named("socket")
    }

    pub(crate) fn named(socket: &'static str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/rpc-uds-it-{}-{count}", std::process::id()));
        std::fs::create_dir(&path).expect("/dev/shm takes a folder");
        Self(path, socket)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join(self.1)
    }

    /// What is in it, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("the folder is there");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.files();
        let _ = std::fs::remove_dir_all(&self.0);
        if !std::thread::panicking() {
            assert_eq!(left, [""; 0], "left behind by the test");
        }
    }
}

/// An echo server in this process, and where it is. The server goes first.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) server: Server,
    pub(crate) seen: Arc<Seen>,
    pub(crate) place: Place,
}

/// A server that waits for a valid peer, and for its own threads, however busy the machine is.
pub(crate) fn patient() -> ServerOptions {
    let long = Duration::from_secs(1200);
    let options = Server::options().handshake_timeout(long).frame_timeout(long);
    options.handler_timeout(long).deaf_timeout(long)
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self::with(patient())
    }

    pub(crate) fn with(options: ServerOptions) -> Self {
        Self::serve(options, Place::new())
    }

    /// Listens at a path whose last part is `name`.
    pub(crate) fn at(name: &'static str) -> Self {
        Self::serve(patient(), Place::named(name))
    }

    fn serve(options: ServerOptions, place: Place) -> Self {
        let seen = Arc::<Seen>::default();
        let server = options.serve(place.socket(), Echo(Arc::clone(&seen)));
        Self { server: server.expect("the path is free"), seen, place }
    }

    pub(crate) fn client(&self) -> Client {
        connect(&self.place.socket())
    }

    pub(crate) fn stats(&self) -> rpc_uds::ServerStats {
        self.server.stats().expect("not forked")
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.seen.open_door();
    }
}

pub(crate) fn connect(path: &Path) -> Client {
    Client::options().wait_for_server(true).connect(path, soon()).expect("the server is there")
}

/// A deadline that only a hang reaches.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(1200)
}

/// What a thread brings, or the panic of a hang.
pub(crate) fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> (std::thread::JoinHandle<()>, mpsc::Receiver<T>) {
    let (give, take) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        // The test may have given up on it.
        let _ = give.send(work());
    });
    (thread, take)
}
