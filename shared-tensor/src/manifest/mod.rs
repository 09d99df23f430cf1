//! What a module or any other nested object of Python consists of, without code and without pickle.
//!
//! A [`Manifest`] describes an object as tables: texts, import paths, storages, tensors, constants,
//! templates of `__dict__`s and the objects made of them. It holds no bytes of tensors: these stay in
//! shared memory, and the manifest says how many each storage needs. Whoever opens one resolves the
//! import paths by its own rules; [`Manifest::decode`] has by then verified everything else, so that
//! a hostile manifest is an error and never a read outside of memory.
//!
//! ```
//! use shared_tensor::manifest::{Limits, Manifest, ManifestBuilder, Value};
//!
//! let mut builder = ManifestBuilder::new();
//! let answer = builder.value(Value::Int(42));
//! let bytes = builder.finish(answer, &Limits::default())?.manifest.encode();
//!
//! let manifest = Manifest::decode(&bytes, &Limits::default())?;
//! assert_eq!(manifest.value(manifest.root()), &Value::Int(42));
//! # Ok::<(), shared_tensor::manifest::ManifestError>(())
//! ```

mod builder;
mod check;
mod error;
#[cfg(test)]
mod hostile;
mod ids;
mod limits;
mod model;
mod scalar;

use std::fmt;

pub use builder::{Finished, ManifestBuilder};
pub use error::{ManifestError, TensorFault};
pub use ids::{ObjectId, PathId, StorageId, StringId, TemplateId, TensorId, ValueId};
pub use limits::Limits;
pub use model::{
    Action, Builder, FORMAT, MappingKind, Object, Package, Path, Requirement, SequenceKind,
    Sharing, Source, Step, Storage, Template, Tensor, TensorClass, TorchKind, Value,
};
pub use scalar::Scalar;

use model::Tables;

/// What the encoding begins with.
const MARK: [u8; 4] = *b"stmf";

/// A description that was found to be sound.
#[derive(Clone, PartialEq, Eq)]
pub struct Manifest {
    tables: Tables,
}

impl Manifest {
    /// Reads and verifies a manifest.
    ///
    /// # Errors
    /// [`ManifestError`], before anything is made of it.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, ManifestError> {
        if bytes.len() > limits.bytes_max {
            return Err(ManifestError::Limit {
                what: "bytes",
                found: bytes.len() as u64,
                max: limits.bytes_max as u64,
            });
        }
        let rest = bytes.strip_prefix(&MARK).ok_or(ManifestError::Mark)?;
        let (format, rest) = rest
            .split_first_chunk()
            .ok_or(ManifestError::Damaged { reason: "it ends in its first bytes" })?;
        let found = u16::from_le_bytes(*format);
        if !(1..=FORMAT).contains(&found) {
            return Err(ManifestError::Format { found });
        }
        let manifest = match postcard::take_from_bytes(rest) {
            Ok((tables, [])) => Self::new(tables, limits)?,
            Ok(_) => return Err(ManifestError::Damaged { reason: "something follows its end" }),
            Err(_) => return Err(ManifestError::Damaged { reason: "its tables do not decode" }),
        };
        if manifest.format() != found {
            return Err(ManifestError::Damaged { reason: "what is in it is of another format" });
        }
        Ok(manifest)
    }

    /// The oldest format that has everything in it: whoever reads that can read this.
    pub fn format(&self) -> u16 {
        let since = |value: &Value| match value {
            Value::Built(builder, _) => builder.since(),
            _ => 1,
        };
        self.tables.values.iter().map(since).max().unwrap_or(1)
    }

    fn new(tables: Tables, limits: &Limits) -> Result<Self, ManifestError> {
        check::check(&tables, limits)?;
        Ok(Self { tables })
    }

    /// The bytes that [`decode`](Self::decode) reads. Equal manifests give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MARK.to_vec();
        bytes.extend(self.format().to_le_bytes());
        // Encoding into memory fails only for types that refuse to be encoded.
        postcard::to_extend(&self.tables, bytes).unwrap_or_default()
    }

    /// Verifies that memory fits: one entry per storage, its bytes and its address.
    ///
    /// # Errors
    /// [`ManifestError::Memory`] for another number of storages, one that is too short, or one whose
    /// address is not aligned for the tensors in it.
    pub fn validate_against(&self, memory: &[(u64, usize)]) -> Result<(), ManifestError> {
        let storages = &self.tables.storages;
        if memory.len() != storages.len() {
            let what = format!("{} storages, and memory for {}", storages.len(), memory.len());
            return Err(ManifestError::Memory { what });
        }
        let alignments = self.alignments();
        for (index, ((storage, &(bytes, address)), alignment)) in
            storages.iter().zip(memory).zip(alignments).enumerate()
        {
            if !check::has_bytes(storage.sharing) || storage.bytes == 0 {
                continue;
            }
            if bytes < storage.bytes {
                let needed = storage.bytes;
                let what = format!("storage {index} needs {needed} bytes and has {bytes}");
                return Err(ManifestError::Memory { what });
            }
            if !(address as u64).is_multiple_of(alignment) {
                let what = format!("storage {index} is not aligned to {alignment} bytes");
                return Err(ManifestError::Memory { what });
            }
        }
        Ok(())
    }

    /// The alignment that each storage needs, in bytes: that of its widest element.
    pub fn alignments(&self) -> Vec<u64> {
        let mut alignments = vec![1; self.tables.storages.len()];
        for tensor in &self.tables.tensors {
            let alignment = &mut alignments[tensor.storage.index()];
            *alignment = tensor.scalar.bytes().max(*alignment);
        }
        alignments
    }

    /// What the manifest describes.
    pub fn root(&self) -> ValueId {
        self.tables.root
    }

    /// Packages and their versions where the object was encoded, sorted.
    pub fn packages(&self) -> &[Package] {
        &self.tables.packages
    }

    /// Source files that must be the same on both ends, sorted.
    pub fn sources(&self) -> &[Source] {
        &self.tables.sources
    }

    /// Names that must be registered where the object is opened, sorted.
    pub fn requirements(&self) -> &[Requirement] {
        &self.tables.requirements
    }

    /// Every import path, for whoever judges them.
    pub fn paths(&self) -> &[Path] {
        &self.tables.paths
    }

    /// Every storage, in the order in which memory is given.
    pub fn storages(&self) -> &[Storage] {
        &self.tables.storages
    }

    /// Every tensor.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tables.tensors
    }

    /// Every value; what one is made of stands before it.
    pub fn values(&self) -> &[Value] {
        &self.tables.values
    }

    /// Every template.
    pub fn templates(&self) -> &[Template] {
        &self.tables.templates
    }

    /// Every object.
    pub fn objects(&self) -> &[Object] {
        &self.tables.objects
    }

    /// What is to be done at the end, in order.
    pub fn steps(&self) -> &[Step] {
        &self.tables.steps
    }

    /// One value.
    ///
    /// # Panics
    /// If the id is of another manifest.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.tables.values[id.index()]
    }

    /// One text.
    ///
    /// # Panics
    /// If the id is of another manifest.
    pub fn text(&self, id: StringId) -> &str {
        &self.tables.strings[id.index()]
    }

    /// Module and qualified name of a path.
    ///
    /// # Panics
    /// If the id is of another manifest.
    pub fn path(&self, id: PathId) -> (&str, &str) {
        let path = self.tables.paths[id.index()];
        (self.text(path.module), self.text(path.qualname))
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest")
            .field("storages", &self.tables.storages.len())
            .field("tensors", &self.tables.tensors.len())
            .field("objects", &self.tables.objects.len())
            .finish_non_exhaustive()
    }
}
