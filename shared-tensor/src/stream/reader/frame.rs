//! A frame, copied out.

use crate::error::{Error, ErrorKind, Result};
use crate::stream::description::Publication;
use crate::tensor::{DType, Element};

/// A frame and what is known about it.
#[derive(Clone, Debug)]
pub struct Frame {
    pub(super) bytes: Vec<u8>,
    pub(super) dtype: DType,
    pub(super) publication: Publication,
}

impl Frame {
    /// The frame's bytes, row-major.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The frame's bytes, without another copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Which frame this is.
    pub fn publication(&self) -> &Publication {
        &self.publication
    }

    /// The frame's elements.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if `T` is not the stream's element type.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if T::DTYPE != self.dtype {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("the frame has elements of {}, not {}", self.dtype, T::DTYPE),
            ));
        }
        let mut elements = vec![T::new_zeroed(); self.bytes.len() / size_of::<T>()];
        zerocopy::IntoBytes::as_mut_bytes(elements.as_mut_slice()).copy_from_slice(&self.bytes);
        Ok(elements)
    }
}
