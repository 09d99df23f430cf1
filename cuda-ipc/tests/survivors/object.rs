//! Chunks filled with the pattern of one seed, as they travel.

use std::os::unix::net::UnixStream;

use cuda_ipc::Chunk;

use crate::parcel;

#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) seed: u64,
    pub(crate) chunks: Vec<Chunk>,
}

impl Object {
    pub(crate) fn send(&self, socket: &UnixStream) {
        parcel::send(socket, &encode([self.seed, self.chunks.len() as u64]), &[]);
        for chunk in &self.chunks {
            parcel::send_chunk(socket, chunk);
        }
    }

    pub(crate) fn receive(socket: &UnixStream) -> Self {
        let [seed, count] = numbers(socket).expect("an object");
        let chunks = (0..count).map(|_| parcel::receive_chunk(socket)).collect();
        Self { seed, chunks }
    }
}

fn encode(numbers: [u64; 2]) -> [u8; 16] {
    let mut form = [0; 16];
    form[..8].copy_from_slice(&numbers[0].to_le_bytes());
    form[8..].copy_from_slice(&numbers[1].to_le_bytes());
    form
}

pub(crate) fn send_numbers(socket: &UnixStream, numbers: [u64; 2]) {
    parcel::send(socket, &encode(numbers), &[]);
}

/// Two numbers, or none at the end.
pub(crate) fn numbers(socket: &UnixStream) -> Option<[u64; 2]> {
    let mut form = [0; 16];
    parcel::receive(socket, &mut form)?;
    let number = |at: usize| u64::from_le_bytes(form[at..at + 8].try_into().expect("eight bytes"));
    Some([number(0), number(8)])
}
