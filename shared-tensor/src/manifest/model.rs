//! What a manifest says: tables that refer to each other by position.
//!
//! The encoding is postcard's, which has no field names: variants are only ever added at the end of
//! an enum and with a new [`FORMAT`], and nothing nests, so that decoding needs no stack.

use serde::{Deserialize, Serialize};

use super::ids::{ObjectId, PathId, StorageId, StringId, TemplateId, TensorId, ValueId};
use super::scalar::Scalar;

/// The newest version of the format that this release reads. It reads all before it, and each
/// manifest says the oldest that has all that is in it.
///
/// 2: [`Builder::NumpyScalar`].
pub const FORMAT: u16 = 2;

/// All tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tables {
    pub(crate) packages: Vec<Package>,
    pub(crate) sources: Vec<Source>,
    pub(crate) requirements: Vec<Requirement>,
    pub(crate) strings: Vec<String>,
    pub(crate) paths: Vec<Path>,
    pub(crate) storages: Vec<Storage>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) values: Vec<Value>,
    pub(crate) templates: Vec<Template>,
    pub(crate) objects: Vec<Object>,
    pub(crate) steps: Vec<Step>,
    pub(crate) root: ValueId,
}

/// A package that a class or function comes from, and its version where the object was encoded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// The name under which it is imported.
    pub name: String,
    /// Its version, as it says itself.
    pub version: String,
}

/// The source file of classes that belong to no versioned package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    /// The module that it is loaded as.
    pub module: String,
    /// Where it lay, for messages only.
    pub file: String,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// A name that must exist in a registry of the opening process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Requirement {
    /// Which registry.
    pub registry: String,
    /// The name in it.
    pub name: String,
}

/// Where a class or function is imported from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Path {
    /// The module.
    pub module: StringId,
    /// The way from the module through classes, such as `Outer.Inner`.
    pub qualname: StringId,
}

/// Bytes that one or more tensors lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// How many.
    pub bytes: u64,
    /// Whose they are.
    pub sharing: Sharing,
}

/// Who sees writes to a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Sharing {
    /// As the region's mapping has it: parameters and plain tensors.
    Shared,
    /// Each opened object has a copy: buffers and other tensors that a forward pass may write.
    Private,
    /// There are no bytes: tensors on the meta device.
    Absent,
}

/// A tensor: a view of a storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tensor {
    /// Where its elements lie.
    pub storage: StorageId,
    /// What they are.
    pub scalar: Scalar,
    /// Sizes along each dimension, in elements.
    pub shape: Vec<u64>,
    /// Steps along each dimension, in elements.
    pub strides: Vec<u64>,
    /// Where the first element lies, in elements.
    pub offset: u64,
    /// Whether gradients are kept for it.
    pub requires_grad: bool,
    /// Its Python class.
    pub class: TensorClass,
    /// A dictionary with its Python attributes.
    pub attributes: Option<ValueId>,
}

/// The Python class of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TensorClass {
    /// `torch.Tensor`
    Plain,
    /// `torch.nn.Parameter`
    Parameter,
    /// A subclass without behaviour of its own in C.
    Other(PathId),
}

/// A value without identity. What it refers to among values stands before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Value {
    /// `None`
    None,
    /// `...`
    Ellipsis,
    /// `True`, `False`
    Bool(bool),
    /// An integer of up to 64 bits.
    Int(i64),
    /// Any other integer: two's complement, little-endian.
    BigInt(Vec<u8>),
    /// The bits of a float: a NaN keeps its payload.
    Float(u64),
    /// The bits of real and imaginary part.
    Complex(u64, u64),
    /// A text.
    Text(StringId),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A constant of torch by its name, such as `float32` among the dtypes.
    Torch(TorchKind, StringId),
    /// A device: its type, or of a GPU the identity; and which one it is where this was written.
    Device(StringId, Option<u32>),
    /// A class.
    Class(PathId),
    /// A function.
    Function(PathId),
    /// A new sequence.
    Sequence(SequenceKind, Vec<ValueId>),
    /// A new dictionary, in this order.
    Mapping(MappingKind, Vec<(ValueId, ValueId)>),
    /// What a function of the opening side makes of the arguments.
    Built(Builder, Vec<ValueId>),
    /// A tensor.
    Tensor(TensorId),
    /// An object.
    Object(ObjectId),
}

/// The kinds of named constants in torch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TorchKind {
    /// `torch.dtype`
    Dtype,
    /// `torch.layout`
    Layout,
    /// `torch.memory_format`
    MemoryFormat,
    /// `torch.qscheme`
    QScheme,
}

/// Sequences that stand in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SequenceKind {
    /// `tuple`
    Tuple,
    /// `list`
    List,
    /// `set`, sorted
    Set,
    /// `frozenset`, sorted
    FrozenSet,
    /// `torch.Size`
    Size,
}

/// Dictionaries that stand in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MappingKind {
    /// `dict`
    Dict,
    /// `collections.OrderedDict`
    Ordered,
}

macro_rules! builders {
    ($(
        $(#[$doc:meta])* $name:ident = $text:literal, $constant:literal $(, since $since:literal)?;
    )*) => {
        /// Everything else that can be made of values: a closed list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Builder {
            $($(#[$doc])* $name,)*
        }

        impl Builder {
            /// Every builder, in the order of their encoding.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name of the function that does it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Whether what comes out is immutable if all arguments are: it is then made once.
            pub const fn is_constant(self) -> bool {
                match self {
                    $(Self::$name => $constant,)*
                }
            }

            /// The first format that has it.
            pub const fn since(self) -> u16 {
                match self {
                    $($(Self::$name => $since,)?)*
                    _ => 1,
                }
            }

            /// The builder of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|builder| builder.name() == name)
            }
        }
    };
}

builders! {
    /// `range(start, stop, step)`
    Range = "range", true;
    /// `slice(start, stop, step)`
    Slice = "slice", true;
    /// `collections.defaultdict(factory, items)`
    DefaultDict = "defaultdict", false;
    /// `collections.deque(items, maxlen)`
    Deque = "deque", false;
    /// `types.SimpleNamespace(**dict)`
    Namespace = "namespace", false;
    /// `types.MappingProxyType(dict)`
    MappingProxy = "mappingproxy", false;
    /// A member of an enumeration: class, name.
    Enum = "enum", true;
    /// A text, integer or float of a subclass: class, plain value, attributes.
    Subclassed = "subclassed", false;
    /// `tuple.__new__` of a subclass: class, items.
    NamedTuple = "namedtuple", false;
    /// `re.compile(pattern, flags)`
    Pattern = "pattern", true;
    /// `logging.getLogger(name)`
    Logger = "logger", true;
    /// `datetime.timedelta(days, seconds, microseconds)`
    TimeDelta = "timedelta", true;
    /// `torch.Generator` on a device, with its state as bytes.
    Generator = "generator", false;
    /// `functools.partial`: function, arguments, keywords, attributes.
    Partial = "partial", false;
    /// A method bound to an object: function, object.
    Method = "method", false;
    /// A method of C bound to nothing: class, name.
    ClassAttribute = "classattribute", true;
    /// A weak reference: object, or nothing for a dead one.
    WeakReference = "weakref", false;
    /// `Class.apply` of an autograd function: class.
    Apply = "apply", true;
    /// A new lock, not held.
    Lock = "lock", false;
    /// A new re-entrant lock, not held.
    ReentrantLock = "rlock", false;
    /// A tokenizer of the package `tokenizers`, from its text.
    Tokenizer = "tokenizer", false;
    /// `tokenizers.AddedToken`: content and flags.
    AddedToken = "addedtoken", false;
    /// A tensor of a subclass that takes itself apart: class, names, parts, context, size, strides.
    Flattened = "flattened", false;
    /// A sparse tensor in coordinates: indices, values, size, coalesced.
    SparseCoo = "sparsecoo", false;
    /// A compressed sparse tensor: layout, compressed and plain indices, values, size.
    SparseCompressed = "sparsecompressed", false;
    /// A quantised tensor: integers, dtype, scheme, scales, zero points, axis.
    Quantised = "quantised", false;
    /// A parameter or buffer of a lazy module: class, dtype, device, requires gradients.
    Uninitialized = "uninitialized", false;
    /// What pickle makes of bytes, tensors and modules beside them given. Refused unless asked for.
    Pickle = "pickle", false;
    /// A parameter over a tensor that takes itself apart: tensor, requires gradients.
    WrappedParameter = "wrappedparameter", false;
    /// A number of a type of NumPy's: the type's code, the number's bytes.
    NumpyScalar = "numpyscalar", true, since 2;
}

/// What objects of one class have in common: the keys of their `__dict__`, in order, and the values
/// that are the same in all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Their class.
    pub class: PathId,
    /// Keys, and their values unless each object has its own.
    pub attributes: Vec<(StringId, Option<ValueId>)>,
}

/// An object that has identity: it is made once per opening, empty, and filled when all exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Object {
    /// A `list`.
    List(Vec<ValueId>),
    /// A `set` of constants, sorted.
    Set(Vec<ValueId>),
    /// A dictionary.
    Mapping(MappingKind, Vec<(ValueId, ValueId)>),
    /// An instance of a Python class, with what each has of its own, in the order of the template.
    Instance(TemplateId, Vec<ValueId>),
    /// An instance of a class with slots or of a subclass of a container.
    Extended {
        /// Its class and what is in its `__dict__`; the class alone if it has none.
        template: TemplateId,
        /// As in [`Object::Instance`].
        own: Vec<ValueId>,
        /// Slots and their values.
        slots: Vec<(StringId, ValueId)>,
        /// What the container holds: a sequence or a mapping.
        contents: Option<ValueId>,
    },
    /// A built value or a tuple that is met more than once. Refers to such objects before it only.
    Built(ValueId),
}

/// Something to do once every object is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What.
    pub action: Action,
    /// To which object.
    pub target: ObjectId,
    /// With what.
    pub argument: ValueId,
}

/// What a [`Step`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Action {
    /// Makes the tensors of these names computed ones (`torch.nn.utils.parametrize`).
    Parametrize,
    /// Calls `__setstate__` with what `__getstate__` gave.
    SetState,
}

impl Action {
    /// Every action, in the order of their encoding.
    pub const ALL: &'static [Self] = &[Self::Parametrize, Self::SetState];

    /// The name of the function that does it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parametrize => "parametrize",
            Self::SetState => "setstate",
        }
    }

    /// The action of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.name() == name)
    }
}

impl Value {
    /// The values that this one is made of.
    pub fn children(&self) -> impl Iterator<Item = ValueId> {
        let (items, pairs): (&[ValueId], &[(ValueId, ValueId)]) = match self {
            Self::Sequence(_, items) | Self::Built(_, items) => (items, &[]),
            Self::Mapping(_, pairs) => (&[], pairs),
            _ => (&[], &[]),
        };
        items.iter().copied().chain(pairs.iter().flat_map(|&(key, value)| [key, value]))
    }
}

impl Object {
    /// The values that this object refers to, its template's apart.
    pub fn values(&self) -> impl Iterator<Item = ValueId> {
        const NO_PAIRS: &[(ValueId, ValueId)] = &[];
        const NO_SLOTS: &[(StringId, ValueId)] = &[];
        let (items, pairs, slots, last) = match self {
            Self::List(items) | Self::Set(items) | Self::Instance(_, items) => {
                (items.as_slice(), NO_PAIRS, NO_SLOTS, None)
            }
            Self::Mapping(_, pairs) => (&[][..], pairs.as_slice(), NO_SLOTS, None),
            Self::Extended { own, slots, contents, .. } => {
                (own.as_slice(), NO_PAIRS, slots.as_slice(), *contents)
            }
            Self::Built(value) => (&[][..], NO_PAIRS, NO_SLOTS, Some(*value)),
        };
        items
            .iter()
            .copied()
            .chain(pairs.iter().flat_map(|&(key, value)| [key, value]))
            .chain(slots.iter().map(|&(_, value)| value))
            .chain(last)
    }
}
