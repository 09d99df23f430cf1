//! What a builder tells about its progress.

/// The latest that a builder has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How much is done, in a unit of the builder's choice.
    pub done: u64,
    /// How much there is to do, in the same unit; 0 if that is not known.
    pub total: u64,
    /// A few words for people.
    pub note: String,
    /// 1 for the first report of a build, then counted up. Who looks seldom misses some.
    pub serial: u64,
}
