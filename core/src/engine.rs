//! The engine: routes, edges, retention, and the turn.
//!
//! Invariants
//! - Numbers are given and events appended in one step, so all edges of a route see the order of numbers (S2, S3).
//! - One turn runs at a time: `step` works one input event off before the next; what a step derives is worked off first.
//! - An edge's counters hold `offered = delivered + dropped + pending` after every call (S43).
//! - The input queue is bounded; a refused event has used no number.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::batch::{self, BatchError};
use crate::counters::{Counters, Ledger};
use crate::event::{Event, EventId, Tag, add_parent, root_trace};
use crate::inlet::Track;
use crate::registry::LINEAGE_TRUNCATED;
use crate::ring::{Overflow, Ring};
use crate::taint;
use crate::trace::Tracer;

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
    pub payload: Option<Arc<[u8]>>,
    /// Device time, ns.
    pub time: i64,
    /// The host's clock, ns.
    pub ingest: i64,
    /// Partition key.
    pub key: Option<Box<str>>,
    /// Request or job.
    pub correlation: Option<Box<str>>,
    /// Causes.
    pub parents: Vec<EventId>,
    /// Taints of its own.
    pub taints: u64,
    /// The operator that makes it.
    pub operator: Option<Box<str>>,
}

/// What the host has to do next.
#[derive(Debug)]
pub enum Step {
    /// Call the direct observer of this edge with the event.
    Observe(u32, Arc<Event>),
    /// Run the foreign function of this edge, then call `resume`.
    Apply(u32, Arc<Event>),
    /// Wake the reader of this edge's queue.
    Ready(u32),
    /// The turn is over.
    Idle,
}

/// What hangs on a route.
#[derive(Debug)]
pub enum Kind {
    /// A direct observer, called in the turn.
    Direct,
    /// A bounded queue.
    Queue(Ring),
    /// A foreign function whose results go to a route.
    Apply(usize),
    /// Every event becomes one of the sink route (S5).
    Forward(usize),
}

/// One edge with its accounting.
#[derive(Debug)]
pub struct Edge {
    /// What it is called in `edges()`.
    pub name: String,
    /// observer, stream, tap, pipe, connect
    pub label: &'static str,
    /// Index of its route.
    pub route: usize,
    /// What it does.
    pub kind: Kind,
    ledger: Ledger,
}

impl Edge {
    /// Its counters by producer and incarnation.
    pub fn ledger(&self) -> &Ledger {
        match &self.kind {
            Kind::Queue(ring) => &ring.ledger,
            _ => &self.ledger,
        }
    }
}

struct Route {
    tag: Tag,
    next_seq: u64,
    next_link: u64,
    history: VecDeque<Arc<Event>>,
    history_max: usize,
    history_bytes_max: usize,
    history_bytes: usize,
    history_age_max: i64,
    edges: Vec<u32>,
    tracks: Vec<Track>,
}

/// What `push` did with a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// New events.
    pub delivered: u64,
    /// Events that came before.
    pub duplicates: u64,
    /// Numbers found missing.
    pub lost: u64,
    /// First number of the batch.
    pub first_seq: u64,
    /// Last number of the batch.
    pub last_seq: u64,
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
}

/// The graph's state machine.
pub struct Engine {
    producer: Tag,
    incarnation: Tag,
    routes: Vec<Route>,
    by_tag: HashMap<Tag, usize>,
    edges: HashMap<u32, Edge>,
    next_edge: u32,
    input: VecDeque<(usize, Arc<Event>)>,
    turn: VecDeque<(u32, Arc<Event>)>,
    /// Spans of sampled events.
    pub tracer: Tracer,
}

impl Engine {
    /// Make an empty graph.
    pub fn new(producer: Tag, incarnation: Tag) -> Self {
        Self {
            producer,
            incarnation,
            routes: Vec::new(),
            by_tag: HashMap::new(),
            edges: HashMap::new(),
            next_edge: 1,
            input: VecDeque::new(),
            turn: VecDeque::new(),
            tracer: Tracer::default(),
        }
    }

    /// Index of a route, made on first use.
    pub fn route(&mut self, tag: Tag) -> usize {
        if let Some(&index) = self.by_tag.get(&tag) {
            return index;
        }
        self.routes.push(Route {
            tag,
            next_seq: 1,
            next_link: 1,
            history: VecDeque::new(),
            history_max: HISTORY_DEFAULT,
            history_bytes_max: usize::MAX,
            history_bytes: 0,
            history_age_max: i64::MAX,
            edges: Vec::new(),
            tracks: Vec::new(),
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

    /// Hang an edge on a route.
    pub fn attach(&mut self, route: usize, name: String, label: &'static str, kind: Kind) -> u32 {
        let id = self.next_edge;
        self.next_edge += 1;
        self.edges.insert(
            id,
            Edge {
                name,
                label,
                route,
                kind,
                ledger: Ledger::default(),
            },
        );
        self.routes[route].edges.push(id);
        id
    }

    /// Take an edge off; what waits in it is counted as closed. Idempotent.
    pub fn detach(&mut self, id: u32) -> Option<Edge> {
        let mut edge = self.edges.remove(&id)?;
        self.routes[edge.route].edges.retain(|&other| other != id);
        if let Kind::Queue(ring) = &mut edge.kind {
            ring.close();
        }
        Some(edge)
    }

    /// Whether forwarding `source` to `sink` would close a cycle (S5, S22).
    pub fn would_cycle(&self, source: usize, sink: usize) -> bool {
        let mut seen = vec![false; self.routes.len()];
        let mut open = vec![sink];
        while let Some(route) = open.pop() {
            if route == source {
                return true;
            }
            if std::mem::replace(&mut seen[route], true) {
                continue;
            }
            for id in &self.routes[route].edges {
                match self.edges[id].kind {
                    Kind::Forward(to) | Kind::Apply(to) if to != usize::MAX => open.push(to),
                    _ => {}
                }
            }
        }
        false
    }

    /// An edge.
    pub fn edge(&self, id: u32) -> Option<&Edge> {
        self.edges.get(&id)
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

    /// A retained event.
    pub fn find(&self, id: EventId) -> Option<&Arc<Event>> {
        let route = *self.by_tag.get(&id.route)?;
        self.routes[route]
            .history
            .iter()
            .rev()
            .find(|event| event.id() == id)
    }

    /// A retained event, or one that waits for its turn.
    fn known(&self, id: EventId) -> Option<&Arc<Event>> {
        let waiting = || self.input.iter().rev().map(|(_, event)| event);
        self.find(id)
            .or_else(|| waiting().find(|event| event.id() == id))
    }

    /// Room in the input queue.
    pub fn room(&self) -> usize {
        INPUT_EVENTS_MAX - self.input.len().min(INPUT_EVENTS_MAX)
    }

    /// Number an event and queue it for its turn.
    pub fn publish(&mut self, route: usize, input: Input) -> Result<Arc<Event>, Refused> {
        if self.room() == 0 {
            return Err(Refused::Full);
        }
        let event = self.make(route, input, None);
        self.input.push_back((route, event.clone()));
        Ok(event)
    }

    fn make(&mut self, route: usize, input: Input, source: Option<&Event>) -> Arc<Event> {
        let own = EventId {
            producer: self.producer,
            incarnation: self.incarnation,
            route: self.routes[route].tag,
            seq: self.routes[route].next_seq,
        };
        let (trace, causality, sampled) = self.chain(own, &input, source);
        let r = &mut self.routes[route];
        let mut event = Event {
            route: own.route,
            producer: own.producer,
            incarnation: own.incarnation,
            seq: own.seq,
            time: input.time,
            ingest: input.ingest,
            trace,
            sampled,
            causality,
            key: input.key,
            correlation: input.correlation,
            operator: input.operator,
            taints: taint::normalize(input.taints),
            payload: input.payload,
            ..Event::default()
        };
        r.next_seq += 1;
        for id in input.parents {
            if !add_parent(&mut event.parents, id) {
                event.taints = taint::join(event.taints, LINEAGE_TRUNCATED);
            }
            if let Some(parent) = self.known(id) {
                event.taints = taint::join(event.taints, parent.taints);
            }
        }
        Arc::new(event)
    }

    /// Trace, causality and the sampled bit (S30): inputs of one trace go on in it, a root or inputs of several begin a
    /// new one. A new trace is recorded if one of its inputs is, a root if the tracer decides so.
    fn chain(
        &mut self,
        own: EventId,
        input: &Input,
        source: Option<&Event>,
    ) -> ([u8; 16], Option<EventId>, bool) {
        if let Some(source) = source {
            let causality = source.causality.unwrap_or_else(|| source.id());
            return (source.trace, Some(causality), source.sampled);
        }
        let (mut found, mut mixed, mut sampled) = (None, false, false);
        for id in &input.parents {
            if let Some(event) = self.known(*id) {
                sampled |= event.sampled;
                match &found {
                    None => found = Some((event.trace, event.causality.unwrap_or(*id))),
                    Some((trace, _)) => mixed |= *trace != event.trace,
                }
            }
        }
        let last = input.parents.last().copied();
        match found {
            Some((trace, causality)) if !mixed => (trace, Some(causality), sampled),
            Some(_) => (root_trace(&own), last, sampled),
            None => {
                let trace = root_trace(&own);
                let sampled = self.tracer.decide(&trace, input.ingest);
                (trace, last, sampled)
            }
        }
    }

    /// Do what needs no host, and say what the host has to do next.
    pub fn step(&mut self) -> Step {
        loop {
            if let Some((id, event)) = self.turn.pop_front() {
                if let Some(step) = self.work(id, event) {
                    return step;
                }
                continue;
            }
            if self.tracer.is_open() {
                self.tracer.finish();
            }
            let Some((route, event)) = self.input.pop_front() else {
                return Step::Idle;
            };
            self.arrive(route, &event);
        }
    }

    /// Store an event and line its edges up.
    fn arrive(&mut self, route: usize, event: &Arc<Event>) {
        if event.sampled && self.tracer.is_on() {
            let mut tracer = std::mem::take(&mut self.tracer);
            tracer.begin(event, self.producer, |id| self.find(*id).map(|e| e.trace));
            self.tracer = tracer;
        }
        let r = &mut self.routes[route];
        if r.history_max > 0 {
            r.history_bytes += event.payload.as_ref().map_or(0, |p| p.len());
            r.history.push_back(event.clone());
            trim(r, Some(event.ingest));
        }
        for (place, id) in r.edges.iter().enumerate() {
            self.turn.insert(place, (*id, event.clone()));
        }
    }

    fn work(&mut self, id: u32, event: Arc<Event>) -> Option<Step> {
        let edge = self.edges.get_mut(&id)?;
        match &mut edge.kind {
            Kind::Queue(ring) => return ring.push(event).then_some(Step::Ready(id)),
            kind => {
                let row = edge.ledger.row(event.producer, event.incarnation);
                row.offered += 1;
                row.delivered += 1;
                match kind {
                    Kind::Direct => return Some(Step::Observe(id, event)),
                    Kind::Apply(_) => return Some(Step::Apply(id, event)),
                    Kind::Forward(sink) => {
                        let sink = *sink;
                        self.derive(sink, "connect", &event, event.payload.clone());
                    }
                    Kind::Queue(_) => {}
                }
            }
        }
        None
    }

    /// Give the result of an `Apply`: None discards the event. The derived event is worked off in the same turn.
    pub fn resume(&mut self, id: u32, operator: &str, source: &Event, payload: Option<Arc<[u8]>>) {
        if let (
            Some(Edge {
                kind: Kind::Apply(sink),
                ..
            }),
            Some(payload),
        ) = (self.edges.get(&id), payload)
        {
            let sink = *sink;
            self.derive(sink, operator, source, Some(payload));
        }
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
        let mut input = derived(operator, source, source.payload.clone());
        input.taints = taint::join(input.taints, taints);
        let event = self.make(sink, input, Some(source));
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

    fn derive(&mut self, sink: usize, operator: &str, source: &Event, payload: Option<Arc<[u8]>>) {
        let input = derived(operator, source, payload);
        let event = self.make(sink, input, Some(source));
        self.arrive(sink, &event);
    }

    /// Take in a batch from a remote producer: new events are queued with their own numbers (S2).
    pub fn push(
        &mut self,
        route: usize,
        sections: (&[u8], Option<&[u8]>),
        producer: Tag,
        incarnation: Tag,
        taints: u64,
        ingest: i64,
    ) -> Result<Receipt, Refused> {
        let tag = self.routes[route].tag;
        let events = batch::decode(sections.0, sections.1, tag, producer, incarnation)
            .map_err(Refused::Batch)?;
        if events.len() > self.room() {
            return Err(Refused::Full);
        }
        let first = events[0].seq;
        let mut receipt = Receipt {
            first_seq: first,
            last_seq: events[events.len() - 1].seq,
            ..Receipt::default()
        };
        let r = &mut self.routes[route];
        let track = track(r, producer, incarnation, first).ok_or(Refused::Producers)?;
        let before = r.tracks[track].counters.dropped;
        for mut event in events {
            if !r.tracks[track].accept(event.seq) {
                receipt.duplicates += 1;
                continue;
            }
            receipt.delivered += 1;
            event.seq_link = r.next_link;
            r.next_link += 1;
            event.taints = taint::join(event.taints, taints);
            event.ingest = ingest;
            self.input.push_back((route, Arc::new(event)));
        }
        let after = r.tracks[track].counters.dropped;
        receipt.lost = after.iter().sum::<u64>() - before.iter().sum::<u64>();
        Ok(receipt)
    }

    /// A checkpoint proves that numbers up to `last_seq` were sent; what has not come is lost. Returns how many.
    /// A producer not heard of is attached behind `last_seq`: what was sent before is not offered to this reader.
    pub fn expect(&mut self, route: usize, producer: Tag, incarnation: Tag, last_seq: u64) -> u64 {
        let r = &mut self.routes[route];
        match track(r, producer, incarnation, last_seq.saturating_add(1)) {
            Some(index) => r.tracks[index].lose_up_to(last_seq),
            None => 0,
        }
    }

    /// Remote producers of a route: (producer, incarnation, counters, last number, first number counted).
    pub fn tracks(&self, route: usize) -> Vec<(Tag, Tag, Counters, u64, u64)> {
        self.routes[route]
            .tracks
            .iter()
            .map(|t| (t.producer, t.incarnation, t.counters, t.last, t.attach))
            .collect()
    }
}

/// What an event derived from another one takes over from it.
fn derived(operator: &str, source: &Event, payload: Option<Arc<[u8]>>) -> Input {
    Input {
        payload,
        time: source.time,
        ingest: source.ingest,
        key: source.key.clone(),
        correlation: source.correlation.clone(),
        parents: vec![source.id()],
        taints: source.taints,
        operator: Some(operator.into()),
    }
}

fn track(route: &mut Route, producer: Tag, incarnation: Tag, attach: u64) -> Option<usize> {
    let known = route
        .tracks
        .iter()
        .position(|t| t.producer == producer && t.incarnation == incarnation);
    if known.is_some() || route.tracks.len() >= TRACKS_MAX {
        return known;
    }
    route.tracks.push(Track::new(producer, incarnation, attach));
    Some(route.tracks.len() - 1)
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
