//! From a path to a connection: who listens there, and whether both sides fit.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::connection::{Connection, SLICE};
use super::watcher::{OnPush, Watcher};
use super::{Client, Message};
use crate::address::{Place, PlaceError, socket};
use crate::control::{Control, with_room_for_control};
use crate::decoder::Decoder;
use crate::error::{ConnectError, FrameError, Lost};
use crate::fault;
use crate::frame::{DESCRIPTORS_MAX, FrameLimits, Kind};
use crate::handshake::{Agreement, Offer};
use crate::peer::{PeerPolicy, own_uid};
use crate::sys::{UnsharedFd, peer_credentials};
use crate::transport::{self, Received};

/// How soon and how rarely a server that is not there is looked for again. Nothing tells when a
/// path begins to be listened at, so this one wait has to ask.
const RETRY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// How to connect.
pub struct ClientOptions {
    policy: PeerPolicy,
    limits: FrameLimits,
    features: u64,
    waits_for_server: bool,
    pushes_max: usize,
    on_push: Option<OnPush>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            policy: PeerPolicy::default(),
            limits: FrameLimits::default(),
            features: 0,
            waits_for_server: false,
            pushes_max: 1024,
            on_push: None,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientOptions")
            .field("policy", &self.policy)
            .field("limits", &self.limits)
            .field("features", &self.features)
            .field("waits_for_server", &self.waits_for_server)
            .field("pushes_max", &self.pushes_max)
            .finish_non_exhaustive()
    }
}

impl ClientOptions {
    /// Which users may be the server. Default: the client's own.
    #[must_use]
    pub fn policy(self, policy: PeerPolicy) -> Self {
        Self { policy, ..self }
    }

    /// What this side takes; the smaller of both sides' limits holds both ways.
    #[must_use]
    pub fn limits(mut self, limits: FrameLimits) -> Self {
        self.limits = limits;
        self.limits.descriptors_max = limits.descriptors_max.min(DESCRIPTORS_MAX);
        self
    }

    /// Features that the user of this crate offers, one bit each.
    #[must_use]
    pub fn features(self, features: u64) -> Self {
        Self { features, ..self }
    }

    /// Whether a server that is not there is waited for, until the deadline. Default: no.
    #[must_use]
    pub fn wait_for_server(self, waits_for_server: bool) -> Self {
        Self { waits_for_server, ..self }
    }

    /// How many pushes may wait to be fetched before the oldest are dropped. Default: 1024.
    #[must_use]
    pub fn pushes_max(self, pushes_max: usize) -> Self {
        Self { pushes_max, ..self }
    }

    /// Calls `on_push` with every push, on a thread of the client, one after the other.
    #[must_use]
    pub fn on_push(self, on_push: impl FnMut(Message) + Send + 'static) -> Self {
        Self { on_push: Some(Box::new(on_push)), ..self }
    }

    /// Connects to the server that listens at `path`, and shakes hands with it.
    ///
    /// A full backlog is waited for. Nothing is sent before the server's user is known.
    pub fn connect(
        self,
        path: impl AsRef<Path>,
        deadline: impl Into<Option<Instant>>,
    ) -> Result<Client, ConnectError> {
        self.connect_unless(path, deadline, || false)
    }

    /// As [`connect`](Self::connect), until `is_interrupted` says so: it is asked ten times a second.
    pub fn connect_unless(
        self,
        path: impl AsRef<Path>,
        deadline: impl Into<Option<Instant>>,
        is_interrupted: impl Fn() -> bool,
    ) -> Result<Client, ConnectError> {
        let attempt = Attempt {
            path: path.as_ref(),
            deadline: deadline.into(),
            begun: Instant::now(),
            is_interrupted: &is_interrupted,
        };
        let offer = Offer::new(self.features, self.limits);
        let mut pause = RETRY.0;
        let (socket, server, agreement, decoder) = loop {
            let socket = attempt.reach(self.waits_for_server)?;
            let own = socket.get().map_err(|forked| attempt.kernel("connect", forked.into()))?;
            let server = peer_credentials(own)
                .map_err(|source| attempt.kernel("ask who listens", source))?;
            if !self.policy.admits(server) {
                return Err(ConnectError::User {
                    path: attempt.path(),
                    server: server.uid,
                    client: own_uid(),
                });
            }
            match attempt.shake_hands(own, offer) {
                Ok((agreement, decoder)) => break (socket, server, agreement, decoder),
                // It ended with this client in its backlog: its successor is waited for.
                Err(ConnectError::Handshake { lost: Lost::Closed, .. })
                    if self.waits_for_server && !attempt.is_late() =>
                {
                    attempt.pause(&mut pause);
                }
                Err(error) => return Err(error),
            }
        };
        let own = socket.get().map_err(|forked| attempt.kernel("connect", forked.into()))?;
        set_socket_timeout(own, Timeout::Recv, Some(SLICE))
            .map_err(|errno| attempt.kernel("set the receive timeout", errno.into()))?;
        let connection = Connection::new(socket, server, agreement, decoder, self.pushes_max);
        let connection = Arc::new(connection);
        connection
            .hand_out_read_ahead()
            .map_err(|lost| ConnectError::Handshake { path: attempt.path(), lost })?;
        let mut client = Client { connection, watcher: None };
        if let Some(on_push) = self.on_push {
            let watcher = Watcher::start(&client.connection, on_push);
            client.watcher =
                Some(watcher.map_err(|source| attempt.kernel("start a thread", source))?);
        }
        Ok(client)
    }
}

struct Attempt<'a> {
    path: &'a Path,
    deadline: Option<Instant>,
    begun: Instant,
    is_interrupted: &'a dyn Fn() -> bool,
}

impl Attempt<'_> {
    fn path(&self) -> PathBuf {
        self.path.to_owned()
    }

    fn kernel(&self, step: &'static str, source: std::io::Error) -> ConnectError {
        ConnectError::Kernel { step, path: self.path(), source }
    }

    fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    fn is_late(&self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }

    fn go_on(&self) -> Result<(), ConnectError> {
        if (self.is_interrupted)() {
            return Err(ConnectError::Interrupted { path: self.path() });
        }
        Ok(())
    }

    fn pause(&self, pause: &mut Duration) {
        thread::sleep(self.left().map_or(*pause, |left| left.min(*pause)));
        *pause = (*pause * 2).min(RETRY.1);
    }

    fn timed_out(&self) -> ConnectError {
        ConnectError::TimedOut { path: self.path(), waited: self.begun.elapsed() }
    }

    fn reach(&self, waits_for_server: bool) -> Result<UnsharedFd, ConnectError> {
        let mut pause = RETRY.0;
        loop {
            let left = self.left();
            let is_late = left.is_some_and(|left| left.is_zero());
            let errno = match self.reach_once(left)? {
                Ok(socket) => return Ok(socket),
                Err(errno) => errno,
            };
            self.go_on()?;
            match errno {
                Errno::INTR if !is_late => {}
                // The send timeout passed while the backlog was full.
                Errno::AGAIN | Errno::INTR if is_late => return Err(self.timed_out()),
                Errno::AGAIN => {}
                Errno::NOENT | Errno::CONNREFUSED if waits_for_server && !is_late => {
                    self.pause(&mut pause);
                }
                Errno::NOENT | Errno::CONNREFUSED => {
                    return Err(ConnectError::Absent { path: self.path(), source: errno.into() });
                }
                errno => return Err(self.kernel("connect", errno.into())),
            }
        }
    }

    /// Made unshared before it is connected, which may take long: a child forked meanwhile must not
    /// keep the connection.
    fn reach_once(
        &self,
        left: Option<Duration>,
    ) -> Result<Result<UnsharedFd, Errno>, ConnectError> {
        let place = Place::new(self.path).and_then(|place| {
            let address = place.address()?;
            Ok((place, address))
        });
        let (place, address) = match place {
            Ok(place) => place,
            Err(PlaceError::Directory(errno)) => return Ok(Err(errno)),
            Err(PlaceError::Form(reason)) => {
                return Err(ConnectError::Path { path: self.path(), reason });
            }
        };
        let socket = UnsharedFd::make(|| socket(SocketFlags::empty()))
            .map_err(|errno| self.kernel("make a socket", errno.into()))?;
        let own = socket.get().map_err(|forked| self.kernel("connect", forked.into()))?;
        // The kernel waits for a place in the backlog as long as for room to send.
        let patience = left.map_or(SLICE, |left| left.clamp(Duration::from_millis(1), SLICE));
        set_socket_timeout(own, Timeout::Send, Some(patience))
            .map_err(|errno| self.kernel("set the send timeout", errno.into()))?;
        let connected = fault::point("connect").and_then(|()| rustix::net::connect(own, &address));
        // What is no socket refuses as one without a listener does.
        if connected == Err(Errno::CONNREFUSED)
            && let Some(found) = place.found()
        {
            return Err(ConnectError::NotASocket { path: self.path(), found });
        }
        Ok(connected.map(|()| socket))
    }

    fn shake_hands(
        &self,
        socket: BorrowedFd<'_>,
        offer: Offer,
    ) -> Result<(Agreement, Decoder<OwnedFd>), ConnectError> {
        let (header, body) = Control::Hello(offer).frame(0);
        match transport::send(socket, [&header, &body], &[]) {
            // A fresh socket has room for this; and a server that has closed it has said why.
            Ok(_) | Err(Errno::PIPE) => {}
            Err(errno) => return Err(self.kernel("say hello", errno.into())),
        }
        let mut decoder = Decoder::new(with_room_for_control(FrameLimits {
            body_bytes_max: offer.body_bytes_max,
            descriptors_max: offer.descriptors_max,
        }));
        let lost = |lost| ConnectError::Handshake { path: self.path(), lost };
        loop {
            let protocol = |error| lost(Lost::Protocol(error));
            if let Some(frame) = decoder.next().map_err(protocol)? {
                if frame.header.kind != Kind::Control {
                    return Err(protocol(FrameError::OutOfTurn));
                }
                return match Control::decode(&frame.body).map_err(protocol)? {
                    Control::Welcome(agreement) => {
                        offer.check(&agreement).map_err(protocol)?;
                        decoder.set_limits(agreement.limits_of_receiver());
                        Ok((agreement, decoder))
                    }
                    Control::Refusal(refusal) => {
                        Err(ConnectError::Refused { path: self.path(), refusal })
                    }
                    _ => Err(protocol(FrameError::OutOfTurn)),
                };
            }
            self.go_on()?;
            let soon = Instant::now() + SLICE;
            let soon = self.deadline.map_or(soon, |deadline| deadline.min(soon));
            // An error here is an error of the read as well.
            let _ = transport::wait_for(socket, PollFlags::IN, Some(soon));
            match transport::receive(socket, &mut decoder, false).map_err(lost)? {
                Received::Nothing if self.is_late() => {
                    return Err(self.timed_out());
                }
                Received::Bytes(_) | Received::Nothing => {}
                Received::End => return Err(lost(Lost::Closed)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_server_that_says_nothing_is_not_waited_for_longer_than_is_wanted() {
        let directory = std::env::temp_dir();
        let path = directory.join(format!("rpc-uds-silent-{}", std::process::id()));
        let silent = UnixListener::bind(&path).expect("a path of its own");
        let asked = Cell::new(0);
        let connected = Client::options().connect_unless(&path, None, || {
            asked.set(asked.get() + 1);
            asked.get() > 2
        });
        assert!(matches!(connected, Err(ConnectError::Interrupted { .. })), "{connected:?}");
        assert_eq!(asked.get(), 3);
        drop(silent);
        std::fs::remove_file(&path).expect("the path is there");
    }
}
