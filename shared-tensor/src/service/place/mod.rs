//! Where servers and clients meet.
//!
//! A socket lies in the user's private runtime directory, under a name made of the device that the
//! server is for and of its base path: two servers for different devices never take each other's
//! place, whatever number each has for its own device. From the path of the contract,
//! `<base path>-<number>.sock` or `<base path>-cpu.sock`, a symbolic link leads there for those who
//! look; it is a convenience, and the first of two servers has it.

mod signpost;

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rpc_uds::{RuntimeDirectory, RuntimeDirectoryError};
use thiserror::Error;

pub(crate) use signpost::{FOREIGN, Signpost, follow};

use super::endpoint::digest;

/// The variable that names another runtime directory. Its parent must be there.
pub const RUNTIME_DIRECTORY_VARIABLE: &str = "SHARED_TENSOR_RUNTIME_DIR";

/// The base path that is used if nothing else is said.
pub const DEFAULT_BASE_PATH: &str = "/tmp/shared-tensor";

/// What memory a server lends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// Memory of the host.
    Cpu,
    /// Memory of a GPU, whose identity is the same in every process, and whose number is not. Results in
    /// memory of the host are refused there, unless
    /// [`host_memory_for_gpu`](super::ServerOptions::host_memory_for_gpu) is said.
    Gpu {
        /// Its identity, such as `GPU-8a1b...`.
        uuid: String,
        /// Its number in this process.
        index: u32,
    },
    /// Memory of a GPU whose identity is not known here, since there is no driver, or it hides the GPU. A
    /// client finds whichever server the link of that number leads to.
    UnknownGpu {
        /// The number.
        index: u32,
    },
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu { uuid, .. } => f.write_str(uuid),
            Self::UnknownGpu { index } => write!(f, "gpu-{index}"),
        }
    }
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(Inner);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Inner {
    Keyed { base: PathBuf, device: Device },
    Socket(PathBuf),
}

impl Address {
    /// The server for `device` under `base_path`.
    pub fn new(base_path: impl Into<PathBuf>, device: Device) -> Self {
        let base = base_path.into();
        // Fails for an empty path only, which then names nothing else.
        let base = std::path::absolute(&base).unwrap_or(base);
        Self(Inner::Keyed { base, device })
    }

    /// A socket at just this path, without a link.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self(Inner::Socket(socket.into()))
    }

    /// The GPU that a server there is for.
    pub(crate) fn gpu(&self) -> Option<&Device> {
        match &self.0 {
            Inner::Keyed { device: Device::Cpu, .. } | Inner::Socket(_) => None,
            Inner::Keyed { device, .. } => Some(device),
        }
    }

    /// The path of the socket. Makes the runtime directory if it is not there.
    ///
    /// # Errors
    /// [`PlaceError::RuntimeDirectory`], if there is no private one.
    pub fn socket(&self) -> Result<PathBuf, PlaceError> {
        match &self.0 {
            Inner::Socket(path) => Ok(path.clone()),
            Inner::Keyed { base, device } => {
                let is_plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_');
                let device: String =
                    device.to_string().chars().filter(|it| is_plain(*it)).collect();
                let name = format!("{}{}", &device[..device.len().min(48)], ending_of(base));
                Ok(runtime_directory()?.socket(&name))
            }
        }
    }

    /// Whether a socket is for another device than this, under the same base path: a number may lead there
    /// that means another GPU in the server's process.
    pub(crate) fn is_for_another(&self, socket: &Path) -> bool {
        let Inner::Keyed { base, device: Device::Gpu { .. } } = &self.0 else { return false };
        let Ok(own) = self.socket() else { return false };
        let name = |path: &Path| path.file_name().map(OsStr::to_os_string).unwrap_or_default();
        name(socket) != name(&own) && name(socket).to_string_lossy().ends_with(&ending_of(base))
    }

    /// The sockets under the same base path that are for other GPUs, whether somebody listens there or
    /// not. A process cannot ask for a GPU that it does not see.
    pub(crate) fn for_other_gpus(&self) -> Vec<PathBuf> {
        let (Inner::Keyed { base, .. }, Some(_)) = (&self.0, self.gpu()) else { return Vec::new() };
        let (Ok(own), ending) = (self.socket(), ending_of(base)) else { return Vec::new() };
        let Some(Ok(entries)) = own.parent().map(fs::read_dir) else { return Vec::new() };
        let host = format!("{}{ending}", Device::Cpu);
        let is_other = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            *path != own && name.ends_with(&ending) && name != host
        };
        let mut found: Vec<_> = entries.flatten().map(|it| it.path()).filter(is_other).collect();
        found.sort();
        found
    }

    /// The path of the link that leads to the socket; `None` for a socket at a path of its own.
    pub fn signpost(&self) -> Option<PathBuf> {
        let Inner::Keyed { base, device } = &self.0 else { return None };
        let mut path = base.clone().into_os_string();
        match device {
            Device::Cpu => path.push("-cpu.sock"),
            Device::Gpu { index, .. } | Device::UnknownGpu { index } => {
                path.push(format!("-{index}.sock"));
            }
        }
        Some(path.into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Keyed { base, device } => write!(f, "{} on {device}", base.display()),
            Inner::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What the names of all sockets under a base path end with.
fn ending_of(base: &Path) -> String {
    format!("-{}.sock", &digest(base.as_os_str().as_bytes())[..16])
}

/// The private directory in which sockets are.
///
/// # Errors
/// [`PlaceError::RuntimeDirectory`], if it belongs to somebody else, or others may enter it.
pub fn runtime_directory() -> Result<RuntimeDirectory, PlaceError> {
    let named = env::var_os(RUNTIME_DIRECTORY_VARIABLE).filter(|path| !path.is_empty());
    Ok(match named {
        Some(path) => RuntimeDirectory::at(Path::new(&path))?,
        None => RuntimeDirectory::of("shared-tensor")?,
    })
}

/// Why there is no place to meet.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// No private directory.
    #[error(transparent)]
    RuntimeDirectory(#[from] RuntimeDirectoryError),
    /// A link that leads to something of another user, or where others may put things.
    #[error(
        "{} leads to {}, which {reason}: it is not followed", .link.display(), .target.display()
    )]
    Untrusted {
        /// The link.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
        /// What is wrong there.
        reason: &'static str,
    },
}
