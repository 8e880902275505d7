//! What a node wants done.

use crate::message::{Entry, Message, Snapshot};

/// What must survive besides the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term this node has seen.
    pub term: u64,
    /// Whom it gave its vote in that term; 0 is nobody.
    pub vote: u64,
}

/// To be done in this order: make `snapshot`, `entries` and `hard_state` durable, send `messages`, apply `snapshot` and then
/// `committed`, answer `reads` whose index is applied, and report `Raft::persisted`.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    /// Term and vote, where they changed.
    pub hard_state: Option<HardState>,
    /// A snapshot of another node that takes the place of log and state.
    pub snapshot: Option<Snapshot>,
    /// Entries to write; those from the first one's index on that are on disk are void.
    pub entries: Vec<Entry>,
    /// Messages to send.
    pub messages: Vec<Message>,
    /// Entries to apply.
    pub committed: Vec<Entry>,
    /// Reads (by their context) that may be served once the entry of that index is applied.
    pub reads: Vec<(u64, u64)>,
    /// Contexts of reads that will not be served because the node leads no more.
    pub reads_lost: Vec<u64>,
}

impl Ready {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.hard_state.is_none()
            && self.snapshot.is_none()
            && self.entries.is_empty()
            && self.messages.is_empty()
            && self.committed.is_empty()
            && self.reads.is_empty()
            && self.reads_lost.is_empty()
    }

    /// The end of `entries`, for `Raft::persisted`.
    pub fn last_entry(&self) -> Option<(u64, u64)> {
        self.entries.last().map(|entry| (entry.index, entry.term))
    }
}
