//! What is said between those who ask for a chunk and those who hold it.
//!
//! A question is a protocol number and a subject, a reply one [`Reply`], both in postcard's encoding: enums
//! only grow at their end, structures never change, bytes left over are an error. A question of another
//! protocol is answered with the one that is spoken, whatever follows the number. A golden file holds the
//! bytes.

use cuda_ipc::{ChunkId, ChunkLabel, Uuid};
use serde::{Deserialize, Serialize};
use shm_core::Generation;

use super::Subject;

/// What is spoken here.
pub(super) const PROTOCOL: u16 = 1;
/// The tag of questions and replies. No server of the service has a request of this number.
pub(super) const ASK: u16 = 0x4853;

/// The tag of a question without a body, which no release answers with anything to read: whether the contexts of
/// whoever is asked are lost. What comes of it is said in the stream's file.
pub(super) const CONTEXTS: u16 = 0x4854;

/// A [`Subject`] on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SubjectEntry {
    generation: [u8; 16],
    chunk: [u8; 16],
    device: [u8; 16],
    bytes: u64,
}

/// What a holder says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// Here it is: one descriptor comes with this.
    Here(SubjectEntry),
    /// It is not handed out here, or not any more.
    NotHere,
    /// The question is of another protocol than this one, which is spoken here.
    Protocol(u16),
    /// The question cannot be read.
    Unread,
}

impl From<Subject> for SubjectEntry {
    fn from(Subject { generation, label }: Subject) -> Self {
        Self {
            generation: generation.to_bytes(),
            chunk: label.id().to_bytes(),
            device: label.device().to_bytes(),
            bytes: label.bytes(),
        }
    }
}

impl From<SubjectEntry> for Subject {
    fn from(entry: SubjectEntry) -> Self {
        let SubjectEntry { generation, chunk, device, bytes } = entry;
        let (id, device) = (ChunkId::from_bytes(chunk), Uuid::from_bytes(device));
        let label = ChunkLabel::new(id, device, bytes);
        Self { generation: Generation::from_bytes(generation), label }
    }
}

pub(super) fn encode_question(subject: &Subject) -> Vec<u8> {
    encode(&(PROTOCOL, SubjectEntry::from(*subject)))
}

/// Reads a question, or says what to answer to what is none.
pub(super) fn decode_question(bytes: &[u8]) -> Result<Subject, Reply> {
    let (protocol, rest) = postcard::take_from_bytes::<u16>(bytes).map_err(|_| Reply::Unread)?;
    if protocol != PROTOCOL {
        return Err(Reply::Protocol(PROTOCOL));
    }
    match postcard::take_from_bytes::<SubjectEntry>(rest) {
        Ok((entry, [])) => Ok(entry.into()),
        _ => Err(Reply::Unread),
    }
}

impl Reply {
    pub(super) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// `None` for what is no reply, or one of a later release.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        match postcard::take_from_bytes(bytes) {
            Ok((reply, [])) => Some(reply),
            _ => None,
        }
    }
}

fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Encoding into memory fails only for types that refuse to be encoded.
    postcard::to_allocvec(message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    fn subject() -> Subject {
        let label = ChunkLabel::new(ChunkId::from_bytes([2; 16]), Uuid::from_bytes([3; 16]), 4096);
        Subject { generation: Generation::from_bytes([1; 16]), label }
    }

    #[test]
    fn messages_are_those_of_the_golden_file() {
        let said = [
            ("question", encode_question(&subject())),
            ("here", Reply::Here(subject().into()).encode()),
            ("not here", Reply::NotHere.encode()),
            ("protocol", Reply::Protocol(PROTOCOL).encode()),
            ("unread", Reply::Unread.encode()),
        ];
        let mut text = String::new();
        for (name, bytes) in said {
            write!(text, "{name} ").unwrap();
            for byte in bytes {
                write!(text, "{byte:02x}").unwrap();
            }
            text.push('\n');
        }
        assert_eq!(text, include_str!("golden/messages-v1.txt"), "only ever added to");
        assert_eq!(decode_question(&encode_question(&subject())), Ok(subject()));
    }

    #[test]
    fn stumps_surplus_and_other_protocols_are_told() {
        let question = encode_question(&subject());
        for end in 0..question.len() {
            assert_eq!(decode_question(&question[..end]), Err(Reply::Unread), "cut at {end}");
        }
        let longer = [&question[..], &[0]].concat();
        assert_eq!(decode_question(&longer), Err(Reply::Unread));
        // A later protocol may put anything behind its number.
        assert_eq!(decode_question(&[2, 255]), Err(Reply::Protocol(1)));
        assert_eq!(Reply::decode(&[4]), None, "of a later release");
        assert_eq!(Reply::decode(&[1, 0]), None);
    }

    proptest! {
        #[test]
        fn noise_is_an_error_or_a_message(
            first in 0_u8..6,
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let bytes = [&[first], &bytes[..]].concat();
            if let Ok(subject) = decode_question(&bytes) {
                prop_assert_eq!(decode_question(&encode_question(&subject)), Ok(subject));
            }
            if let Some(reply) = Reply::decode(&bytes) {
                prop_assert_eq!(Reply::decode(&reply.encode()), Some(reply));
            }
        }

        #[test]
        fn subjects_travel(
            (generation, id, device) in any::<([u8; 16], [u8; 16], [u8; 16])>(),
            bytes in any::<u64>(),
        ) {
            let label = ChunkLabel::new(ChunkId::from_bytes(id), Uuid::from_bytes(device), bytes);
            let subject = Subject { generation: Generation::from_bytes(generation), label };
            prop_assert_eq!(decode_question(&encode_question(&subject)), Ok(subject));
        }
    }
}
