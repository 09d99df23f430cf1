//! What is known about streams and frames, as Python objects.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use shared_tensor::service::cuda::Ordering;
use shared_tensor::stream::{Phase, Publication, ReaderFigures, StreamInfo, WriterFigures};

/// Nanoseconds as the seconds that Python's clock tells.
#[expect(clippy::cast_precision_loss, reason = "Python's clock has the same precision")]
pub(crate) fn seconds(nanoseconds: i64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// One publication: count, frame id, whether it was given with this frame, time of publication in
/// seconds and in nanoseconds, monotonic time, time of acquisition, metadata, missed, phase.
pub(crate) fn publication<'py>(
    py: Python<'py>,
    publication: &Publication,
) -> PyResult<Bound<'py, PyTuple>> {
    (
        publication.count,
        publication.frame_id,
        publication.has_own_frame_id,
        seconds(publication.published_unix_ns),
        publication.published_unix_ns,
        publication.published_monotonic_ns,
        publication.acquired_unix_ns,
        PyBytes::new(py, &publication.metadata),
        publication.missed,
        publication.phase.to_string(),
    )
        .into_pyobject(py)
}

/// Twice the count while a stream is stable, odd while a write is in progress, negative after one that
/// was given up or whose writer died.
pub(crate) fn write_sequence(count: u64, phase: Phase) -> i64 {
    // 47 bits.
    let stable = 2 * count.cast_signed();
    match phase {
        Phase::Idle => stable,
        Phase::Writing => stable + 1,
        Phase::Aborted | Phase::Crashed => -(stable + 1),
    }
}

/// What is said without attaching.
pub(crate) fn stat<'py>(py: Python<'py>, info: &StreamInfo) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("name", &info.name)?;
    dict.set_item("shape", PyTuple::new(py, info.shape.dimensions())?)?;
    dict.set_item("dtype", info.dtype.name())?;
    dict.set_item("frame_bytes", info.frame_bytes)?;
    dict.set_item("total_bytes", info.total_bytes)?;
    dict.set_item("slots", info.slots)?;
    dict.set_item("device", info.device.map(|device| device.to_string()))?;
    dict.set_item("frames_in_file", info.frames_in_file)?;
    dict.set_item("mirrored", info.mirrored)?;
    dict.set_item("leases_max", info.leases_max)?;
    dict.set_item("generation", info.generation.to_string())?;
    dict.set_item("tag", info.tag)?;
    dict.set_item("creator_pid", info.creator.pid)?;
    dict.set_item("creator_uid", info.creator.uid)?;
    dict.set_item("created", seconds(info.creator.created_unix_ns))?;
    dict.set_item("creator_alive", info.creator.is_running())?;
    dict.set_item("count", info.count)?;
    dict.set_item("phase", info.phase.to_string())?;
    dict.set_item("write_sequence", write_sequence(info.count, info.phase))?;
    dict.set_item("unlinked", info.unlinked)?;
    let newest = info.newest.as_ref();
    let written = newest.map_or(0.0, |publication| seconds(publication.published_unix_ns));
    dict.set_item("write_time", written)?;
    dict.set_item("frame_id", newest.map_or(0, |publication| publication.frame_id))?;
    dict.set_item("warnings", &info.warnings)?;
    dict.set_item("counters", writer_figures(py, &info.writer)?)?;
    Ok(dict)
}

/// What is said of a stream that is open.
pub(crate) fn info<'py>(py: Python<'py>, info: &StreamInfo) -> PyResult<Bound<'py, PyDict>> {
    let dict = stat(py, info)?;
    dict.set_item("observer", info.observer)?;
    dict.set_item(
        "ordering",
        info.ordering.map(|ordering| match ordering {
            Ordering::Device => "device",
            Ordering::Host => "host",
        }),
    )?;
    dict.set_item("always_wakes", info.always_wakes)?;
    let mut participants = Vec::new();
    for participant in &info.participants {
        let entry = PyDict::new(py);
        entry.set_item("pid", participant.pid)?;
        entry.set_item("uid", participant.uid)?;
        entry.set_item("alive", participant.alive)?;
        entry.set_item("leases", participant.leases)?;
        entry.set_item("lag", participant.lag)?;
        entry.set_item("counters", reader_figures(py, &participant.reader)?)?;
        participants.push(entry);
    }
    dict.set_item("participants", participants)?;
    let population = match &info.population {
        Some(report) => {
            let entry = PyDict::new(py);
            entry.set_item("populated_bytes", report.populated.obtained_bytes)?;
            entry.set_item("huge_page_bytes", report.collapsed.obtained_bytes)?;
            entry.set_item("finished", report.finished)?;
            Some(entry)
        }
        None => None,
    };
    dict.set_item("population", population)?;
    Ok(dict)
}

fn writer_figures<'py>(py: Python<'py>, figures: &WriterFigures) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in figures.named() {
        dict.set_item(name, value)?;
    }
    Ok(dict)
}

fn reader_figures<'py>(py: Python<'py>, figures: &ReaderFigures) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in figures.named() {
        dict.set_item(name, value)?;
    }
    Ok(dict)
}
