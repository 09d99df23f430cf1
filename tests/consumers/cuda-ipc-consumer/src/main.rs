//! A project that uses cuda-ipc alone: a list of the GPUs, and a cache of one value on the first of them,
//! or the reason why there is none. It exits with an error if anything is wrong.

use std::error::Error;
use std::time::{Duration, Instant};

use cuda_ipc::{Access, Chunk, Context, Copies, DriverError, Mapping, Words, flush, probe, usage};

/// A value on a device, with a count of how often it was written.
struct Cell {
    mapping: Mapping,
    copies: Copies,
    words: Words,
}

impl Cell {
    fn new(context: &Context, bytes: u64) -> Result<Self, Box<dyn Error>> {
        let chunk = Chunk::create(context.device(), bytes)?;
        Ok(Self {
            mapping: Mapping::open(context, &[&chunk], Access::ReadWrite)?,
            copies: Copies::new(context)?,
            words: Words::create(1)?,
        })
    }

    fn set(&self, value: &[u8]) -> Result<(), Box<dyn Error>> {
        self.copies.upload(self.mapping.address(), value)?;
        self.words.release(0, self.words.load(0) + 1);
        Ok(())
    }

    fn get(&self, length: usize) -> Result<Vec<u8>, Box<dyn Error>> {
        let mut value = vec![0; length];
        self.copies.download(&mut value, self.mapping.address())?;
        Ok(value)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let driver = match probe() {
        Ok(driver) => driver,
        Err(DriverError::Absent(reason)) => {
            println!("no GPU here: {reason}");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    for device in driver.devices()? {
        println!("{}: {}, {} MiB", device.uuid(), device.name(), device.memory_bytes() >> 20);
    }
    let cell = Cell::new(&driver.device_at(0)?.context()?, 1 << 20)?;
    for value in ["first", "again"] {
        cell.set(value.as_bytes())?;
        assert_eq!(cell.get(5)?, value.as_bytes());
    }
    assert_eq!(cell.words.load(0), 2);
    drop(cell);
    assert!(flush(Instant::now() + Duration::from_secs(60)));
    assert_eq!(usage().mappings, 0);
    println!("a value was written, read and let go of");
    Ok(())
}
