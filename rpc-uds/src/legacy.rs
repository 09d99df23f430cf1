//! A readable no for clients of the 0.2 protocol of shared-tensor, and its servers known by their
//! replies.
//!
//! That protocol is one message each way: a length, four bytes big-endian, and a pickle. Its client
//! shows the error of any reply `{"ok": False, "error": {...}}`. The reply here is a fixed string of
//! bytes, written opcode by opcode; no pickle is ever read.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::peer::own_uid;
use crate::sys::peer_credentials;

/// What a 0.2 client is told.
pub(crate) const MESSAGE: &str =
    "this server speaks rpc-uds, not the 0.2 protocol: upgrade the shared-tensor of this client";

/// How long a server of that protocol may take to answer a ping.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether a server of the 0.2 protocol of shared-tensor listens at `path`: it is asked whether it is
/// there, in its own language. `false` if it does not say so within a second, and for servers of other
/// users, which are not asked.
pub fn is_legacy_server(path: impl AsRef<Path>) -> bool {
    let Ok(mut socket) = UnixStream::connect(path) else { return false };
    let is_own = peer_credentials(socket.as_fd()).is_ok_and(|server| server.uid == own_uid());
    let set_up = socket
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| socket.set_write_timeout(Some(PATIENCE)));
    if !is_own || set_up.is_err() || socket.write_all(&ping()).is_err() {
        return false;
    }
    let mut reply = [0; 6];
    socket.read_exact(&mut reply).is_ok() && matches!(recognise(&reply), Recognition::Legacy { .. })
}

fn ping() -> Vec<u8> {
    let mut pickle = vec![0x80, 2];
    pickle.extend(*b"}(");
    text(&mut pickle, "method");
    text(&mut pickle, "ping");
    text(&mut pickle, "params");
    pickle.extend(*b"}u.");
    with_length(pickle)
}

/// Whether a stream begins like a message of that protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recognition {
    /// It does; the message has so many bytes after its length.
    Legacy {
        /// As the length says.
        message_bytes: u32,
    },
    /// It may; six bytes tell.
    Undecided,
    /// It does not.
    Foreign,
}

/// Looks at the beginning of a stream that is not this crate's.
pub(crate) fn recognise(bytes: &[u8]) -> Recognition {
    // The first opcode of every pickle since protocol 2 is PROTO with the protocol's number.
    match *bytes {
        [a, b, c, d, 0x80, 2..=5, ..] => {
            Recognition::Legacy { message_bytes: u32::from_be_bytes([a, b, c, d]) }
        }
        [_, _, _, _, first] if first != 0x80 => Recognition::Foreign,
        _ if bytes.len() < 6 => Recognition::Undecided,
        _ => Recognition::Foreign,
    }
}

/// The reply, its length included.
pub(crate) fn refusal() -> Vec<u8> {
    let mut pickle = vec![0x80, 2];
    pickle.push(b'}');
    // MARK ... SETITEMS: pairs into the dictionary below the mark.
    pickle.push(b'(');
    text(&mut pickle, "ok");
    pickle.push(0x89);
    text(&mut pickle, "error");
    pickle.extend(*b"}(");
    text(&mut pickle, "code");
    pickle.extend([b'K', 1]);
    text(&mut pickle, "message");
    text(&mut pickle, MESSAGE);
    text(&mut pickle, "type");
    text(&mut pickle, "SharedTensorProtocolError");
    text(&mut pickle, "data");
    pickle.push(b'N');
    pickle.extend(*b"uu.");
    with_length(pickle)
}

fn with_length(pickle: Vec<u8>) -> Vec<u8> {
    let mut message = u32::try_from(pickle.len()).unwrap_or(0).to_be_bytes().to_vec();
    message.extend(pickle);
    message
}

/// BINUNICODE: a length, four bytes little-endian, and UTF-8.
fn text(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend(u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
    pickle.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};
    use std::thread;

    use super::*;

    #[test]
    fn its_messages_are_recognised_by_six_bytes() {
        let message = [0, 0, 1, 0, 0x80, 5, 0x95];
        assert_eq!(recognise(&message), Recognition::Legacy { message_bytes: 256 });
        assert_eq!(recognise(&message[..5]), Recognition::Undecided);
        assert_eq!(recognise(&message[..1]), Recognition::Undecided);
        assert_eq!(recognise(b"GET / HTTP/1.1"), Recognition::Foreign);
        assert_eq!(recognise(&[0, 0, 1, 0, 0x80, 6]), Recognition::Foreign);
    }

    #[test]
    fn the_reply_has_the_length_that_it_says() {
        let reply = refusal();
        let length = u32::from_be_bytes([reply[0], reply[1], reply[2], reply[3]]);
        assert_eq!(length as usize + 4, reply.len());
    }

    #[test]
    fn its_servers_are_recognised_by_their_replies() {
        let directory = std::env::temp_dir();
        let path = directory.join(format!("rpc-uds-legacy-{}", std::process::id()));
        let listener = UnixListener::bind(&path).expect("a path of its own");
        let replies = [refusal(), b"HTTP/1.1 400".to_vec()];
        let server = thread::spawn(move || {
            for reply in replies {
                let (mut client, _) = listener.accept().expect("a client");
                let mut length = [0; 4];
                client.read_exact(&mut length).expect("a length");
                let mut message = vec![0; u32::from_be_bytes(length) as usize];
                client.read_exact(&mut message).expect("a message");
                assert_eq!(
                    recognise(&[&length[..], &message].concat()),
                    Recognition::Legacy { message_bytes: u32::from_be_bytes(length) }
                );
                client.write_all(&reply).expect("the client reads");
            }
        });
        assert!(is_legacy_server(&path));
        assert!(!is_legacy_server(&path));
        server.join().expect("two messages of the old protocol");
        assert!(!is_legacy_server(&path), "nobody listens");
        std::fs::remove_file(&path).expect("the path is there");
    }

    #[test]
    fn python_reads_the_reply() {
        let program = "import pickle, struct, sys\n\
            reply = sys.stdin.buffer.read()\n\
            length, = struct.unpack('!I', reply[:4])\n\
            assert length == len(reply) - 4\n\
            reply = pickle.loads(reply[4:])\n\
            error = reply['error']\n\
            assert reply['ok'] is False and list(reply) == ['ok', 'error'], reply\n\
            assert list(error) == ['code', 'message', 'type', 'data'], error\n\
            assert error['code'] == 1 and error['data'] is None, error\n\
            print(error['type'], error['message'])";
        let python = Command::new("python3")
            .args(["-c", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut python) = python else {
            println!("skipped: there is no python3");
            return;
        };
        python.stdin.take().expect("a pipe").write_all(&refusal()).expect("python reads");
        let output = python.wait_with_output().expect("python ends");
        assert!(output.status.success());
        let said = String::from_utf8(output.stdout).expect("text");
        assert_eq!(said.trim_end(), format!("SharedTensorProtocolError {MESSAGE}"));
    }
}
