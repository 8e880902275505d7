//! How far a follower is, as its leader knows.

/// One follower.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// The highest entry known to be durable there and equal to ours.
    pub(crate) matched: u64,
    /// The next entry to send.
    pub(crate) next: u64,
    /// Sent on ahead without waiting for answers; else one message at a time, until one fits.
    pub(crate) streaming: bool,
    /// Not streaming and waiting for an answer; the next heartbeat tries again.
    pub(crate) waiting: bool,
    /// Bytes of our snapshot that are there, while it needs one.
    pub(crate) installing: Option<u64>,
    /// Answered since the quorum was checked last.
    pub(crate) active: bool,
    /// The last round of heartbeats that it answered.
    pub(crate) round: u64,
}
