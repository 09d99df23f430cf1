//! A server whose endpoints are Python functions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use shared_tensor::service::{
    Call, Concurrency, Endpoint, Execution, Failure, Id, KeyRule, MESSAGE_BYTES_LEAST, Output,
    Place, Provider, Server, ServerOptions,
};

use super::client::{PlaceArgument, address};
use super::codec::Codec;
use super::decode::Opening;
use super::encode::{self, Rules};
use super::local::{self, LocalCall, Pins, Returned};
use super::signature::Signature;
use super::{failures, gpu, running};

/// A server of Python functions.
#[pyclass(frozen, module = "shared_tensor._native")]
pub(crate) struct ServiceServer {
    provider: Provider,
    options: ServerOptions,
    codec: Arc<Codec>,
    server: Mutex<Option<Arc<Server>>>,
    pins: Pins,
}

/// A Python function of an endpoint, and what its results may be.
struct Function {
    code: Codec,
    codec: Arc<Codec>,
    rules: Rules,
}

#[pymethods]
impl ServiceServer {
    #[new]
    #[pyo3(signature = (
        codec, *, max_workers, result_ttl, request_bytes_max, result_bytes, server_id, told,
        capabilities, gpu = None
    ))]
    #[expect(clippy::too_many_arguments, reason = "keywords of a constructor")]
    fn new(
        codec: Py<PyAny>,
        max_workers: usize,
        result_ttl: f64,
        request_bytes_max: u32,
        result_bytes: Option<u64>,
        server_id: &str,
        told: &Bound<'_, PyDict>,
        capabilities: &Bound<'_, PyDict>,
        gpu: Option<u32>,
    ) -> PyResult<Self> {
        let codec = Arc::new(Codec::new(codec));
        let of_workers = Arc::clone(&codec);
        let mut options = Server::options()
            .max_workers(max_workers)
            .result_ttl(Duration::try_from_secs_f64(result_ttl).unwrap_or(Duration::MAX))
            .message_bytes_max(request_bytes_max.max(MESSAGE_BYTES_LEAST))
            // What may be returned is decided by the rules of Python.
            .host_memory_for_gpu(true)
            .around_worker(move |run| attached(&of_workers, run));
        if let Some(bytes) = result_bytes {
            options = options.budget(Place::Cpu, bytes);
            if let Some(uuid) = gpu.and_then(gpu::identity) {
                options = options.budget(Place::Cuda(uuid), bytes);
            }
        }
        if let Some(id) = Id::parse(server_id) {
            options = options.id(id);
        }
        let plain = Rules::PLAIN;
        for (name, value) in told.iter() {
            let value = encode::result(&codec, "", &value, plain)?;
            options = options.info(name.extract::<String>()?, value);
        }
        for (name, value) in capabilities.iter() {
            let value = encode::result(&codec, "", &value, plain)?;
            options = options.capability(name.extract::<String>()?, value);
        }
        Ok(Self {
            provider: Provider::new(),
            options,
            codec,
            server: Mutex::new(None),
            pins: Pins::default(),
        })
    }

    /// Offer a function: what was registered with the provider, and what its results are found by.
    fn register(
        &self,
        py: Python<'_>,
        endpoint: &Bound<'_, PyAny>,
        key: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let option = |name: &str| endpoint.getattr(name)?.extract::<bool>();
        let word = |name: &str| endpoint.getattr(name)?.extract::<String>();
        let name = word("name")?;
        let (is_cached, is_managed) = (option("cache")?, option("managed")?);
        let is_writable = option("writable")?;
        let rules = Rules {
            is_result: true,
            is_plain: option("plain")?,
            is_writable: is_writable || !(is_cached || is_managed),
            copies: option("copy")?,
            process: None,
        };
        let function = Arc::new(Function {
            code: Codec::new(endpoint.getattr("func")?.unbind()),
            codec: Arc::clone(&self.codec),
            rules,
        });
        let made = Endpoint::new(name, move |call| function.run(call))
            .cache(is_cached)
            .key(self.key_rule(key)?)
            .managed(is_managed)
            .execution(match word("execution")?.as_str() {
                "task" => Execution::Task,
                _ => Execution::Direct,
            })
            .concurrency(match word("concurrency")?.as_str() {
                "serialized" => Concurrency::Serialized,
                _ => Concurrency::Parallel,
            })
            .singleflight(option("singleflight")?)
            .async_default_wait(option("async_default_wait")?)
            .writable(is_writable);
        let signature = endpoint.call_method0("signature")?;
        let made = if signature.is_none() {
            made
        } else {
            let signature = Signature::new(&signature)?;
            made.accept(move |arguments| signature.check(arguments))
        };
        let made = match endpoint.getattr("cache_format_key")?.extract::<Option<String>>()? {
            Some(template) => made.cache_format_key(template),
            None => made,
        };
        let registered = py.detach(|| self.provider.register(made));
        registered.map_err(|error| {
            let failure = Failure::new(error.code(), error.to_string());
            failures::remote(py, &self.codec, &failure)
        })
    }

    /// Begin to answer.
    fn serve(&self, py: Python<'_>, place: PlaceArgument) -> PyResult<()> {
        let address = address(place);
        let outcome = py.detach(|| self.options.clone().serve(&address, &self.provider));
        let server =
            outcome.map_err(|error| failures::of_serving(py, &self.codec, &address, &error))?;
        *self.slot() = Some(Arc::new(server));
        Ok(())
    }

    /// Stop; what runs has `grace` seconds to end, None for as long as it takes. The endpoints of the
    /// calls that have not ended.
    #[pyo3(signature = (grace))]
    fn stop(&self, py: Python<'_>, grace: Option<f64>) -> Vec<String> {
        let server = self.slot().clone();
        let grace = match grace {
            Some(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or(FOR_EVER),
            None => FOR_EVER,
        };
        py.detach(|| {
            self.pins.clear();
            let stopped = server.and_then(|server| server.stop(grace.min(FOR_EVER)).ok());
            drop(self.slot().take());
            let unfinished = stopped.map(|it| it.unfinished).unwrap_or_default();
            unfinished.into_iter().map(|call| call.endpoint).collect()
        })
    }

    /// Where its socket is.
    #[getter]
    fn path(&self) -> Option<String> {
        self.slot().as_ref().map(|server| server.path().display().to_string())
    }

    /// Call an endpoint from within: its result as it was returned, and whether the server has it too,
    /// which it has not if it is of a kind that cannot be lent.
    fn call_local<'py>(
        &self,
        py: Python<'py>,
        endpoint: &str,
        key: Option<String>,
        args: Bound<'py, PyTuple>,
        kwargs: Bound<'py, PyDict>,
    ) -> PyResult<(Bound<'py, PyAny>, bool)> {
        let server = self.running(py)?;
        let arguments = (args, kwargs);
        local::call(py, &server, &self.codec, &self.pins, endpoint, key, arguments)
    }

    /// Let go of what was called for from within.
    fn unpin(&self, py: Python<'_>, endpoint: &str) {
        py.detach(|| self.pins.forget(endpoint));
    }

    /// What it tells about itself.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let server = self.running(py)?;
        let info = py.detach(|| server.info());
        Opening::plain(py).open(&info)
    }
}

/// About a year: a time that can be added to any other.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A worker has its Python thread state made once, not for each call, and its GPU chosen.
fn attached(codec: &Codec, run: &mut dyn FnMut()) {
    let mut run = Some(crate::sys::OnThisThread::new(run));
    let is_attached = Python::try_attach(|py| {
        if let Err(error) = codec.bind(py).call_method0(intern!(py, "enter_worker")) {
            error.write_unraisable(py, None);
        }
        let run = run.take().expect("taken once");
        py.detach(move || run.call());
    });
    if is_attached.is_none()
        && let Some(run) = run
    {
        run.call();
    }
}

impl ServiceServer {
    fn slot(&self) -> MutexGuard<'_, Option<Arc<Server>>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self, py: Python<'_>) -> PyResult<Arc<Server>> {
        self.slot().clone().ok_or_else(|| {
            failures::remote(py, &self.codec, &Failure::other("RuntimeError", "it is stopped"))
        })
    }

    /// A text, a function of the arguments, or None for what is not kept.
    fn key_rule(&self, key: &Bound<'_, PyAny>) -> PyResult<KeyRule> {
        if key.is_none() {
            return Ok(KeyRule::Endpoint);
        }
        if let Ok(text) = key.cast::<PyString>() {
            return Ok(KeyRule::Constant(text.to_cow()?.as_ref().into()));
        }
        let (function, codec) = (Codec::new(key.clone().unbind()), Arc::clone(&self.codec));
        Ok(KeyRule::computed(move |call| {
            if let Some(key) = LocalCall::of(call).and_then(LocalCall::key) {
                return Ok(key.to_owned());
            }
            in_python(|py| {
                let (args, kwargs) = arguments(py, &codec, call)?;
                let text = function.bind(py).call1((args, kwargs));
                text.and_then(|text| text.extract::<String>())
                    .map_err(|error| failures::of_python(py, &codec, &error))
            })
        }))
    }
}

impl Function {
    fn run(&self, call: &Call) -> Result<Output, Failure> {
        in_python(|py| {
            let local = LocalCall::of(call);
            let told = |error: PyErr| {
                let failure = failures::of_python(py, &self.codec, &error);
                if let Some(local) = local {
                    local.keep_raised(error);
                }
                failure
            };
            let (args, kwargs) = match local {
                Some(local) => local.arguments(py).map_err(told)?,
                None => arguments(py, &self.codec, call)?,
            };
            let function = self.code.bind(py);
            let returned = running::within(call, || function.call(args, Some(&kwargs)));
            let returned = returned.map_err(told)?;
            let value = encode::result(&self.codec, call.endpoint(), &returned, self.rules)
                .map_err(|error| {
                    if let Some(local) = local {
                        local.keep_returned(returned.clone().unbind());
                    }
                    failures::of_python(py, &self.codec, &error)
                })?;
            let native = Returned(Some(returned.unbind()));
            Ok(Output::from(value).with_native(Arc::new(native)))
        })
    }
}

fn in_python<T>(work: impl FnOnce(Python<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
    Python::try_attach(work).unwrap_or_else(|| {
        Err(Failure::other("RuntimeError", "the server's interpreter is ending"))
    })
}

fn arguments<'py>(
    py: Python<'py>,
    codec: &Codec,
    call: &Call,
) -> Result<(Bound<'py, PyTuple>, Bound<'py, PyDict>), Failure> {
    let open = || {
        let named = call.named().iter().map(|(_, value)| value);
        let mut opening = Opening::new(py, codec, call.positional().iter().chain(named))?;
        let args = opening.tuple(call.positional())?;
        let kwargs = PyDict::new(py);
        for (name, value) in call.named() {
            kwargs.set_item(name, opening.open(value)?)?;
        }
        PyResult::Ok((args, kwargs))
    };
    open().map_err(|error| failures::of_python(py, codec, &error))
}
