//! A client, and the handles on what it was lent.

use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use shared_tensor::service::{
    Address, Answer, CallOptions, Client, ClientOptions, Code, Device, Error, Failure, Id, Lease,
    Progress, TaskInfo, TaskStatus, Value,
};

use super::codec::Codec;
use super::decode::Opening;
use super::started::ServiceStarted;
use super::{encode, failures, gpu, question, tasks};
use crate::collector;
use crate::patience::{Signals, is_main_thread};

/// Where a server is: how it is found, the path, and the number of the device.
pub(super) type PlaceArgument = (String, String, Option<u32>);

/// How long giving a handle back may take.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn address(place: PlaceArgument) -> Address {
    let (kind, path, index) = place;
    let index = index.unwrap_or(0);
    match kind.as_str() {
        "socket" => Address::at(path),
        "cpu" => Address::new(path, Device::Cpu),
        _ => {
            let unknown = Device::UnknownGpu { index };
            let known = gpu::identity(index);
            let device =
                known.map_or(unknown, |uuid| Device::Gpu { uuid: uuid.to_string(), index });
            Address::new(path, device)
        }
    }
}

/// A client of a server.
#[pyclass(frozen, module = "shared_tensor._native")]
pub(crate) struct ServiceClient {
    client: Client,
    pub(super) codec: Arc<Codec>,
}

/// Raises what a wait was ended by: a signal's handler, or the wait's own error.
pub(super) fn waited<T: Send>(
    py: Python<'_>,
    codec: &Codec,
    seconds: Option<f64>,
    work: impl FnOnce(CallOptions<'_>) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let deadline = deadline(seconds)?;
    let is_given_up = question::is_given_up();
    let (outcome, raised) = py.detach(|| {
        let signals = Signals::default();
        let interrupted = || if is_main_thread() { signals.have_raised() } else { is_given_up() };
        let outcome = work(CallOptions::new().deadline(deadline).interrupted(&interrupted));
        (outcome, signals.into_raised())
    });
    match raised {
        Some(raised) => Err(raised),
        None => outcome.map_err(|error| failures::of_client(py, codec, &error)),
    }
}

pub(super) fn deadline(seconds: Option<f64>) -> PyResult<Option<Instant>> {
    let Some(seconds) = seconds else { return Ok(None) };
    if seconds.is_nan() || seconds < 0.0 {
        return Err(pyo3::exceptions::PyValueError::new_err(format!(
            "timeout must be None or seconds that are not negative, got {seconds}"
        )));
    }
    // What the clock cannot say is for ever.
    let time = Duration::try_from_secs_f64(seconds).ok();
    Ok(time.and_then(|time| Instant::now().checked_add(time)))
}

#[pymethods]
impl ServiceClient {
    #[new]
    #[pyo3(signature = (codec, places, patience, *, is_driven = false, elsewhere = Vec::new()))]
    fn new(
        codec: Py<PyAny>,
        places: Vec<PlaceArgument>,
        patience: f64,
        is_driven: bool,
        elsewhere: Vec<(PlaceArgument, String)>,
    ) -> PyResult<Self> {
        let places: Vec<_> = places.into_iter().map(address).collect();
        let mut addresses = places.iter().cloned();
        let first = addresses.next().ok_or_else(|| {
            pyo3::exceptions::PyValueError::new_err("a client needs a place to look for its server")
        })?;
        let patience = Duration::try_from_secs_f64(patience).unwrap_or(Duration::MAX);
        let patience = patience.min(Duration::from_secs(1 << 30));
        let options = Client::options().patience(patience).driven(is_driven);
        let options = addresses.fold(options, ClientOptions::or_at);
        let elsewhere = elsewhere.into_iter();
        let options = elsewhere
            .fold(options, |options, (place, advice)| options.not_at(address(place), advice));
        let codec = Arc::new(Codec::new(codec).at(places));
        Ok(Self { client: options.at(first), codec })
    }

    /// Call an endpoint: its value, and the handle on it if it is managed.
    #[pyo3(signature = (endpoint, args, kwargs, seconds, report = None))]
    fn call<'py>(
        &self,
        py: Python<'py>,
        endpoint: &str,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
        seconds: Option<f64>,
        report: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let arguments = encode::arguments(&self.codec, self.client.server_pid(), args, kwargs)?;
        let answer = self.wait(py, seconds, |options| {
            self.client.call_with(endpoint, &arguments, reporting(options, report))
        })?;
        self.opened(py, answer)
    }

    fn submit<'py>(
        &self,
        py: Python<'py>,
        endpoint: &str,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
        seconds: Option<f64>,
    ) -> PyResult<String> {
        let arguments = encode::arguments(&self.codec, self.client.server_pid(), args, kwargs)?;
        let task =
            self.wait(py, seconds, |options| self.client.submit(endpoint, arguments, options))?;
        Ok(task.hyphenated())
    }

    /// Give holds of this client back; of each object, whether there was one.
    fn release<'py>(
        &self,
        py: Python<'py>,
        objects: Vec<String>,
        seconds: Option<f64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let told = PyDict::new(py);
        let mut known = Vec::new();
        for object in objects {
            told.set_item(&object, false)?;
            known.extend(Id::parse(&object).map(|id| (object, id)));
        }
        if known.is_empty() {
            return Ok(told);
        }
        let ids: Vec<Id> = known.iter().map(|(_, id)| *id).collect();
        let released = self.wait(py, seconds, |options| self.client.release(&ids, options))?;
        for ((object, _), released) in known.iter().zip(released) {
            told.set_item(object, released.is_some())?;
        }
        Ok(told)
    }

    fn object_info<'py>(
        &self,
        py: Python<'py>,
        object: &str,
        seconds: Option<f64>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(object) = Id::parse(object) else { return Ok(None) };
        let info = self.wait(py, seconds, |options| self.client.object_info(object, options))?;
        info.map(|info| tasks::object(py, &info)).transpose()
    }

    fn server_info<'py>(
        &self,
        py: Python<'py>,
        seconds: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let told = self.wait(py, seconds, |options| self.client.server_info(options))?;
        Opening::plain(py).open(&told)
    }

    fn endpoints<'py>(&self, py: Python<'py>, seconds: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let told = self.wait(py, seconds, |options| self.client.endpoints(options))?;
        Opening::plain(py).open(&told)
    }

    /// Whether a server answers; none is waited for.
    fn ping(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let deadline = deadline(Some(seconds))?;
        Ok(py.detach(|| self.client.ping(deadline)).is_ok())
    }

    /// Connect without waiting for a server: whether there is one. With `waited` it is an error if
    /// there is none, which says that so many seconds were waited.
    #[pyo3(signature = (seconds, waited = None))]
    fn try_connect(
        &self,
        py: Python<'_>,
        seconds: Option<f64>,
        waited: Option<f64>,
    ) -> PyResult<bool> {
        let waited = waited.and_then(|it| Duration::try_from_secs_f64(it).ok());
        self.wait(py, seconds, |options| self.client.try_connect(options, waited))
    }

    fn invalidate_call<'py>(
        &self,
        py: Python<'py>,
        endpoint: &str,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
        seconds: Option<f64>,
    ) -> PyResult<bool> {
        let arguments = encode::arguments(&self.codec, self.client.server_pid(), args, kwargs)?;
        let hit = self.wait(py, seconds, |options| {
            self.client.invalidate_call(endpoint, arguments, options)
        })?;
        Ok(hit.entries > 0)
    }

    fn invalidate_endpoint(
        &self,
        py: Python<'_>,
        endpoint: &str,
        seconds: Option<f64>,
    ) -> PyResult<u64> {
        let hit =
            self.wait(py, seconds, |options| self.client.invalidate_endpoint(endpoint, options))?;
        Ok(hit.entries)
    }

    fn task_status<'py>(
        &self,
        py: Python<'py>,
        task: &str,
        seconds: Option<f64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let id = self.task(py, task)?;
        let info = self.wait(py, seconds, |options| self.client.task_status(id, options))?;
        tasks::task(py, &info)
    }

    fn task_result<'py>(
        &self,
        py: Python<'py>,
        task: &str,
        seconds: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let id = self.task(py, task)?;
        let answer = self.wait(py, seconds, |options| self.client.task_result(id, options))?;
        self.opened(py, answer)
    }

    /// Wait for the end of a task, `timeout` seconds at most; its failure is raised.
    #[pyo3(signature = (task, timeout, seconds, report = None))]
    fn wait_task<'py>(
        &self,
        py: Python<'py>,
        task: &str,
        timeout: Option<f64>,
        seconds: Option<f64>,
        report: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let id = self.task(py, task)?;
        let info: TaskInfo = self
            .wait(py, timeout, |options| self.client.wait_task(id, reporting(options, report)))?;
        if matches!(info.status, TaskStatus::Failed | TaskStatus::Cancelled) {
            // Its result is the failure, as it was told.
            self.wait(py, seconds, |options| self.client.task_result(id, options))?;
        }
        tasks::task(py, &info)
    }

    fn cancel_task(
        &self,
        py: Python<'_>,
        task: &str,
        is_cooperative: bool,
        seconds: Option<f64>,
    ) -> PyResult<bool> {
        let id = self.task(py, task)?;
        self.wait(py, seconds, |options| self.client.cancel_task(id, is_cooperative, options))
    }

    fn list_tasks<'py>(
        &self,
        py: Python<'py>,
        status: Option<&str>,
        seconds: Option<f64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let wanted = match status {
            None => None,
            Some(name) => Some(TaskStatus::parse(name).ok_or_else(|| {
                let text = format!("'{name}' is not a valid TaskStatus");
                failures::remote(py, &self.codec, &Failure::other("ValueError", text))
            })?),
        };
        let infos = self.wait(py, seconds, |options| self.client.list_tasks(wanted, options))?;
        let told = PyDict::new(py);
        for info in infos {
            told.set_item(info.id.hyphenated(), tasks::task(py, &info)?)?;
        }
        Ok(told)
    }

    /// Let go of the connections.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.client.close());
    }

    // For event loops

    /// The descriptor that is readable when `drive` has something to do.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        use std::os::fd::AsRawFd as _;
        let descriptor = self.client.descriptor();
        let descriptor =
            descriptor.map_err(|error| failures::of_client(py, &self.codec, &error))?;
        Ok(descriptor.as_raw_fd())
    }

    /// Read what has come, and call what was to be called.
    fn drive(&self, py: Python<'_>) {
        py.detach(|| self.client.drive());
    }

    /// Begin a call. `done` is called with its value and None, or None and its error.
    #[pyo3(signature = (endpoint, args, kwargs, seconds, done, report = None))]
    #[expect(clippy::too_many_arguments, reason = "as many as a call has")]
    fn start_call<'py>(
        &self,
        py: Python<'py>,
        endpoint: &str,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
        seconds: Option<f64>,
        done: Py<PyAny>,
        report: Option<Py<PyAny>>,
    ) -> PyResult<ServiceStarted> {
        let arguments = encode::arguments(&self.codec, self.client.server_pid(), args, kwargs)?;
        let on_done = self.telling(done, opened);
        self.start(py, seconds, |options| {
            self.client.start_call(endpoint, arguments, reporting(options, report), on_done)
        })
    }

    /// Begin a task; `done` gets its id.
    fn start_submit<'py>(
        &self,
        py: Python<'py>,
        endpoint: &str,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
        seconds: Option<f64>,
        done: Py<PyAny>,
    ) -> PyResult<ServiceStarted> {
        let arguments = encode::arguments(&self.codec, self.client.server_pid(), args, kwargs)?;
        let on_done = self
            .telling(done, |_, _, py, id: Id| Ok(id.hyphenated().into_pyobject(py)?.into_any()));
        self.start(py, seconds, |options| {
            self.client.start_submit(endpoint, arguments, options, on_done)
        })
    }

    /// Begin to wait for the end of a task; `done` gets what there is to know of it then.
    #[pyo3(signature = (task, seconds, done, report = None))]
    fn start_wait_task(
        &self,
        py: Python<'_>,
        task: &str,
        seconds: Option<f64>,
        done: Py<PyAny>,
        report: Option<Py<PyAny>>,
    ) -> PyResult<ServiceStarted> {
        let id = self.task(py, task)?;
        let on_done =
            self.telling(done, |_, _, py, info: TaskInfo| Ok(tasks::task(py, &info)?.into_any()));
        self.start(py, seconds, |options| {
            self.client.start_wait_task(id, reporting(options, report), on_done)
        })
    }

    /// Begin to fetch the result of a task; `done` gets it.
    fn start_task_result(
        &self,
        py: Python<'_>,
        task: &str,
        seconds: Option<f64>,
        done: Py<PyAny>,
    ) -> PyResult<ServiceStarted> {
        let id = self.task(py, task)?;
        let on_done = self.telling(done, opened);
        self.start(py, seconds, |options| self.client.start_task_result(id, options, on_done))
    }
}

impl ServiceClient {
    fn wait<T: Send>(
        &self,
        py: Python<'_>,
        seconds: Option<f64>,
        work: impl FnOnce(CallOptions<'_>) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        waited(py, &self.codec, seconds, work)
    }

    fn start(
        &self,
        py: Python<'_>,
        seconds: Option<f64>,
        work: impl FnOnce(CallOptions<'static>) -> Result<shared_tensor::service::Started, Error> + Send,
    ) -> PyResult<ServiceStarted> {
        let deadline = deadline(seconds)?;
        let started = py.detach(|| work(CallOptions::new().deadline(deadline)));
        let started = started.map_err(|error| failures::of_client(py, &self.codec, &error))?;
        Ok(ServiceStarted { started })
    }

    fn task(&self, py: Python<'_>, task: &str) -> PyResult<Id> {
        Id::parse(task).ok_or_else(|| {
            let text = format!("Task '{task}' was not found");
            failures::remote(py, &self.codec, &Failure::new(Code::Task, text))
        })
    }

    fn opened<'py>(&self, py: Python<'py>, answer: Answer) -> PyResult<Bound<'py, PyAny>> {
        opened(&self.client, &self.codec, py, answer)
    }

    /// A closure for the end of a started call, which tells Python.
    fn telling<T: Send + 'static>(
        &self,
        done: Py<PyAny>,
        open: impl for<'py> FnOnce(&Client, &Arc<Codec>, Python<'py>, T) -> PyResult<Bound<'py, PyAny>>
        + Send
        + 'static,
    ) -> impl FnOnce(Result<T, Error>) + Send + 'static {
        let (client, codec) = (self.client.clone(), Arc::clone(&self.codec));
        move |outcome| {
            let mut done = Some(done);
            Python::try_attach(|py| {
                let done = done.take().expect("taken once").into_bound(py);
                let value = match outcome {
                    Ok(answer) => open(&client, &codec, py, answer),
                    Err(error) => Err(failures::of_client(py, &codec, &error)),
                };
                let told = match value {
                    Ok(value) => done.call1((value, py.None())),
                    Err(error) => done.call1((py.None(), error)),
                };
                if let Err(error) = told {
                    error.write_unraisable(py, Some(&done));
                }
            });
            // After the interpreter's end there is nobody to tell.
            std::mem::forget(done);
        }
    }
}

/// The value of an answer; for a managed one, the handle on it.
fn opened<'py>(
    client: &Client,
    codec: &Arc<Codec>,
    py: Python<'py>,
    answer: Answer,
) -> PyResult<Bound<'py, PyAny>> {
    let is_one_object = matches!(
        answer.value,
        Value::None
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Str(_)
            | Value::Bytes(_)
    );
    if is_one_object && answer.handle.is_none() {
        return Opening::new(py, codec, iter::once(&answer.value))?.open(&answer.value);
    }
    // All that is made for the answer, the handle too: else the first object after the many of a model
    // would set off the collection.
    collector::paused(py, || {
        let value = Opening::new(py, codec, iter::once(&answer.value))?.open(&answer.value)?;
        let (Some(handle), Some(lease)) = (answer.handle, answer.lease) else { return Ok(value) };
        let lease = ServiceLease {
            client: client.clone(),
            codec: Arc::clone(codec),
            lease: Some(lease),
            object: handle.object,
            server_id: handle.server.to_string(),
        };
        codec.bind(py).call_method1(intern!(py, "handle"), (value, lease))
    })
}

/// With a Python function that is told of progress, on a thread of the client.
fn reporting(options: CallOptions<'_>, report: Option<Py<PyAny>>) -> CallOptions<'_> {
    let Some(report) = report else { return options };
    let report = Codec::new(report);
    options.on_progress(move |progress: &Progress| {
        Python::try_attach(|py| {
            let report = report.bind(py);
            let Progress { done, total, note } = progress;
            if let Err(error) = report.call1((done, total, note)) {
                error.write_unraisable(py, Some(&report));
            }
        });
    })
}

/// A share in a managed object, given back with the last of: this, and what was opened with it.
#[pyclass(frozen, module = "shared_tensor._native")]
pub(crate) struct ServiceLease {
    client: Client,
    codec: Arc<Codec>,
    lease: Option<Lease>,
    object: Id,
    #[pyo3(get)]
    server_id: String,
}

#[pymethods]
impl ServiceLease {
    /// Give it back now; whether it was held.
    fn release(&self, py: Python<'_>) -> PyResult<bool> {
        let Some(lease) = &self.lease else { return Ok(false) };
        let by = Instant::now() + RELEASE_PATIENCE;
        let released = py.detach(|| self.client.release_lease(lease, by));
        released.map_err(|error| failures::of_client(py, &self.codec, &error))
    }

    /// What the server knows of the object; None if nothing.
    fn object_info<'py>(
        &self,
        py: Python<'py>,
        seconds: Option<f64>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let info = waited(py, &self.codec, seconds, |options| {
            self.client.object_info(self.object, options)
        })?;
        info.map(|info| tasks::object(py, &info)).transpose()
    }

    #[getter]
    fn object_id(&self) -> String {
        self.object.to_string()
    }

    #[getter]
    fn is_held(&self) -> bool {
        self.lease.as_ref().is_some_and(Lease::is_held)
    }
}
