//! Words that only their place and a seed give, so that none can be right by chance.

use cuda_ipc::{Access, Chunk, Context, Copies, Mapping};

use crate::sys::Kernels;

const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
const STEP: u64 = 64 << 20;

fn word(at: u64, seed: u64) -> u64 {
    at.wrapping_mul(FACTOR) ^ seed
}

/// Bytes from a place on.
fn bytes(from: u64, count: u64, seed: u64) -> Vec<u8> {
    (from / 8..(from + count) / 8).flat_map(|at| word(at, seed).to_le_bytes()).collect()
}

/// Writes and compares, by kernels; by copies where the driver takes no kernels.
#[derive(Debug)]
pub(crate) struct Pattern {
    copies: Copies,
    kernels: Option<Kernels>,
    /// Where kernels count.
    counter: Mapping,
}

impl Pattern {
    pub(crate) fn new(context: &Context) -> Self {
        let counter = Chunk::create(context.device(), 8).expect("memory");
        let kernels = Kernels::load(context).map_err(|code| {
            eprintln!("the driver takes no kernels (error {code}): what is read is read by copies");
        });
        Self {
            copies: Copies::new(context).expect("a stream"),
            kernels: kernels.ok(),
            counter: Mapping::open(context, &[&counter], Access::ReadWrite).expect("mapped"),
        }
    }

    /// Fills memory, and waits.
    pub(crate) fn fill(&self, address: u64, length: u64, seed: u64) {
        if let Some(kernels) = &self.kernels {
            kernels.fill(self.copies.stream(), [address, length / 8, seed]);
        } else {
            for at in (0..length).step_by(STEP as usize) {
                let part = bytes(at, STEP.min(length - at), seed);
                self.copies.upload(address + at, &part).expect("copied");
            }
        }
        self.copies.synchronize().expect("done");
    }

    /// How many words are wrong.
    pub(crate) fn wrong(&self, address: u64, length: u64, seed: u64) -> u64 {
        let Some(kernels) = &self.kernels else {
            return self.wrong_by_copies(address, 0, length, seed);
        };
        let counter = self.counter.address();
        self.copies.fill(counter, 0, 8).expect("queued");
        kernels.check(self.copies.stream(), [address, length / 8, seed, counter]);
        let mut found = [0; 8];
        self.copies.download(&mut found, counter).expect("done");
        u64::from_le_bytes(found)
    }

    /// The same for a part, by what the host sees.
    pub(crate) fn wrong_by_copies(&self, address: u64, from: u64, length: u64, seed: u64) -> u64 {
        let mut wrong = 0;
        for at in (from..from + length).step_by(STEP as usize) {
            let right = bytes(at, STEP.min(from + length - at), seed);
            let mut found = vec![0; right.len()];
            self.copies.download(&mut found, address + at).expect("copied");
            if found != right {
                let pairs = found.chunks(8).zip(right.chunks(8));
                wrong += pairs.filter(|(one, other)| one != other).count() as u64;
            }
        }
        wrong
    }
}
