//! What a handle says of its stream and of itself.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use shared_tensor::stream::Phase;

use super::{Handle, Inner};
use crate::{errors, report};

impl Inner {
    /// Count and phase of one moment. A write that its writer left behind has crashed, although nobody
    /// has come to say so.
    fn state(&self) -> (u64, Phase) {
        match self.stream.state() {
            (count, Phase::Writing) if self.stream.is_abandoned() => (count, Phase::Crashed),
            state => state,
        }
    }
}

#[pymethods]
impl Handle {
    /// The stream's name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// The shape of every frame.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.frames.shape())
    }

    /// The element type by its NumPy name.
    #[getter]
    fn dtype_name(&self) -> &'static str {
        self.frames.dtype().name()
    }

    /// Bytes of one frame.
    #[getter]
    fn frame_bytes(&self) -> usize {
        self.frames.bytes()
    }

    /// Slots of the ring.
    #[getter]
    fn slots(&self) -> usize {
        self.origin.load().slots
    }

    /// Which creation of the name this is: 32 hexadecimal digits.
    #[getter]
    fn generation(&self) -> String {
        self.origin.load().generation.to_string()
    }

    /// Whether this handle was opened for reading only.
    #[getter]
    fn readonly(&self) -> bool {
        self.readonly
    }

    /// Whether this handle was closed, or is being closed.
    #[getter]
    fn closed(&self) -> bool {
        // A wait that closing ended may ask before closing has ended.
        self.closed.load(Ordering::Acquire)
    }

    /// Directory of the stream's file.
    #[getter]
    fn directory(&self) -> String {
        self.namespace.directory().display().to_string()
    }

    /// What the name of the stream's file starts with.
    #[getter]
    fn prefix(&self) -> &str {
        self.namespace.prefix()
    }

    /// The process that created the stream, in its own pid namespace.
    #[getter]
    fn creator_pid(&self) -> u32 {
        self.origin.load().creator.pid
    }

    /// The number in this process of the GPU on which this handle reads and writes, 0 for ``cuda:0``; None
    /// for handles on memory of the host.
    #[getter]
    fn device_index(&self) -> Option<i32> {
        self.place.ordinal
    }

    /// The GPU that the stream is on, such as ``GPU-01234567-...``; None for streams in memory of the host.
    #[getter]
    fn device_uuid(&self) -> Option<String> {
        self.place.home.map(|home| home.to_string())
    }

    /// Whether frames can be read in memory of the host.
    #[getter]
    fn mirrored(&self) -> bool {
        self.place.is_in_host_memory
    }

    /// The creator's number for whoever opens the stream.
    #[getter]
    fn tag(&self) -> u32 {
        self.origin.load().tag
    }

    /// How many frames were published so far.
    #[getter]
    #[inline]
    fn count(&self) -> PyResult<u64> {
        match &*self.open.load() {
            Some(inner) => Ok(inner.stream.count()),
            None => Err(errors::closed(&self.name)),
        }
    }

    /// Whether the name was unlinked since.
    #[getter]
    fn unlinked(&self) -> PyResult<bool> {
        Ok(self.live()?.stream.is_unlinked())
    }

    /// What the write side is doing: idle, writing, aborted or crashed.
    #[getter]
    fn phase(&self) -> PyResult<String> {
        Ok(self.live()?.state().1.to_string())
    }

    /// Twice the count while the stream is stable, odd while a write is in progress, negative after
    /// one that was given up or whose writer died.
    #[getter]
    fn write_sequence(&self) -> PyResult<i64> {
        let (count, phase) = self.live()?.state();
        Ok(report::write_sequence(count, phase))
    }

    /// When the newest frame was published, in seconds since 1970; 0.0 before the first one.
    #[getter]
    fn write_time(&self) -> PyResult<f64> {
        let newest = self.live()?.stream.publication();
        Ok(newest.map_or(0.0, |publication| report::seconds(publication.published_unix_ns)))
    }

    /// The last number that a writer gave to a frame; 0 if none did.
    #[getter]
    fn frame_id(&self) -> PyResult<u64> {
        Ok(self.live()?.stream.publication().map_or(0, |publication| publication.frame_id))
    }

    /// The count of the last frame that this handle read, or at which it was opened.
    #[getter]
    fn last_read_count(&self) -> PyResult<u64> {
        self.live()?;
        Ok(self.position().last)
    }

    /// Frames that were skipped before the last one read.
    #[getter]
    fn missed(&self) -> PyResult<u64> {
        self.live()?;
        Ok(self.position().missed)
    }

    /// Frames that this handle never saw.
    #[getter]
    fn missed_total(&self) -> PyResult<u64> {
        self.live()?;
        Ok(self.position().missed_total)
    }

    /// Whether the process that created the stream still runs, as far as can be told from here.
    #[getter]
    fn creator_alive(&self) -> PyResult<bool> {
        self.live()?;
        Ok(self.origin.load().creator.is_running())
    }

    /// Where this process has mapped the payload: first address and the one behind the last.
    fn address_range(&self) -> PyResult<(usize, usize)> {
        let addresses = self.live()?.stream.payload_addresses();
        Ok((addresses.start, addresses.end))
    }

    /// Say everything that is known of the stream, at this moment.
    ///
    /// Returns
    /// -------
    /// dict
    ///     ``name``, ``shape``, ``dtype``, ``frame_bytes``, ``total_bytes`` (of the file), ``slots``,
    ///     ``leases_max`` (frames that can be leased at once), ``generation`` and ``tag``;
    ///     ``creator_pid``, ``creator_uid``, ``created`` (seconds since 1970), ``creator_alive``;
    ///     ``count``, ``phase`` ("idle", "writing", "aborted" or "crashed"), ``write_sequence``,
    ///     ``unlinked``, ``write_time`` (seconds since 1970, 0.0 before the first frame), ``frame_id``;
    ///     ``warnings``: a list of sentences on what this stream or handle cannot promise, why it is in memory
    ///     of the host where the GPU was meant, that its name was unlinked, or that a writer died during a
    ///     write; usually empty;
    ///     ``counters``: of the write side, since creation;
    ///     ``observer``: whether this process may not write to the file, so that it copies and never leases;
    ///     ``always_wakes``: whether every publication wakes, for readers that cannot say that they wait;
    ///     ``participants``: the attached processes, each with ``pid``, ``uid``, ``alive``, ``leases``,
    ///     ``lag`` (frames published since its last read) and ``counters`` of its reads;
    ///     ``population``: None, or how many bytes of a large ring were made ready ahead
    ///     (``populated_bytes``, ``huge_page_bytes``, ``finished``).
    ///
    /// Raises
    /// ------
    /// RuntimeError
    ///     The handle is closed.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let inner = self.live()?;
        let mut info = py.detach(|| inner.stream.info());
        info.warnings.extend(inner.reason_for_mirror().map(|reason| {
            format!("this handle reads and writes memory of the host, as the GPU is not to be had here: {reason}")
        }));
        report::info(py, &info)
    }
}
