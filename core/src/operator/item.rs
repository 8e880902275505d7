//! What flows between the stages of a node: a value, where it comes from, and what taints it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Event, EventId, ParentRange, add_range, root_trace};
use crate::registry::LINEAGE_TRUNCATED;
use crate::taint;
use crate::value::Value;

/// One record on its way through a node: a handle, for it is handed on from stage to stage many times.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Item(Box<Record>);

impl From<Record> for Item {
    fn from(record: Record) -> Self {
        Self(Box::new(record))
    }
}

impl Deref for Item {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.0
    }
}

impl DerefMut for Item {
    fn deref_mut(&mut self) -> &mut Record {
        &mut self.0
    }
}

/// What an item holds. It is plain data, so a checkpoint can hold it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// The value.
    pub value: Value,
    /// The event it entered as, or the one that caused it to be emitted.
    pub id: EventId,
    /// The last parent of that event: what a report answers, or the write an acknowledgement is for.
    pub cause: Option<EventId>,
    /// The edge it entered by; 0 once it is no longer one event that came in. No part of a checkpoint: edges of another
    /// life count nothing.
    #[serde(skip)]
    pub edge: u32,
    /// Device time, ns.
    pub time: i64,
    /// When the host took in what caused it, ns: the engine's notion of now.
    pub ingest: i64,
    /// Logical time; of a window, its revision.
    pub logical: u64,
    /// Control epoch.
    pub epoch: u64,
    /// Quality-of-service class.
    pub qos: u8,
    /// Partition key.
    pub key: Option<Arc<str>>,
    /// Clock domain of `time`.
    pub clock: Option<Arc<str>>,
    /// What request or job it belongs to.
    pub correlation: Option<Arc<str>>,
    /// Security labels, joined over all inputs.
    pub labels: Vec<Arc<str>>,
    /// Notes of what had to hold, such as a repair's proof (S29).
    pub guards: Vec<Arc<str>>,
    /// Taint bits.
    pub taints: u64,
    /// Where it comes from.
    pub lineage: Lineage,
}

/// Trace, causality and parents of what becomes of an item (S30).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Lineage {
    /// The trace of all inputs, or of the last where they differ; None: the usual one of `causality`.
    pub trace: Option<[u8; 16]>,
    /// The inputs were of different traces: what comes of them begins a new one.
    pub mixed: bool,
    /// The trace of an input is recorded.
    pub sampled: bool,
    /// Where the chain began.
    pub causality: EventId,
    /// Parents; empty stands for the one event of the item's id.
    pub parents: Vec<ParentRange>,
}

/// Whether two traces, each with where its chain began, are one. The usual ones are as those ids, and not computed.
pub(super) fn same_trace(a: (Option<[u8; 16]>, &EventId), b: (Option<[u8; 16]>, &EventId)) -> bool {
    let trace = |(trace, began): (Option<_>, _)| trace.unwrap_or_else(|| root_trace(began));
    match (a.0, b.0) {
        (None, None) => a.1 == b.1,
        _ => trace(a) == trace(b),
    }
}

impl Lineage {
    /// Whether both are of one trace.
    pub fn of_one_trace(&self, other: &Self) -> bool {
        same_trace(
            (self.trace, &self.causality),
            (other.trace, &other.causality),
        )
    }
}

impl Item {
    /// The item of an event that came in by an edge.
    pub fn enter(event: &Event, value: Value, edge: u32) -> Self {
        let id = event.id();
        Self::from(Record {
            value,
            id,
            cause: event.parents.last().map(|range| EventId {
                producer: range.producer,
                incarnation: range.incarnation,
                route: range.route,
                seq: range.last,
            }),
            edge,
            time: event.time,
            ingest: event.ingest,
            logical: event.logical,
            epoch: event.epoch,
            qos: event.qos,
            key: event.key.clone(),
            clock: event.clock.clone(),
            correlation: event.correlation.clone(),
            labels: event.labels.clone(),
            guards: Vec::new(),
            taints: event.taints,
            lineage: Lineage {
                trace: event.trace,
                mixed: false,
                sampled: event.sampled,
                causality: event.causality.unwrap_or(id),
                parents: Vec::new(),
            },
        })
    }

    /// Whether an event of it says nothing beyond the usual but its times, its key and what it comes from.
    pub(crate) fn is_usual(&self) -> bool {
        (self.logical, self.epoch, self.qos) == (0, 0, 0)
            && self.clock.is_none()
            && self.correlation.is_none()
            && self.guards.is_empty()
            && self.labels.is_empty()
    }

    /// The same with another value.
    #[must_use]
    pub fn with(mut self, value: Value) -> Self {
        self.value = value;
        self
    }

    /// Also a result of `other`: both are parents, taints are joined (S28, S30).
    pub fn also(&mut self, other: &Self) {
        let this = &mut *self.0;
        if this.lineage.parents.is_empty() {
            this.lineage.parents.push(this.id.range());
        }
        let whole = if other.lineage.parents.is_empty() {
            add_range(&mut this.lineage.parents, other.id.range())
        } else {
            other
                .lineage
                .parents
                .iter()
                .all(|range| add_range(&mut this.lineage.parents, *range))
        };
        this.taints = taint::join(this.taints, other.taints);
        if !whole {
            this.taints = taint::join(this.taints, LINEAGE_TRUNCATED);
        }
        for label in &other.labels {
            if !this.labels.contains(label) {
                this.labels.push(label.clone());
            }
        }
        this.lineage.sampled |= other.lineage.sampled;
        this.lineage.mixed |= other.lineage.mixed || !other.lineage.of_one_trace(&this.lineage);
    }

    /// Add marks of the operator's own (S28).
    pub fn mark(&mut self, taints: u64) {
        self.taints = taint::join(self.taints, taints);
    }

    /// No longer one event that came in: what becomes of it is not counted on the edge.
    #[must_use]
    pub fn made(mut self) -> Self {
        self.edge = 0;
        self
    }
}
