//! From addresses to a connection.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rpc_uds::{ConnectError, FrameLimits, Lost, is_legacy_server};

use super::lane::Lane;
use super::link::Link;
use super::{CallOptions, Client, Error, Slot};
use crate::service::MESSAGE_BYTES_LEAST;
use crate::service::monitor::lock;
use crate::service::place::{Address, FOREIGN, PlaceError, follow};
use crate::service::wire::messages::FEATURES;
use crate::service::wire::payload::REGIONS_MAX;

/// How long a server that is there may take to say hello, if nothing else is said.
pub(super) const BRIEF: Duration = Duration::from_secs(10);
/// The same, before it is asked whether it is one of the 0.2 releases.
const SOON: Duration = Duration::from_secs(2);
/// How soon and how rarely a server that is not there is looked for again. Nothing tells when one
/// comes.
const RETRY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// How long a server is waited for, within the deadline.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// So long for one that was never there, and not at all for one that is gone.
    First(Duration),
    /// For as long as it takes, a successor included.
    Any,
}

impl Client {
    /// The connection of a slot; a new one, for which a server that was never there is waited for.
    pub(super) fn link(&self, slot: &Slot, wait: &CallOptions<'_>) -> Result<Arc<Link>, Error> {
        let patience = self.inner.options.patience_of_waiting();
        self.link_within(slot, wait, Patience::First(patience))
    }

    /// The same without waiting for a server.
    pub(super) fn link_now(&self, slot: &Slot, wait: &CallOptions<'_>) -> Result<Arc<Link>, Error> {
        self.link_within(slot, wait, Patience::First(Duration::ZERO))
    }

    pub(super) fn link_within(
        &self,
        slot: &Slot,
        wait: &CallOptions<'_>,
        patience: Patience,
    ) -> Result<Arc<Link>, Error> {
        self.check()?;
        if let Some(link) = lock(slot).as_ref().filter(|link| !link.is_lost()) {
            return Ok(Arc::clone(link));
        }
        let rpc = self.reach(wait, patience)?;
        self.inner.was_there.store(true, Ordering::Release);
        let is_lane = std::ptr::eq(slot, &raw const self.inner.lane);
        let lane = is_lane.then(|| Lane::new(self.inner.options.is_driven));
        let link = Arc::new(Link::new(rpc, lane, Arc::clone(&self.inner.identity)));
        let mut slot = lock(slot);
        // Somebody may have been quicker.
        if let Some(known) = slot.as_ref().filter(|known| !known.is_lost()) {
            let known = Arc::clone(known);
            drop(slot);
            return Ok(known);
        }
        let before = slot.replace(Arc::clone(&link));
        drop(slot);
        if let Some(before) = before {
            self.retire(before);
        }
        if is_lane {
            self.watch(&link)?;
        }
        Ok(link)
    }

    fn reach(&self, wait: &CallOptions<'_>, patience: Patience) -> Result<rpc_uds::Client, Error> {
        let begun = Instant::now();
        let until = match patience {
            // What the clock cannot say is for ever.
            Patience::First(patience) => begun.checked_add(patience),
            Patience::Any => None,
        };
        let until = until.into_iter().chain(wait.deadline).min();
        let mut pause = RETRY.0;
        loop {
            // Another user's server may have the link; this user's own is waited for all the same.
            let mut foreign = None;
            for address in &self.inner.options.addresses {
                match self.try_address(address, wait) {
                    Ok(Some(client)) => return Ok(client),
                    Ok(None) => {}
                    Err(Error::Place(error @ PlaceError::Untrusted { reason: FOREIGN, .. })) => {
                        foreign = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            let is_for_first = matches!(patience, Patience::First(_));
            if is_for_first && self.inner.was_there.load(Ordering::Acquire) {
                let what = "nobody listens there any more".to_owned();
                return Err(Error::ServerLost { path: self.path(), what });
            }
            self.look_elsewhere(wait)?;
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                if let Some(error) = foreign {
                    return Err(error.into());
                }
                let (address, waited) = (self.addresses(), begun.elapsed());
                return Err(Error::Absent { address, waited, others: self.others(wait) });
            }
            if wait.is_interrupted() {
                return Err(Error::Interrupted);
            }
            thread::sleep(left.map_or(pause, |left| left.min(pause)));
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// Whether there is a server that is not the one that is looked for.
    fn look_elsewhere(&self, wait: &CallOptions<'_>) -> Result<(), Error> {
        for (address, advice) in &self.inner.options.elsewhere {
            match self.try_address(address, wait) {
                Ok(Some(_)) => {
                    let (found, advice) = (address.to_string(), advice.clone());
                    return Err(Error::Elsewhere { address: self.addresses(), found, advice });
                }
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                // What is wrong there is nobody's business here.
                Ok(None) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The sockets of servers for other GPUs.
    fn others(&self, wait: &CallOptions<'_>) -> Vec<PathBuf> {
        let addresses = self.inner.options.addresses.iter();
        let mut others: Vec<_> = addresses.flat_map(Address::for_other_gpus).collect();
        // The deadline has passed; who listens there answers at once.
        others.retain(|path| {
            matches!(self.try_path(path, wait, Some(Instant::now() + BRIEF)), Ok(Some(_)))
        });
        others
    }

    fn addresses(&self) -> String {
        let addresses = self.inner.options.addresses.iter().map(ToString::to_string);
        addresses.collect::<Vec<_>>().join(", ")
    }

    /// `None`: no server is there.
    fn try_address(
        &self,
        address: &Address,
        wait: &CallOptions<'_>,
    ) -> Result<Option<rpc_uds::Client>, Error> {
        let socket = address.socket()?;
        let Some(link) = address.signpost() else { return self.try_named(&socket, wait) };
        if let Some(client) = self.try_path(&socket, wait, wait.deadline)? {
            return Ok(Some(client));
        }
        // The server may have another runtime directory.
        match follow(&link)? {
            Some(target) if target != socket && !address.is_for_another(&target) => {
                self.try_path(&target, wait, wait.deadline)
            }
            None if is_socket(&link) && is_legacy_server(&link) => {
                Err(Error::Legacy { path: link })
            }
            _ => Ok(None),
        }
    }

    /// A socket at a path of its own. One of the 0.2 releases says nothing to what it is told here: it
    /// waits for more.
    fn try_named(
        &self,
        path: &Path,
        wait: &CallOptions<'_>,
    ) -> Result<Option<rpc_uds::Client>, Error> {
        let soon = Instant::now() + SOON;
        if wait.deadline.is_none_or(|deadline| deadline > soon) {
            match self.try_path(path, wait, Some(soon)) {
                Err(Error::TimedOut { .. }) => {}
                tried => return tried,
            }
            if is_legacy_server(path) {
                return Err(Error::Legacy { path: path.to_owned() });
            }
        }
        self.try_path(path, wait, wait.deadline)
    }

    fn try_path(
        &self,
        path: &Path,
        wait: &CallOptions<'_>,
        deadline: Option<Instant>,
    ) -> Result<Option<rpc_uds::Client>, Error> {
        let options = &self.inner.options;
        if options.message_bytes_max < MESSAGE_BYTES_LEAST {
            let (found, least) = (options.message_bytes_max, MESSAGE_BYTES_LEAST);
            return Err(Error::MessageBytes { found, least });
        }
        let limits = FrameLimits {
            body_bytes_max: options.message_bytes_max,
            descriptors_max: u8::try_from(REGIONS_MAX).unwrap_or(u8::MAX),
        };
        let connect = rpc_uds::Client::options()
            .policy(options.policy.clone())
            .limits(limits)
            .features(FEATURES);
        let deadline = deadline.unwrap_or_else(|| Instant::now() + BRIEF);
        match connect.connect_unless(path, deadline, || wait.is_interrupted()) {
            Ok(client) => Ok(Some(client)),
            // The second one ended with this client in its backlog.
            Err(
                ConnectError::Absent { .. }
                | ConnectError::Handshake { lost: Lost::Closed | Lost::Stopped, .. },
            ) => Ok(None),
            Err(ConnectError::Interrupted { .. }) => Err(Error::Interrupted),
            Err(ConnectError::TimedOut { waited, .. }) => Err(Error::TimedOut { waited }),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}
