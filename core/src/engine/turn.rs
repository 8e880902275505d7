//! The turn: one input event and all it causes (S3).
//!
//! Order within it: items inside a node, arrivals at nodes by rank, readers of queues, direct observers, the next input.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Engine, Kind, RunCall};
use crate::event::{Event, EventId};
use crate::node::{Run, Sink};
use crate::operator::{Fate, Item, MAIN, Move};
use crate::payload::Payload;
use crate::registry::DropReason;
use crate::value::Value;

/// Failures of nodes kept until the host takes them; all are counted.
const FAILURES_MAX: usize = 256;

/// What the host has to do next.
#[derive(Debug)]
pub enum Step {
    /// Call the direct observer of this edge with the event.
    Observe(u32, Arc<Event>),
    /// Run a foreign function on an item, then call `resume`.
    Apply(Box<Call>),
    /// Run a foreign function on the items of a run, then call `resume_run`.
    ApplyRun(Box<RunCall>),
    /// Wake the reader of this edge's queue.
    Ready(u32),
    /// Keep this event of the mailbox of this edge on disk, then call `spilled`.
    Spill(u32, Arc<Event>),
    /// Bring back what the mailbox of this edge has on disk, as far as it fits, by `refill`.
    Refill(u32),
    /// A node (or an edge) failed on an item; it has been counted.
    Failed(u32, String),
    /// The turn is over.
    Idle,
}

/// A foreign function to be run.
#[derive(Debug)]
pub struct Call {
    /// Whose.
    pub node: u32,
    /// At which stage.
    pub stage: usize,
    /// Which of the host's functions; None: encode the value for the sink, or hand it to the host's observer.
    pub function: Option<usize>,
    /// On what.
    pub item: Item,
}

/// What a foreign function made of an item.
#[derive(Debug)]
pub enum Outcome {
    /// Another value.
    Value(Value),
    /// Several.
    Values(Vec<Value>),
    /// The value stays and this becomes its partition key.
    Key(Value),
    /// The value stays and this becomes its device time, ns.
    Time(i64),
    /// Nothing goes on.
    Discard,
    /// It raised; the item is discarded and counted.
    Failed(String),
}

pub(super) struct Work {
    node: u32,
    stage: usize,
    port: usize,
    item: Item,
}

pub(super) struct Arrival {
    rank: u32,
    order: u64,
    edge: u32,
    event: Arc<Event>,
    replay: bool,
}

impl PartialEq for Arrival {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Arrival {}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Arrival {
    /// The heap gives the greatest first: the lowest rank, and there the first that came.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.rank, other.order).cmp(&(self.rank, self.order))
    }
}

impl Engine {
    /// Do what needs no host, and say what the host has to do next.
    pub fn step(&mut self) -> Step {
        loop {
            if let Some((id, why)) = self.failures.pop_front() {
                return Step::Failed(id, why);
            }
            if let Some(step) = self.next.take() {
                return step;
            }
            if let Some(work) = self.stack.pop() {
                if let Some(step) = self.work(work) {
                    return step;
                }
            } else if let Some(arrival) = self.arrivals.pop() {
                self.enter(&arrival);
            } else if let Some((edge, event)) = self.spills.pop_front() {
                return Step::Spill(edge, event);
            } else if let Some(edge) = self.wakes.pop_front() {
                return Step::Ready(edge);
            } else if let Some((id, event, replay)) = self.observers.pop_front() {
                let Some(edge) = self.edges.get_mut(&id) else {
                    continue;
                };
                edge.ledger.count(&event, replay);
                return Step::Observe(id, event);
            } else {
                if self.tracer.is_open() {
                    self.tracer.finish();
                }
                self.release_turn();
                // What was due before the event acts before it, so that a replay of events needs no other clock.
                let next = || self.input.front().map(|(_, event)| event.ingest);
                let now = self.run_waits().or_else(next);
                if let Some(now) = now.filter(|now| self.now < *now && self.due <= *now) {
                    self.advance(now);
                    continue;
                }
                if self.begin_run() {
                    continue;
                }
                let Some((route, event)) = self.input.pop_front() else {
                    match self.deliver_mail() {
                        Some(step) => return step,
                        None if self.input.is_empty() => return Step::Idle,
                        None => continue,
                    }
                };
                if !self.reserved.is_empty() {
                    self.turn_reserved = self.reserved.remove(&event.id());
                }
                self.arrive(route, &event);
            }
        }
    }

    /// Whether a turn would find something to do.
    pub fn idle(&self) -> bool {
        self.input.is_empty()
            && self.stack.is_empty()
            && self.arrivals.is_empty()
            && self.wakes.is_empty()
            && self.spills.is_empty()
            && self.mail.is_empty()
            && self.turn_reserved.is_none()
            && self.observers.is_empty()
            && self.failures.is_empty()
            && self.next.is_none()
            && self.journey.is_none()
    }

    /// Begin the span of a sampled event.
    pub(super) fn record(&mut self, event: &Event) {
        if event.sampled && self.tracer.is_on() {
            let mut tracer = std::mem::take(&mut self.tracer);
            tracer.begin(event, self.producer, |id| self.find(*id).map(|e| e.trace()));
            self.tracer = tracer;
        }
    }

    /// Store an event and line up whoever reads it.
    pub(super) fn arrive(&mut self, route: usize, event: &Arc<Event>) {
        self.record(event);
        self.note(event);
        self.now = self.now.max(event.ingest);
        let r = &mut self.routes[route];
        r.keep(event);
        for place in 0..r.edges.len() {
            let id = self.routes[route].edges[place];
            let Some(edge) = self.edges.get_mut(&id) else {
                continue;
            };
            match &mut edge.kind {
                Kind::Queue(ring) => {
                    if ring.push(event.clone()) {
                        self.wakes.push_back(id);
                    }
                }
                Kind::Direct => self.observers.push_back((id, event.clone(), false)),
                Kind::Mail(_) => self.post(id, event),
                Kind::Forward(..) | Kind::Port(..) => self.line_up(id, event.clone(), false),
            }
        }
    }

    /// Line up an arrival at a node or connection, by rank.
    pub(super) fn line_up(&mut self, id: u32, event: Arc<Event>, replay: bool) {
        let Some(edge) = self.edges.get(&id) else {
            return;
        };
        if let Kind::Port(node, _, _, input) = edge.kind
            && let Some(node) = self.nodes.get_mut(&node)
        {
            node.waiting[input] += 1;
        }
        let rank = self.rank_of(id);
        self.arrived += 1;
        let order = self.arrived;
        self.arrivals.push(Arrival {
            rank,
            order,
            edge: id,
            event,
            replay,
        });
    }

    /// When what hangs there has its turn.
    pub(super) fn rank_of(&self, id: u32) -> u32 {
        let Some(edge) = self.edges.get(&id) else {
            return 0;
        };
        match edge.kind {
            Kind::Port(node, ..) => self.nodes.get(&node).map_or(0, |node| node.rank),
            _ => self.routes[edge.route].rank + 1,
        }
    }

    /// An event reaches a node or a connection.
    fn enter(&mut self, arrival: &Arrival) {
        let Some(edge) = self.edges.get_mut(&arrival.edge) else {
            return;
        };
        edge.ledger.count(&arrival.event, arrival.replay);
        let route = edge.route;
        match edge.kind {
            Kind::Port(id, stage, port, input) => {
                let value = Value::decode(
                    self.routes[route].codec,
                    arrival.event.payload.as_ref(),
                    route,
                );
                let item = Item::enter(
                    &arrival.event,
                    value,
                    if arrival.replay { 0 } else { arrival.edge },
                );
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.waiting[input] -= 1;
                }
                self.stack.push(Work {
                    node: id,
                    stage,
                    port,
                    item,
                });
            }
            Kind::Forward(sink, _) => {
                let item = Item::enter(&arrival.event, Value::None, 0);
                let name = edge.label.clone();
                if !self.within(arrival.edge, sink, item.taints) {
                    return;
                }
                let event = self.derive(sink, item, arrival.event.payload.clone(), name);
                self.arrive(sink, &event);
            }
            Kind::Direct | Kind::Queue(_) | Kind::Mail(_) => {}
        }
    }

    /// Move one item on, through one stage after the other as long as each gives one item and nothing else.
    fn work(&mut self, work: Work) -> Option<Step> {
        let Work {
            node: id,
            mut stage,
            mut port,
            mut item,
        } = work;
        let node = self.nodes.get_mut(&id)?;
        while let Some(at) = node.stages.get_mut(stage) {
            let timed = at.timed;
            let operator = match &mut at.run {
                Run::Foreign(function) => {
                    let function = Some(*function);
                    return Some(Step::Apply(Box::new(Call {
                        node: id,
                        stage,
                        function,
                        item,
                    })));
                }
                Run::Native(operator) => operator,
            };
            self.out.more = node.waiting.len() > 1
                && node
                    .waiting
                    .iter()
                    .zip(&node.inputs)
                    .any(|(waiting, input)| *waiting > 0 && (input.1, input.2) != (stage, port));
            operator.on_item(port, item, &mut self.out);
            if timed && let Some(deadline) = operator.deadline() {
                self.due = self.due.min(deadline);
            }
            let Some(next) = self.out.take_one() else {
                self.spill(id, stage);
                return None;
            };
            (item, stage, port) = (next, stage + 1, 0);
        }
        self.finish(id, item)
    }

    /// Take over what an operator did.
    pub(super) fn spill(&mut self, id: u32, stage: usize) {
        let mut out = std::mem::take(&mut self.out);
        for entry in out.moves.drain(..) {
            self.account(id, entry);
        }
        for why in out.failures.drain(..) {
            self.fail(id, why);
        }
        for (side, item) in out.items.drain(..).rev() {
            if side == MAIN {
                self.stack.push(Work {
                    node: id,
                    stage: stage + 1,
                    port: 0,
                    item,
                });
            } else {
                self.give_side(id, stage, side, item);
            }
        }
        self.out = out;
    }

    pub(super) fn account(&mut self, id: u32, entry: Move) {
        let Move {
            edge,
            id: event,
            what,
        } = entry;
        if let Fate::Dropped(reason) | Fate::DroppedHeld(reason) = what
            && let Some(node) = self.nodes.get_mut(&id)
        {
            node.dropped[reason as usize] += 1;
        }
        let Some(edge) = self.edges.get_mut(&edge) else {
            return;
        };
        let row = edge.ledger.row(event.producer, event.incarnation);
        match what {
            Fate::Held => {
                row.delivered -= 1;
                row.pending += 1;
            }
            Fate::Released => {
                row.pending -= 1;
                row.delivered += 1;
            }
            Fate::Dropped(reason) => {
                row.delivered -= 1;
                row.dropped[reason as usize] += 1;
            }
            Fate::DroppedHeld(reason) => row.drop_pending(reason, 1),
        }
    }

    /// Count a failure and keep its text for the host.
    pub(super) fn fail(&mut self, id: u32, why: String) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.failed += 1;
        }
        if self.failures.len() >= FAILURES_MAX {
            self.failures.pop_front();
        }
        self.failures.push_back((id, why));
    }

    fn give_side(&mut self, id: u32, stage: usize, side: usize, item: Item) {
        let Some(node) = self.nodes.get(&id) else {
            return;
        };
        let to = node
            .sides
            .iter()
            .find(|(s, o, _)| (*s, *o) == (stage, side));
        // A side output that nobody connected ends here: the operator has counted what it dropped.
        if let Some((_, _, route)) = to {
            let route = *route;
            self.land(id, route, item);
        }
    }

    /// The last stage is done.
    fn finish(&mut self, id: u32, item: Item) -> Option<Step> {
        let node = self.nodes.get(&id)?;
        let stage = node.stages.len();
        if let Sink::Route(route) = node.sink
            && let Some(payload) = item.value.encode(self.routes[route].codec, route)
        {
            self.land_encoded(id, route, item, payload);
            return None;
        }
        Some(Step::Apply(Box::new(Call {
            node: id,
            stage,
            function: None,
            item,
        })))
    }

    /// An item becomes an event of a route.
    fn land(&mut self, id: u32, route: usize, item: Item) {
        match item.value.encode(self.routes[route].codec, route) {
            Some(payload) => self.land_encoded(id, route, item, payload),
            None => self.fail(id, "a result does not fit the schema of its route".into()),
        }
    }

    fn land_encoded(&mut self, id: u32, route: usize, item: Item, payload: Payload) {
        let over = self.routes[route].expires <= self.now;
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        if over {
            node.dropped[DropReason::Expired as usize] += 1;
            return;
        }
        let (name, boundary) = (node.name.clone(), node.boundary);
        if !self.within(id, route, item.taints) {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.emitted += 1;
        }
        if boundary && self.room() == 0 {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.dropped[DropReason::OverflowNewest as usize] += 1;
            }
            self.fail(id, "the input queue of the graph is full".into());
            return;
        }
        let event = self.derive(route, item, Some(payload), name);
        if boundary {
            self.input.push_back((route, event));
        } else {
            self.arrive(route, &event);
        }
    }

    /// Give the outcome of a `Call`.
    pub fn resume(&mut self, call: Call, outcome: Outcome) {
        let Call {
            node: id,
            stage,
            function,
            mut item,
        } = call;
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        match (outcome, function) {
            (Outcome::Failed(why), _) => self.fail(id, why),
            (Outcome::Discard, None) => node.emitted += 1,
            (Outcome::Discard, Some(_)) => {}
            (Outcome::Value(value), None) => {
                if let Sink::Route(route) = node.sink {
                    self.land(id, route, item.with(value));
                }
            }
            (Outcome::Value(value), Some(_)) => {
                self.stack.push(Work {
                    node: id,
                    stage: stage + 1,
                    port: 0,
                    item: item.with(value),
                });
            }
            (Outcome::Key(key), _) => match key.key() {
                Some(key) => {
                    item.key = Some(key);
                    self.stack.push(Work {
                        node: id,
                        stage: stage + 1,
                        port: 0,
                        item,
                    });
                }
                None => self.fail(
                    id,
                    "a partition key that is no text, int, float or bool".into(),
                ),
            },
            (Outcome::Time(time), _) => {
                item.time = time;
                self.stack.push(Work {
                    node: id,
                    stage: stage + 1,
                    port: 0,
                    item,
                });
            }
            (Outcome::Values(values), _) => {
                let item = item.made();
                for value in values.into_iter().rev() {
                    let item = item.clone().with(value);
                    self.stack.push(Work {
                        node: id,
                        stage: stage + 1,
                        port: 0,
                        item,
                    });
                }
            }
        }
        // Go on at once, so that what was made is known when the host's clock is read next.
        while self.next.is_none()
            && let Some(work) = self.stack.pop()
        {
            self.next = self.work(work);
        }
    }

    /// When `advance` should be called next, in the ns of `ingest`; None: no operator waits for time.
    pub fn deadline(&self) -> Option<i64> {
        let deadlines = self
            .nodes
            .values()
            .flat_map(|node| node.timed().filter_map(|(_, op)| op.deadline()));
        deadlines
            .chain(self.mail_deadlines())
            .chain(self.ends())
            .min()
    }

    /// No operator acts by time before this; cheap, and perhaps earlier than `deadline`; the largest number if none waits.
    pub fn due(&self) -> i64 {
        self.due
    }

    /// Something has to be done at that time, if not before.
    pub fn due_by(&mut self, deadline: i64) {
        self.due = self.due.min(deadline);
    }

    /// The host's wall clock was set by so many ns.
    pub fn clock_set(&mut self, by: i64) {
        for node in self.nodes.values_mut() {
            for stage in 0..node.stages.len() {
                if let Some(operator) = node.operator(stage) {
                    operator.on_clock_set(by);
                }
            }
        }
        self.due = self.deadline().unwrap_or(i64::MAX);
    }

    /// The host's clock has reached `now`: operators whose deadline is past act. Call `step` until it is idle after.
    pub fn advance(&mut self, now: i64) {
        self.now = self.now.max(now);
        self.tick_mail(now);
        self.end_routes(now);
        let mut due: Vec<(u32, usize)> = Vec::new();
        for (id, node) in &self.nodes {
            for (stage, operator) in node.timed() {
                if operator.deadline().is_some_and(|deadline| deadline <= now) {
                    due.push((*id, stage));
                }
            }
        }
        due.sort_unstable();
        // The last pushed is worked on first: backwards, so that nodes act in the order they were installed.
        for (id, stage) in due.into_iter().rev() {
            let mut out = std::mem::take(&mut self.out);
            if let Some(operator) = self
                .nodes
                .get_mut(&id)
                .and_then(|node| node.operator(stage))
            {
                operator.on_time(now, &mut out);
            }
            self.out = out;
            self.spill(id, stage);
        }
        self.due = self.deadline().unwrap_or(i64::MAX);
    }
}

impl super::Route {
    /// A retained event. Of one life without gaps its place follows from its number.
    pub(super) fn find(&self, id: EventId) -> Option<&Arc<Event>> {
        let (first, last) = (self.history.front()?, self.history.back()?);
        let of = |event: &Event| (event.producer, event.incarnation);
        let one = of(first) == of(last) && self.tracks.is_empty();
        if one && of(first) == (id.producer, id.incarnation) {
            let back = usize::try_from(last.seq.checked_sub(id.seq)?).ok()?;
            let place = self.history.len().checked_sub(1 + back);
            let there = place.and_then(|place| self.history.get(place));
            if let Some(event) = there.filter(|event| event.id() == id) {
                return Some(event);
            }
            // Numbers without gaps: what is before the first is gone.
            if last.seq - first.seq < self.history.len() as u64 {
                return None;
            }
        }
        self.history.iter().rev().find(|event| event.id() == id)
    }

    /// Keep an event by the route's retention (S16).
    pub(super) fn keep(&mut self, event: &Arc<Event>) {
        self.bound.note(event.taints);
        if self.history_max > 0 {
            self.history_bytes += event.payload.as_ref().map_or(0, |payload| payload.len());
            self.history.push_back(event.clone());
            super::trim(self, Some(event.ingest));
        }
    }
}

impl crate::counters::Ledger {
    /// Count one event handed over, or handed over again.
    pub(super) fn count(&mut self, event: &Event, replay: bool) {
        let EventId {
            producer,
            incarnation,
            ..
        } = event.id();
        let row = self.row(producer, incarnation);
        if replay {
            row.replayed += 1;
        } else {
            row.offered += 1;
            row.delivered += 1;
        }
    }
}
