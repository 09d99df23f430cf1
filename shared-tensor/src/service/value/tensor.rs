//! Elements in a storage.

use std::ops::Range;

use thiserror::Error;

use super::{Arena, Layout, RegionError, Storage, TensorView};
use crate::service::region::Access;
use crate::tensor::{DType, Element};

/// A view of a storage: element type, sizes, strides and where it begins.
///
/// It was checked when it was made: every element lies in the storage, aligned.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    storage: Storage,
    layout: Layout,
    requires_grad: bool,
}

impl Tensor {
    /// The elements of `storage` that `layout` says.
    ///
    /// # Errors
    /// [`TensorError`], if any of them lies outside.
    pub fn new(storage: Storage, layout: Layout) -> Result<Self, TensorError> {
        layout.check(storage.offset(), storage.bytes())?;
        Ok(Self { storage, layout, requires_grad: false })
    }

    /// A new tensor in `arena` with these elements, row-major.
    ///
    /// # Errors
    /// [`TensorError::Length`] if the shape has another number of elements, and
    /// [`TensorError::Region`] when there is no room.
    pub fn from_slice<T: Element>(
        arena: &Arena,
        shape: impl Into<Vec<u64>>,
        elements: &[T],
    ) -> Result<Self, TensorError> {
        let layout = Layout::contiguous(T::DTYPE, shape);
        if layout.elements() != Some(elements.len() as u64) {
            return Err(TensorError::Length { shape: layout.shape, found: elements.len() });
        }
        let source = zerocopy::IntoBytes::as_bytes(elements);
        let storage = arena.allocate(source.len() as u64)?;
        if let Some(bytes) = storage.view()?.bytes() {
            bytes.write_from(0, source).expect("as many bytes as were allocated");
        }
        Self::new(storage, layout)
    }

    /// A tensor of zeroes in `arena`.
    ///
    /// # Errors
    /// As [`from_slice`](Self::from_slice).
    pub fn zeros(
        arena: &Arena,
        dtype: DType,
        shape: impl Into<Vec<u64>>,
    ) -> Result<Self, TensorError> {
        let layout = Layout::contiguous(dtype, shape);
        let bytes = layout.elements().and_then(|count| count.checked_mul(dtype.bytes() as u64));
        let Some(bytes) = bytes else {
            return Err(TensorError::Outside { layout: Box::new(layout), bytes: u64::MAX });
        };
        Self::new(arena.allocate(bytes)?, layout)
    }

    /// Says that gradients are to be computed for it, which is kept on the way.
    #[must_use]
    pub fn with_requires_grad(self, requires_grad: bool) -> Self {
        Self { requires_grad, ..self }
    }

    /// Whether gradients are to be computed for it.
    pub fn requires_grad(&self) -> bool {
        self.requires_grad
    }

    /// Where its bytes are.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Which of them are its own.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The type of its elements.
    pub fn dtype(&self) -> DType {
        self.layout.dtype
    }

    /// Its sizes.
    pub fn shape(&self) -> &[u64] {
        &self.layout.shape
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.layout.elements().expect("a checked layout")
    }

    /// How many elements lie between neighbours along each dimension.
    pub fn strides(&self) -> &[i64] {
        &self.layout.strides
    }

    /// Bytes of one element.
    pub fn element_bytes(&self) -> usize {
        self.layout.element_bytes()
    }

    /// Whether the elements lie row by row without gaps.
    pub fn is_contiguous(&self) -> bool {
        self.layout.is_contiguous()
    }

    /// Its part number `index` along the first dimension, of the same memory: a row of a matrix, an
    /// item of a batch.
    ///
    /// # Errors
    /// [`TensorError::Axis`], if there is none.
    pub fn row(&self, index: u64) -> Result<Self, TensorError> {
        self.select(0, index)
    }

    /// Its part number `index` along `axis`, of the same memory and without that dimension.
    ///
    /// # Errors
    /// [`TensorError::Axis`], if there is none.
    pub fn select(&self, axis: usize, index: u64) -> Result<Self, TensorError> {
        self.laid(self.layout.select(axis, index)?)
    }

    /// Its parts in `range` along `axis`, of the same memory.
    ///
    /// # Errors
    /// [`TensorError::Axis`], if there are not as many.
    pub fn narrow(&self, axis: usize, range: Range<u64>) -> Result<Self, TensorError> {
        self.laid(self.layout.narrow(axis, range)?)
    }

    /// The same memory with two dimensions in each other's place.
    ///
    /// # Errors
    /// [`TensorError::Axis`], if there is no such dimension.
    pub fn transposed(&self, one: usize, other: usize) -> Result<Self, TensorError> {
        self.laid(self.layout.transposed(one, other)?)
    }

    /// The same memory as elements of another type of as many bytes: the way to the bits of types that
    /// Rust has no name for, such as `float16` as `uint16`, or `bool` as `uint8`.
    ///
    /// # Errors
    /// [`TensorError::DType`], if one takes more bytes than the other.
    pub fn reinterpreted(&self, dtype: DType) -> Result<Self, TensorError> {
        if dtype.bytes() != self.element_bytes() {
            return Err(self.is_not(dtype));
        }
        self.laid(Layout { dtype, ..self.layout.clone() })
    }

    fn laid(&self, layout: Layout) -> Result<Self, TensorError> {
        Ok(Self::new(self.storage.clone(), layout)?.with_requires_grad(self.requires_grad))
    }

    fn is_not(&self, wanted: DType) -> TensorError {
        TensorError::DType { found: self.dtype(), wanted, shape: self.layout.shape.clone() }
    }

    /// Its elements where they lie, to read and to write, in the [usual](super::Storage::view) way.
    ///
    /// # Errors
    /// [`TensorError::DType`] if its elements are not `T`, and [`TensorError::Region`] if the region
    /// cannot be mapped.
    pub fn view<T: Element>(&self) -> Result<TensorView<T>, TensorError> {
        self.check_dtype::<T>()?;
        Ok(TensorView::new(self.storage.view()?, self.layout.clone()))
    }

    /// Its elements where they lie, as `access` says.
    ///
    /// # Errors
    /// As [`view`](Self::view).
    pub fn view_as<T: Element>(&self, access: Access) -> Result<TensorView<T>, TensorError> {
        self.check_dtype::<T>()?;
        Ok(TensorView::new(self.storage.view_as(access)?, self.layout.clone()))
    }

    fn check_dtype<T: Element>(&self) -> Result<(), TensorError> {
        if self.dtype() == T::DTYPE { Ok(()) } else { Err(self.is_not(T::DTYPE)) }
    }

    /// Its elements in row-major order, copied.
    ///
    /// # Errors
    /// As [`view`](Self::view).
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>, TensorError> {
        Ok(self.view::<T>()?.to_vec())
    }

    /// Overwrites its elements, row-major: for everybody if its region may be written, else for this
    /// process.
    ///
    /// # Errors
    /// [`TensorError::Length`], [`TensorError::DType`] and [`TensorError::Region`].
    pub fn write<T: Element>(&self, elements: &[T]) -> Result<(), TensorError> {
        self.view::<T>()?.copy_from(elements)
    }
}

/// Why there is no tensor.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TensorError {
    /// Too many dimensions, or not a stride for each.
    #[error("{sizes} sizes and {strides} strides: use as many of each, at most 64")]
    Rank {
        /// How many sizes.
        sizes: usize,
        /// How many strides.
        strides: usize,
    },
    /// An element lies outside of the storage.
    #[error("{layout:?} does not lie in a storage of {bytes} bytes")]
    Outside {
        /// The layout.
        layout: Box<Layout>,
        /// The length of the storage.
        bytes: u64,
    },
    /// The storage does not begin where such elements may.
    #[error("a storage that begins at byte {start} of its region cannot hold {dtype}")]
    Misaligned {
        /// Where it begins, in bytes.
        start: u64,
        /// The type of the elements.
        dtype: DType,
    },
    /// Another number of elements than the shape has.
    #[error("{found} elements for the shape {shape:?}")]
    Length {
        /// The shape.
        shape: Vec<u64>,
        /// How many were given.
        found: usize,
    },
    /// Other elements than asked for.
    #[error(
        "a tensor of {found} with the shape {shape:?} has no elements of {wanted}: ask for what it \
         has, or reinterpret elements of as many bytes"
    )]
    DType {
        /// What it has.
        found: DType,
        /// What was asked for.
        wanted: DType,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// There is no such element.
    #[error(
        "no element at {index:?} in a tensor of {dtype} with the shape {shape:?}: give an index \
         below its size for each dimension"
    )]
    Index {
        /// What was asked for.
        index: Vec<u64>,
        /// The type of the elements.
        dtype: DType,
        /// The shape.
        shape: Vec<u64>,
    },
    /// There is no such dimension, or it is not that long.
    #[error(
        "no indices {range:?} along dimension {axis} in a tensor of {dtype} with the shape {shape:?}"
    )]
    Axis {
        /// The dimension asked for, from 0.
        axis: usize,
        /// The indices asked for along it.
        range: Range<u64>,
        /// The type of the elements.
        dtype: DType,
        /// The shape.
        shape: Vec<u64>,
    },
    /// A slice is wanted of elements that do not lie one after the other.
    #[error(
        "a tensor of {dtype} with the shape {shape:?} and the strides {strides:?} is no slice: its \
         elements have gaps, or another order; copy it, or take its rows"
    )]
    NotContiguous {
        /// The type of the elements.
        dtype: DType,
        /// The shape.
        shape: Vec<u64>,
        /// How many elements lie between neighbours along each dimension.
        strides: Vec<i64>,
    },
    /// A store to what was mapped for reading.
    #[error("a tensor of {dtype} with the shape {shape:?} is mapped read-only: view it otherwise")]
    ReadOnly {
        /// The type of the elements.
        dtype: DType,
        /// The shape.
        shape: Vec<u64>,
    },
    /// There is no memory, or no way to it.
    #[error(transparent)]
    Region(#[from] RegionError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_ties_and_scalars_read_as_they_lie() {
        let arena = Arena::new();
        let base = Tensor::from_slice(&arena, [2, 3], &[1_i32, 2, 3, 4, 5, 6]).unwrap();
        let storage = base.storage().clone();
        let view = |shape: Vec<u64>, strides: Vec<i64>, offset| {
            let layout = Layout { dtype: DType::I32, shape, strides, offset };
            Tensor::new(storage.clone(), layout).unwrap().to_vec::<i32>().unwrap()
        };
        assert_eq!(view(vec![3, 2], vec![1, 3], 0), [1, 4, 2, 5, 3, 6], "transposed");
        assert_eq!(view(vec![3], vec![-2], 5), [6, 4, 2], "backwards");
        assert_eq!(view(vec![], vec![], 4), [5], "a scalar");
        assert_eq!(view(vec![2, 2], vec![0, 1], 1), [2, 3, 2, 3], "expanded");
        assert_eq!(view(vec![0, 7], vec![7, 1], 6), [0; 0], "nothing");
        base.write(&[9, 8, 7, 6, 5, 4]).unwrap();
        assert_eq!(view(vec![1], vec![1], 0), [9], "the same bytes");
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let arena = Arena::new();
        let short = Tensor::from_slice(&arena, [3], &[1_u8]).unwrap_err().to_string();
        assert_eq!(short, "1 elements for the shape [3]");
        let storage = arena.allocate(8).unwrap();
        let layout = Layout::contiguous(DType::F32, [3]);
        let outside = Tensor::new(storage, layout).unwrap_err().to_string();
        assert!(outside.ends_with("does not lie in a storage of 8 bytes"), "{outside}");
    }
}
