//! How elements lie in a storage.

use thiserror::Error;

use super::{Arena, RegionError, Storage};
use crate::tensor::{DType, Element};

/// Most dimensions that a tensor of the service can have.
pub const RANK_MAX: usize = 64;

/// A view of a storage: element type, sizes, strides and where it begins.
///
/// It was checked when it was made: every element lies in the storage, aligned.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    storage: Storage,
    layout: Layout,
    requires_grad: bool,
}

/// Which elements of a storage a tensor has, in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The type of the elements.
    pub dtype: DType,
    /// The sizes, 0 to 64 of them; none for a scalar.
    pub shape: Vec<u64>,
    /// How many elements lie between neighbours along each dimension.
    pub strides: Vec<i64>,
    /// Which element of the storage is the first.
    pub offset: u64,
}

impl Layout {
    /// Row-major, from the first element of the storage on.
    pub fn contiguous(dtype: DType, shape: impl Into<Vec<u64>>) -> Self {
        let shape = shape.into();
        let mut strides = vec![0; shape.len()];
        let mut step = 1_i64;
        for (stride, size) in strides.iter_mut().zip(&shape).rev() {
            *stride = step;
            // What overflows here fails the check.
            step = step.saturating_mul(i64::try_from(*size).unwrap_or(i64::MAX).max(1));
        }
        Self { dtype, shape, strides, offset: 0 }
    }

    /// Number of elements; `None` if 64 bits cannot count them.
    pub fn elements(&self) -> Option<u64> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        self.shape.iter().try_fold(1_u64, |product, &size| product.checked_mul(size))
    }

    /// Whether the elements lie row by row without gaps.
    pub fn is_contiguous(&self) -> bool {
        let wanted = Self::contiguous(self.dtype, self.shape.as_slice()).strides;
        let pairs = self.strides.iter().zip(&wanted).zip(&self.shape);
        self.elements() == Some(0) || pairs.into_iter().all(|((a, b), &size)| a == b || size <= 1)
    }

    /// Checks that every element lies in a storage of `bytes` bytes that begins at byte `start` of
    /// its region.
    ///
    /// # Errors
    /// [`TensorError`], by what is wrong first.
    pub fn check(&self, start: u64, bytes: u64) -> Result<(), TensorError> {
        let rank = self.shape.len();
        if rank > RANK_MAX || self.strides.len() != rank {
            return Err(TensorError::Rank { sizes: rank, strides: self.strides.len() });
        }
        let outside = || TensorError::Outside { layout: Box::new(self.clone()), bytes };
        let item = self.dtype.bytes() as u64;
        let elements = self.elements().ok_or_else(outside)?;
        // A total that a signed length can say, whatever the strides make of it.
        if elements.checked_mul(item).is_none_or(|total| i64::try_from(total).is_err()) {
            return Err(outside());
        }
        if !start.is_multiple_of(item) {
            return Err(TensorError::Misaligned { start, dtype: self.dtype });
        }
        let (mut low, mut high) = (i128::from(self.offset), i128::from(self.offset));
        if elements > 0 {
            for (&size, &stride) in self.shape.iter().zip(&self.strides) {
                // Fits: 64 bits times 64 bits, at most 64 times, checked all the same.
                let span = i128::from(size - 1).checked_mul(i128::from(stride));
                let span = span.ok_or_else(outside)?;
                let end = if span < 0 { &mut low } else { &mut high };
                *end = end.checked_add(span).ok_or_else(outside)?;
            }
            high += 1;
        }
        let limit = i128::from(bytes / item);
        if low < 0 || high > limit { Err(outside()) } else { Ok(()) }
    }

    /// The element numbers in row-major order.
    fn positions(&self) -> impl Iterator<Item = u64> + '_ {
        let count = self.elements().unwrap_or(0);
        (0..count).map(|index| {
            let mut left = index;
            let mut at = i128::from(self.offset);
            for (&size, &stride) in self.shape.iter().zip(&self.strides).rev() {
                at += i128::from(left % size) * i128::from(stride);
                left /= size;
            }
            u64::try_from(at).expect("a checked layout stays in its storage")
        })
    }
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

    /// Its elements in row-major order, copied.
    ///
    /// # Errors
    /// [`TensorError::DType`] if its elements are not `T`, and [`TensorError::Region`] if the region
    /// cannot be mapped.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>, TensorError> {
        if self.dtype() != T::DTYPE {
            return Err(TensorError::DType { found: self.dtype(), wanted: T::DTYPE });
        }
        let view = self.storage.view()?;
        let mut elements = vec![T::new_zeroed(); self.elements() as usize];
        let Some(bytes) = view.bytes() else { return Ok(elements) };
        let item = size_of::<T>();
        let inside = "a checked layout stays in its storage";
        if self.layout.is_contiguous() {
            let target = zerocopy::IntoBytes::as_mut_bytes(elements.as_mut_slice());
            if !target.is_empty() {
                bytes.read_into(self.layout.offset as usize * item, target).expect(inside);
            }
        } else {
            for (element, at) in elements.iter_mut().zip(self.layout.positions()) {
                let target = zerocopy::IntoBytes::as_mut_bytes(std::slice::from_mut(element));
                bytes.read_into(at as usize * item, target).expect(inside);
            }
        }
        Ok(elements)
    }

    /// Overwrites its elements, row-major: for everybody if its region may be written, else for this
    /// process.
    ///
    /// # Errors
    /// [`TensorError::Length`], [`TensorError::DType`] and [`TensorError::Region`].
    pub fn write<T: Element>(&self, elements: &[T]) -> Result<(), TensorError> {
        if self.dtype() != T::DTYPE {
            return Err(TensorError::DType { found: self.dtype(), wanted: T::DTYPE });
        }
        if self.elements() != elements.len() as u64 {
            let shape = self.layout.shape.clone();
            return Err(TensorError::Length { shape, found: elements.len() });
        }
        let view = self.storage.view()?;
        let Some(bytes) = view.bytes() else { return Ok(()) };
        for (element, at) in elements.iter().zip(self.layout.positions()) {
            let source = zerocopy::IntoBytes::as_bytes(std::slice::from_ref(element));
            let inside = "a checked layout stays in its storage";
            bytes.write_from(at as usize * size_of::<T>(), source).expect(inside);
        }
        Ok(())
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
    #[error("a tensor of {found}, not of {wanted}")]
    DType {
        /// What it has.
        found: DType,
        /// What was asked for.
        wanted: DType,
    },
    /// There is no memory, or no way to it.
    #[error(transparent)]
    Region(#[from] RegionError),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every element, one by one, with numbers that cannot overflow.
    fn lies_inside(layout: &Layout, bytes: u64) -> bool {
        let item = layout.dtype.bytes() as i128;
        let mut positions = vec![i128::from(layout.offset)];
        for (&size, &stride) in layout.shape.iter().zip(&layout.strides) {
            positions = (0..i128::from(size))
                .flat_map(|index| positions.iter().map(move |at| at + index * i128::from(stride)))
                .collect();
        }
        let inside = |at: &i128| {
            *at >= 0 && (at + 1).checked_mul(item).is_some_and(|end| end <= bytes.into())
        };
        // Of no elements only the place matters.
        let first = i128::from(layout.offset) * item <= bytes.into();
        if positions.is_empty() { first } else { positions.iter().all(inside) }
    }

    fn hostile() -> impl Strategy<Value = i64> {
        prop_oneof![
            -9_i64..10,
            prop_oneof![
                Just(i64::MAX),
                Just(i64::MIN),
                Just(1 << 62),
                Just(-(1 << 62)),
                Just(1 << 32)
            ],
        ]
    }

    proptest! {
        #[test]
        fn a_layout_passes_if_every_element_lies_inside(
            dims in proptest::collection::vec((0_u64..5, hostile()), 0..4),
            offset in prop_oneof![0_u64..40, Just(u64::MAX), Just(1 << 63)],
            bytes in 0_u64..200,
            dtype in proptest::sample::select(DType::ALL),
        ) {
            let (shape, strides) = dims.into_iter().unzip();
            let layout = Layout { dtype, shape, strides, offset };
            prop_assert_eq!(layout.check(0, bytes).is_ok(), lies_inside(&layout, bytes));
        }

        #[test]
        fn hostile_sizes_never_overflow(
            shape in proptest::collection::vec(
                prop_oneof![0_u64..3, Just(u64::MAX), Just(1 << 32), Just(1 << 63)], 0..70),
            stride in hostile(),
            bytes in any::<u64>(),
        ) {
            let strides = vec![stride; shape.len()];
            let layout = Layout { dtype: DType::F64, shape, strides, offset: 1 };
            if layout.check(0, bytes).is_ok() {
                let total = layout.elements().unwrap();
                // Strides of zero repeat elements; otherwise each has bytes of its own.
                prop_assert!(stride == 0 || total <= 1 || layout.shape.len() > 1
                    || total * 8 <= bytes);
            }
        }
    }

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
