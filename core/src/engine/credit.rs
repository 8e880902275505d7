//! Credit: what a publish spends before it gets a number (S6, S7).
//!
//! An edge whose overflow rule is to hold producers up is a gate: each event on its way to it has spent one of its envelope
//! credits and its bytes, from the moment it is numbered until the reader has taken it. A publish spends on every gate that
//! it reaches without a boundary in between, so what a gate promised is there when the event arrives. The input queue has
//! lanes: the last of it is kept for control, so payloads and debug events never hold up a command.

use std::sync::Arc;

use super::{Engine, INPUT_EVENTS_MAX, Kind, Refused};
use crate::mailbox;
use crate::ring::Overflow;

/// Places of the input queue that only the control lane may use.
const CONTROL_RESERVE: usize = 1024;
/// Places that debug events leave to everybody else.
const DEBUG_RESERVE: usize = 16_384;

/// A window in bytes of this much counts none.
const NO_BYTES_MAX: usize = usize::MAX / 2;

/// Which part of the input queue a route may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Writes and what belongs to them: all of it.
    Control,
    /// Everything else.
    Metadata,
    /// Bulk data.
    Payload,
    /// What is told about the graph itself.
    Debug,
}

impl Lane {
    fn reserve(self) -> usize {
        match self {
            Self::Control => 0,
            Self::Metadata | Self::Payload => CONTROL_RESERVE,
            Self::Debug => DEBUG_RESERVE,
        }
    }
}

/// What producers have spent on an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Events on their way.
    pub events: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Credits ever spent.
    pub total: u64,
    /// Producers that wait now.
    pub waiting: usize,
    /// Times a producer had to wait.
    pub waits: u64,
    /// Publishes that were refused.
    pub rejected: u64,
}

/// Credit that one event has spent.
#[derive(Clone, Debug)]
pub(crate) struct Reservation {
    gates: Arc<[u32]>,
    bytes: usize,
}

/// The credit of one edge, for listings.
#[derive(Clone, Debug)]
pub struct CreditRow {
    /// The edge.
    pub edge: u32,
    /// Its window in events.
    pub capacity: usize,
    /// Its window in bytes; None: not counted.
    pub bytes_max: Option<usize>,
    /// Events that may be published now.
    pub available: usize,
    /// Bytes that may be published now.
    pub available_bytes: Option<usize>,
    /// Whether producers are held up.
    pub gate: bool,
    /// What a full one does.
    pub overflow: &'static str,
    /// Events taken off again: credit that came back.
    pub returned: u64,
    /// What they spent.
    pub spent: Spent,
}

enum Window {
    Wait,
    Reject,
    None,
}

impl super::Edge {
    fn window(&self) -> Window {
        match &self.kind {
            Kind::Queue(ring) => match ring.overflow() {
                Overflow::Block => Window::Wait,
                Overflow::Reject => Window::Reject,
                _ => Window::None,
            },
            Kind::Mail(mail) => match mail.mailbox.policy().overflow {
                mailbox::Overflow::Block => Window::Wait,
                mailbox::Overflow::RejectWrite | mailbox::Overflow::DeadlineDrop => Window::Reject,
                _ => Window::None,
            },
            _ => Window::None,
        }
    }

    /// Whether it holds producers up.
    pub fn is_gate(&self) -> bool {
        !matches!(self.window(), Window::None)
    }

    fn overflow_name(&self) -> &'static str {
        match &self.kind {
            Kind::Queue(ring) => match ring.overflow() {
                Overflow::Block => "block",
                Overflow::Reject => "reject_write",
                Overflow::DropNewest => "drop_newest",
                Overflow::DropOldest => "drop_oldest",
                Overflow::CoalesceLatest => "coalesce_latest",
            },
            Kind::Mail(mail) => match mail.mailbox.policy().overflow {
                mailbox::Overflow::Block => "block",
                mailbox::Overflow::RejectWrite => "reject_write",
                mailbox::Overflow::DropNewest => "drop_newest",
                mailbox::Overflow::DropOldest => "drop_oldest",
                mailbox::Overflow::CoalesceLatest => "coalesce_latest",
                mailbox::Overflow::DeadlineDrop => "deadline_drop",
                mailbox::Overflow::SpillToStore => "spill_to_store",
            },
            _ => "",
        }
    }

    /// (events held, window), (bytes held, window in bytes).
    fn levels(&self) -> ((usize, usize), (usize, Option<usize>)) {
        match &self.kind {
            Kind::Queue(ring) => ((ring.len(), ring.capacity()), (0, None)),
            Kind::Mail(mail) => {
                let policy = mail.mailbox.policy();
                let bytes = Some(policy.bytes_max).filter(|max| *max < NO_BYTES_MAX);
                (
                    (mail.mailbox.depth(), policy.capacity),
                    (mail.mailbox.bytes(), bytes),
                )
            }
            _ => ((0, usize::MAX), (0, None)),
        }
    }

    fn credit(&self, edge: u32) -> CreditRow {
        let ((events, capacity), (bytes, bytes_max)) = self.levels();
        CreditRow {
            edge,
            capacity,
            bytes_max,
            available: capacity.saturating_sub(events + self.spent.events),
            available_bytes: bytes_max.map(|max| max.saturating_sub(bytes + self.spent.bytes)),
            gate: self.is_gate(),
            overflow: self.overflow_name(),
            returned: {
                let total = self.ledger().total();
                total.delivered + total.dropped.iter().sum::<u64>()
            },
            spent: self.spent,
        }
    }
}

impl Engine {
    /// Say which lane a route uses.
    pub fn set_lane(&mut self, route: usize, lane: Lane) {
        self.routes[route].lane = lane;
    }

    /// Whether the input queue has room for an event of a route.
    pub fn lane_has_room(&self, route: usize) -> bool {
        self.room_in(self.routes[route].lane)
    }

    /// Whether the input queue has room in a lane.
    pub fn room_in(&self, lane: Lane) -> bool {
        self.input.len() + lane.reserve() < INPUT_EVENTS_MAX
    }

    /// Whether an event of that size may be published now.
    pub fn admits(&mut self, route: usize, bytes: usize) -> bool {
        self.lane_has_room(route)
            && (self.gates == 0 || {
                let gates = self.gates_of(route);
                gates
                    .iter()
                    .all(|gate| self.look(*gate, bytes, false).is_ok())
            })
    }

    /// How many small events may be published on a route now.
    pub fn available(&mut self, route: usize) -> usize {
        let lane = self.input.len() + self.routes[route].lane.reserve();
        let mut least = INPUT_EVENTS_MAX.saturating_sub(lane);
        if self.gates > 0 {
            for gate in self.gates_of(route).iter() {
                let row = self.edges.get(gate).map(|edge| edge.credit(*gate));
                least = row.map_or(least, |row| least.min(row.available));
            }
        }
        least
    }

    /// What readers that hold producers of a route up still take: (events, bytes where they are counted); None where
    /// none does.
    pub fn window(&mut self, route: usize) -> Option<(usize, Option<usize>)> {
        if self.gates == 0 {
            return None;
        }
        let gates = self.gates_of(route);
        let rows = gates.iter().filter_map(|gate| self.credit_of(*gate));
        rows.map(|row| (row.available, row.available_bytes)).reduce(
            |(events, bytes), (more, far)| {
                let least = match (bytes, far) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
                (events.min(more), least)
            },
        )
    }

    /// Edges whose credit a publish on a route spends: those it reaches without a boundary in between.
    pub(super) fn gates_of(&mut self, route: usize) -> Arc<[u32]> {
        if let Some((topology, gates)) = &self.routes[route].gates
            && *topology == self.topology
        {
            return gates.clone();
        }
        let (mut seen, mut open, mut gates) = (vec![false; self.routes.len()], vec![route], vec![]);
        while let Some(at) = open.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            for id in &self.routes[at].edges {
                let edge = &self.edges[id];
                match &edge.kind {
                    Kind::Forward(sink, true) => open.push(*sink),
                    Kind::Port(node, ..) => {
                        let node = self.nodes.get(node).filter(|node| !node.boundary);
                        open.extend(node.into_iter().flat_map(crate::node::Node::outputs));
                    }
                    _ if edge.is_gate() => gates.push(*id),
                    _ => {}
                }
            }
        }
        let gates: Arc<[u32]> = gates.into();
        self.routes[route].gates = Some((self.topology, gates.clone()));
        gates
    }

    fn look(&mut self, gate: u32, bytes: usize, expire: bool) -> Result<(), Refused> {
        let now = self.now;
        let Some(edge) = self.edges.get_mut(&gate) else {
            return Ok(());
        };
        if expire && let Kind::Mail(mail) = &mut edge.kind {
            mail.mailbox.expire(now);
        }
        let row = edge.credit(gate);
        if let Some(max) = row.bytes_max.filter(|max| bytes > *max) {
            return Err(Refused::TooLarge(gate, max));
        }
        let fits = row.available > 0
            && row
                .available_bytes
                .is_none_or(|available| bytes <= available);
        match edge.window() {
            _ if fits => Ok(()),
            Window::Reject => Err(Refused::Rejected(gate)),
            _ => Err(Refused::NoCredit(gate)),
        }
    }

    /// Spend credit on all gates, or on none.
    pub(super) fn spend(
        &mut self,
        route: usize,
        bytes: usize,
        ingest: i64,
    ) -> Result<Option<Reservation>, Refused> {
        if self.gates == 0 {
            return Ok(None);
        }
        let gates = self.gates_of(route);
        if gates.is_empty() {
            return Ok(None);
        }
        self.now = self.now.max(ingest);
        for gate in gates.iter() {
            let looked = self.look(*gate, bytes, true);
            if let Err(refused) = looked {
                if let (Refused::Rejected(_), Some(edge)) = (&refused, self.edges.get_mut(gate)) {
                    edge.spent.rejected += 1;
                }
                return Err(refused);
            }
        }
        for gate in gates.iter() {
            if let Some(edge) = self.edges.get_mut(gate) {
                edge.spent.events += 1;
                edge.spent.bytes += bytes;
                edge.spent.total += 1;
            }
        }
        Ok(Some(Reservation { gates, bytes }))
    }

    /// Spend credit for a run on all gates; false, and nothing spent, where it is not there for all of it. The run is
    /// worked off at once, so its events are in the edges' own figures when anybody looks.
    pub(super) fn spend_run(&mut self, route: usize, events: usize, bytes: usize) -> bool {
        if self.gates == 0 {
            return true;
        }
        let gates = self.gates_of(route);
        let fits = |gate: &u32| {
            self.credit_of(*gate).is_none_or(|row| {
                row.available >= events && row.available_bytes.is_none_or(|free| free >= bytes)
            })
        };
        if !gates.iter().all(fits) {
            return false;
        }
        for gate in gates.iter() {
            if let Some(edge) = self.edges.get_mut(gate) {
                edge.spent.total += events as u64;
            }
        }
        true
    }

    /// The turn is over: what its event had spent is now held by the edges themselves, or free again.
    pub(super) fn release_turn(&mut self) {
        let Some(done) = self.turn_reserved.take() else {
            return;
        };
        for gate in done.gates.iter() {
            if let Some(edge) = self.edges.get_mut(gate) {
                edge.spent.events -= 1;
                edge.spent.bytes -= done.bytes;
            }
        }
    }

    /// A producer begins (1) or ends (-1) to wait for an edge.
    pub fn waits_for(&mut self, edge: u32, begins: bool) {
        if let Some(edge) = self.edges.get_mut(&edge) {
            if begins {
                edge.spent.waiting += 1;
                edge.spent.waits += 1;
            } else {
                edge.spent.waiting -= 1;
            }
        }
    }

    /// How long a producer waits for an edge, ns; 0: as long as it takes.
    pub fn block_ns(&self, edge: u32) -> i64 {
        match self.edges.get(&edge).map(|edge| &edge.kind) {
            Some(Kind::Mail(mail)) => mail.mailbox.policy().block_ns,
            _ => 0,
        }
    }

    /// The credit of one edge.
    pub fn credit_of(&self, id: u32) -> Option<CreditRow> {
        self.edges.get(&id).map(|edge| edge.credit(id))
    }

    /// The credit of every edge that has a window.
    pub fn credits(&self) -> Vec<CreditRow> {
        let windowed = |edge: &super::Edge| matches!(edge.kind, Kind::Queue(_) | Kind::Mail(_));
        let mut rows: Vec<_> = self
            .edges
            .iter()
            .filter(|(_, edge)| windowed(edge))
            .map(|(id, edge)| edge.credit(*id))
            .collect();
        rows.sort_by_key(|row| row.edge);
        rows
    }
}
