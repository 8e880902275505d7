//! Many items at once, as columns: what a stage takes and gives where a run of events goes through a node.
//!
//! A run is consecutive events of one route from one producer, taken in together. What all have in common is kept once;
//! ids, traces and causes follow from numbers, so that nothing is stored for an item but its value - and its time and key,
//! where they differ. `item` makes any of them what it would have been alone.

use std::sync::Arc;

use super::{Item, Lineage, Record};
use crate::event::{self, Event, EventId, Extra, ParentRange, add_range, root_trace};
use crate::payload::Payload;
use crate::registry::LINEAGE_TRUNCATED;
use crate::taint;
use crate::value::{Codec, Value};

/// Values of a lot.
#[derive(Clone, Debug)]
pub enum Column {
    /// Floats.
    Floats(Vec<f64>),
    /// Integers.
    Ints(Vec<i64>),
    /// Anything.
    Values(Vec<Value>),
    /// The same for all.
    Same(Value),
    /// Lists with an entry of each column.
    Zip(Vec<Column>),
    /// As they came in, in one buffer.
    Packed(Packed),
}

/// Encoded values in one buffer, until somebody asks for one of them, who gets its own bytes.
#[derive(Clone, Debug)]
pub struct Packed {
    /// What they lie in.
    pub buffer: Arc<Vec<u8>>,
    /// Start and length of each, within it.
    pub places: Vec<(usize, usize)>,
    /// How they lie there.
    pub codec: Codec,
    /// On which route.
    pub route: usize,
}

impl Packed {
    /// Whether they lie as they are on such a route: everywhere, where the engine knows the codec itself.
    fn lies_on(&self, codec: Codec, route: usize) -> bool {
        let known = !matches!(codec, Codec::Json | Codec::Foreign);
        codec == self.codec && (known || route == self.route)
    }

    fn payload(&self, row: usize) -> Payload {
        let (start, len) = self.places[row];
        Payload::copy(&self.buffer[start..start + len])
    }
}

impl Column {
    /// The value of one row.
    pub fn get(&self, row: usize) -> Value {
        match self {
            Self::Floats(floats) => Value::Float(floats[row]),
            Self::Ints(ints) => Value::Int(ints[row]),
            Self::Values(values) => values[row].clone(),
            Self::Same(value) => value.clone(),
            Self::Zip(columns) => {
                Value::List(columns.iter().map(|column| column.get(row)).collect())
            }
            Self::Packed(packed) => {
                Value::decode(packed.codec, Some(&packed.payload(row)), packed.route)
            }
        }
    }

    /// The bytes of one row on a route with that codec; None where only the host could tell.
    fn encoded(&self, row: usize, codec: Codec, route: usize) -> Option<Payload> {
        match self {
            Self::Packed(packed) if packed.lies_on(codec, route) => Some(packed.payload(row)),
            Self::Values(values) => values[row].encode(codec, route),
            _ => self.get(row).encode(codec, route),
        }
    }

    /// The values as they lie on another route of the same schema.
    pub(crate) fn moved(self, from: usize, to: usize) -> Self {
        let value = |value| match value {
            Value::Encoded(payload, of, json) if of as usize == from => {
                Value::Encoded(payload, to as u32, json)
            }
            other => other,
        };
        match self {
            Self::Values(values) => Self::Values(values.into_iter().map(value).collect()),
            Self::Same(same) => Self::Same(value(same)),
            Self::Packed(packed) if packed.route == from => {
                let route = to;
                Self::Packed(Packed { route, ..packed })
            }
            other => other,
        }
    }

    /// The values of these bytes of a route.
    pub(crate) fn decoded(payloads: &[Payload], codec: Codec, route: usize) -> Self {
        let eight = |payload: &Payload| payload.first_chunk::<8>().copied();
        let words = || payloads.iter().map(eight);
        let found = match codec {
            Codec::Float => {
                let floats = words().map(|word| word.map(f64::from_le_bytes));
                floats.collect::<Option<_>>().map(Self::Floats)
            }
            Codec::Int => {
                let ints = words().map(|word| word.map(i64::from_le_bytes));
                ints.collect::<Option<_>>().map(Self::Ints)
            }
            _ => None,
        };
        found.unwrap_or_else(|| {
            let value = |payload| Value::decode(codec, Some(payload), route);
            Self::of(payloads.iter().map(value).collect())
        })
    }

    /// The narrowest column of these values.
    pub fn of(values: Vec<Value>) -> Self {
        let float = |value: &Value| match value {
            Value::Float(float) => Some(*float),
            _ => None,
        };
        let int = |value: &Value| match value {
            Value::Int(int) => Some(*int),
            _ => None,
        };
        match values.first() {
            Some(Value::Float(_)) => {
                if let Some(floats) = values.iter().map(float).collect() {
                    return Self::Floats(floats);
                }
            }
            Some(Value::Int(_)) => {
                if let Some(ints) = values.iter().map(int).collect() {
                    return Self::Ints(ints);
                }
            }
            _ => {}
        }
        Self::Values(values)
    }

    fn keep(&mut self, picks: &[u32]) {
        match self {
            Self::Floats(floats) => *floats = pick(floats, picks),
            Self::Ints(ints) => *ints = pick(ints, picks),
            Self::Values(values) => *values = pick(values, picks),
            Self::Same(_) => {}
            Self::Zip(columns) => columns.iter_mut().for_each(|column| column.keep(picks)),
            Self::Packed(packed) => packed.places = pick(&packed.places, picks),
        }
    }

    fn split_off(&mut self, at: usize) -> Self {
        match self {
            Self::Floats(floats) => Self::Floats(floats.split_off(at)),
            Self::Ints(ints) => Self::Ints(ints.split_off(at)),
            Self::Values(values) => Self::Values(values.split_off(at)),
            Self::Same(value) => Self::Same(value.clone()),
            Self::Zip(columns) => Self::Zip(
                columns
                    .iter_mut()
                    .map(|column| column.split_off(at))
                    .collect(),
            ),
            Self::Packed(packed) => Self::Packed(Packed {
                places: packed.places.split_off(at),
                ..packed.clone()
            }),
        }
    }

    /// Whether the values have bytes on a route that the engine knows of.
    pub(crate) fn fits(&self, len: usize, codec: Codec, route: usize) -> bool {
        match (codec, self) {
            (Codec::Float, Self::Floats(_)) | (Codec::Int, Self::Ints(_)) => true,
            (_, Self::Packed(packed)) if packed.lies_on(codec, route) => true,
            _ => (0..len).all(|row| self.encoded(row, codec, route).is_some()),
        }
    }

    /// The values as they come back from a route that they fit.
    pub(crate) fn laid(self, len: usize, codec: Codec, route: usize) -> Self {
        match (codec, &self) {
            (Codec::Float, Self::Floats(_)) | (Codec::Int, Self::Ints(_)) => self,
            (_, Self::Packed(packed)) if packed.lies_on(codec, route) => self,
            _ => {
                let laid = |row| {
                    let payload = self.encoded(row, codec, route);
                    Value::decode(codec, payload.as_ref(), route)
                };
                Self::of((0..len).map(laid).collect())
            }
        }
    }
}

fn pick<T: Clone>(from: &[T], picks: &[u32]) -> Vec<T> {
    picks
        .iter()
        .map(|row| from[*row as usize].clone())
        .collect()
}

/// Device times.
#[derive(Clone, Debug)]
pub enum Times {
    /// The same for all, ns.
    Same(i64),
    /// One for each row.
    Each(Vec<i64>),
}

impl Times {
    /// The time of one row.
    pub fn get(&self, row: usize) -> i64 {
        match self {
            Self::Same(time) => *time,
            Self::Each(times) => times[row],
        }
    }
}

/// Numbers counted from a beginning: all of them, or those at these places.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps(Option<Arc<[u32]>>);

/// The first of `len` rows whose time is not before; times do not go back.
pub(crate) fn first_from(times: &Times, len: usize, time: i64) -> usize {
    match times {
        Times::Same(same) if *same >= time => 0,
        Times::Same(_) => len,
        Times::Each(times) => times.partition_point(|one| *one < time),
    }
}

impl Steps {
    pub(crate) fn at(&self, row: usize) -> u32 {
        self.0.as_ref().map_or(row as u32, |steps| steps[row])
    }

    fn keep(&mut self, picks: &Arc<[u32]>) {
        self.0 = Some(match &self.0 {
            None => picks.clone(),
            Some(steps) => pick(steps, picks).into(),
        });
    }

    fn split_off(&mut self, at: usize, len: usize) -> Self {
        let steps = |from: usize, to: usize| (from..to).map(|row| self.at(row)).collect();
        let (head, tail) = (steps(0, at), steps(at, len));
        self.0 = Some(head);
        Self(Some(tail))
    }
}

/// An event id for each row: numbers of one route and incarnation.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    first: EventId,
    steps: Steps,
}

impl Ids {
    /// Consecutive ids.
    fn from(first: EventId) -> Self {
        let steps = Steps::default();
        Self { first, steps }
    }

    pub(crate) fn at(&self, row: usize) -> EventId {
        let seq = self.first.seq + u64::from(self.steps.at(row));
        EventId { seq, ..self.first }
    }

    fn split_off(&mut self, at: usize, len: usize) -> Self {
        let mut tail = self.clone();
        if self.steps.0.is_none() {
            tail.first.seq += at as u64;
        } else {
            tail.steps = self.steps.split_off(at, len);
        }
        tail
    }
}

/// What a row comes from.
#[derive(Clone, Debug)]
pub(crate) enum Parents {
    /// The event of its id.
    Own,
    /// That, and as many before it, back to the number that is named.
    Back(u64, u64),
    /// That, and these.
    And(Arc<[ParentRange]>),
}

/// Items in columns.
#[derive(Clone, Debug)]
pub struct Lot {
    len: usize,
    /// The values.
    pub values: Column,
    /// Device times.
    pub times: Times,
    /// Partition keys, if there are any.
    pub keys: Option<Vec<Arc<str>>>,
    /// When each row was taken in, where that differs.
    pub(crate) ingests: Option<Vec<i64>>,
    /// Which element of the turn's run caused each row.
    rows: Steps,
    pub(crate) ids: Ids,
    /// The event whose id gives the trace.
    trace: Ids,
    /// Where the chain began.
    causality: Ids,
    /// The last parent, where it differs by row.
    cause: Option<Ids>,
    /// Inputs were of different traces.
    pub(crate) mixed: bool,
    pub(crate) parents: Parents,
    /// Everything that all rows have in common; its value, ids and lineage stand for nothing.
    pub(crate) common: Item,
}

/// Items in columns, or one by one with the element of the run that caused each.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a few for each run")]
pub enum Batch {
    /// In columns.
    Lot(Lot),
    /// One by one.
    Items(Vec<(u32, Item)>),
}

/// What an operator did with a lot.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a few for each run")]
pub enum Ran {
    /// All of it.
    Done(Lot),
    /// These are the results, with the element of the run that caused each; what is left of the lot comes next.
    Items(Vec<(u32, Item)>, Option<Lot>),
    /// Nothing: so many rows have to come one by one before it looks at the rest.
    Alone(usize, Lot),
}

impl Batch {
    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Lot(lot) => lot.is_empty(),
            Self::Items(items) => items.is_empty(),
        }
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Lot(lot) => lot.len(),
            Self::Items(items) => items.len(),
        }
    }

    /// One by one.
    pub fn into_items(self) -> Vec<(u32, Item)> {
        match self {
            Self::Lot(lot) => lot.items(),
            Self::Items(items) => items,
        }
    }
}

impl Lot {
    /// The items of events that are published now, the first of them as `first`.
    pub fn published(
        first: EventId,
        values: Column,
        len: usize,
        times: Times,
        keys: Option<Vec<Arc<str>>>,
        common: Item,
    ) -> Self {
        let ids = Ids::from(first);
        Self {
            len,
            values,
            times,
            keys,
            ingests: None,
            rows: Steps::default(),
            trace: ids.clone(),
            causality: ids.clone(),
            ids,
            cause: None,
            mixed: false,
            parents: Parents::Own,
            common,
        }
    }

    /// The items of consecutive events to whoever reads their route by that edge. None where they differ in more than
    /// values, times and keys, or are recorded, or were derived: each is an item of its own then.
    pub(crate) fn of_events(
        events: &[(u32, Arc<Event>)],
        codec: Codec,
        route: usize,
        edge: u32,
    ) -> Option<Self> {
        let first = &events.first()?.1;
        let alike = |(at, (_, event)): (usize, &(u32, Arc<Event>))| {
            event.seq == first.seq + at as u64
                && (event.producer, event.incarnation) == (first.producer, first.incarnation)
                && (event.ingest, event.logical) == (first.ingest, first.logical)
                && (event.epoch, event.qos, event.taints) == (first.epoch, first.qos, first.taints)
                && (event.key.is_some(), &event.clock, &event.correlation)
                    == (first.key.is_some(), &first.clock, &first.correlation)
                && event.labels == first.labels
                && event.causality.is_none()
                && event.parents.is_empty()
                && !event.sampled
                && event.trace.is_none()
        };
        if !events.iter().enumerate().all(alike) {
            return None;
        }
        let value = |event: &Event| Value::decode(codec, event.payload.as_ref(), route);
        let values = events.iter().map(|(_, event)| value(event)).collect();
        let times = events.iter().map(|(_, event)| event.time).collect();
        let keys = events.iter().map(|(_, event)| event.key.clone()).collect();
        let mut lot = Self::published(
            first.id(),
            Column::of(values),
            events.len(),
            Times::Each(times),
            keys,
            Item::enter(first, Value::None, edge),
        );
        if events.iter().zip(0..).any(|(event, at)| event.0 != at) {
            lot.rows = Steps(Some(events.iter().map(|event| event.0).collect()));
        }
        Some(lot)
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Which element of the turn's run caused each row.
    pub(crate) fn steps(&self) -> Steps {
        self.rows.clone()
    }

    /// Which element of the turn's run caused a row.
    pub fn row(&self, row: usize) -> u32 {
        self.rows.at(row)
    }

    /// When a row was taken in.
    pub(crate) fn ingest(&self, row: usize) -> i64 {
        let own = self.ingests.as_ref().map(|ingests| ingests[row]);
        own.unwrap_or(self.common.ingest)
    }

    /// One row as the item it is.
    pub fn item(&self, row: usize) -> Item {
        self.item_with(row, self.values.get(row))
    }

    pub(crate) fn item_with(&self, row: usize, value: Value) -> Item {
        let id = self.ids.at(row);
        Item::from(Record {
            value,
            id,
            cause: match &self.cause {
                Some(cause) => Some(cause.at(row)),
                None => self.common.cause,
            },
            time: self.times.get(row),
            ingest: self.ingest(row),
            key: self.keys.as_ref().map(|keys| keys[row].clone()),
            lineage: Lineage {
                trace: self.trace_of(row),
                mixed: self.mixed,
                sampled: false,
                causality: self.causality.at(row),
                parents: match &self.parents {
                    Parents::Own => Vec::new(),
                    _ => self.ranges(row),
                },
            },
            ..Record::clone(&self.common)
        })
    }

    /// The first id, where the rows are consecutive events, unmarked, each of a trace of its own.
    pub(crate) fn plain(&self) -> Option<EventId> {
        let unmarked = self.common.taints == 0 && self.common.labels.is_empty() && !self.mixed;
        let whole = self.ids.steps.0.is_none().then_some(self.ids.first);
        whole.filter(|_| unmarked && matches!(self.parents, Parents::Own))
    }

    /// Id, trace and causality of a row.
    pub(crate) fn chain_of(&self, row: usize) -> (EventId, Option<[u8; 16]>, EventId) {
        (self.ids.at(row), self.trace_of(row), self.causality.at(row))
    }

    /// The trace of a row's chain; None: the usual one.
    pub(crate) fn trace_of(&self, row: usize) -> Option<[u8; 16]> {
        let trace = self.trace.at(row);
        (trace != self.causality.at(row)).then(|| root_trace(&trace))
    }

    fn ranges(&self, row: usize) -> Vec<ParentRange> {
        let own = self.ids.at(row).range();
        match &self.parents {
            Parents::Own => vec![own],
            Parents::Back(back, oldest) => vec![ParentRange {
                first: own.last.saturating_sub(*back).max(*oldest),
                ..own
            }],
            Parents::And(more) => std::iter::once(own).chain(more.iter().copied()).collect(),
        }
    }

    /// Keep these rows.
    pub fn keep(&mut self, picks: Vec<u32>) {
        if picks.len() == self.len {
            return;
        }
        self.len = picks.len();
        self.values.keep(&picks);
        if let Times::Each(times) = &mut self.times {
            *times = pick(times, &picks);
        }
        if let Some(keys) = &mut self.keys {
            *keys = pick(keys, &picks);
        }
        if let Some(ingests) = &mut self.ingests {
            *ingests = pick(ingests, &picks);
        }
        let picks: Arc<[u32]> = picks.into();
        self.rows.keep(&picks);
        for ids in [&mut self.ids, &mut self.trace, &mut self.causality] {
            ids.steps.keep(&picks);
        }
        if let Some(cause) = &mut self.cause {
            cause.steps.keep(&picks);
        }
    }

    /// Cut the rows behind `at` off.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        let len = self.len;
        let tail = Self {
            len: len - at,
            values: self.values.split_off(at),
            times: match &mut self.times {
                Times::Same(time) => Times::Same(*time),
                Times::Each(times) => Times::Each(times.split_off(at)),
            },
            keys: self.keys.as_mut().map(|keys| keys.split_off(at)),
            ingests: self.ingests.as_mut().map(|ingests| ingests.split_off(at)),
            rows: self.rows.split_off(at, len),
            ids: self.ids.split_off(at, len),
            trace: self.trace.split_off(at, len),
            causality: self.causality.split_off(at, len),
            cause: self.cause.as_mut().map(|cause| cause.split_off(at, len)),
            mixed: self.mixed,
            parents: self.parents.clone(),
            common: self.common.clone(),
        };
        self.len = at;
        tail
    }

    /// All rows as items, with what caused each.
    pub fn items(&self) -> Vec<(u32, Item)> {
        (0..self.len)
            .map(|row| (self.row(row), self.item(row)))
            .collect()
    }

    /// The rows are results of several traces, and the chain of each goes on from the event of its id.
    pub(crate) fn mix(&mut self) {
        self.mixed = true;
        self.causality = self.ids.clone();
    }

    /// Make all rows results of `other`, too; false, and nothing has changed, where that differs by row.
    pub(crate) fn also(&mut self, other: &Item) -> bool {
        let lineage = &other.lineage;
        let (first, begins) = (self.trace.first, lineage.causality);
        let shared = EventId {
            seq: first.seq,
            ..begins
        } == first
            && begins.seq >= first.seq;
        let plain = !self.mixed && matches!(self.parents, Parents::Own);
        if !plain || lineage.sampled || (shared && !lineage.mixed) {
            return false;
        }
        let own = self.ids.at(0).range();
        let mut parents = vec![own];
        let mut whole = true;
        let one = [other.id.range()];
        let ranges = if lineage.parents.is_empty() {
            &one[..]
        } else {
            &lineage.parents
        };
        for range in ranges {
            if range.route == own.route {
                return false;
            }
            whole &= add_range(&mut parents, *range);
        }
        self.parents = Parents::And(parents[1..].into());
        self.mixed = true;
        self.common.edge = 0;
        self.mark(other.taints);
        if !whole {
            self.mark(LINEAGE_TRUNCATED);
        }
        for label in &other.labels {
            if !self.common.labels.contains(label) {
                self.common.labels.push(label.clone());
            }
        }
        true
    }

    /// Mark all rows.
    pub(crate) fn mark(&mut self, taints: u64) {
        self.common.taints = taint::join(self.common.taints, taints);
    }

    /// What its events are tainted.
    pub(crate) fn taints_on(&self, on: &Landing) -> u64 {
        taint::normalize(self.common.taints | on.marks)
    }

    /// The event that a row becomes where it is the event `first` + `row` of a route. `operator` None: it was published.
    pub(crate) fn event(&self, row: usize, on: &Landing) -> Event {
        let seq = on.first.seq + row as u64;
        let own = EventId { seq, ..on.first };
        let derived = on.operator.is_some();
        let trace = if self.mixed { own } else { self.trace.at(row) };
        let causality = if self.mixed {
            self.ids.at(row)
        } else {
            self.causality.at(row)
        };
        let said = || Extra {
            logical: self.common.logical,
            epoch: self.common.epoch,
            qos: self.common.qos,
            trace: (trace != if derived { causality } else { own }).then(|| root_trace(&trace)),
            causality: derived.then_some(causality),
            clock: self.common.clock.clone(),
            key: self.keys.as_ref().map(|keys| keys[row].clone()),
            correlation: self.common.correlation.clone(),
            operator: on.operator.clone(),
            payload_ref: None,
            guards: self.common.guards.clone(),
            labels: self.common.labels.clone(),
            parents: if derived {
                self.ranges(row).into()
            } else {
                event::Parents::None
            },
        };
        let nothing = !derived && trace == own && self.keys.is_none() && self.common.is_usual();
        Event {
            route: own.route,
            producer: own.producer,
            incarnation: own.incarnation,
            seq,
            seq_link: on.link.map_or(0, |link| link + row as u64),
            time: self.times.get(row),
            ingest: self.ingest(row),
            taints: self.taints_on(on),
            sampled: false,
            payload: self.values.encoded(row, on.codec, on.index),
            extra: if nothing { None } else { said().held() },
        }
    }

    /// The items that its events are to whoever reads the route they landed on, by that edge.
    pub(crate) fn enter(mut self, on: &Landing, edge: u32) -> Self {
        let own = Ids::from(on.first);
        if on.operator.is_some() {
            self.cause = match &self.parents {
                Parents::And(more) => {
                    self.common.cause = more.last().map(|range| EventId {
                        producer: range.producer,
                        incarnation: range.incarnation,
                        route: range.route,
                        seq: range.last,
                    });
                    None
                }
                _ => Some(self.ids.clone()),
            };
            if self.mixed {
                self.trace = own.clone();
                self.causality = self.ids;
            }
        }
        self.ids = own;
        self.mixed = false;
        self.parents = Parents::Own;
        self.common.edge = edge;
        self.common.guards = Vec::new();
        self.common.taints = self.taints_on(on);
        self
    }
}

/// Where a lot becomes events.
#[derive(Clone, Debug)]
pub(crate) struct Landing {
    /// The id of its first row.
    pub(crate) first: EventId,
    /// Index of the route, and how values lie there.
    pub(crate) index: usize,
    pub(crate) codec: Codec,
    /// Taints of everything on it.
    pub(crate) marks: u64,
    /// What derived them; None: they were published.
    pub(crate) operator: Option<Arc<str>>,
    /// The number that a relaying graph gives the first; None: they were made here.
    pub(crate) link: Option<u64>,
}
