//! Numbers and texts as bytes: seven bits a byte, lengths in front.

use super::DecodeError;

#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// Signed numbers near zero are short, too.
    pub(crate) fn signed(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63).cast_unsigned());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(DecodeError::Cut)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(DecodeError::Number);
            }
            number |= bits << shift;
            if byte < 0x80 {
                // One form per number, so that equal values have equal bytes.
                return if byte == 0 && shift > 0 { Err(DecodeError::Number) } else { Ok(number) };
            }
        }
        Err(DecodeError::Number)
    }

    pub(crate) fn signed(&mut self) -> Result<i64, DecodeError> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
    }

    /// A count of things of at least `bytes` bytes each: more than can follow is refused before
    /// anything is set aside for them.
    pub(crate) fn count(&mut self, bytes: usize) -> Result<usize, DecodeError> {
        let count = self.number()?;
        let limit = self.0.len() / bytes.max(1);
        usize::try_from(count).ok().filter(|count| *count <= limit).ok_or(DecodeError::Cut)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let count = self.count(1)?;
        self.take(count)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(number in any::<u64>(), signed in any::<i64>(), small in 0_u64..300) {
            let mut writer = Writer::default();
            writer.number(number);
            writer.signed(signed);
            writer.number(small);
            let mut reader = Reader::new(&writer.0);
            prop_assert_eq!(reader.number(), Ok(number));
            prop_assert_eq!(reader.signed(), Ok(signed));
            prop_assert_eq!(reader.number(), Ok(small));
            prop_assert!(reader.is_at_end());
        }
    }

    #[test]
    fn hostile_numbers_are_refused() {
        for bytes in [&[0x80, 0][..], &[0xff; 10], &[0xff; 11]] {
            assert_eq!(Reader::new(bytes).number(), Err(DecodeError::Number), "{bytes:x?}");
        }
        assert_eq!(Reader::new(&[0x80]).number(), Err(DecodeError::Cut));
        assert_eq!(Reader::new(&[200, 1, 0]).bytes(), Err(DecodeError::Cut));
        assert_eq!(Reader::new(&[1, 0xff]).text(), Err(DecodeError::Text));
    }
}
