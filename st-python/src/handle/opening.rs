//! How a handle comes to be: a stream is created or opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use shared_tensor::lock::{InheritedMutex, PerProcess};
use shared_tensor::stream::{OpenOptions, ReaderOptions, Stream};

use super::following::{Origin, Position};
use super::{Handle, Inner, Place};
use crate::arrays::{self, Frames};
use crate::errors;
use crate::gpu::{self, Attached, OnGpu, Wanted};
use crate::options::{self, Creation, Whole};
use crate::ownership::Ownership;
use crate::patience::Patience;

impl Handle {
    fn of(
        (stream, reached): (Stream, Attached),
        readonly: bool,
        attached: bool,
        behaviour: ReaderOptions,
        casting: &str,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let inner = Inner::new(stream.clone(), reached);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: stream.name().to_owned(),
            frames: Frames::new(&stream, casting.to_owned()),
            readonly,
            attached,
            place: Place {
                home: stream.device(),
                ordinal: inner.gpu().map(OnGpu::ordinal),
                is_in_host_memory: gpu::is_in_host_memory(&stream),
            },
            behaviour,
            ownership: Ownership::of(stream.generation()),
            closed: Arc::default(),
            position: InheritedMutex::new(Position::at_the_newest(&stream)),
            waits: PerProcess::new(),
            origin: ArcSwap::from_pointee(Origin::of(&stream)),
            namespace: stream.namespace().clone(),
            open: ArcSwapOption::from_pointee(inner),
        }
    }
}

#[pymethods]
impl Handle {
    #[new]
    #[pyo3(signature = (
        action, name, shape=None, dtype=None, *, slots=None, mode=Whole(0o600), group=None, directory=None,
        prefix=None, lock_memory=false, tag=Whole(0), readonly=false, attach=true, timeout=Some(0.0),
        on_abort="serve", on_writing="serve", on_empty="raise", reattach=false, spin=None,
        casting="same_kind", device=Wanted::Host, mirror=false,
    ), text_signature = "(action, name, shape=None, dtype=None, *, slots=None, mode=0o600, group=None, \
        directory=None, prefix=None, lock_memory=False, tag=0, readonly=False, attach=True, \
        timeout=0.0, on_abort='serve', on_writing='serve', on_empty='raise', reattach=False, \
        spin=None, casting='same_kind', device=None, mirror=False)")]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    #[expect(clippy::fn_params_excessive_bools, reason = "keywords of Python")]
    fn new(
        py: Python<'_>,
        action: &str,
        name: &Bound<'_, PyAny>,
        shape: Option<&Bound<'_, PyAny>>,
        dtype: Option<&Bound<'_, PyAny>>,
        slots: Option<Whole<usize>>,
        mode: Whole<u32>,
        group: Option<Whole<u32>>,
        directory: Option<&str>,
        prefix: Option<&str>,
        lock_memory: bool,
        tag: Whole<u32>,
        readonly: bool,
        attach: bool,
        timeout: Option<f64>,
        on_abort: &str,
        on_writing: &str,
        on_empty: &str,
        reattach: bool,
        spin: Option<f64>,
        casting: &str,
        device: Wanted,
        mirror: bool,
    ) -> PyResult<Self> {
        let name = &*options::name(name)?;
        let casting = options::casting(casting)?;
        let namespace = options::namespace(directory, prefix)?;
        let behaviour = options::reading(on_abort, on_writing, on_empty, reattach, spin)?;
        if reattach && !readonly {
            return Err(PyValueError::new_err(
                "reattach=True needs readonly=True: a handle that may write stays with its stream",
            ));
        }
        let patience = Patience::of(timeout)?;
        let creation = Creation {
            shape,
            dtype,
            slots: slots.map(|it| it.0),
            mode: mode.0,
            group: group.map(|it| it.0),
            lock_memory,
            tag: tag.0,
            mirror,
        };
        let made_on = match device {
            Wanted::At(ordinal) if action != "open" => {
                Some(py.detach(|| gpu::context_at(ordinal))?)
            }
            _ => None,
        };
        if attach {
            // Beforehand: it takes as long as a hundred frames do, which would be missed.
            arrays::prepare(py);
        }
        let stream = match action {
            "create" => {
                let options = creation.options(namespace)?;
                let created = py.detach(|| match &made_on {
                    Some(context) => options.create_on(context, name),
                    None => options.create(name),
                });
                created.map_err(|error| errors::raised(&error))?
            }
            "open_or_create" => {
                let options = creation.options(namespace)?;
                let opened = py.detach(|| match &made_on {
                    Some(context) => options.open_or_create_on(context, name),
                    None => options.open_or_create(name),
                });
                opened.map_err(|error| errors::raised(&error))?
            }
            "open" => {
                let options = OpenOptions::new()
                    .namespace(namespace)
                    .read_only(readonly)
                    .lock_memory(lock_memory);
                if timeout == Some(0.0) {
                    options.open(name).map_err(|error| errors::raised(&error))?
                } else {
                    let never = AtomicBool::new(false);
                    patience.run(py, name, &never, |wait| options.open_when_created(name, wait))?
                }
            }
            other => {
                return Err(PyValueError::new_err(format!(
                    "action must be 'create', 'open' or 'open_or_create', got '{other}'"
                )));
            }
        };
        let attached = if attach {
            let attached = OnGpu::attach(py, &stream, device, readonly, behaviour);
            attached.inspect_err(|_| {
                // Nobody else knows of it, and it would be left behind.
                if action == "create" {
                    let _ = stream.unlink();
                }
            })?
        } else {
            Attached::InHostMemory
        };
        let handle = Self::of((stream, attached), readonly, attach, behaviour, casting);
        if attach {
            handle.frames.prepare(py);
        }
        Ok(handle)
    }
}
