//! Who may be at the other end.

/// What the kernel says about the process at the other end of a connection (`SO_PEERCRED`).
///
/// For a client it is the process that called `listen`, for a server the one that called `connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its pid; `None` in a pid namespace that this process does not see.
    pub pid: Option<u32>,
    /// Its effective user id at that moment.
    pub uid: u32,
    /// Its effective group id at that moment.
    pub gid: u32,
}

/// Which users may be at the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerPolicy {
    /// The effective user of this process, nobody else, not even root.
    #[default]
    SameUser,
    /// These user ids.
    Users(Vec<u32>),
    /// Anybody whom the socket's mode lets in.
    Anyone,
}

impl PeerPolicy {
    pub(crate) fn admits(&self, peer: Credentials) -> bool {
        match self {
            Self::SameUser => peer.uid == own_uid(),
            Self::Users(users) => users.contains(&peer.uid),
            Self::Anyone => true,
        }
    }
}

pub(crate) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_admit_whom_they_name() {
        let own = Credentials { pid: Some(1), uid: own_uid(), gid: 0 };
        let other = Credentials { uid: own_uid() + 1, ..own };
        assert!(PeerPolicy::SameUser.admits(own));
        assert!(!PeerPolicy::SameUser.admits(other));
        assert!(PeerPolicy::Users(vec![other.uid]).admits(other));
        assert!(!PeerPolicy::Users(vec![other.uid]).admits(own));
        assert!(PeerPolicy::Anyone.admits(other));
    }
}
