//! A key-value store in one process, four clients in others, one of which is killed: its keys go with
//! it, everybody who watches is told, and the rest goes on. Nothing but `rpc-uds` and `std`.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rpc_uds::{Call, CallError, Client, Connection, Handler, Lost, Refusal, Request, Server};

const PUT: u16 = 1;
const GET: u16 = 2;
const COUNT: u16 = 3;
const FOUND: u16 = 0;
const MISSING: u16 = 404;
const GONE: u16 = 7;

const ROLE: &str = "CONSUMER_STORES_AS";

type Map = Arc<Mutex<BTreeMap<u64, File>>>;

/// Which client has put what; a client's entry goes with its session.
#[derive(Default)]
struct Store {
    files: Map,
    watchers: Arc<Mutex<Vec<Connection>>>,
}

struct Lease {
    id: u64,
    files: Map,
    watchers: Arc<Mutex<Vec<Connection>>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let held = self.files.lock().is_ok_and(|mut files| files.remove(&self.id).is_some());
        let Ok(mut watchers) = self.watchers.lock() else { return };
        watchers.retain(Connection::is_open);
        if held {
            for watcher in watchers.iter() {
                // Who cannot be told any more need not be.
                let _ = watcher.push(GONE, &self.id.to_le_bytes(), &[]);
            }
        }
    }
}

impl Handler for Store {
    type Session = Lease;

    fn connected(&self, connection: &Connection) -> Result<Lease, Refusal> {
        let mut watchers = self.watchers.lock().map_err(|_| Refusal::rejected("out of order"))?;
        watchers.push(connection.clone());
        let (files, watchers) = (Arc::clone(&self.files), Arc::clone(&self.watchers));
        Ok(Lease { id: connection.id(), files, watchers })
    }

    fn is_control(&self, tag: u16) -> bool {
        tag == COUNT
    }

    fn call(&self, lease: &Arc<Lease>, mut call: Call) {
        let Ok(mut files) = self.files.lock() else { return };
        let outcome = match call.tag {
            PUT => {
                let file = call.descriptors.pop().map(File::from);
                files.extend(file.map(|file| (lease.id, file)));
                call.reply(FOUND, &lease.id.to_le_bytes())
            }
            GET => match files.get(&number(&call.body)) {
                Some(file) => call.responder.reply(FOUND, b"", &[file.as_fd()]),
                None => call.reply(MISSING, b""),
            },
            _ => call.reply(FOUND, &(files.len() as u64).to_le_bytes()),
        };
        // A client that is gone has its lease dropped in a moment.
        let _ = outcome;
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(folder) = env::var_os(ROLE) {
        return put(Path::new(&folder));
    }
    let folder = PathBuf::from(format!("/dev/shm/rpc-uds-consumer-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let outcome = play(&folder);
    fs::remove_dir_all(&folder)?;
    outcome
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

/// A client: puts a file with its pid in it, and stays.
fn put(folder: &Path) -> Result<(), Box<dyn Error>> {
    let client = Client::options().wait_for_server(true).connect(folder.join("socket"), soon())?;
    let path = folder.join(std::process::id().to_string());
    fs::write(&path, format!("{}", std::process::id()))?;
    let file = File::open(&path)?;
    let given = [file.as_fd()];
    let reply = client.call(Request::new(PUT, b"").with_descriptors(&given), soon())?;
    writeln!(io::stdout(), "{}", number(&reply.body))?;
    // Until the server is gone.
    match client.next_push(None) {
        Ok(_) | Err(CallError::Lost(Lost::Closed | Lost::Stopped)) => {}
        Err(error) => return Err(error.into()),
    }
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn start(folder: &Path) -> Result<(Child, u64), Box<dyn Error>> {
    let mut command = Command::new(env::current_exe()?);
    command.env(ROLE, folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("a pipe")?).read_line(&mut line)?;
    Ok((child, line.trim().parse()?))
}

fn play(folder: &Path) -> Result<(), Box<dyn Error>> {
    let socket = folder.join("socket");
    let server = Server::options().workers(2).serve(&socket, Store::default())?;
    let watcher = Client::options().connect(&socket, soon())?;
    let mut clients = (0..4).map(|_| start(folder)).collect::<Result<Vec<_>, _>>()?;
    let (mut victim, key) = clients.pop().ok_or("four clients")?;

    let fetch = |key: u64| watcher.call(Request::new(GET, &key.to_le_bytes()), soon());
    let reply = fetch(key)?;
    let mut text = String::new();
    File::from(reply.descriptors.into_iter().next().ok_or("a file")?).read_to_string(&mut text)?;
    if text != victim.id().to_string() {
        return Err(format!("the file of pid {} says {text}", victim.id()).into());
    }

    victim.kill()?;
    victim.wait()?;
    let push = watcher.next_push(soon())?;
    if (push.tag, number(&push.body)) != (GONE, key) {
        return Err("another client is said to be gone".into());
    }
    if fetch(key)?.tag != MISSING {
        return Err("what a dead client had put is still there".into());
    }
    let count = number(&watcher.call(Request::new(COUNT, b""), soon())?.body);
    if count != 3 {
        return Err(format!("{count} files, three clients live").into());
    }
    if Server::options().serve(&socket, Store::default()).is_ok() {
        return Err("a second server has taken the path".into());
    }
    let stopped = server.stop(Duration::from_secs(60))?;
    for (mut client, _) in clients {
        drop(client.stdin.take());
        if !client.wait()?.success() {
            return Err("a client has not ended well".into());
        }
    }
    if !stopped.is_drained || socket.exists() {
        return Err("the server has left something".into());
    }
    writeln!(io::stdout(), "four clients, one killed: told once, its file gone, the others well")?;
    Ok(())
}
