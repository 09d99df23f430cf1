//! Which GPU a handle uses, and how it comes to it.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::Borrowed;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;
use shared_tensor::ErrorKind;
use shared_tensor::service::cuda::{Context, Device, Uuid, probe};
use shared_tensor::stream::{ReaderOptions, Stream, Wait};

use super::OnGpu;
use crate::patience::Patience;

/// How long the processes that have a stream's frames are asked for them when it is opened, in seconds.
/// One that is not stopped answers at once.
const FETCH_S: f64 = 5.0;

/// Which GPU a handle is to use, in the words of the layers above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// `None`: none, or the frames in memory of the host.
    Host,
    /// `"home"`: the one that the stream is on, or memory of the host where that is not to be had and the
    /// frames are there, too.
    Home,
    /// The one with this number in this process.
    At(usize),
}

impl<'py> FromPyObject<'_, 'py> for Wanted {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if given.is_none() {
            return Ok(Self::Host);
        }
        if given.cast::<PyString>().is_ok_and(|text| text == "home") {
            return Ok(Self::Home);
        }
        Ok(Self::At(given.extract()?))
    }
}

/// The GPU with a number, with the context that everybody in this process shares.
pub(crate) fn context_at(ordinal: usize) -> PyResult<Context> {
    let context = || -> Result<Context, Box<dyn std::error::Error>> {
        Ok(probe()?.device_at(ordinal)?.context()?)
    };
    context().map_err(|source| {
        PyRuntimeError::new_err(format!(
            "CUDA is not available for cuda:{ordinal} in this process: {source}"
        ))
    })
}

/// The number in this process of the GPU that is meant; `None` if there is no driver or it does not show it.
pub(crate) fn ordinal_of(device: Uuid) -> Option<usize> {
    Some(probe().ok()?.device(device).ok()?.ordinal())
}

/// Whether a stream's frames can be read in memory of the host.
pub(crate) fn is_in_host_memory(stream: &Stream) -> bool {
    stream.frames_in_file() || stream.is_mirrored()
}

/// How a handle reaches frames.
pub(crate) enum Attached {
    OnGpu(Box<OnGpu>),
    InHostMemory,
    /// In the mirror, as the GPU is not to be had: why.
    Instead(String),
}

impl OnGpu {
    /// What a handle on `stream` gets.
    pub(crate) fn attach(
        py: Python<'_>,
        stream: &Stream,
        wanted: Wanted,
        readonly: bool,
        behaviour: ReaderOptions,
    ) -> PyResult<Attached> {
        let Some(home) = stream.device() else { return Ok(Attached::InHostMemory) };
        let (name, mirrored) = (stream.name(), is_in_host_memory(stream));
        let there = match wanted {
            Wanted::Host if mirrored => return Ok(Attached::InHostMemory),
            Wanted::Host => {
                return Err(PyValueError::new_err(format!(
                    "stream '{name}' is on {home} without a CPU mirror: its frames cannot be read \
                     without a GPU. Open it without naming the CPU where its GPU is seen, or have it \
                     created with mirror=True (cpu_mirror=True of pyshmem's interface)"
                )));
            }
            Wanted::Home => py.detach(|| at_home(name, home)),
            Wanted::At(ordinal) => py.detach(|| context_at(ordinal)),
        };
        let is_interrupted = AtomicBool::new(false);
        let attached = there.and_then(|context| {
            let never = AtomicBool::new(false);
            let patience = Patience::of(Some(FETCH_S))?;
            patience.run(py, name, &never, |wait| {
                let attached = Self::with(stream.clone(), context, readonly, behaviour, wait);
                attached.inspect_err(|error| {
                    let is_it = error.kind() == ErrorKind::Interrupted;
                    is_interrupted.store(is_it, Ordering::Relaxed);
                })
            })
        });
        match attached {
            Ok(attached) => Ok(Attached::OnGpu(Box::new(attached))),
            // What was asked for wrongly is no lack of a GPU, and neither is what a signal's handler raised.
            Err(error)
                if mirrored
                    && wanted == Wanted::Home
                    && !is_interrupted.load(Ordering::Relaxed)
                    && !error.is_instance_of::<PyValueError>(py) =>
            {
                Ok(Attached::Instead(error.value(py).to_string()))
            }
            Err(error) => Err(error),
        }
    }

    fn with(
        stream: Stream,
        context: Context,
        readonly: bool,
        behaviour: ReaderOptions,
        wait: &Wait<'_>,
    ) -> shared_tensor::Result<Self> {
        let reader = stream.reader_on(&context, behaviour, wait)?;
        let it = Self::new(stream, context, behaviour);
        it.idle().push(Box::new(reader));
        if !readonly {
            it.writer()?;
        }
        Ok(it)
    }
}

/// The GPU that a stream is on, whatever its number here is.
fn at_home(name: &str, home: Uuid) -> PyResult<Context> {
    let unavailable = |why: &dyn std::fmt::Display| {
        PyRuntimeError::new_err(format!(
            "stream '{name}' is on {home}, and CUDA is not available for it in this process: {why}"
        ))
    };
    let driver = probe().map_err(|error| unavailable(&error))?;
    let device = driver.device(home).map_err(|error| unavailable(&error))?;
    Device::context(&device).map_err(|error| unavailable(&error))
}

/// The number in this process of the GPU with an identity such as `GPU-01234567-...`, without a context;
/// `None` where there is no driver, or it does not show that GPU.
#[pyfunction]
pub(crate) fn gpu_ordinal(py: Python<'_>, uuid: &str) -> Option<usize> {
    let uuid = uuid.parse().ok()?;
    py.detach(|| ordinal_of(uuid))
}

/// The error of a stream that has nothing for the host.
#[cold]
pub(crate) fn not_in_host_memory(stream: &Stream) -> PyErr {
    let home = stream.device().map_or_else(String::new, |home| home.to_string());
    PyRuntimeError::new_err(format!(
        "stream '{}' has its frames on {home} and no mirror in memory of the host: read a tensor with \
         latest() and copy it with .cpu(), or create the stream with mirror=True",
        stream.name()
    ))
}
