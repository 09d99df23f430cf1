//! Which elements of a storage a tensor has.

use std::ops::Range;

use super::TensorError;
use crate::tensor::DType;

/// Most dimensions that a tensor of the service can have.
pub const RANK_MAX: usize = 64;

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

    /// Bytes of one element.
    pub const fn element_bytes(&self) -> usize {
        self.dtype.bytes()
    }

    /// The part with `index` along `axis`, without that dimension.
    ///
    /// # Errors
    /// [`TensorError::Axis`], if there is no such dimension or no such index along it.
    pub fn select(&self, axis: usize, index: u64) -> Result<Self, TensorError> {
        let mut part = self.narrow(axis, index..index.saturating_add(1))?;
        part.shape.remove(axis);
        part.strides.remove(axis);
        Ok(part)
    }

    /// The part with the indices of `range` along `axis`.
    ///
    /// # Errors
    /// [`TensorError::Axis`], if there is no such dimension or not so many indices along it.
    pub fn narrow(&self, axis: usize, range: Range<u64>) -> Result<Self, TensorError> {
        let outside = || TensorError::Axis {
            axis,
            range: range.clone(),
            dtype: self.dtype,
            shape: self.shape.clone(),
        };
        let (size, stride) =
            self.shape.get(axis).zip(self.strides.get(axis)).ok_or_else(outside)?;
        if range.start > range.end || range.end > *size {
            return Err(outside());
        }
        let mut part = self.clone();
        part.shape[axis] = range.end - range.start;
        // What has no elements lies nowhere else.
        if part.elements() != Some(0) {
            let at = i128::from(self.offset) + i128::from(range.start) * i128::from(*stride);
            part.offset = u64::try_from(at).map_err(|_| outside())?;
        }
        Ok(part)
    }

    /// The same elements with two dimensions in each other's place.
    ///
    /// # Errors
    /// [`TensorError::Axis`], if there is no such dimension.
    pub fn transposed(&self, one: usize, other: usize) -> Result<Self, TensorError> {
        for axis in [one, other] {
            self.narrow(axis, 0..0)?;
        }
        let mut turned = self.clone();
        turned.shape.swap(one, other);
        turned.strides.swap(one, other);
        Ok(turned)
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
}
