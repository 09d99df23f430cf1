//! Frames on one GPU that another one reads and writes.

use cuda_ipc::{Context, Copies, probe};
use shared_tensor::stream::{OnFull, ReaderOptions, Source, Stamp};

use crate::frames::{BYTES, Beside, Ground};
use crate::harness::{Outcome, Skip, tests};
use crate::peer::Peer;
use crate::support::watchdog;

tests![another_gpu_reads_and_writes, a_process_without_the_gpu_reads];

/// A second GPU that reaches the first one's memory.
fn second() -> Result<Context, Skip> {
    let driver = probe().unwrap();
    if driver.devices().unwrap().len() < 2 {
        return Err(Skip("needs two GPUs".to_owned()));
    }
    let [first, second] = [0, 1].map(|at| driver.device_at(at).unwrap());
    if !second.can_access(&first).unwrap() || !first.can_access(&second).unwrap() {
        return Err(Skip("needs two GPUs that reach each other's memory".to_owned()));
    }
    Ok(second.context().unwrap())
}

fn another_gpu_reads_and_writes() -> Outcome {
    let other = second()?;
    let mut ground = Ground::new(4);
    let writer = ground.stream.writer_on(&other, &watchdog()).unwrap();
    let options = ReaderOptions::default();
    let mut reader = ground.stream.reader_on(&other, options, &watchdog()).unwrap();
    let (work, beside) = (Copies::new(&other).unwrap(), Beside::new(&other));
    let queue = std::sync::Arc::new(other.stream().unwrap());
    for value in (1..=40_u8).step_by(2) {
        // From the first to the second, copied and in place.
        ground.write(value);
        reader.latest_into(work.stream(), beside.at(1), &watchdog()).unwrap();
        let mut found = vec![0; BYTES];
        work.download(&mut found, beside.at(1)).unwrap();
        assert_eq!(found, [value; BYTES]);
        let lease = reader.lease(&queue, OnFull::Copy, &watchdog()).unwrap();
        other.copy(&queue, beside.at(2), lease.address(), BYTES as u64).unwrap();
        drop(lease);
        other.synchronize(&queue).unwrap();
        work.download(&mut found, beside.at(2)).unwrap();
        assert_eq!(found, [value; BYTES]);
        // And back.
        work.fill(beside.at(0), value + 1, BYTES as u64).unwrap();
        let source = Source::Device(beside.at(0));
        writer.write(work.stream(), source, &Stamp::default(), &watchdog()).unwrap();
        ground.read(1);
        assert_eq!(ground.found(1), [value + 1; BYTES]);
    }
    work.synchronize().unwrap();
    drop((writer, reader, work, beside, queue));
    ground.end();
    Ok(())
}

/// It sees the other GPU alone.
fn a_process_without_the_gpu_reads() -> Outcome {
    second()?;
    let mut ground = Ground::new(4);
    ground.write(7);
    let mut peer = Peer::start_seeing(&ground.scratch, "1");
    assert_eq!((peer.ask("open"), peer.ask("read")), ("opened".into(), "7".into()));
    assert_eq!(peer.ask("write 8"), "2");
    ground.read(1);
    assert_eq!(ground.found(1), [8; BYTES]);
    drop(peer);
    ground.end();
    Ok(())
}
