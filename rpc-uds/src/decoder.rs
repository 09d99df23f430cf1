//! Bytes in, frames out: no socket, no clock.
//!
//! The kernel hands over descriptors beside a run of bytes, and says no more than that they came
//! with one byte of that run. So each descriptor is kept with the run it came with, and a frame may
//! claim it only if the frame's first byte lies in that run. Descriptors that no later frame can
//! claim are surplus; a frame whose first byte came without what it announces misses some. Either
//! is an error, and dropping the decoder closes whatever it still holds.

use std::collections::VecDeque;

use crate::error::FrameError;
use crate::frame::{Frame, FrameLimits, HEADER_BYTES, Header};

/// How much is read ahead.
const BUFFER_BYTES: usize = 8 * 1024;
/// How much of a body there is room for before any of it has come.
const STEP_BYTES: usize = 64 * 1024;

/// Puts frames together from runs of bytes.
#[derive(Debug)]
pub struct Decoder<F> {
    limits: FrameLimits,
    buffer: Box<[u8]>,
    /// What is in `buffer` and not yet decoded.
    start: usize,
    end: usize,
    /// How many bytes of the stream were decoded: where in it `start` is.
    decoded: u64,
    arrived: VecDeque<Arrived<F>>,
    body: Option<Body<F>>,
    error: Option<FrameError>,
}

#[derive(Debug)]
struct Arrived<F> {
    descriptor: F,
    /// The run of the stream's bytes that it came with.
    from: u64,
    to: u64,
}

/// A frame whose header is known.
#[derive(Debug)]
struct Body<F> {
    header: Header,
    descriptors: Vec<F>,
    bytes: Vec<u8>,
    filled: usize,
}

impl<F> Body<F> {
    fn missing(&self) -> usize {
        self.header.body_bytes as usize - self.filled
    }
}

impl<F> Decoder<F> {
    /// A decoder at the beginning of a stream.
    pub fn new(limits: FrameLimits) -> Self {
        Self {
            limits,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            decoded: 0,
            arrived: VecDeque::new(),
            body: None,
            error: None,
        }
    }

    /// Where the next bytes go; never empty. Tell with [`advance`](Self::advance) how many came.
    pub fn room(&mut self) -> &mut [u8] {
        if let Some(body) = &mut self.body {
            let missing = body.missing();
            if missing > 0 && self.start == self.end {
                let step = missing.min(STEP_BYTES);
                body.bytes.resize(body.filled + step, 0);
                return &mut body.bytes[body.filled..];
            }
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.buffer[self.end..]
    }

    /// Takes note that `count` bytes were written to the beginning of [`room`](Self::room), and that
    /// `descriptors` came with them.
    pub fn advance(&mut self, count: usize, descriptors: impl IntoIterator<Item = F>) {
        let from = self.received();
        match &mut self.body {
            Some(body) if body.missing() > 0 && self.start == self.end => {
                body.filled += count;
                self.decoded += count as u64;
            }
            _ => self.end += count,
        }
        let to = from + count as u64;
        let arrived = |descriptor| Arrived { descriptor, from, to };
        self.arrived.extend(descriptors.into_iter().map(arrived));
    }

    /// How many bytes of the stream have come.
    fn received(&self) -> u64 {
        self.decoded + (self.end - self.start) as u64
    }

    /// The next whole frame; `None` until more bytes have come.
    ///
    /// # Errors
    ///
    /// The stream is not made of frames as agreed. It stays so: every later call says the same.
    #[expect(clippy::should_implement_trait, reason = "an iterator does not go on after `None`")]
    pub fn next(&mut self) -> Result<Option<Frame<F>>, FrameError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let next = self.decode();
        if let Err(error) = &next {
            self.error = Some(error.clone());
            self.arrived.clear();
            self.body = None;
        }
        next
    }

    fn decode(&mut self) -> Result<Option<Frame<F>>, FrameError> {
        if self.body.is_none() && !self.begin()? {
            return Ok(None);
        }
        let Some(body) = &mut self.body else { return Ok(None) };
        let taken = body.missing().min(self.end - self.start);
        if taken > 0 {
            body.bytes.truncate(body.filled);
            body.bytes.extend_from_slice(&self.buffer[self.start..self.start + taken]);
            body.filled += taken;
            self.start += taken;
            self.decoded += taken as u64;
        }
        let next_frame = self.decoded + body.missing() as u64;
        if body.missing() > 0 {
            self.none_beyond_reach(next_frame)?;
            return Ok(None);
        }
        let Some(Body { header, descriptors, mut bytes, filled }) = self.body.take() else {
            return Ok(None);
        };
        bytes.truncate(filled);
        self.none_beyond_reach(next_frame)?;
        Ok(Some(Frame { header, body: bytes, descriptors }))
    }

    /// Decodes a header, if it is there.
    fn begin(&mut self) -> Result<bool, FrameError> {
        let bytes = &self.buffer[self.start..self.end];
        // A foreign protocol need not be as long as a header to be recognised.
        let known = bytes.len().min(4);
        if bytes[..known] != crate::frame::MAGIC[..known] {
            let mut found = [0; 4];
            found[..known].copy_from_slice(&bytes[..known]);
            return Err(FrameError::Magic { found });
        }
        let Some((bytes, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            self.none_beyond_reach(self.decoded)?;
            self.none_within_header()?;
            return Ok(false);
        };
        let header = Header::decode(bytes, self.limits)?;
        let first_byte = self.decoded;
        self.none_beyond_reach(first_byte)?;
        let announced = usize::from(header.descriptors);
        let came = self.arrived.iter().take(announced).filter(|it| it.from <= first_byte).count();
        if came < announced {
            return Err(FrameError::MissingDescriptors { announced: header.descriptors, came });
        }
        let descriptors = self.arrived.drain(..announced).map(|it| it.descriptor).collect();
        self.start += HEADER_BYTES;
        self.decoded += HEADER_BYTES as u64;
        let at_first = (header.body_bytes as usize).min(STEP_BYTES);
        let bytes = Vec::with_capacity(at_first);
        self.body = Some(Body { header, descriptors, bytes, filled: 0 });
        Ok(true)
    }

    /// No descriptor is left that came before the byte at which the next frame begins.
    fn none_beyond_reach(&self, next_frame: u64) -> Result<(), FrameError> {
        let count = self.arrived.iter().take_while(|it| it.to <= next_frame).count();
        if count == 0 { Ok(()) } else { Err(FrameError::SurplusDescriptors { count }) }
    }

    /// No descriptor came with a byte of the header but the first: neither this frame nor the next
    /// could claim it, and a header that trickles could gather many.
    fn none_within_header(&self) -> Result<(), FrameError> {
        let header_end = self.decoded + HEADER_BYTES as u64;
        let is_within = |it: &&Arrived<F>| it.from > self.decoded && it.to <= header_end;
        let count = self.arrived.iter().filter(is_within).count();
        if count == 0 { Ok(()) } else { Err(FrameError::SurplusDescriptors { count }) }
    }

    /// Whether part of a frame has come.
    pub fn is_within_a_frame(&self) -> bool {
        self.body.is_some() || self.start < self.end
    }

    /// The bytes that have come and are not decoded, for recognising a foreign protocol.
    pub(crate) fn undecoded(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(crate) fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;
    use crate::frame::Kind;

    fn decode_all<F>(decoder: &mut Decoder<F>, into: &mut Vec<Frame<F>>) -> Result<(), FrameError> {
        while let Some(frame) = decoder.next()? {
            into.push(frame);
        }
        Ok(())
    }

    /// Feeds `bytes` in runs that end at `cuts`; each descriptor comes with the byte it is given for.
    fn feed<F>(
        bytes: &[u8],
        mut descriptors: Vec<(usize, F)>,
        cuts: &[usize],
        limits: FrameLimits,
    ) -> Result<Vec<Frame<F>>, FrameError> {
        let mut decoder = Decoder::new(limits);
        let mut frames = Vec::new();
        let mut at = 0;
        let ends: Vec<usize> = cuts.iter().copied().chain([bytes.len()]).collect();
        for end in ends {
            while at < end {
                let room = decoder.room();
                let count = room.len().min(end - at);
                room[..count].copy_from_slice(&bytes[at..at + count]);
                let with: Vec<F> = {
                    let (now, later): (Vec<_>, Vec<_>) =
                        descriptors.into_iter().partition(|(byte, _)| *byte < at + count);
                    descriptors = later;
                    now.into_iter().map(|(_, descriptor)| descriptor).collect()
                };
                decoder.advance(count, with);
                at += count;
                decode_all(&mut decoder, &mut frames)?;
            }
        }
        assert!(
            decoder.body.is_some() || decoder.is_within_a_frame() || decoder.arrived.is_empty()
        );
        Ok(frames)
    }

    fn encode(frames: &[Frame<u32>]) -> (Vec<u8>, Vec<(usize, u32)>) {
        let (mut bytes, mut descriptors) = (Vec::new(), Vec::new());
        for frame in frames {
            descriptors.extend(frame.descriptors.iter().map(|it| (bytes.len(), *it)));
            bytes.extend(frame.header.encode());
            bytes.extend(&frame.body);
        }
        (bytes, descriptors)
    }

    fn frame() -> impl Strategy<Value = Frame<u32>> {
        let body = prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 0..64),
            1 => (0_usize..200_000).prop_map(|length| vec![7; length]),
        ];
        let descriptors = proptest::collection::vec(any::<u32>(), 0..4);
        (1_u16..5, any::<u16>(), body, descriptors, any::<u64>()).prop_map(
            |(kind, tag, body, descriptors, id)| {
                let kind = match kind {
                    1 => Kind::Control,
                    2 => Kind::Request,
                    3 => Kind::Reply,
                    _ => Kind::Push,
                };
                let header = Header {
                    kind,
                    tag,
                    descriptors: descriptors.len() as u8,
                    body_bytes: body.len() as u32,
                    id,
                };
                Frame { header, body, descriptors }
            },
        )
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            frames in proptest::collection::vec(frame(), 0..6),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let (bytes, descriptors) = encode(&frames);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(feed(&bytes, descriptors, &cuts, FrameLimits::default()), Ok(frames));
        }

        #[test]
        fn every_byte_by_itself_gives_the_same_frames(
            frames in proptest::collection::vec(frame(), 0..3),
        ) {
            let (bytes, descriptors) = encode(&frames);
            prop_assume!(bytes.len() < 2000);
            let cuts: Vec<usize> = (0..bytes.len()).collect();
            prop_assert_eq!(feed(&bytes, descriptors, &cuts, FrameLimits::default()), Ok(frames));
        }

        #[test]
        fn hostile_bytes_are_an_error_or_frames_within_limits(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            begins_well in any::<bool>(),
            given in proptest::collection::vec(0_usize..200, 0..5),
            cuts in proptest::collection::vec(0_usize..200, 0..5),
        ) {
            if begins_well && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(b"UDSf\x01\0\x02\0");
            }
            let limits = FrameLimits { body_bytes_max: 64, descriptors_max: 2 };
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let open = Rc::new(Cell::new(0));
            let descriptors = given
                .into_iter()
                .filter(|at| *at < bytes.len())
                .map(|at| (at, Counted::open(&open)))
                .collect();
            if let Ok(frames) = feed(&bytes, descriptors, &cuts, limits) {
                for frame in &frames {
                    prop_assert!(frame.body.len() <= 64 && frame.descriptors.len() <= 2);
                    prop_assert!(frame.body.capacity() <= 64);
                }
            }
            prop_assert_eq!(open.get(), 0);
        }

        #[test]
        fn one_mutation_is_an_error_or_another_frame_and_leaks_nothing(
            frames in proptest::collection::vec(frame(), 1..4),
            at in any::<prop::sample::Index>(),
            to in any::<u8>(),
        ) {
            let (mut bytes, descriptors) = encode(&frames);
            let at = at.index(bytes.len());
            bytes[at] = to;
            let open = Rc::new(Cell::new(0));
            let counted =
                descriptors.into_iter().map(|(byte, _)| (byte, Counted::open(&open))).collect();
            let limits = FrameLimits::default();
            if let Ok(frames) = feed(&bytes, counted, &[], limits) {
                for frame in frames {
                    prop_assert!(frame.body.len() <= limits.body_bytes_max as usize);
                    prop_assert_eq!(frame.body.len(), frame.header.body_bytes as usize);
                }
            }
            prop_assert_eq!(open.get(), 0);
        }
    }

    /// Counts how many of it there are.
    #[derive(Debug)]
    struct Counted(Rc<Cell<i32>>);

    impl Counted {
        fn open(count: &Rc<Cell<i32>>) -> Self {
            count.set(count.get() + 1);
            Self(Rc::clone(count))
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }

    fn request(descriptors: u8, body: &[u8]) -> Vec<u8> {
        let header = Header {
            kind: Kind::Request,
            tag: 0,
            descriptors,
            body_bytes: body.len() as u32,
            id: 1,
        };
        [&header.encode()[..], body].concat()
    }

    #[test]
    fn descriptors_are_counted() {
        let limits = FrameLimits::default();
        let one = request(1, b"body");
        assert_eq!(
            feed::<u32>(&one, vec![], &[], limits),
            Err(FrameError::MissingDescriptors { announced: 1, came: 0 })
        );
        assert_eq!(
            feed(&one, vec![(0, 5), (0, 6)], &[], limits),
            Err(FrameError::SurplusDescriptors { count: 1 })
        );
        // With a byte of the body, in a run of its own: too late.
        assert_eq!(
            feed(&one, vec![(25, 5)], &[25], limits),
            Err(FrameError::MissingDescriptors { announced: 1, came: 0 })
        );
        let none = request(0, b"body");
        assert_eq!(
            feed(&none, vec![(26, 5)], &[25], limits),
            Err(FrameError::SurplusDescriptors { count: 1 })
        );
        // With the second byte of the header, when the first has come alone.
        assert_eq!(
            feed(&one, vec![(1, 5)], &[1], limits),
            Err(FrameError::MissingDescriptors { announced: 1, came: 0 })
        );
        assert_eq!(
            feed(&one[..9], vec![(1, 5)], &[1, 2], limits),
            Err(FrameError::SurplusDescriptors { count: 1 })
        );
    }

    #[test]
    fn an_announced_body_is_not_allocated_before_it_comes() {
        let header =
            Header { kind: Kind::Request, tag: 0, descriptors: 0, body_bytes: 1 << 30, id: 1 };
        let limits = FrameLimits { body_bytes_max: 1 << 30, descriptors_max: 0 };
        let mut decoder: Decoder<u32> = Decoder::new(limits);
        decoder.room()[..HEADER_BYTES].copy_from_slice(&header.encode());
        decoder.advance(HEADER_BYTES, []);
        assert_eq!(decoder.next(), Ok(None));
        assert!(decoder.room().len() <= STEP_BYTES);
        assert!(decoder.body.as_ref().is_some_and(|body| body.bytes.capacity() <= STEP_BYTES));
    }

    #[test]
    fn an_error_stays() {
        let mut decoder: Decoder<u32> = Decoder::new(FrameLimits::default());
        decoder.room()[..4].copy_from_slice(b"\0\0\0\x0e");
        decoder.advance(4, []);
        let error = decoder.next();
        assert_eq!(error, Err(FrameError::Magic { found: [0, 0, 0, 14] }));
        assert_eq!(decoder.next(), error);
    }
}
