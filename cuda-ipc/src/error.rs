//! What can go wrong with a driver.

use std::fmt;
use std::sync::OnceLock;

use crate::mapping;
use crate::sys;
use crate::uuid::Uuid;

/// Why there is no driver to call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Absent {
    /// The driver's library cannot be loaded.
    #[error(
        "there is no CUDA driver here: {name} cannot be loaded ({reason}); install NVIDIA's driver, \
         or in a container start it with the GPUs passed in"
    )]
    Library {
        /// What was looked for.
        name: &'static str,
        /// What the dynamic linker said.
        reason: String,
    },
    /// The library is there, and does not start.
    #[error("the CUDA driver does not start: cuInit says {name} ({code}){}", hint(*code))]
    Init {
        /// The driver's number for it.
        code: u32,
        /// The driver's name for it.
        name: String,
    },
    /// What was loaded is no driver.
    #[error("what was loaded as the CUDA driver cannot be used: {reason}")]
    Unusable {
        /// What it lacks.
        reason: String,
    },
    /// Forks could not be watched, and a forked child must not use the driver.
    #[error("forks cannot be watched: pthread_atfork failed with errno {0}")]
    Fork(i32),
}

/// A function of the driver returned an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    call: &'static str,
    code: u32,
    name: String,
    text: String,
    /// How many objects this process had open for reading only.
    read_only: usize,
}

static LOST: OnceLock<CallError> = OnceLock::new();

/// The driver's first answer by which CUDA was lost to this process, if it gave one to this crate.
pub fn lost() -> Option<&'static CallError> {
    LOST.get()
}

impl CallError {
    pub(crate) fn new(call: &'static str, code: u32) -> Self {
        let (name, text) = sys::describe(code);
        let error = Self { call, code, name, text, read_only: mapping::read_only() };
        if error.is_sticky() {
            LOST.get_or_init(|| error.clone());
        }
        error
    }

    /// The function, such as `cuMemCreate`.
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// The driver's number for it.
    pub fn code(&self) -> u32 {
        self.code
    }

    /// The driver's name for it, such as `CUDA_ERROR_OUT_OF_MEMORY`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the device's memory is used up.
    pub fn is_out_of_memory(&self) -> bool {
        self.code == OUT_OF_MEMORY
    }

    /// Whether the driver does not offer what was asked for, or a system or container does not allow it, so
    /// that asking again is no use.
    pub fn is_refusal(&self) -> bool {
        matches!(self.code, NOT_PERMITTED | NOT_SUPPORTED)
    }

    /// Whether the process's context is lost: every later call in it fails as well.
    pub fn is_sticky(&self) -> bool {
        matches!(self.code, 214 | 220 | 700 | 702 | 709 | 710 | 714..=719)
    }

    /// How many objects this process had open for reading only, if a write to one of them may be what
    /// ended CUDA for it; else 0.
    pub fn suspects(&self) -> usize {
        if matches!(self.code, ILLEGAL_ADDRESS | 717 | 719) { self.read_only } else { 0 }
    }

    /// Whether it was refused because a stream is captured into a graph.
    pub(crate) fn is_capture(&self) -> bool {
        matches!(self.code, 900..=908)
    }
}

const OUT_OF_MEMORY: u32 = 2;
const NOT_PERMITTED: u32 = 800;
const NOT_SUPPORTED: u32 = 801;
const ILLEGAL_ADDRESS: u32 = 700;
pub(crate) const NOT_READY: u32 = 600;

impl fmt::Display for CallError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, code, name, text, .. } = self;
        write!(formatter, "{call}: {name} ({code}), {text}{}", hint(*code))?;
        match self.suspects() {
            0 => {}
            1 => formatter.write_str(
                "; most likely it wrote to the object that it has open for reading only",
            )?,
            count => write!(
                formatter,
                "; most likely it wrote to one of the {count} objects that it has open for reading only"
            )?,
        }
        if self.is_sticky() {
            formatter.write_str("; CUDA is lost to this process")?;
        }
        Ok(())
    }
}

impl std::error::Error for CallError {}

/// What to do about some codes whose own text does not tell.
fn hint(code: u32) -> &'static str {
    match code {
        OUT_OF_MEMORY => "; memory that other processes hold counts as well",
        3 => {
            "; if CUDA was used before this process was forked it cannot be used here: start the \
             process with spawn"
        }
        34 => {
            "; this is the toolkit's stub and not a driver: take its folder out of LD_LIBRARY_PATH"
        }
        100 => "; CUDA_VISIBLE_DEVICES may hide the devices, or the container has none",
        ILLEGAL_ADDRESS => "; a kernel of this process touched memory that it may not",
        712 => "; something else in this process registered memory in the same pages",
        NOT_PERMITTED => "; the driver or the container does not allow it",
        900..=908 => "; a stream of this context is being captured into a graph",
        _ => "",
    }
}

/// A call of the driver could not be made, or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// There is no driver.
    #[error(transparent)]
    Absent(#[from] Absent),
    /// The driver is older than the function.
    #[error("the driver has no {symbol}: it is too old for this, install a newer one")]
    Missing {
        /// The function.
        symbol: &'static str,
    },
    /// CUDA was in use when this process was forked.
    #[error(
        "CUDA was in use before this process was forked, and does not survive that: start the \
         process with spawn, or fork before CUDA is used"
    )]
    Forked,
    /// The driver refused.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl DriverError {
    /// The driver's answer, if it gave one.
    pub fn as_call(&self) -> Option<&CallError> {
        if let Self::Call(error) = self { Some(error) } else { None }
    }
}

/// Something cannot be queued in a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// It leads out of the memory.
    #[error("{bytes} bytes at offset {offset} do not lie in the {length} bytes of this memory")]
    Range {
        /// Where it begins, in bytes.
        offset: u64,
        /// Its length in bytes.
        bytes: u64,
        /// The length of the memory, in bytes.
        length: u64,
    },
    /// No word begins there.
    #[error("no word begins at offset {offset}: words have addresses that are multiples of 8")]
    Misaligned {
        /// Where it was to begin, in bytes.
        offset: u64,
    },
    /// The memory is there for reading.
    #[error("this memory is for reading only; register it with Access::ReadWrite")]
    ReadOnly,
    /// The stream is captured.
    #[error("{what} cannot go into a graph; queue it before the capture begins, or after its end")]
    Captured {
        /// What was to be queued.
        what: &'static str,
    },
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// A device cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No visible device has this identity.
    #[error(
        "no visible device is {uuid}; there are {count} others: CUDA_VISIBLE_DEVICES may hide it"
    )]
    Unknown {
        /// The device asked for.
        uuid: Uuid,
        /// How many are visible.
        count: usize,
    },
    /// No visible device has this number.
    #[error("there is no device {ordinal}, {count} are visible and are counted from 0")]
    Ordinal {
        /// The number asked for.
        ordinal: usize,
        /// How many are visible.
        count: usize,
    },
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}
