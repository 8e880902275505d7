//! Spans of sampled events, kept as small records until the host fetches them.
//!
//! Rules
//! - The root of a trace decides once whether it is sampled; the bit travels with every event of the trace, so a trace is
//!   recorded whole or not at all. An event that is not sampled costs one test of that bit.
//! - Span ids derive from event ids: any node can name an event's span as a parent without having seen the span (S30).
//! - Derived in one trace: the parent is the causing (last) input, the others are links; inputs of other traces are
//!   links only. A span never links its own parent (S30).
//! - Records wait in a bounded ring; the oldest go first, counted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::event::{Event, EventId, ParentRange, Tag, mix, root_trace};

/// Records that wait for the host.
pub const RECORDS_MAX: usize = 8192;
/// Links of one span; of more inputs the first and the last are kept, and the number of all.
pub const LINKS_MAX: usize = 128;

/// Eight bytes that name a span.
pub type SpanId = [u8; 8];

/// What a span says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Somebody published the event here.
    Publish,
    /// An operator made the event here.
    Operator,
    /// The event came from another node and was processed here.
    Process,
    /// The event was handed to the broker.
    Bridge,
}

/// An input of another trace, or a further input of the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its trace.
    pub trace: [u8; 16],
    /// Its span.
    pub span: SpanId,
}

/// What is known of one span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanRecord {
    /// What happened.
    pub kind: SpanKind,
    /// To which event.
    pub event: EventId,
    /// W3C trace id.
    pub trace: [u8; 16],
    /// Id of this span.
    pub span: SpanId,
    /// The span that caused it; None: the root of its trace.
    pub parent: Option<SpanId>,
    /// Other causes, at most `LINKS_MAX`.
    pub links: Vec<Link>,
    /// How many inputs there were in all.
    pub inputs: u64,
    /// The operator that made the event.
    pub operator: Option<Arc<str>>,
    /// Request or job.
    pub correlation: Option<Arc<str>>,
    /// Taint bits of the event.
    pub taints: u64,
    /// Bytes of its payload.
    pub size: u64,
    /// Wall clock, ns.
    pub start: i64,
    /// Wall clock, ns; not before `start`.
    pub end: i64,
    /// Why it failed.
    pub error: Option<Box<str>>,
}

const ROLE_EVENT: u64 = 0;
const ROLE_PROCESS: u64 = 1;
const ROLE_BRIDGE: u64 = 2;

/// The span id of an event where it was made.
pub fn event_span(id: &EventId) -> SpanId {
    span_id(id, ROLE_EVENT, [0; 8])
}

/// The span id of an event's stay in the graph of `node`: where it was made, the event's own; elsewhere that of its
/// processing there.
pub fn local_span(id: &EventId, node: Tag) -> SpanId {
    if id.producer == node {
        event_span(id)
    } else {
        span_id(id, ROLE_PROCESS, node)
    }
}

/// Spans of one trace need to differ, not to be secret.
fn span_id(id: &EventId, role: u64, node: Tag) -> SpanId {
    let words = [id.producer, id.incarnation, id.route].map(u64::from_be_bytes);
    let lane = words
        .into_iter()
        .chain([id.seq, u64::from_be_bytes(node)])
        .fold(role, |lane, word| mix(lane ^ word));
    // All zero is no span id (W3C).
    lane.max(1).to_be_bytes()
}

impl SpanRecord {
    /// A record of what happened to an event in the graph of `node`, with times and causes still to be set.
    pub fn of(kind: SpanKind, event: &Event, node: Tag) -> Self {
        let id = event.id();
        let (span, parent) = match kind {
            SpanKind::Publish | SpanKind::Operator => (event_span(&id), None),
            SpanKind::Process => (local_span(&id, node), Some(event_span(&id))),
            SpanKind::Bridge => (span_id(&id, ROLE_BRIDGE, node), Some(local_span(&id, node))),
        };
        Self {
            kind,
            event: id,
            trace: event.trace(),
            span,
            parent,
            links: Vec::new(),
            inputs: 0,
            operator: event.operator.clone(),
            correlation: event.correlation.clone(),
            taints: event.taints,
            size: event.payload.as_ref().map_or(0, |payload| payload.len()) as u64,
            start: event.ingest,
            end: event.ingest,
            error: None,
        }
    }

    /// Set what caused it: inputs oldest first, each with its trace where it is still known.
    fn caused_by(&mut self, inputs: impl DoubleEndedIterator<Item = Link>) {
        for input in inputs.rev() {
            if self.parent.is_none() && input.trace == self.trace {
                self.parent = Some(input.span);
            } else if Some(input.span) != self.parent
                && !self.links.contains(&input)
                && self.links.len() < LINKS_MAX
            {
                self.links.push(input);
            }
        }
        self.links.reverse();
    }
}

/// A span of somebody else's that caused an event here: a W3C trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    /// Its trace, which goes on here.
    pub trace: [u8; 16],
    /// The span.
    pub span: SpanId,
    /// Whether its trace is recorded.
    pub sampled: bool,
}

impl Outside {
    /// Read a `traceparent` header (W3C Trace Context, version 00 and what later ones have in common with it).
    pub fn parse(header: &str) -> Option<Self> {
        let bytes = header.as_bytes();
        let version = hex::<1>(bytes.get(..2)?)?[0];
        let whole =
            bytes.len() == HEADER_BYTES || (version > 0 && bytes.get(HEADER_BYTES) == Some(&b'-'));
        let dashes = [2, 35, 52]
            .iter()
            .all(|place| bytes.get(*place) == Some(&b'-'));
        if version == 0xff || !whole || !dashes {
            return None;
        }
        let (trace, span) = (hex(bytes.get(3..35)?)?, hex(bytes.get(36..52)?)?);
        let flags = hex::<1>(bytes.get(53..55)?)?[0];
        (trace != [0; 16] && span != [0; 8]).then_some(Self {
            trace,
            span,
            sampled: flags & 1 == 1,
        })
    }
}

const HEADER_BYTES: usize = 55;

/// Lower-case hex of `N` bytes; the header knows no other case.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

/// How many of something in a second.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    second: i64,
    count: u32,
}

impl Pace {
    /// Whether there is room for one more in the second of `now`, ns.
    fn admits(&self, now: i64, max: u32) -> bool {
        let second = now.div_euclid(1_000_000_000);
        if second == self.second {
            self.count < max
        } else {
            max > 0
        }
    }

    /// Whether there is room for one more in the second of `now`, ns; it is taken then.
    fn admit(&mut self, now: i64, max: u32) -> bool {
        let second = now.div_euclid(1_000_000_000);
        if second != self.second {
            (self.second, self.count) = (second, 0);
        }
        let room = self.count < max;
        self.count += u32::from(room);
        room
    }
}

/// Decides at roots, and keeps the records of one graph.
#[derive(Debug, Default)]
pub struct Tracer {
    on: bool,
    bound: u64,
    roots_max: u32,
    records_max: u32,
    roots: Pace,
    records: Pace,
    now: i64,
    open: Vec<SpanRecord>,
    /// Spans that caused events which are still to begin: outside ones, and the causing inputs of operators.
    causes: HashMap<EventId, SpanId>,
    ring: VecDeque<SpanRecord>,
    recorded: u64,
    dropped: u64,
    /// Trace contexts from outside that were none.
    pub ignored: u64,
}

impl Tracer {
    /// Record from now on: a root is sampled if the low half of its trace id is not above `bound`, and at most
    /// `roots_max` in a second.
    ///
    /// `records_max` bounds the records kept in a second, whoever caused them: the bit comes with events of others, too,
    /// and exporting a span costs much more than sending an event.
    pub fn start(&mut self, bound: u64, roots_max: u32, records_max: u32) {
        self.on = true;
        (self.bound, self.roots_max, self.records_max) = (bound, roots_max, records_max);
    }

    /// Record nothing more. The bit of events that carry it still travels.
    pub fn stop(&mut self) {
        self.on = false;
        self.open.clear();
        self.causes.clear();
    }

    /// Whether sampled events leave records.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Whether to sample the trace that begins here.
    pub fn decide(&mut self, trace: &[u8; 16], now: i64) -> bool {
        if !self.on {
            return false;
        }
        self.chosen(trace) && self.roots.admit(now, self.roots_max)
    }

    /// Whether the sampler takes a trace, as far as there is room.
    fn chosen(&self, trace: &[u8; 16]) -> bool {
        let mut low = [0; 8];
        low.copy_from_slice(&trace[8..]);
        u64::from_be_bytes(low) <= self.bound
    }

    /// How many of the first `events` that are published now will not be sampled; `trace` gives the trace of each.
    pub fn unsampled(&self, events: usize, now: i64, trace: impl Fn(usize) -> [u8; 16]) -> usize {
        if !self.on || !self.roots.admits(now, self.roots_max) {
            return events;
        }
        (0..events)
            .find(|event| self.chosen(&trace(*event)))
            .unwrap_or(events)
    }

    /// Whether to sample an event that somebody outside caused: as its trace is, but no more in a second than begin
    /// here, for whoever asks from outside may ask for everything.
    pub fn enter(&mut self, id: EventId, outside: &Outside, now: i64) -> bool {
        if !self.on {
            return outside.sampled;
        }
        let sampled = outside.sampled && self.roots.admit(now, self.roots_max);
        if sampled && self.causes.len() < RECORDS_MAX {
            self.causes.insert(id, outside.span);
        }
        sampled
    }

    /// An operator made the sampled event `id`, in its input's trace, when `input` came: that is the parent, whatever the
    /// order of all inputs.
    pub fn made(&mut self, id: EventId, input: &EventId) {
        if self.on && self.causes.len() < RECORDS_MAX {
            self.causes.insert(id, local_span(input, id.producer));
        }
    }

    /// Whether spans have begun that want to know when they end: the host then gives the time after each step.
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The time it is, ns.
    pub fn tick(&mut self, now: i64) {
        self.now = self.now.max(now);
    }

    /// A sampled event begins to be worked off; `trace_of` gives the trace of an input that is still known.
    pub fn begin(
        &mut self,
        event: &Event,
        node: Tag,
        trace_of: impl Fn(&EventId) -> Option<[u8; 16]>,
    ) {
        if !self.on {
            return;
        }
        let cause = self.causes.remove(&event.id());
        if self.open.len() >= RECORDS_MAX {
            self.recorded += 1;
            self.dropped += 1;
            return;
        }
        let kind = if event.producer != node {
            SpanKind::Process
        } else if event.operator.is_some() {
            SpanKind::Operator
        } else {
            SpanKind::Publish
        };
        self.tick(event.ingest);
        let mut record = SpanRecord::of(kind, event, node);
        record.parent = record.parent.or(cause);
        if kind != SpanKind::Process {
            let (inputs, count) = inputs_of(&event.parents);
            // Inputs of one trace: those that are forgotten by now were of it, too (S30).
            let trace = event.trace();
            let one = trace != root_trace(&event.id());
            let known = inputs.iter().filter_map(|id| {
                let trace = trace_of(id).or_else(|| one.then_some(trace))?;
                let span = local_span(id, node);
                Some(Link { trace, span })
            });
            record.inputs = count;
            record.caused_by(known);
        }
        if kind == SpanKind::Operator {
            record.start = self.now;
        }
        self.open.push(record);
    }

    /// What began has been worked off.
    pub fn finish(&mut self) {
        if self.open.is_empty() {
            return;
        }
        for mut record in std::mem::take(&mut self.open) {
            record.end = self.now.max(record.start);
            self.keep(record);
        }
    }

    /// Keep a finished record.
    pub fn keep(&mut self, record: SpanRecord) {
        self.recorded += 1;
        if !self.records.admit(record.end, self.records_max) {
            self.dropped += 1;
            return;
        }
        if self.ring.len() >= RECORDS_MAX {
            self.ring.pop_front();
            self.dropped += 1;
        }
        self.ring.push_back(record);
    }

    /// Hand over up to `max` records, oldest first.
    pub fn take(&mut self, max: usize) -> Vec<SpanRecord> {
        self.ring.drain(..max.min(self.ring.len())).collect()
    }

    /// Records made ever, and of these dropped: too many in a second, or not fetched in time.
    pub fn counts(&self) -> (u64, u64) {
        (self.recorded, self.dropped)
    }
}

/// The inputs to be named, and how many there are: beyond one parent and `LINKS_MAX` links the ones in the middle are
/// left out.
fn inputs_of(parents: &[ParentRange]) -> (Vec<EventId>, u64) {
    let total: u64 = parents
        .iter()
        .fold(0, |sum, r| sum.saturating_add(r.last - r.first + 1));
    let (head, tail) = (LINKS_MAX as u64 / 2, LINKS_MAX as u64 / 2 + 1);
    let mut inputs = Vec::new();
    let mut at = 0u64;
    for r in parents {
        let size = r.last - r.first + 1;
        let mut step = 0;
        while step < size {
            let place = at.saturating_add(step);
            if place >= head && place < total.saturating_sub(tail) {
                step += (total - tail - place).min(size - step);
                continue;
            }
            inputs.push(EventId {
                producer: r.producer,
                incarnation: r.incarnation,
                route: r.route,
                seq: r.first + step,
            });
            step += 1;
        }
        at = at.saturating_add(size);
    }
    (inputs, total)
}
