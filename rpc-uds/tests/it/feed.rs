//! Feeding a decoder as the kernel does: in runs, with descriptors beside some of the bytes.
//!
//! Also a part of the fuzz target `frame`, which includes this file.

use std::cell::Cell;
use std::mem::discriminant;
use std::rc::Rc;

use rpc_uds::{Decoder, Frame, FrameError, FrameLimits};

/// Stands for a descriptor, and counts how many of it there are.
#[derive(Debug)]
pub(crate) struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn open(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What came of a stream.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) frames: Vec<Frame<Counted>>,
    error: Option<FrameError>,
    is_within: bool,
}

impl Decoded {
    /// However a stream is cut the frames are the same.
    pub(crate) fn assert_same(&self, other: &Self, has_descriptors: bool) {
        for (one, other) in self.frames.iter().zip(&other.frames) {
            assert_eq!((one.header, &one.body), (other.header, &other.body));
        }
        // A descriptor too many is seen sooner or later, depending on the runs.
        if !has_descriptors {
            assert_eq!(self.frames.len(), other.frames.len());
            // Which bytes a foreign protocol is known by depends on how many have come.
            let which = |it: &Self| (it.error.as_ref().map(discriminant), it.is_within);
            assert_eq!(which(self), which(other));
        }
    }
}

/// Feeds `stream` in runs of at most `run` bytes; descriptors come with the byte they are given for.
pub(crate) fn feed(
    stream: &[u8],
    places: &[usize],
    limits: FrameLimits,
    run: usize,
    open: &Rc<Cell<usize>>,
) -> Decoded {
    let mut decoder = Decoder::new(limits);
    let mut frames = Vec::new();
    let (mut at, mut given) = (0, 0);
    while at < stream.len() {
        let room = decoder.room();
        assert!(!room.is_empty());
        // The kernel ends a run where other descriptors begin.
        let next = places[given..].iter().find(|place| **place > at).copied();
        let end = next.unwrap_or(stream.len()).min(at + room.len()).min(at.saturating_add(run));
        room[..end - at].copy_from_slice(&stream[at..end]);
        let with = places[given..].iter().take_while(|place| **place < end).count();
        given += with;
        decoder.advance(end - at, (0..with).map(|_| Counted::open(open)));
        at = end;
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    let again = decoder.next().err();
                    assert_eq!(again.as_ref(), Some(&error), "an error stays");
                    return Decoded { frames, error: Some(error), is_within: false };
                }
            }
        }
    }
    let is_within = decoder.is_within_a_frame();
    Decoded { frames, error: None, is_within }
}
