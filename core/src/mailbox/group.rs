//! One consumer group: members, leases, and what it remembers of settled deliveries.

use std::collections::{HashMap, VecDeque};

use super::lanes::Lanes;
use super::{Mode, Policy};

/// Settled deliveries a group remembers, so that a late acknowledgement gets the right answer.
const RECENT_MAX: usize = 4096;

/// What a group has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCounters {
    /// Entries handed to members.
    pub deliveries: u64,
    /// Of these, again.
    pub redeliveries: u64,
    /// Worked off.
    pub acks: u64,
    /// Given back, by a member or by a lease that ran out.
    pub nacks: u64,
    /// Sent to the poison route.
    pub poisoned: u64,
}

/// The answer to `ack` and `nack`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Yes; or it was already.
    Done,
    /// The lease had run out; the ticket of who has the entry now.
    Expired(Option<u64>),
    /// No such delivery, or too long ago.
    Unknown,
}

#[derive(Debug)]
pub(super) struct Lease {
    pub(super) arrival: u64,
    pub(super) member: String,
    pub(super) deadline: i64,
    pub(super) attempt: u32,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    Acked,
    /// A member gave this entry back.
    Returned(u64),
    /// The lease on this entry ran out.
    RanOut(u64),
}

pub(super) struct Group {
    pub(super) members: Vec<String>,
    pub(super) lanes: Lanes,
    pub(super) leases: HashMap<u64, Lease>,
    pub(super) counters: GroupCounters,
    pub(super) recent: HashMap<u64, Past>,
    order: VecDeque<u64>,
}

impl Group {
    pub(super) fn new(policy: &Policy) -> Self {
        Self {
            members: Vec::new(),
            lanes: Lanes::new(
                policy.ordering,
                policy.mode == Mode::KeyAffine,
                policy.weights.clone(),
            ),
            leases: HashMap::new(),
            counters: GroupCounters::default(),
            recent: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether a member has the entry leased.
    pub(super) fn holds(&self, arrival: u64) -> bool {
        self.leases.values().any(|lease| lease.arrival == arrival)
    }

    pub(super) fn remember(&mut self, ticket: u64, past: Past) {
        if self.order.len() >= RECENT_MAX
            && let Some(old) = self.order.pop_front()
        {
            self.recent.remove(&old);
        }
        self.recent.insert(ticket, past);
        self.order.push_back(ticket);
    }
}
