//! The engine: routes, edges, retention, and the turn.
//!
//! Invariants
//! - Numbers are given and events appended in one step, so all edges of a route see the order of numbers (S2, S3).
//! - One turn runs at a time: `step` works one input event off before the next; what a step derives is worked off first.
//! - Within a turn operators run by rank, and direct observers after them, so that no join sees half of a change.
//! - An edge's counters hold `offered = delivered + dropped + pending` after every call (S43).
//! - The input queue is bounded; a refused event has used no number.

use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use crate::batch::BatchError;
use crate::counters::Ledger;
use crate::event::{Event, EventId, Tag};
use crate::ids::IdMap;
use crate::inlet::Track;
use crate::node::Node;
use crate::operator::{Item, Out};
use crate::payload::Payload;
use crate::ring::{Overflow, Ring};
use crate::trace::{Outside, Tracer};
use crate::value::{Codec, Value};
use bound::Bound;
use credit::Reservation;
use defer::Deferred;
use journey::Journey;
use run::Reach;
use turn::{Arrival, Work};
use waiting::Waiting;

mod adopt;
mod bound;
mod credit;
mod defer;
mod ephemeral;
mod install;
mod journey;
mod mail;
mod make;
mod remote;
mod run;
mod transcript;
mod turn;
mod waiting;

pub use credit::{CreditRow, Lane, Spent};
pub use defer::{DEFERRED_MAX, Waits};
pub use install::Uninstallable;
pub use journey::{Made, RunCall};
pub use mail::Mail;
pub use remote::{Incoming, Receipt};
pub use run::{RUN_MAX, RunInput};
pub use transcript::Transcript;
pub use turn::{Call, Outcome, Step};

/// Events that may wait for their turn.
pub const INPUT_EVENTS_MAX: usize = 65_536;
/// Events a route keeps unless told otherwise (S16).
pub const HISTORY_DEFAULT: usize = 8;
/// Producers' incarnations one inlet keeps apart.
pub const TRACKS_MAX: usize = 256;

/// What the caller of `publish` gives besides the payload.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// The encoded value.
    pub payload: Option<Payload>,
    /// Device time, ns.
    pub time: i64,
    /// The host's clock, ns.
    pub ingest: i64,
    /// Partition key.
    pub key: Option<Arc<str>>,
    /// Request or job.
    pub correlation: Option<Arc<str>>,
    /// Causes.
    pub parents: Vec<EventId>,
    /// Taints of its own.
    pub taints: u64,
    /// Clock domain of `time`.
    pub clock: Option<Arc<str>>,
    /// Logical time.
    pub logical: u64,
    /// Control epoch.
    pub epoch: u64,
    /// Quality-of-service class.
    pub qos: u8,
    /// Guards that had to hold.
    pub guards: Vec<Arc<str>>,
    /// Security labels.
    pub labels: Vec<Arc<str>>,
    /// It comes from what owns the route.
    pub owner: bool,
    /// Where the payload is, if it is not here.
    pub payload_ref: Option<Arc<str>>,
    /// The span outside this mesh that caused it; for an event without causes of its own.
    pub outside: Option<Outside>,
    /// A trace context came along that is none: the event begins a trace of its own, and that is counted.
    pub context_ignored: bool,
}

/// What hangs on a route.
#[allow(missing_debug_implementations, reason = "a mailbox may be large")]
pub enum Kind {
    /// A direct observer, called in the turn.
    Direct,
    /// A bounded queue.
    Queue(Ring),
    /// A port of a node: its id, the stage and the port there, and which of the node's inputs it is.
    Port(u32, usize, usize, usize),
    /// Every event becomes one of the sink route (S5). False: what is behind it does not hold up producers before it.
    Forward(usize, bool),
    /// A mailbox.
    Mail(Box<Mail>),
}

/// One edge with its accounting.
#[allow(missing_debug_implementations, reason = "a mailbox may be large")]
pub struct Edge {
    /// What it is called in `edges()`.
    pub name: String,
    /// observer, stream, tap, pipe, connect
    pub label: Arc<str>,
    /// Index of its route.
    pub route: usize,
    /// What it does.
    pub kind: Kind,
    /// What producers have spent on it.
    pub spent: Spent,
    ledger: Ledger,
}

impl Edge {
    /// Its counters by producer and incarnation.
    pub fn ledger(&self) -> &Ledger {
        match &self.kind {
            Kind::Queue(ring) => &ring.ledger,
            Kind::Mail(mail) => &mail.mailbox.ledger,
            _ => &self.ledger,
        }
    }
}

struct Route {
    tag: Tag,
    codec: Codec,
    /// Longest way to it from a route that no operator writes.
    rank: u32,
    next_seq: u64,
    next_link: u64,
    history: VecDeque<Arc<Event>>,
    history_max: usize,
    history_bytes_max: usize,
    history_bytes: usize,
    history_age_max: i64,
    edges: Vec<u32>,
    /// Of these, how many are no direct observers.
    others: usize,
    tracks: Vec<Track>,
    /// How many own it: then only they publish on it (S18).
    owners: u32,
    /// Taints of everything on it.
    marks: u64,
    /// The most that may be on it, and the most that was.
    bound: Bound,
    /// When it ends, ns; the largest number: never, the smallest: it was never declared, or is over.
    expires: i64,
    /// Which part of the input queue it may use.
    lane: Lane,
    /// Edges whose credit a publish on it spends, as of the topology of that number.
    gates: Option<(u64, Arc<[u32]>)>,
    /// What a run from here would reach.
    reach: Option<Box<Reach>>,
}

/// Why an event is refused; it has used no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The input queue is full.
    Full,
    /// Bytes that are no batch.
    Batch(BatchError),
    /// Too many producers on one inlet.
    Producers,
    /// The route is written by what owns it (S18).
    Owned,
    /// The route is ephemeral and has no time to live, or none any more (S42).
    Expired,
    /// This edge has no credit left: wait (S7).
    NoCredit(u32),
    /// This edge is full and refuses (S14).
    Rejected(u32),
    /// The event is larger than the whole window of this edge, in bytes (S6).
    TooLarge(u32, usize),
    /// It carries these taints above the declared bound of its route (S29).
    Tainted(u64),
}

/// The graph's state machine.
pub struct Engine {
    producer: Tag,
    incarnation: Tag,
    routes: Vec<Route>,
    by_tag: HashMap<Tag, usize>,
    edges: IdMap<Edge>,
    nodes: IdMap<Node>,
    next_id: u32,
    input: Waiting,
    /// Spans of sampled events.
    pub tracer: Tracer,
    /// Items inside nodes; the last is worked on next.
    stack: Vec<Work>,
    /// Arrivals at nodes, by rank.
    arrivals: BinaryHeap<Arrival>,
    arrived: u64,
    /// Calls of direct observers, after the operators.
    observers: VecDeque<(u32, Arc<Event>, bool)>,
    wakes: VecDeque<u32>,
    transcript: Option<Transcript>,
    /// A step that came up while a call was resumed.
    next: Option<Step>,
    /// A run that waits for the outcome of a call.
    journey: Option<Box<Journey>>,
    /// Events that wait until somebody looks.
    deferred: Deferred,
    failures: VecDeque<(u32, String)>,
    out: Out,
    /// Edges that hold up producers.
    gates: usize,
    /// Grows with each change of edges and nodes.
    topology: u64,
    /// Credit that events in the input queue have spent.
    reserved: HashMap<EventId, Reservation>,
    /// Credit that the event of this turn has spent.
    turn_reserved: Option<Reservation>,
    /// Mailboxes with something for their sinks.
    mail: VecDeque<u32>,
    /// Events that the host has to keep on disk.
    spills: VecDeque<(u32, Arc<Event>)>,
    /// Edges and nodes that went with their routes, until the host has let go of what it holds for them.
    gone: Vec<u32>,
    /// The newest time seen, ns.
    now: i64,
    /// No operator's deadline is before this; it may be earlier than the earliest.
    due: i64,
}

impl Engine {
    /// Make an empty graph.
    pub fn new(producer: Tag, incarnation: Tag) -> Self {
        Self {
            producer,
            incarnation,
            routes: Vec::new(),
            by_tag: HashMap::new(),
            edges: IdMap::default(),
            nodes: IdMap::default(),
            next_id: 1,
            input: Waiting::default(),
            tracer: Tracer::default(),
            stack: Vec::new(),
            arrivals: BinaryHeap::new(),
            arrived: 0,
            observers: VecDeque::new(),
            wakes: VecDeque::new(),
            transcript: None,
            next: None,
            journey: None,
            deferred: Deferred::default(),
            failures: VecDeque::new(),
            out: Out::default(),
            gates: 0,
            topology: 0,
            reserved: HashMap::new(),
            turn_reserved: None,
            mail: VecDeque::new(),
            spills: VecDeque::new(),
            gone: Vec::new(),
            now: 0,
            due: i64::MAX,
        }
    }

    /// Index of a route, made on first use.
    pub fn route(&mut self, tag: Tag, codec: Codec) -> usize {
        if let Some(&index) = self.by_tag.get(&tag) {
            return index;
        }
        self.routes.push(Route {
            tag,
            codec,
            rank: 0,
            next_seq: 1,
            next_link: 1,
            history: VecDeque::new(),
            history_max: HISTORY_DEFAULT,
            history_bytes_max: usize::MAX,
            history_bytes: 0,
            history_age_max: i64::MAX,
            edges: Vec::new(),
            others: 0,
            tracks: Vec::new(),
            owners: 0,
            marks: 0,
            bound: Bound::default(),
            expires: i64::MAX,
            lane: Lane::Metadata,
            gates: None,
            reach: None,
        });
        self.by_tag.insert(tag, self.routes.len() - 1);
        self.routes.len() - 1
    }

    /// Set what a route keeps (S16): events, payload bytes, age in ns.
    pub fn retain(&mut self, route: usize, events: usize, bytes: usize, age: i64) {
        let r = &mut self.routes[route];
        (r.history_max, r.history_bytes_max, r.history_age_max) = (events, bytes, age);
        trim(r, None);
    }

    /// From now on only owners publish on a route, or one of them gives it up.
    pub fn own(&mut self, route: usize, on: bool) {
        let owners = &mut self.routes[route].owners;
        *owners = if on {
            *owners + 1
        } else {
            owners.saturating_sub(1)
        };
    }

    /// An edge.
    pub fn edge(&self, id: u32) -> Option<&Edge> {
        self.edges.get(&id)
    }

    /// The name of an edge or a node; empty if it is gone.
    pub fn name(&self, id: u32) -> String {
        let edge = self.edges.get(&id).map(|edge| edge.name.clone());
        edge.or_else(|| self.nodes.get(&id).map(|node| node.name.to_string()))
            .unwrap_or_default()
    }

    /// The queue of an edge.
    pub fn ring(&mut self, id: u32) -> Option<&mut Ring> {
        match self.edges.get_mut(&id).map(|edge| &mut edge.kind) {
            Some(Kind::Queue(ring)) => Some(ring),
            _ => None,
        }
    }

    /// All edges, in the order they were attached.
    pub fn edges(&self) -> Vec<(u32, &Edge)> {
        let mut all: Vec<_> = self.edges.iter().map(|(id, edge)| (*id, edge)).collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }

    /// Index of a known route.
    pub fn index(&self, tag: Tag) -> Option<usize> {
        self.by_tag.get(&tag).copied()
    }

    /// Tag of a route.
    pub fn tag(&self, route: usize) -> Tag {
        self.routes[route].tag
    }

    /// Numbers given on a route in this incarnation.
    pub fn published(&self, route: usize) -> u64 {
        self.routes[route].next_seq - 1
    }

    /// The newest retained event.
    pub fn latest(&self, route: usize) -> Option<&Arc<Event>> {
        self.routes[route].history.back()
    }

    /// What a route retains, oldest first.
    pub fn history(&self, route: usize) -> Vec<Arc<Event>> {
        self.routes[route].history.iter().cloned().collect()
    }

    /// A retained event.
    pub fn find(&self, id: EventId) -> Option<&Arc<Event>> {
        let route = *self.by_tag.get(&id.route)?;
        self.routes[route].find(id)
    }

    /// Room in the input queue.
    pub fn room(&self) -> usize {
        INPUT_EVENTS_MAX - self.input.len().min(INPUT_EVENTS_MAX)
    }

    /// Number an event and queue it for its turn.
    pub fn publish(&mut self, route: usize, mut input: Input) -> Result<Arc<Event>, Refused> {
        self.publish_taking(route, &mut input)
    }

    /// As `publish`; what is refused is left in `input`.
    pub fn publish_taking(
        &mut self,
        route: usize,
        input: &mut Input,
    ) -> Result<Arc<Event>, Refused> {
        if self.routes[route].owners > 0 && !input.owner {
            return Err(Refused::Owned);
        }
        if self.routes[route].expires <= self.now.max(input.ingest) {
            return Err(Refused::Expired);
        }
        if self.routes[route].bound.is_declared() {
            let marks = self.marks_of(input);
            let above = self.above(route, marks);
            if above != 0 {
                return Err(Refused::Tainted(above));
            }
        }
        if !self.lane_has_room(route) {
            return Err(Refused::Full);
        }
        let bytes = input.payload.as_ref().map_or(0, |payload| payload.len());
        let reservation = self.spend(route, bytes, input.ingest)?;
        let event = self.make(route, input);
        if let Some(reservation) = reservation {
            self.reserved.insert(event.id(), reservation);
        }
        self.input.push_back((route, event.clone()));
        Ok(event)
    }

    /// Whether an event of which nothing is given but value and time may be published now and begins its turn at once.
    pub fn takes_plain(&self, route: usize, ingest: i64) -> bool {
        let r = &self.routes[route];
        r.owners == 0
            && !r.bound.is_declared()
            && r.expires == i64::MAX
            && (self.gates == 0 || r.others == 0)
            && self.due > ingest
            && self.idle()
    }

    /// Whether nobody reads a route but direct observers.
    pub fn only_direct(&self, route: usize) -> bool {
        self.routes[route].others == 0
    }

    /// Number such an event and begin its turn; call `step` after it.
    pub fn publish_plain(&mut self, route: usize, payload: Payload, ingest: i64) -> Arc<Event> {
        let event = self.make_plain(route, Some(payload), ingest);
        self.arrive(route, &event);
        event
    }

    /// As `publish_plain` where only direct observers read the route: the event is counted as delivered to them, and the
    /// host calls them before it does anything else (`edges_of`) and ends the event's span. That is the whole turn.
    pub fn publish_direct(&mut self, route: usize, payload: Payload, ingest: i64) -> Arc<Event> {
        let event = self.make_plain(route, Some(payload), ingest);
        self.record(&event);
        self.note(&event);
        let r = &mut self.routes[route];
        r.keep(&event);
        for id in &r.edges {
            if let Some(edge) = self.edges.get_mut(id) {
                edge.ledger.count(&event, false);
            }
        }
        event
    }

    /// The edges of a route, in the order they were attached.
    pub fn edges_of(&self, route: usize) -> &[u32] {
        &self.routes[route].edges
    }

    /// Number an event derived from `source`, which need not be retained here, and queue it for its turn.
    pub fn publish_from(
        &mut self,
        sink: usize,
        operator: &str,
        source: &Event,
        taints: u64,
    ) -> Result<Arc<Event>, Refused> {
        if self.room() == 0 {
            return Err(Refused::Full);
        }
        let mut item = Item::enter(source, Value::None, 0);
        item.mark(taints);
        let above = self.above(sink, item.taints);
        if above != 0 {
            return Err(Refused::Tainted(above));
        }
        let event = self.derive(sink, item, source.payload.clone(), operator.into());
        self.input.push_back((sink, event.clone()));
        Ok(event)
    }

    /// Put a remembered event back into a route's history, behind what is there, without delivering it. One of this
    /// incarnation moves the numbering behind it; no number is given twice (S2, S35).
    pub fn restore(&mut self, route: usize, event: Arc<Event>) {
        let own = event.producer == self.producer && event.incarnation == self.incarnation;
        let r = &mut self.routes[route];
        if own {
            r.next_seq = r.next_seq.max(event.seq + 1);
        }
        r.next_link = r.next_link.max(event.seq_link + 1);
        r.history_bytes += event.payload.as_ref().map_or(0, |p| p.len());
        r.history.push_back(event);
        trim(r, None);
    }

    /// The number the route's next event gets; never lowered.
    pub fn number_from(&mut self, route: usize, next: u64) {
        let r = &mut self.routes[route];
        r.next_seq = r.next_seq.max(next);
    }
}

fn trim(route: &mut Route, now: Option<i64>) {
    while let Some(oldest) = route.history.front() {
        let too_old =
            now.is_some_and(|now| now.saturating_sub(oldest.ingest) > route.history_age_max);
        if route.history.len() <= route.history_max
            && route.history_bytes <= route.history_bytes_max
            && !too_old
        {
            break;
        }
        route.history_bytes -= oldest.payload.as_ref().map_or(0, |p| p.len());
        route.history.pop_front();
    }
}

/// A queue kind.
pub fn queue(capacity: usize, overflow: Overflow) -> Kind {
    Kind::Queue(Ring::new(capacity, overflow))
}
