//! The elements of a tensor, by their type and where they lie.

use std::fmt;
use std::marker::PhantomData;
use std::slice;

use super::{Layout, StorageView, TensorError};
use crate::tensor::Element;

/// The elements of a tensor where they lie, as `T`.
///
/// Other processes may write to them meanwhile, so what is read is copied out, element by element or
/// many at once, and there is no safe `&[T]`: an element that is written to at that moment may come
/// as a mixture of both. [`as_slice`](Self::as_slice) is for those who know that nobody writes.
///
/// What is stored reaches whom the [way of looking](crate::service::Access) lets it reach. The view
/// keeps the memory mapped, and the lease on it.
///
/// ```
/// use shared_tensor::service::{Arena, Tensor};
///
/// let tensor = Tensor::from_slice(&Arena::new(), [2, 3], &[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// let view = tensor.view::<f32>()?;
/// view.set(&[1, 2], 60.0)?;
/// assert_eq!(view.get(&[1, 2])?, 60.0);
/// assert_eq!(view.iter().sum::<f32>(), 75.0);
/// assert_eq!(view.row(1)?.to_vec(), [4.0, 5.0, 60.0]);
/// assert_eq!(tensor.transposed(0, 1)?.row(0)?.to_vec::<f32>()?, [1.0, 4.0]);
/// # Ok::<(), shared_tensor::service::TensorError>(())
/// ```
#[derive(Clone)]
pub struct TensorView<T> {
    storage: StorageView,
    layout: Layout,
    elements: PhantomData<T>,
}

const INSIDE: &str = "a checked layout stays in its storage";

impl<T: Element> TensorView<T> {
    /// `layout` was checked against the storage, and has elements of this type.
    pub(super) fn new(storage: StorageView, layout: Layout) -> Self {
        Self { storage, layout, elements: PhantomData }
    }

    /// Its sizes.
    pub fn shape(&self) -> &[u64] {
        &self.layout.shape
    }

    /// How the elements lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Its bytes, with those of others that lie there, too.
    pub fn storage(&self) -> &StorageView {
        &self.storage
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.layout.elements().expect("a checked layout") as usize
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether stores are possible.
    pub fn is_writable(&self) -> bool {
        self.storage.bytes().is_none_or(shm_core::SharedBytes::is_writable)
    }

    /// The element at `index`, one number per dimension.
    ///
    /// # Errors
    /// [`TensorError::Index`], if there is none.
    pub fn get(&self, index: &[u64]) -> Result<T, TensorError> {
        let at = self.position(index)?;
        let mut element = T::new_zeroed();
        self.read(at, slice::from_mut(&mut element));
        Ok(element)
    }

    /// Overwrites the element at `index`, one number per dimension.
    ///
    /// # Errors
    /// [`TensorError::Index`] and [`TensorError::ReadOnly`].
    pub fn set(&self, index: &[u64], element: T) -> Result<(), TensorError> {
        let at = self.position(index)?;
        self.check_writable()?;
        self.write(at, slice::from_ref(&element));
        Ok(())
    }

    /// The part number `index` along the first dimension.
    ///
    /// # Errors
    /// [`TensorError::Axis`], if there is none.
    pub fn row(&self, index: u64) -> Result<Self, TensorError> {
        Ok(Self::new(self.storage.clone(), self.layout.select(0, index)?))
    }

    /// The parts along the first dimension, in their order; none of a scalar.
    pub fn rows(&self) -> impl Iterator<Item = Self> + '_ {
        let count = self.shape().first().copied().unwrap_or(0);
        (0..count).map(|index| self.row(index).expect("below the size"))
    }

    /// The elements in row-major order, each as it is when its turn is near: some are read at once.
    pub fn iter(&self) -> Elements<'_, T> {
        let (places, run) = self.layout.runs();
        Elements {
            view: self,
            left: self.len(),
            places,
            run,
            at: 0,
            run_left: 0,
            block: Vec::new(),
            next: 0,
        }
    }

    /// The elements in row-major order, copied.
    pub fn to_vec(&self) -> Vec<T> {
        let mut elements = vec![T::new_zeroed(); self.len()];
        self.read_all(&mut elements);
        elements
    }

    /// Copies the elements out, in row-major order.
    ///
    /// # Errors
    /// [`TensorError::Length`], if `target` is shorter or longer.
    pub fn copy_to(&self, target: &mut [T]) -> Result<(), TensorError> {
        self.check_length(target.len())?;
        self.read_all(target);
        Ok(())
    }

    /// Overwrites the elements, in row-major order.
    ///
    /// # Errors
    /// [`TensorError::Length`] if `elements` are fewer or more, and [`TensorError::ReadOnly`].
    pub fn copy_from(&self, elements: &[T]) -> Result<(), TensorError> {
        self.check_length(elements.len())?;
        self.check_writable()?;
        let (places, run) = self.layout.runs();
        for (at, elements) in places.zip(elements.chunks(run.max(1))) {
            self.write(at, elements);
        }
        Ok(())
    }

    /// Overwrites every element with this one.
    ///
    /// # Errors
    /// [`TensorError::ReadOnly`].
    pub fn fill(&self, element: T) -> Result<(), TensorError> {
        self.check_writable()?;
        let (places, run) = self.layout.runs();
        let block = vec![element; run.min(BLOCK)];
        for at in places {
            for from in (0..run).step_by(BLOCK) {
                self.write(at + from, &block[..BLOCK.min(run - from)]);
            }
        }
        Ok(())
    }

    /// Where the elements lie in the storage, if they do one after the other: the byte at which they
    /// begin, and how many there are.
    pub(crate) fn run(&self) -> Result<(usize, usize), TensorError> {
        if self.layout.is_contiguous() {
            return Ok((self.layout.offset as usize * size_of::<T>(), self.len()));
        }
        let Layout { dtype, shape, strides, .. } = self.layout.clone();
        Err(TensorError::NotContiguous { dtype, shape, strides })
    }

    pub(crate) fn check_writable(&self) -> Result<(), TensorError> {
        if self.is_writable() {
            return Ok(());
        }
        let Layout { dtype, shape, .. } = self.layout.clone();
        Err(TensorError::ReadOnly { dtype, shape })
    }

    fn check_length(&self, found: usize) -> Result<(), TensorError> {
        if found == self.len() {
            return Ok(());
        }
        Err(TensorError::Length { shape: self.layout.shape.clone(), found })
    }

    fn position(&self, index: &[u64]) -> Result<usize, TensorError> {
        let Layout { dtype, shape, strides, offset } = &self.layout;
        let is_inside =
            index.len() == shape.len() && index.iter().zip(shape).all(|(it, size)| it < size);
        if !is_inside {
            let (index, shape) = (index.to_vec(), shape.clone());
            return Err(TensorError::Index { index, dtype: *dtype, shape });
        }
        let steps =
            index.iter().zip(strides).map(|(it, stride)| i128::from(*it) * i128::from(*stride));
        Ok(usize::try_from(i128::from(*offset) + steps.sum::<i128>()).expect(INSIDE))
    }

    fn read_all(&self, target: &mut [T]) {
        let (places, run) = self.layout.runs();
        for (at, target) in places.zip(target.chunks_mut(run.max(1))) {
            self.read(at, target);
        }
    }

    /// Copies elements out that lie one after the other from element `at` of the storage on.
    fn read(&self, at: usize, target: &mut [T]) {
        let Some(bytes) = self.storage.bytes() else { return };
        let target = zerocopy::IntoBytes::as_mut_bytes(target);
        bytes.read_into(at * size_of::<T>(), target).expect(INSIDE);
    }

    fn write(&self, at: usize, elements: &[T]) {
        let Some(bytes) = self.storage.bytes() else { return };
        let source = zerocopy::IntoBytes::as_bytes(elements);
        bytes.write_from(at * size_of::<T>(), source).expect(INSIDE);
    }
}

impl<T: Element> fmt::Debug for TensorView<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorView")
            .field("layout", &self.layout)
            .field("storage", self.storage.storage())
            .finish_non_exhaustive()
    }
}

impl<'a, T: Element> IntoIterator for &'a TensorView<T> {
    type Item = T;
    type IntoIter = Elements<'a, T>;

    fn into_iter(self) -> Elements<'a, T> {
        self.iter()
    }
}

/// How many elements are read at once on behalf of an iterator.
const BLOCK: usize = 256;

/// The elements of a [`TensorView`], in row-major order.
pub struct Elements<'a, T: Element> {
    view: &'a TensorView<T>,
    left: usize,
    places: Places<'a>,
    run: usize,
    at: usize,
    run_left: usize,
    block: Vec<T>,
    next: usize,
}

impl<T: Element> Elements<'_, T> {
    fn refill(&mut self) {
        self.next = 0;
        self.block.clear();
        self.block.resize(BLOCK.min(self.left), T::new_zeroed());
        let mut filled = 0;
        while filled < self.block.len() {
            if self.run_left == 0 {
                let Some(at) = self.places.next() else { break };
                (self.at, self.run_left) = (at, self.run);
            }
            let count = self.run_left.min(self.block.len() - filled);
            self.view.read(self.at, &mut self.block[filled..filled + count]);
            self.at += count;
            self.run_left -= count;
            filled += count;
        }
    }
}

impl<T: Element> Iterator for Elements<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.left == 0 {
            return None;
        }
        if self.next == self.block.len() {
            self.refill();
        }
        let element = *self.block.get(self.next)?;
        self.next += 1;
        self.left -= 1;
        Some(element)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T: Element> ExactSizeIterator for Elements<'_, T> {}

impl<T: Element> fmt::Debug for Elements<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elements").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Layout {
    /// Where runs of elements begin that lie one after the other, in row-major order, and how many
    /// elements each has. Only for a layout that was checked.
    fn runs(&self) -> (Places<'_>, usize) {
        let mut run = 1_u64;
        let mut outer = self.shape.len();
        while let Some(axis) = outer.checked_sub(1) {
            let (size, stride) = (self.shape[axis], self.strides[axis]);
            if size != 1 && i128::from(stride) != i128::from(run) {
                break;
            }
            // Counts elements of a storage, but for a layout without any.
            run = run.saturating_mul(size);
            outer = axis;
        }
        let (shape, strides) = (&self.shape[..outer], &self.strides[..outer]);
        let left = if self.elements() == Some(0) { 0 } else { shape.iter().product() };
        let at = i128::from(self.offset);
        (Places { shape, strides, index: vec![0; outer], at, left }, run as usize)
    }
}

/// The places at which the last dimensions of a layout begin.
struct Places<'a> {
    shape: &'a [u64],
    strides: &'a [i64],
    index: Vec<u64>,
    at: i128,
    left: u64,
}

impl Iterator for Places<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let here = usize::try_from(self.at).expect(INSIDE);
        let axes = self.index.iter_mut().zip(self.shape).zip(self.strides).rev();
        for ((index, &size), &stride) in axes {
            *index += 1;
            if *index < size {
                self.at += i128::from(stride);
                break;
            }
            *index = 0;
            self.at -= i128::from(size - 1) * i128::from(stride);
        }
        Some(here)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::service::region::{Access, Arena};
    use crate::service::value::Tensor;
    use crate::tensor::DType;

    /// The element numbers in row-major order, by their definition.
    fn positions(layout: &Layout) -> Vec<usize> {
        let mut positions = vec![i128::from(layout.offset)];
        for (&size, &stride) in layout.shape.iter().zip(&layout.strides) {
            positions = positions
                .iter()
                .flat_map(|at| (0..i128::from(size)).map(move |it| at + it * i128::from(stride)))
                .collect();
        }
        positions.into_iter().map(|at| usize::try_from(at).unwrap()).collect()
    }

    fn numbers(count: u16) -> Tensor {
        let numbers: Vec<u16> = (0..count).collect();
        Tensor::from_slice(&Arena::new(), [u64::from(count)], &numbers).unwrap()
    }

    proptest! {
        #[test]
        fn elements_are_where_the_layout_says(
            dims in proptest::collection::vec((0_u64..5, -30_i64..30), 0..4),
            offset in 0_u64..600,
        ) {
            let base = numbers(600);
            let (shape, strides): (Vec<u64>, Vec<i64>) = dims.into_iter().unzip();
            let layout = Layout { dtype: DType::U16, shape, strides, offset };
            let Ok(tensor) = Tensor::new(base.storage().clone(), layout.clone()) else {
                return Ok(());
            };
            let view = tensor.view::<u16>().unwrap();
            let wanted: Vec<u16> = positions(&layout).iter().map(|at| *at as u16).collect();
            prop_assert_eq!(view.to_vec(), wanted.clone());
            prop_assert_eq!(view.iter().collect::<Vec<u16>>(), wanted.clone());
            prop_assert_eq!(view.iter().len(), wanted.len());
            if !view.shape().is_empty() {
                let rows: Vec<u16> = view.rows().flat_map(|row| row.to_vec()).collect();
                prop_assert_eq!(rows, wanted.clone());
            }
            view.fill(9).unwrap();
            let all = base.to_vec::<u16>().unwrap();
            for (at, element) in all.iter().enumerate() {
                let is_filled = wanted.contains(&(at as u16));
                prop_assert_eq!(*element, if is_filled { 9 } else { at as u16 });
            }
            view.copy_from(&wanted).unwrap();
            prop_assert_eq!(base.to_vec::<u16>().unwrap(), (0..600).collect::<Vec<u16>>());
        }
    }

    #[test]
    fn blocks_are_read_on_across_runs() {
        let base = numbers(3000);
        let shape = vec![3, 700];
        let layout = Layout { dtype: DType::U16, shape, strides: vec![1000, 1], offset: 5 };
        let tensor = Tensor::new(base.storage().clone(), layout).unwrap();
        let wanted: Vec<u16> =
            (0..3).flat_map(|row| (0..700).map(move |it| row * 1000 + 5 + it)).collect();
        assert_eq!(tensor.view::<u16>().unwrap().iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let view = numbers(6).view::<u16>().unwrap();
        let tensor = numbers(6);
        let said = |error: TensorError| error.to_string();
        let index = said(view.get(&[6]).unwrap_err());
        assert!(
            index.starts_with("no element at [6] in a tensor of uint16 with the shape [6]"),
            "{index}"
        );
        assert!(view.get(&[0, 0]).is_err() && view.set(&[6], 0).is_err());
        let dtype = said(tensor.view::<f32>().unwrap_err());
        assert!(dtype.contains("uint16 with the shape [6] has no elements of float32"), "{dtype}");
        let axis = said(tensor.select(1, 0).unwrap_err());
        assert!(axis.starts_with("no indices 0..1 along dimension 1"), "{axis}");
        assert!(tensor.narrow(0, 5..7).is_err() && tensor.row(u64::MAX).is_err());
        let wide = said(tensor.reinterpreted(DType::F32).unwrap_err());
        assert!(wide.contains("uint16") && wide.contains("float32"), "{wide}");
        let read_only = tensor.view_as::<u16>(Access::ReadOnly).unwrap();
        assert!(!read_only.is_writable() && read_only.get(&[5]).unwrap() == 5);
        for refused in [read_only.set(&[0], 1), read_only.fill(1), read_only.copy_from(&[0; 6])] {
            assert!(matches!(refused, Err(TensorError::ReadOnly { .. })), "{refused:?}");
        }
        assert!(matches!(view.copy_from(&[0; 5]), Err(TensorError::Length { found: 5, .. })));
        assert!(matches!(view.copy_to(&mut [0; 7]), Err(TensorError::Length { found: 7, .. })));
    }

    #[test]
    fn parts_are_the_same_memory() {
        let base = Tensor::from_slice(&Arena::new(), [2, 3], &[1_i32, 2, 3, 4, 5, 6]).unwrap();
        let turned = base.transposed(0, 1).unwrap();
        assert_eq!((turned.shape(), turned.is_contiguous()), (&[3, 2][..], false));
        turned.view::<i32>().unwrap().set(&[2, 0], 30).unwrap();
        assert_eq!(base.row(0).unwrap().to_vec::<i32>().unwrap(), [1, 2, 30]);
        assert_eq!(base.narrow(1, 1..3).unwrap().to_vec::<i32>().unwrap(), [2, 30, 5, 6]);
        assert_eq!(base.narrow(0, 2..2).unwrap().elements(), 0);
        let none = Tensor::zeros(&Arena::new(), DType::I32, [4, 0]).unwrap();
        let column = Layout { strides: vec![-9, 1], ..none.layout().clone() };
        let none = Tensor::new(none.storage().clone(), column).unwrap();
        assert_eq!(
            none.row(3).unwrap().elements(),
            0,
            "of no elements only the first place counts"
        );
        let bits = base.reinterpreted(DType::F32).unwrap().row(1).unwrap();
        assert_eq!(bits.to_vec::<f32>().unwrap()[0].to_bits(), 4);
        assert_eq!((bits.element_bytes(), bits.strides()), (4, &[1][..]));
    }
}
