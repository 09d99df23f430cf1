//! What peers do.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cuda_ipc::Chunk;
use rustix::process::{Signal, getpid, kill_process};
use shm_lock::Wait;

use super::super::{Offer, fetch};
use super::scene::{create, member, open};
use super::{chunk, label};
use crate::error::Result;
use crate::stream::Stream;

/// Listens in a folder until there is nobody to give orders, and answers nobody.
pub(super) fn listen(folder: &Path, mut socket: &UnixStream) {
    let listener = UnixListener::bind(folder.join("socket")).unwrap();
    writeln!(socket, "ready").unwrap();
    let _ = socket.read_to_end(&mut Vec::new());
    drop(listener);
}

/// A process with a stream of a GPU, as far as this module goes.
struct Role {
    stream: Stream,
    chunk: Option<Arc<Chunk>>,
    offers: Vec<Offer>,
}

pub(super) fn play(folder: &Path, socket: &UnixStream) {
    let mut role = None;
    let mut answers = socket;
    writeln!(answers, "ready").unwrap();
    for order in BufReader::new(socket).lines() {
        let order = order.unwrap();
        let answer = match order.as_str() {
            "create" => {
                role = Some(Role::on(create(folder)));
                "created".to_owned()
            }
            "usage" => usage(),
            "close" => {
                role = None;
                "closed".to_owned()
            }
            order => role.get_or_insert_with(|| Role::on(open(folder))).does(order),
        };
        writeln!(answers, "{answer}").unwrap();
    }
}

impl Role {
    fn on(stream: Stream) -> Self {
        Self { stream, chunk: None, offers: Vec::new() }
    }

    fn does(&mut self, order: &str) -> String {
        let words: Vec<&str> = order.split(' ').collect();
        match words[..] {
            ["make", text] => {
                self.chunk = Some(chunk(text));
                "made".to_owned()
            }
            ["offer"] => match self.offer() {
                Ok(offer) => {
                    let listed = if offer.is_listed() { "listed" } else { "unlisted" };
                    self.offers.push(offer);
                    listed.to_owned()
                }
                Err(error) => format!("{:?}: {error}", error.kind()),
            },
            ["withdraw"] => {
                self.offers.clear();
                "withdrawn".to_owned()
            }
            ["fetch", milliseconds] => {
                let deadline = Duration::from_millis(milliseconds.parse().unwrap());
                self.fetched(&Wait::for_at_most(deadline))
            }
            ["fetch"] => self.fetched(&Wait::for_at_most(Duration::from_secs(600))),
            ["look"] => self.fetched(&Wait::never()),
            ["interrupted"] => {
                let begun = Instant::now();
                // Once, and most likely while a holder is waited for: whoever hears it has to tell.
                let is_told = Cell::new(false);
                let is_enough =
                    || begun.elapsed() > Duration::from_millis(500) && !is_told.replace(true);
                self.fetched(&Wait::forever().interruptible(&is_enough))
            }
            ["fork"] => fork(),
            _ => panic!("`{order}` is no order"),
        }
    }

    fn offer(&self) -> Result<Offer> {
        let member = member(&self.stream);
        let chunk = Arc::clone(self.chunk.as_ref().expect("something to offer"));
        let generation = self.stream.generation();
        Offer::begin(&member.memory, &member.peers(), member.me()?, generation, chunk)
    }

    fn fetched(&mut self, wait: &Wait<'_>) -> String {
        let member = member(&self.stream);
        let generation = self.stream.generation();
        match fetch(&member.memory, &member.peers(), generation, &label(), wait) {
            Ok(chunk) => {
                let text = begins_with(&chunk);
                self.chunk = Some(Arc::new(chunk));
                format!("got {text}")
            }
            Err(error) => format!("{:?}: {error}", error.kind()),
        }
    }
}

/// The text at the beginning of a chunk.
fn begins_with(chunk: &Chunk) -> String {
    let mut file = File::from(chunk.as_fd().try_clone_to_owned().unwrap());
    let mut text = vec![0; super::CHUNK_BYTES as usize];
    file.rewind().unwrap();
    file.read_exact(&mut text).unwrap();
    text.truncate(text.iter().position(|byte| *byte == 0).unwrap());
    String::from_utf8(text).unwrap()
}

/// Lets a child go on in this process's place; this one stays as it is, until it is killed.
fn fork() -> String {
    let Some(child) = crate::sys::fork::fork() else { return "forked".to_owned() };
    let child = i32::try_from(child).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::waitpid(child, rustix::process::WaitOptions::empty()).unwrap();
    // The child had the orders.
    kill_process(getpid(), Signal::KILL).unwrap();
    unreachable!("it was killed")
}

/// Descriptors, threads and mappings of sockets of this process.
fn usage() -> String {
    let entries = |path| fs::read_dir(path).unwrap().count();
    format!("descriptors {} threads {}", entries("/proc/self/fd"), entries("/proc/self/task"))
}
