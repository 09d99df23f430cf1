//! Ending what hangs.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// How long a test has, once its peers are killed, to notice and fail by itself.
const GRACE: Duration = Duration::from_secs(10);

/// A limit that nothing healthy comes near. When it expires, the watchdog does what it was told,
/// which should make the test fail; a test that hangs even then takes its program down.
///
/// It is not a measurement: no test may depend on how large the limit is.
#[derive(Debug)]
pub struct Watchdog {
    /// Dropping it calls the watchdog off.
    _leash: Sender<()>,
}

impl Watchdog {
    /// Watches until it is dropped. After `limit` it calls `bark`; `what` names the test.
    ///
    /// # Panics
    /// When no thread can be started.
    pub fn start(what: &str, limit: Duration, bark: impl FnOnce() + Send + 'static) -> Self {
        let (leash, held) = mpsc::channel();
        let what = what.to_owned();
        let watch = move || {
            if held.recv_timeout(limit) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            eprintln!("watchdog: {what} ran longer than {limit:?}; ending its processes");
            bark();
            if held.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout) {
                eprintln!("watchdog: {what} hangs with its processes gone; aborting the program");
                std::process::abort();
            }
        };
        thread::Builder::new().name("watchdog".to_owned()).spawn(watch).expect("a watchdog thread");
        Self { _leash: leash }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::Watchdog;

    #[test]
    fn it_barks_at_what_hangs() {
        let (bark, heard) = mpsc::channel::<()>();
        let dog = Watchdog::start("a test", Duration::ZERO, move || drop(bark));
        assert!(heard.recv().is_err(), "the other end is dropped by the bark");
        drop(dog);
    }

    #[test]
    fn it_is_called_off_by_dropping_it() {
        let (bark, heard) = mpsc::channel();
        drop(Watchdog::start("a test", Duration::from_secs(600), move || {
            let _ = bark.send("barked");
        }));
        assert!(heard.recv().is_err(), "called off, it drops the bark unheard");
    }
}
