//! Servers that answer as no holder does.

use std::fs::{self, File};
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rpc_uds::{
    Agreement, Call, Connection, Control, FrameLimits, HEADER_BYTES, Handler, Header, Kind,
    Refusal, Server,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Answers everything with the same.
pub(super) struct Parrot {
    pub(super) tag: u16,
    pub(super) body: Vec<u8>,
    pub(super) descriptors: usize,
}

impl Handler for Parrot {
    type Session = ();

    fn connected(&self, _: &Connection) -> Result<(), Refusal> {
        Ok(())
    }

    fn call(&self, _: &Arc<()>, call: Call) {
        let file = File::open("/dev/null").unwrap();
        let descriptors = vec![file.as_fd(); self.descriptors];
        // Who asked may have gone.
        let _ = call.responder.reply(self.tag, &self.body, &descriptors);
    }
}

impl Parrot {
    pub(super) fn serve(self, path: &Path) -> Server {
        Server::options().serve(path, self).unwrap()
    }
}

/// What a server without `rpc-uds` does with its clients.
#[derive(Clone, Copy, Debug)]
pub(super) enum Raw {
    /// Sends noise.
    Noise,
    /// Closes the connection at once.
    Closes,
    /// Shakes hands, and answers, announcing so many descriptors and sending others.
    Answers { announced: u8, sent: usize },
}

/// Serves at a path until it is dropped.
pub(super) struct RawServer {
    path: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RawServer {
    pub(super) fn start(path: &Path, raw: Raw, body: Vec<u8>) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let serve = {
            let is_over = Arc::clone(&is_over);
            move || {
                while let Ok((client, _)) = listener.accept()
                    && !is_over.load(Ordering::SeqCst)
                {
                    raw.serve(&client, &body);
                }
            }
        };
        Self { path: path.to_owned(), is_over, thread: Some(thread::spawn(serve)) }
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(&self.path));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        fs::remove_file(&self.path).unwrap();
    }
}

impl Raw {
    fn serve(self, client: &UnixStream, body: &[u8]) {
        match self {
            Self::Noise => send(client, &[0xa5; 64], &[]),
            Self::Closes => return,
            // It gave up.
            Self::Answers { announced, sent } => drop(answer(client, announced, sent, body)),
        }
        // Until it has seen enough.
        let _ = { client }.read_to_end(&mut Vec::new());
    }
}

fn answer(client: &UnixStream, announced: u8, sent: usize, body: &[u8]) -> io::Result<()> {
    let (_, hello) = frame(client)?;
    let Ok(Control::Hello(offer)) = Control::decode(&hello) else { panic!("{hello:?}") };
    let agreement = Agreement {
        version: offer.versions.max,
        features: 0,
        body_bytes_max: offer.body_bytes_max,
        descriptors_max: offer.descriptors_max,
    };
    let welcome = Control::Welcome(agreement).encode();
    send(client, &framed(Kind::Control, 0, 0, 0, &welcome), &[]);
    let (asked, _) = frame(client)?;
    let file = File::open("/dev/null").unwrap();
    let reply = framed(Kind::Reply, asked.tag, announced, asked.id, body);
    send(client, &reply, &vec![file.as_fd(); sent]);
    Ok(())
}

fn frame(mut client: &UnixStream) -> io::Result<(Header, Vec<u8>)> {
    let mut header = [0; HEADER_BYTES];
    client.read_exact(&mut header)?;
    let header = Header::decode(&header, FrameLimits::default()).unwrap();
    let mut body = vec![0; header.body_bytes as usize];
    client.read_exact(&mut body)?;
    Ok((header, body))
}

fn framed(kind: Kind, tag: u16, descriptors: u8, id: u64, body: &[u8]) -> Vec<u8> {
    let body_bytes = u32::try_from(body.len()).unwrap();
    let header = Header { kind, tag, descriptors, body_bytes, id };
    [&header.encode()[..], body].concat()
}

fn send(client: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(beside.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    // Whoever has gone need not be told.
    let _ = sendmsg(client, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL);
}
