//! A server lends a table; clients in other processes read it where it lies, and one of them is killed.
//!
//! `cargo run -p shared-tensor --example lend_table`

#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shared_tensor::service::{
    Address, Call, Client, Device, Endpoint, Id, Provider, Server, Tensor, Value,
};

const ROWS: u64 = 4 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let base = std::env::var("LEND_TABLE_BASE");
    match (std::env::args().nth(1).as_deref(), base) {
        (Some("client"), Ok(base)) => client(&Address::new(base, Device::Cpu)),
        _ => server(),
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

fn server() -> Result<(), Box<dyn Error>> {
    let table = |call: &Call| {
        println!("server: building {} MiB, once", ROWS >> 17);
        let table = Tensor::zeros(call.arena(), shared_tensor::DType::F64, [ROWS])?;
        table.view::<f64>()?.fill(1.0)?;
        Ok(table)
    };
    let provider = Provider::new().with(Endpoint::new("table", table).managed(true));
    let base = std::env::temp_dir().join(format!("lend-table-{}", std::process::id()));
    let address = Address::new(&base, Device::Cpu);
    let server = Server::options().serve(&address, &provider)?;
    println!("server: at {}", server.path().display());

    let mut clients: Vec<Child> = (0..3)
        .map(|_| {
            Command::new(std::env::current_exe()?)
                .arg("client")
                .env("LEND_TABLE_BASE", &base)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
        })
        .collect::<Result<_, _>>()?;
    let mut object = None;
    for client in &mut clients {
        let output = client.stdout.take().ok_or("a pipe")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        println!("client {}: {}", client.id(), line.trim_end());
        object = line.split_whitespace().next_back().and_then(Id::parse);
    }
    let object = object.ok_or("an object")?;
    let own = Client::at(address);
    let leases = || -> Result<u64, shared_tensor::service::Error> {
        Ok(own.object_info(object, PATIENCE)?.map_or(0, |info| info.refcount))
    };
    println!("server: {} leases", leases()?);

    clients[0].kill()?;
    clients[0].wait()?;
    while leases()? == 3 {
        std::thread::yield_now();
    }
    println!("server: client {} was killed, {} leases are left", clients[0].id(), leases()?);
    for client in &mut clients[1..] {
        // A client ends with its input.
        drop(client.stdin.take());
        client.wait()?;
    }
    while leases()? > 0 {
        std::thread::yield_now();
    }
    let stats = server.info();
    let misses = stats.get("stats").and_then(|it| it.get("cache_misses")).and_then(Value::as_int);
    println!("server: nobody holds it, so it is gone; it was built {} time", misses.unwrap_or(0));
    let stopped = server.stop(Duration::from_secs(10))?;
    println!("server: stopped, drained: {}", stopped.is_drained);
    Ok(())
}

fn client(address: &Address) -> Result<(), Box<dyn Error>> {
    let client = Client::at(address.clone());
    let begun = Instant::now();
    let answer = client.call("table", (), PATIENCE)?;
    let took = begun.elapsed();
    let table: &Tensor = (&answer.value).try_into()?;
    let sum: f64 = table.view::<f64>()?.iter().sum();
    let object = answer.handle.ok_or("a handle")?.object;
    println!("got {} MiB in {took:.1?}, their sum is {sum}, object {object}", ROWS >> 17);
    // Held until whoever started this lets go of it.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}
