//! Elements as slices, for those who know that nobody writes to them (S5).

use std::slice;

use crate::service::{TensorError, TensorView};
use crate::tensor::Element;

impl<T: Element> TensorView<T> {
    /// The elements in place, as a slice.
    ///
    /// # Safety
    /// As long as the slice lives, nobody writes to these elements: no thread of this process, through
    /// whichever view, and no other process that may. A result of an endpoint that is cached or
    /// managed, and not writable, is written to by nobody but its server; what a private view holds of
    /// pages that were not stored to is the server's memory, too.
    ///
    /// # Errors
    /// [`TensorError::NotContiguous`], if they do not lie one after the other.
    pub unsafe fn as_slice(&self) -> Result<&[T], TensorError> {
        let (start, count) = self.run()?;
        let Some(bytes) = self.storage().bytes().filter(|_| count > 0) else { return Ok(&[]) };
        let first = bytes.as_ptr().wrapping_add(start).cast::<T>();
        // SAFETY: S5; the elements lie in the storage, whose mapping `self` keeps, and any bytes are
        // a `T`; the caller answers for writers.
        Ok(unsafe { slice::from_raw_parts(first, count) })
    }

    /// The elements in place, as a slice to write to.
    ///
    /// # Safety
    /// As long as the slice lives, nobody else writes to these elements or reads them, here or in
    /// another process.
    ///
    /// # Errors
    /// [`TensorError::NotContiguous`] if they do not lie one after the other, and
    /// [`TensorError::ReadOnly`] if they are mapped so.
    pub unsafe fn as_mut_slice(&mut self) -> Result<&mut [T], TensorError> {
        let (start, count) = self.run()?;
        self.check_writable()?;
        let Some(bytes) = self.storage().bytes().filter(|_| count > 0) else { return Ok(&mut []) };
        let first = bytes.as_ptr().wrapping_add(start).cast::<T>();
        // SAFETY: S5; as above, over a mapping that can be written to; the caller answers for there
        // being nobody else.
        Ok(unsafe { slice::from_raw_parts_mut(first, count) })
    }
}

#[cfg(test)]
mod tests {
    use crate::service::{Access, Arena, Tensor, TensorError};

    #[test]
    fn slices_are_the_memory_itself() {
        let base = Tensor::from_slice(&Arena::new(), [2, 2], &[1_u64, 2, 3, 4]).unwrap();
        let mut row = base.row(1).unwrap().view::<u64>().unwrap();
        // SAFETY: nobody else knows of this memory.
        unsafe { row.as_mut_slice() }.unwrap()[0] = 30;
        let all = base.view::<u64>().unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { all.as_slice() }.unwrap(), [1, 2, 30, 4]);
        let empty = base.narrow(0, 0..0).unwrap().view::<u64>().unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { empty.as_slice() }.unwrap(), [0_u64; 0]);
        let mut read_only = base.view_as::<u64>(Access::ReadOnly).unwrap();
        // SAFETY: as above.
        let refused = unsafe { read_only.as_mut_slice() };
        assert!(matches!(refused, Err(TensorError::ReadOnly { .. })));
    }

    #[test]
    fn elements_with_gaps_are_no_slice() {
        let base = Tensor::from_slice(&Arena::new(), [2, 2], &[1_u64, 2, 3, 4]).unwrap();
        let column = base.select(1, 0).unwrap().view::<u64>().unwrap();
        // SAFETY: nobody else knows of this memory.
        let refused = unsafe { column.as_slice() }.unwrap_err().to_string();
        let wanted = "a tensor of uint64 with the shape [2] and the strides [2] is no slice";
        assert!(refused.starts_with(wanted), "{refused}");
    }
}
