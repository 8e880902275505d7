//! A run on its way through nodes: batches from stage to stage, from node to node by rank, and what lands on routes.
//!
//! It stops where a function of the host's has to be called, and goes on with what that made. Calls of direct observers and
//! failures are put in the order of the elements that caused them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Engine, Kind, Outcome, Step};
use crate::event::Event;
use crate::node::{self, Sink};
use crate::operator::lot::Landing;
use crate::operator::{Batch, Column, Item, Lot, MAIN, Ran};
use crate::value::Value;

/// Events, each with the element of the run that caused it.
type Elements = Vec<(u32, Arc<Event>)>;

/// What landed on a route.
#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "a few for each run")]
pub(super) enum Load {
    Lot(Lot, Landing),
    Events(Elements),
}

struct Arrival {
    rank: u32,
    order: u32,
    edge: u32,
    loads: Vec<Load>,
}

/// A run on its way.
#[derive(Default)]
pub(super) struct Journey {
    /// Where it begins once it has its turn, if it has not begun: the route, the host's clock, what comes.
    pub(super) start: Option<(usize, i64, Load)>,
    arrivals: Vec<Arrival>,
    order: u32,
    /// Calls of direct observers, by the element that caused them and the order of arrivals.
    observed: Vec<(u32, u32, u32, Arc<Event>)>,
    /// Failures of nodes, by the element that caused them.
    failed: Vec<(u32, u32, String)>,
}

/// A foreign function to be run on many items.
#[derive(Debug)]
pub struct RunCall {
    /// Whose.
    pub node: u32,
    /// Which of the host's functions; None: encode the values for the sink, or hand them to the host's observer.
    pub function: Option<usize>,
    /// On what.
    pub batches: Vec<Batch>,
    stage: usize,
}

/// What a foreign function made of a batch.
#[derive(Debug)]
pub enum Made {
    /// Of a lot: new values of the rows that go on (None: all of them), and which rows failed.
    Column(Option<Vec<u32>>, Column, Vec<(u32, String)>),
    /// What it made of each.
    Each(Vec<Outcome>),
}

impl Journey {
    /// One that begins when it has its turn.
    pub(super) fn waiting(route: usize, ingest: i64, load: Load) -> Self {
        Self {
            start: Some((route, ingest, load)),
            ..Self::default()
        }
    }
}

impl Engine {
    /// Number so many events of a route.
    pub(super) fn landing(
        &mut self,
        route: usize,
        operator: Option<Arc<str>>,
        events: usize,
    ) -> Landing {
        let first = self.next_id(route);
        let r = &mut self.routes[route];
        r.next_seq += events as u64;
        Landing {
            first,
            index: route,
            codec: r.codec,
            marks: r.marks,
            operator,
            link: None,
        }
    }

    /// Work off what has arrived, up to the end or to a function of the host's.
    pub(super) fn travel(&mut self, mut journey: Journey) {
        while self.next.is_none() {
            let first = |a: &&Arrival| (a.rank, a.order);
            let Some(next) = journey.arrivals.iter().min_by_key(first).map(|a| a.order) else {
                return self.end(journey);
            };
            let place = journey.arrivals.iter().position(|a| a.order == next);
            let arrival = journey.arrivals.swap_remove(place.unwrap_or(0));
            self.enter_run(&mut journey, arrival);
        }
        self.journey = Some(Box::new(journey));
    }

    /// The operators are done: what failed, and who is called, in the order of elements.
    fn end(&mut self, mut journey: Journey) {
        journey.failed.sort_by_key(|failed| failed.0);
        for (_, id, why) in journey.failed {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.failed += 1;
            }
            self.failures.push_back((id, why));
        }
        journey.observed.sort_by_key(|call| (call.0, call.1));
        let calls = journey.observed.into_iter();
        self.observers
            .extend(calls.map(|(_, _, edge, event)| (edge, event, false)));
    }

    /// Store what landed on a route and line up whoever reads it.
    pub(super) fn land_loads(&mut self, journey: &mut Journey, route: usize, loads: Vec<Load>) {
        let (mut ports, mut others) = (Vec::new(), Vec::new());
        for id in &self.routes[route].edges {
            match self.edges.get(id).map(|edge| &edge.kind) {
                Some(Kind::Port(..) | Kind::Forward(..)) => ports.push(*id),
                _ => others.push(*id),
            }
        }
        self.keep_loads(route, &loads, !others.is_empty(), |engine, made| {
            let last = others.pop();
            for id in others {
                journey.order += 1;
                engine.show(journey, id, made.iter().cloned());
            }
            if let Some(id) = last {
                journey.order += 1;
                engine.show(journey, id, made.into_iter());
            }
        });
        let mut loads = Some(loads);
        let last = ports.last().copied();
        for id in ports {
            journey.order += 1;
            let loads = if Some(id) == last {
                loads.take()
            } else {
                loads.clone()
            };
            journey.arrivals.push(Arrival {
                rank: self.rank_of(id),
                order: journey.order,
                edge: id,
                loads: loads.unwrap_or_default(),
            });
        }
    }

    /// Keep what the route retains. All events are made where `all` is asked, and given to `with`.
    fn keep_loads(
        &mut self,
        route: usize,
        loads: &[Load],
        all: bool,
        with: impl FnOnce(&mut Self, Elements),
    ) {
        let mut made = Vec::new();
        let most = self.routes[route].history_max;
        let mut rest = loads.iter().map(Load::len).sum::<usize>();
        for load in loads {
            match load {
                Load::Lot(lot, on) => self.routes[route].bound.note(lot.taints_on(on)),
                Load::Events(events) => {
                    for (_, event) in events {
                        self.record(event);
                        self.routes[route].bound.note(event.taints);
                    }
                }
            }
            let skip = if all { 0 } else { rest.saturating_sub(most) };
            load.events(skip.min(load.len()), &mut made);
            rest -= load.len();
        }
        for (_, event) in &made[made.len() - most.min(made.len())..] {
            self.routes[route].keep(event);
        }
        if all {
            with(self, made);
        }
    }

    /// Give events to a queue, or note that a direct observer is to be called with them.
    fn show(
        &mut self,
        journey: &mut Journey,
        id: u32,
        made: impl Iterator<Item = (u32, Arc<Event>)>,
    ) {
        let Some(edge) = self.edges.get_mut(&id) else {
            return;
        };
        if let Kind::Queue(ring) = &mut edge.kind {
            let mut wake = false;
            for (_, event) in made {
                wake |= ring.push(event);
            }
            if wake {
                self.wakes.push_back(id);
            }
        } else {
            let order = journey.order;
            let call = |(row, event)| (row, order, id, event);
            journey.observed.extend(made.map(call));
        }
    }

    /// What landed reaches a node or a connection.
    fn enter_run(&mut self, journey: &mut Journey, arrival: Arrival) {
        let Some(edge) = self.edges.get_mut(&arrival.edge) else {
            return;
        };
        for load in &arrival.loads {
            match load {
                Load::Lot(lot, on) => {
                    let row = edge.ledger.row(on.first.producer, on.first.incarnation);
                    row.offered += lot.len() as u64;
                    row.delivered += lot.len() as u64;
                }
                Load::Events(events) => {
                    for (_, event) in events {
                        edge.ledger.count(event, false);
                    }
                }
            }
        }
        let (route, label) = (edge.route, edge.label.clone());
        match edge.kind {
            Kind::Port(node, stage, port, _) => {
                let codec = self.routes[route].codec;
                let enter = |load| match load {
                    Load::Lot(lot, on) => Batch::Lot(lot.enter(&on, arrival.edge)),
                    Load::Events(events) => {
                        if let Some(lot) = Lot::of_events(&events, codec, route, arrival.edge) {
                            return Batch::Lot(lot);
                        }
                        let item = |(row, event): (u32, Arc<Event>)| {
                            let value = Value::decode(codec, event.payload.as_ref(), route);
                            (row, Item::enter(&event, value, arrival.edge))
                        };
                        Batch::Items(events.into_iter().map(item).collect())
                    }
                };
                let batches = arrival.loads.into_iter().map(enter).collect();
                self.run_stages(journey, node, stage, port, batches);
            }
            Kind::Forward(sink, _) => {
                let forward = |load| match load {
                    Load::Lot(lot, on) => {
                        let mut lot = lot.enter(&on, 0);
                        lot.values = lot.values.moved(route, sink);
                        let landing = self.landing(sink, Some(label.clone()), lot.len());
                        Load::Lot(lot, landing)
                    }
                    Load::Events(events) => {
                        let derive = |(row, event): (u32, Arc<Event>)| {
                            let item = Item::enter(&event, Value::None, 0);
                            let payload = event.payload.clone();
                            (row, self.derive(sink, item, payload, label.clone()))
                        };
                        Load::Events(events.into_iter().map(derive).collect())
                    }
                };
                let loads = arrival.loads.into_iter().map(forward).collect();
                self.land_loads(journey, sink, loads);
            }
            Kind::Direct | Kind::Queue(_) | Kind::Mail(_) => {}
        }
    }

    /// Move batches through the stages of a node.
    fn run_stages(
        &mut self,
        journey: &mut Journey,
        id: u32,
        mut stage: usize,
        mut port: usize,
        mut batches: Vec<Batch>,
    ) {
        while let Some(node) = self.nodes.get(&id) {
            batches.retain(|batch| !batch.is_empty());
            if batches.is_empty() {
                return;
            }
            match node.stages.get(stage).map(|stage| &stage.run) {
                None => return self.finish_run(journey, id, batches),
                Some(node::Run::Foreign(function)) => {
                    let function = Some(*function);
                    self.next = Some(Step::ApplyRun(Box::new(RunCall {
                        node: id,
                        function,
                        batches,
                        stage,
                    })));
                    return;
                }
                Some(node::Run::Native(_)) => {
                    batches = self.run_native(journey, (id, stage, port), batches);
                    (stage, port) = (stage + 1, 0);
                }
            }
        }
    }

    fn run_native(
        &mut self,
        journey: &mut Journey,
        at: (u32, usize, usize),
        batches: Vec<Batch>,
    ) -> Vec<Batch> {
        let mut out = std::mem::take(&mut self.out);
        out.more = false;
        let (mut done, mut sides) = (Vec::new(), Vec::new());
        let mut open: VecDeque<Batch> = batches.into();
        while let Some(batch) = open.pop_front() {
            let Some(node) = self.nodes.get_mut(&at.0) else {
                break;
            };
            let timed = node.stages.get(at.1).is_some_and(|stage| stage.timed);
            let Some(operator) = node.operator(at.1) else {
                break;
            };
            let items = match batch {
                Batch::Items(items) => items,
                Batch::Lot(lot) => match operator.on_lot(at.2, lot, &mut out) {
                    Ran::Done(lot) => {
                        done.push(Batch::Lot(lot));
                        Vec::new()
                    }
                    Ran::Items(items, rest) => {
                        done.push(Batch::Items(items));
                        if let Some(rest) = rest {
                            open.push_front(Batch::Lot(rest));
                        }
                        Vec::new()
                    }
                    Ran::Alone(rows, mut lot) => {
                        let rows = rows.clamp(1, lot.len());
                        if rows < lot.len() {
                            open.push_front(Batch::Lot(lot.split_off(rows)));
                        }
                        lot.items()
                    }
                },
            };
            let mut results = Vec::new();
            for (row, item) in items {
                operator.on_item(at.2, item, &mut out);
                let (mut emitted, mut aside) = (Vec::new(), Vec::new());
                for (side, item) in out.items.drain(..) {
                    if side == MAIN {
                        emitted.push((row, item));
                    } else {
                        aside.push((side, row, item));
                    }
                }
                results.append(&mut emitted);
                // As `spill` takes them: the last first.
                sides.extend(aside.into_iter().rev());
                let why = out.failures.drain(..);
                journey.failed.extend(why.map(|why| (row, at.0, why)));
            }
            done.push(Batch::Items(results));
            let faults = out.faults.drain(..);
            journey
                .failed
                .extend(faults.map(|(row, why)| (row, at.0, why.into())));
            if timed && let Some(deadline) = operator.deadline() {
                self.due = self.due.min(deadline);
            }
            for entry in out.moves.drain(..) {
                self.account(at.0, entry);
            }
        }
        self.out = out;
        self.run_sides(journey, at, &sides);
        done
    }

    /// What went to side outputs becomes events of their routes.
    fn run_sides(
        &mut self,
        journey: &mut Journey,
        at: (u32, usize, usize),
        items: &[(usize, u32, Item)],
    ) {
        let Some(node) = self.nodes.get(&at.0).filter(|_| !items.is_empty()) else {
            return;
        };
        let sides: Vec<_> = node
            .sides
            .iter()
            .filter(|side| side.0 == at.1)
            .map(|side| (side.1, side.2))
            .collect();
        for (side, route) in sides {
            let mine = items.iter().filter(|(of, _, _)| *of == side);
            let mine = mine.map(|(_, row, item)| (*row, item.clone())).collect();
            let loads = vec![self.land_items(journey, at.0, route, mine)];
            self.land_loads(journey, route, loads);
        }
    }

    fn land_items(
        &mut self,
        journey: &mut Journey,
        id: u32,
        route: usize,
        items: Vec<(u32, Item)>,
    ) -> Load {
        let name = self.nodes.get(&id).map(|node| node.name.clone());
        let name = name.unwrap_or_else(|| "".into());
        let mut events = Vec::with_capacity(items.len());
        for (row, item) in items {
            match item.value.encode(self.routes[route].codec, route) {
                Some(payload) => {
                    events.push((row, self.derive(route, item, Some(payload), name.clone())));
                }
                None => journey.failed.push((
                    row,
                    id,
                    "a result does not fit the schema of its route".into(),
                )),
            }
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.emitted += events.len() as u64;
        }
        Load::Events(events)
    }

    /// The last stage is done.
    fn finish_run(&mut self, journey: &mut Journey, id: u32, batches: Vec<Batch>) {
        let Some(node) = self.nodes.get(&id) else {
            return;
        };
        let Sink::Route(route) = node.sink else {
            return self.call_end(id, batches);
        };
        let codec = self.routes[route].codec;
        let fits = |batch: &Batch| match batch {
            Batch::Lot(lot) => lot.values.fits(lot.len(), codec, route),
            Batch::Items(items) => items
                .iter()
                .all(|(_, item)| item.value.encode(codec, route).is_some()),
        };
        if !batches.iter().all(fits) {
            return self.call_end(id, batches);
        }
        let name = node.name.clone();
        let mut loads = Vec::with_capacity(batches.len());
        for batch in batches {
            loads.push(match batch {
                Batch::Items(items) => self.land_items(journey, id, route, items),
                Batch::Lot(mut lot) => {
                    let len = lot.len();
                    lot.values = lot.values.laid(len, codec, route);
                    if let Some(node) = self.nodes.get_mut(&id) {
                        node.emitted += len as u64;
                    }
                    let landing = self.landing(route, Some(name.clone()), len);
                    Load::Lot(lot, landing)
                }
            });
        }
        self.land_loads(journey, route, loads);
    }

    /// The host takes the results, or encodes them.
    fn call_end(&mut self, id: u32, batches: Vec<Batch>) {
        let Some(node) = self.nodes.get(&id) else {
            return;
        };
        self.next = Some(Step::ApplyRun(Box::new(RunCall {
            node: id,
            function: None,
            batches,
            stage: node.stages.len(),
        })));
    }

    /// Give the outcome of a `RunCall`: one for each of its batches.
    pub fn resume_run(&mut self, call: RunCall, made: Vec<Made>) {
        let Some(mut journey) = self.journey.take() else {
            return;
        };
        let RunCall {
            node: id,
            function,
            batches,
            stage,
        } = call;
        let mut next = Vec::with_capacity(batches.len());
        let mut taken = 0;
        for (batch, made) in batches.into_iter().zip(made) {
            match (batch, made) {
                (Batch::Lot(mut lot), Made::Column(picks, values, failed)) => {
                    let row = |(row, why)| (lot.row(row as usize), id, why);
                    journey.failed.extend(failed.into_iter().map(row));
                    if let Some(picks) = picks {
                        lot.values = Column::Same(Value::None);
                        lot.keep(picks);
                    }
                    lot.values = values;
                    next.push(Batch::Lot(lot));
                }
                (batch, Made::Each(outcomes)) => {
                    let mut items = Vec::with_capacity(outcomes.len());
                    for ((row, item), outcome) in batch.into_items().into_iter().zip(outcomes) {
                        taken += u64::from(matches!(outcome, Outcome::Discard));
                        let failed = outcome_of(item, outcome, |item| items.push((row, item)));
                        journey.failed.extend(failed.map(|why| (row, id, why)));
                    }
                    next.push(Batch::Items(items));
                }
                (Batch::Items(_), Made::Column(..)) => {}
            }
        }
        if function.is_some() {
            self.run_stages(&mut journey, id, stage + 1, 0, next);
        } else if let Some(node) = self.nodes.get_mut(&id) {
            node.emitted += taken;
            if node.sink != Sink::Host {
                // What the host encoded fits now.
                self.finish_run(&mut journey, id, next);
            }
        }
        self.travel(*journey);
    }
}

/// Apply the outcome of a function on one item; returns why it failed.
fn outcome_of(mut item: Item, outcome: Outcome, mut emit: impl FnMut(Item)) -> Option<String> {
    match outcome {
        Outcome::Value(value) => emit(item.with(value)),
        Outcome::Values(values) => {
            let item = item.made();
            for value in values {
                emit(item.clone().with(value));
            }
        }
        Outcome::Key(key) => match key.key() {
            Some(key) => {
                item.key = Some(key);
                emit(item);
            }
            None => return Some("a partition key that is no text, int, float or bool".into()),
        },
        Outcome::Time(time) => {
            item.time = time;
            emit(item);
        }
        Outcome::Discard => {}
        Outcome::Failed(why) => return Some(why),
    }
    None
}

impl Load {
    fn len(&self) -> usize {
        match self {
            Self::Lot(lot, _) => lot.len(),
            Self::Events(events) => events.len(),
        }
    }

    /// Its events behind the first `skip`.
    fn events(&self, skip: usize, into: &mut Elements) {
        match self {
            Self::Lot(lot, on) => {
                let made = |row| (lot.row(row), Arc::new(lot.event(row, on)));
                into.extend((skip..lot.len()).map(made));
            }
            Self::Events(events) => into.extend_from_slice(&events[skip..]),
        }
    }
}
