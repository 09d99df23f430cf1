//! With what slots are filled for the dead.
//!
//! Whoever waits for a lost frame waits in streams of its own, and a device takes the work of a context from a few
//! queues that all its streams share: 8, or `CUDA_DEVICE_MAX_CONNECTIONS`, whatever their priority. When the
//! streams that wait have all of them, nothing else of that context goes on, and what mends would be behind
//! what waits for it. So that has a context of its own, whose queues are others. It is made when the first
//! frame has to be mended, and ends with this process's last use of the device for streams.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use cuda_ipc::{Context, Copies, DriverError, QueueError};
use shm_lock::PerProcess;

static MENDERS: PerProcess<Mutex<Vec<Weak<Mender>>>> = PerProcess::new();

/// That of a device, for all streams of this process.
#[derive(Debug)]
pub(super) struct Mender {
    context: Context,
    apart: OnceLock<Copies>,
    /// In the context that everything shares, for where there is no room for another one. Made beforehand:
    /// while a thread is in a copy of ordinary memory, the driver makes no streams for others.
    shared: Copies,
    /// Set behind what was queued there once: that nothing held it up.
    sign: Mutex<Option<Arc<AtomicBool>>>,
}

impl Mender {
    pub(super) fn of(context: &Context) -> Result<Arc<Self>, DriverError> {
        let device = context.device().uuid();
        let menders = MENDERS.get_or_init(Mutex::default);
        let mut menders = menders.lock().unwrap_or_else(PoisonError::into_inner);
        menders.retain(|known| known.strong_count() > 0);
        let mut known = menders.iter().filter_map(Weak::upgrade);
        if let Some(known) = known.find(|it| it.context.device().uuid() == device) {
            return Ok(known);
        }
        cuda_ipc::before_turns(are_ready);
        let shared = Copies::new(context)?;
        let (apart, sign) = (OnceLock::new(), Mutex::new(None));
        let made = Arc::new(Self { context: context.clone(), apart, shared, sign });
        menders.push(Arc::downgrade(&made));
        Ok(made)
    }

    /// Whether it has a context of its own, which is made.
    fn is_apart(&self) -> bool {
        let _ = self.work();
        self.apart.get().is_some()
    }

    /// Where copies go on whatever waits. `None`: nowhere now, and it is worth asking again.
    pub(super) fn work(&self) -> Result<Option<&Copies>, QueueError> {
        if let Some(apart) = self.apart.get() {
            return Ok(Some(apart));
        }
        match self.context.apart().and_then(|context| Copies::new(&context)) {
            Ok(made) => Ok(Some(self.apart.get_or_init(|| made))),
            // No memory is left for it, say.
            Err(_) => Ok(self.is_free()?.then_some(&self.shared)),
        }
    }

    /// Whether the context that everything shares is lost, by what a kernel did, say: nothing is done there any more.
    /// The driver is asked, as the error may have been told to another library.
    pub(super) fn is_lost(&self) -> bool {
        let asked = self.context.is_idle(self.shared.stream());
        matches!(asked, Err(DriverError::Call(error)) if error.is_sticky())
    }

    /// Whether what everything shares is free, or was a moment ago.
    fn is_free(&self) -> Result<bool, QueueError> {
        let mut sign = self.sign.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = sign.take_if(|it| it.load(Ordering::Acquire)) {
            drop(set);
            return Ok(true);
        }
        if sign.is_none() {
            let set = Arc::new(AtomicBool::new(false));
            let queued = Arc::clone(&set);
            let set_it = move || queued.store(true, Ordering::Release);
            self.context.call_after(self.shared.stream(), set_it)?;
            *sign = Some(set);
        }
        Ok(false)
    }
}

/// Whether nothing has to be made to mend a frame.
fn are_ready() -> bool {
    let Some(menders) = MENDERS.get() else { return true };
    let known: Vec<_> = {
        let menders = menders.lock().unwrap_or_else(PoisonError::into_inner);
        menders.iter().filter_map(Weak::upgrade).collect()
    };
    known.iter().all(|it| it.is_apart())
}
