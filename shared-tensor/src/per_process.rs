//! A value that every process has for itself, also after `fork`.

use std::sync::OnceLock;

/// A lazily made value per process: a forked child gets a fresh one.
///
/// Needed for anything behind a process-local lock: a child that inherits a locked mutex from a
/// thread that does not exist in it would wait for ever.
#[derive(Debug)]
pub(crate) struct PerProcess<T> {
    first: Generation<T>,
}

#[derive(Debug)]
struct Generation<T> {
    own: OnceLock<(u64, T)>,
    child: OnceLock<Box<Generation<T>>>,
}

impl<T> Generation<T> {
    const fn new() -> Self {
        Self { own: OnceLock::new(), child: OnceLock::new() }
    }
}

impl<T: Default> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self { first: Generation::new() }
    }

    /// The value of the calling process.
    pub(crate) fn own(&self) -> &T {
        let token = shm_lock::process_token();
        let mut generation = &self.first;
        loop {
            let (owner, value) = generation.own.get_or_init(|| (token, T::default()));
            if *owner == token {
                return value;
            }
            generation = generation.child.get_or_init(|| Box::new(Generation::new()));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_process_has_one_value() {
        let cell = PerProcess::<std::sync::Mutex<u32>>::new();
        *cell.own().lock().unwrap() += 1;
        *cell.own().lock().unwrap() += 1;
        assert_eq!(*cell.own().lock().unwrap(), 2);
    }
}
