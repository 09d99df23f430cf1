//! Contexts: the primary one of a device, which everything in a process shares, and others beside it.

use std::cell::Cell;
use std::ffi::{c_int, c_uint};
use std::marker::PhantomData;
use std::ptr;

use cudarc::driver::sys::CUcontext;

use super::fork::Generation;
use super::table::table;
use crate::error::DriverError;

/// A context that exists while this does.
#[derive(Debug)]
pub(crate) struct ContextHandle {
    raw: CUcontext,
    origin: Origin,
    made: Generation,
}

#[derive(Clone, Copy, Debug)]
enum Origin {
    /// A device's primary one, retained.
    Retained(c_int),
    /// Made here.
    Made,
}

// SAFETY: D5, and contexts may be used from any thread.
unsafe impl Send for ContextHandle {}
// SAFETY: as for `Send`.
unsafe impl Sync for ContextHandle {}

impl ContextHandle {
    /// Retains a device's primary one; makes it if this process has none yet.
    pub(crate) fn retain(ordinal: c_int) -> Result<Self, DriverError> {
        let table = table()?;
        let function = table.primary_context_retain.get()?;
        let made = Generation::watch().map_err(crate::error::Absent::Fork)?;
        let mut raw = ptr::null_mut();
        // SAFETY: D1, D3.
        let code = unsafe { function(&raw mut raw, ordinal) };
        table.primary_context_retain.done(code)?;
        Ok(Self { raw, origin: Origin::Retained(ordinal), made })
    }

    /// Makes one beside the primary one.
    pub(crate) fn create(ordinal: c_int) -> Result<Self, DriverError> {
        const DEFAULT: c_uint = 0;
        let table = table()?;
        let function = table.context_create.get()?;
        let pop = table.context_pop.get()?;
        let made = Generation::watch().map_err(crate::error::Absent::Fork)?;
        let mut raw = ptr::null_mut();
        // SAFETY: D1, D3.
        let code = unsafe { function(&raw mut raw, DEFAULT, ordinal) };
        table.context_create.done(code)?;
        // It is current now.
        let mut popped = ptr::null_mut();
        // SAFETY: D1, D3.
        unsafe { pop(&raw mut popped) };
        Ok(Self { raw, origin: Origin::Made, made })
    }

    /// Makes it current to this thread until the guard is dropped, which puts back what was. Within another
    /// guard of the same context that is done already.
    pub(crate) fn enter(&self) -> Result<Entered<'_>, DriverError> {
        let before = ENTERED.get();
        if before == self.raw.addr() {
            return Ok(Entered { outer: None, context: PhantomData });
        }
        let is_pushed = !self.is_current();
        if is_pushed {
            let table = table()?;
            let function = table.context_push.get()?;
            // SAFETY: D1, D5.
            let code = unsafe { function(self.raw) };
            table.context_push.done(code)?;
        }
        ENTERED.set(self.raw.addr());
        let outer = Some(Outer { before, is_pushed, _relaxed: Relaxed::begin() });
        Ok(Entered { outer, context: PhantomData })
    }

    /// Whether this thread has it already, as in a program whose library of tensors has made it current:
    /// one question instead of two changes.
    fn is_current(&self) -> bool {
        let Ok(table) = table() else { return false };
        let Ok(function) = table.context_current.get() else { return false };
        let mut current = ptr::null_mut();
        // SAFETY: D1, D3.
        let code = unsafe { function(&raw mut current) };
        table.context_current.done(code).is_ok() && current == self.raw
    }
}

thread_local! {
    /// The context of this thread's innermost guard, by its handle; 0 for none.
    static ENTERED: Cell<usize> = const { Cell::new(0) };
}

impl Drop for ContextHandle {
    fn drop(&mut self) {
        if !self.made.is_current() {
            return;
        }
        let Ok(table) = table() else { return };
        match self.origin {
            Origin::Retained(ordinal) => {
                let Ok(function) = table.primary_context_release.get() else { return };
                // SAFETY: D1, D5.
                unsafe { function(ordinal) };
            }
            Origin::Made => {
                let Ok(function) = table.context_destroy.get() else { return };
                // SAFETY: D1, D5.
                unsafe { function(self.raw) };
            }
        }
    }
}

/// While it lives the context is this thread's.
#[derive(Debug)]
pub(crate) struct Entered<'a> {
    /// `None` within another guard of the context.
    outer: Option<Outer>,
    context: PhantomData<(&'a ContextHandle, *mut ())>,
}

/// What the end of a guard puts back.
#[derive(Debug)]
struct Outer {
    before: usize,
    is_pushed: bool,
    _relaxed: Relaxed,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let Some(outer) = self.outer.take() else { return };
        ENTERED.set(outer.before);
        let is_pushed = outer.is_pushed;
        drop(outer);
        if !is_pushed {
            return;
        }
        let Ok(table) = table() else { return };
        let Ok(function) = table.context_pop.get() else { return };
        let mut popped = ptr::null_mut();
        // SAFETY: D1, D3; what was pushed by `enter` is on top, since guards end in order.
        unsafe { function(&raw mut popped) };
    }
}

/// While it lives, calls of this thread disturb no capture that goes on in other threads.
///
/// A capture in the default mode forbids every thread of the process some calls, such as those that
/// make and release memory, and is spoilt by them. What is done here never takes part in a capture.
#[derive(Debug)]
pub(crate) struct Relaxed {
    before: Option<c_uint>,
    thread: PhantomData<*mut ()>,
}

const RELAXED: c_uint = 2;

impl Relaxed {
    pub(crate) fn begin() -> Self {
        Self { before: exchange(RELAXED), thread: PhantomData }
    }
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            exchange(before);
        }
    }
}

fn exchange(mode: c_uint) -> Option<c_uint> {
    let table = table().ok()?;
    let function = table.exchange_capture_mode.get().ok()?;
    let mut mode = mode;
    // SAFETY: D1, D3.
    let code = unsafe { function(&raw mut mode) };
    (code == 0).then_some(mode)
}
