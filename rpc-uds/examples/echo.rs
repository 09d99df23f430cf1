//! A server that sends back what it gets, and clients in other processes that check it.
//!
//! ```sh
//! cargo run --example echo                      # a server and three clients, which end
//! cargo run --example echo -- serve /tmp/echo   # until Ctrl-C
//! cargo run --example echo -- call /tmp/echo "some text"
//! ```

use std::env;
use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rpc_uds::{
    Call, Client, Connection, Handler, Refusal, Request, RuntimeDirectory, Server, Termination,
};
use rustix::fs::{MemfdFlags, memfd_create};

const ECHO: u16 = 1;

struct Echo;

impl Handler for Echo {
    type Session = ();

    fn connected(&self, connection: &Connection) -> Result<(), Refusal> {
        let peer = connection.peer();
        show(&format!("server: pid {:?} of user {} connects", peer.pid, peer.uid));
        Ok(())
    }

    fn call(&self, _: &Arc<()>, call: Call) {
        let Call { tag, body, descriptors, responder, .. } = call;
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        if let Err(error) = responder.reply(tag, &body, &descriptors) {
            show(&format!("server: {error}"));
        }
    }

    fn disconnected(&self, _: &Arc<()>, connection: &Connection) {
        show(&format!("server: pid {:?} is gone", connection.peer().pid));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => everything(),
        ["serve", path] => {
            let termination = Termination::install()?;
            let server = Server::options().serve(path, Echo)?;
            let stopped = server.run(&termination, Duration::from_secs(5))?;
            show(&format!("server: stopped, every request answered: {}", stopped.is_drained));
            Ok(())
        }
        ["call", path, text] => call(Path::new(path), text),
        _ => Err("echo [serve PATH | call PATH TEXT]".into()),
    }
}

fn everything() -> Result<(), Box<dyn Error>> {
    let directory = RuntimeDirectory::of("rpc-uds-example")?;
    let path = directory.socket(&format!("echo-{}", std::process::id()));
    let server = Server::options().serve(&path, Echo)?;
    for text in ["one", "two", "three"] {
        let mut command = Command::new(env::current_exe()?);
        let status = command.arg("call").arg(&path).arg(text).status()?;
        if !status.success() {
            return Err(format!("a client ended with {status}").into());
        }
    }
    let stopped = server.stop(Duration::from_secs(5))?;
    show(&format!("server: stopped, every request answered: {}", stopped.is_drained));
    std::fs::remove_dir(directory.path()).or_else(|error| match error.kind() {
        // Somebody else runs the example too.
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    Ok(())
}

/// Sends a text twice: in the body, and in a file in memory.
fn call(path: &Path, text: &str) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let client = Client::options().wait_for_server(true).connect(path, deadline)?;
    let mut file = File::from(memfd_create("echo", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    let descriptors = [file.as_fd()];
    let request = Request::new(ECHO, text.as_bytes()).with_descriptors(&descriptors);
    let reply = client.call(request, deadline)?;
    let Some(descriptor) = reply.descriptors.into_iter().next() else {
        return Err("the file did not come back".into());
    };
    let mut came_back = File::from(descriptor);
    let mut in_file = String::new();
    came_back.rewind()?;
    came_back.read_to_string(&mut in_file)?;
    if reply.body != text.as_bytes() || in_file != text {
        return Err("another text came back".into());
    }
    let pid = client.server().pid;
    show(&format!("client: `{text}` came back from pid {pid:?}, in the body and in the file"));
    Ok(())
}

fn show(line: &str) {
    // Nobody may be listening.
    let _ = writeln!(io::stdout(), "{line}");
}
