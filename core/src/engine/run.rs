//! Runs: many events that are published at once and go through the graph as columns, in one turn.
//!
//! A run gives what its events would give one at a time: numbers, envelopes, lineage, taints, counters, retention, and the
//! order in which the host's functions are called. Where that cannot be had, `runs` says no, and the events are queued one
//! by one. What it asks: from the route on every route and node is reached once, mailboxes and boundaries are not reached
//! at all, and no more than one place calls the host while operators run. Events of a run are made only for who asks for
//! single ones: retention, queues, observers.

use std::sync::Arc;

use super::journey::{Journey, Load};
use super::{Engine, Kind, Receipt};
use crate::batch;
use crate::event::{Event, EventId, Tag, root_trace};
use crate::inlet::Track;
use crate::node::Sink;
use crate::operator::lot::{Landing, Packed, Times};
use crate::operator::{Column, Item, Lot};
use crate::payload::Payload;
use crate::taint;
use crate::value::{Codec, Value};

/// Elements of one run.
pub const RUN_MAX: usize = 4096;

/// Values that are published at once.
#[derive(Debug)]
pub struct RunInput {
    /// The values, as they lie on the route.
    pub values: Column,
    /// How many there are, at most `RUN_MAX`.
    pub len: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Device times.
    pub times: Times,
    /// Partition keys.
    pub keys: Option<Vec<Arc<str>>>,
    /// The host's clock, ns.
    pub ingest: i64,
}

/// What is reached from a route, as of the topology of that number.
pub(super) struct Reach {
    topology: u64,
    /// Whether events that come as a run can go on as one.
    ok: bool,
    /// Whether nobody is called, woken or told the time on the way.
    quiet: bool,
    /// If all that is reached is one function of the host's and a route nobody reads: its node and number.
    function: Option<(u32, usize)>,
    routes: Vec<usize>,
}

impl Engine {
    /// Publish many values as one run; returns the number of the first. None, and nothing done, where they have to be
    /// published one by one. Call `step` after it.
    pub fn publish_run(&mut self, route: usize, input: &mut Option<RunInput>) -> Option<u64> {
        let given = input.as_ref()?;
        if given.len == 0 || given.len > RUN_MAX || !self.runs(route, given) {
            return None;
        }
        let input = input.take()?;
        self.now = self.now.max(input.ingest);
        let landing = self.landing(route, None, input.len);
        let mut common = Item::default();
        common.ingest = input.ingest;
        let first = landing.first;
        let lot = Lot::published(
            first,
            input.values,
            input.len,
            input.times,
            input.keys,
            common,
        );
        let mut journey = Journey::default();
        self.land_loads(&mut journey, route, vec![Load::Lot(lot, landing)]);
        self.travel(journey);
        Some(first.seq)
    }

    /// Whether what is published there now may come as a run.
    fn runs(&mut self, route: usize, input: &RunInput) -> bool {
        let due = self.now < input.ingest && self.due <= input.ingest;
        let events = self.takes_runs(route, input.len, input.ingest);
        if due || events != Some(input.len) {
            return false;
        }
        self.spend_run(route, input.len, input.bytes)
    }

    /// How many of so many events may be published on a route as a run now, if they are not too large and nothing is due
    /// before them. None: events have to be published one by one; 0: the next one has, for it is recorded.
    pub fn takes_runs(&mut self, route: usize, events: usize, ingest: i64) -> Option<usize> {
        let quiet = self.idle() && self.transcript.is_none();
        if !quiet || self.routes[route].owners > 0 || !self.reaches(route) {
            return None;
        }
        let first = self.next_id(route);
        let trace = |event: usize| {
            let seq = first.seq + event as u64;
            root_trace(&EventId { seq, ..first })
        };
        Some(self.tracer.unsampled(events, ingest, trace))
    }

    /// Whether so many events with numbers may come to a route as a run now.
    pub(super) fn takes_made(&mut self, route: usize, events: usize) -> bool {
        let quiet = self.idle() && self.transcript.is_none() && events <= RUN_MAX;
        quiet && self.reaches(route) && (self.gates == 0 || self.gates_of(route).is_empty())
    }

    /// Line up events with numbers as a run.
    pub(super) fn line_up_run(&mut self, route: usize, ingest: i64, made: Vec<Arc<Event>>) {
        if !made.is_empty() {
            let load = Load::Events((0..).zip(made).collect());
            self.journey = Some(Box::new(Journey::waiting(route, ingest, load)));
        }
    }

    /// Take in a batch of a remote producer that is plain and new as one run of columns. None, and nothing done, where it
    /// has to be looked at event by event: `push` does that, and says what is wrong with it.
    pub(super) fn push_run(
        &mut self,
        route: usize,
        (meta, payload): (&[u8], Option<&[u8]>),
        (producer, incarnation): (Tag, Tag),
        taints: u64,
        ingest: i64,
    ) -> Option<Receipt> {
        let section = payload?;
        let columns = batch::columns(meta, section)?;
        let (first, count) = (columns.first, columns.times.len());
        let taints = taint::join(columns.taints, taints);
        if !self.takes_made(route, count) || self.above(route, taints) != 0 {
            return None;
        }
        let known = |t: &&Track| t.producer == producer && t.incarnation == incarnation;
        let seen = self.routes[route].tracks.iter().find(known);
        if seen.is_some_and(|seen| first <= seen.last) {
            return None;
        }
        let at = super::remote::track(&mut self.routes[route], producer, incarnation, first)?;
        let column = column_of(self.routes[route].codec, route, section, columns.values);
        let r = &mut self.routes[route];
        let missing = r.tracks[at].accept_run(first, count as u64);
        let landing = Landing {
            first: EventId {
                producer,
                incarnation,
                route: r.tag,
                seq: first,
            },
            index: route,
            codec: r.codec,
            // What a route marks, its owner's graph has marked.
            marks: 0,
            operator: None,
            link: Some(r.next_link),
        };
        r.next_link += count as u64;
        let mut common = Item::default();
        (common.ingest, common.taints) = (ingest, taints);
        let times = Times::Each(columns.times);
        let lot = Lot::published(landing.first, column, count, times, None, common);
        let load = Load::Lot(lot, landing);
        self.journey = Some(Box::new(Journey::waiting(route, ingest, load)));
        Some(Receipt {
            delivered: count as u64,
            duplicates: 0,
            lost: missing,
            first_seq: first,
            last_seq: first + count as u64 - 1,
        })
    }

    /// The host's clock of a run that has not begun.
    pub(super) fn run_waits(&self) -> Option<i64> {
        let start = self.journey.as_ref()?.start.as_ref();
        start.map(|start| start.1)
    }

    /// Begin the run that waits for its turn; false where there is none.
    pub(super) fn begin_run(&mut self) -> bool {
        let Some(mut journey) = self.journey.take() else {
            return false;
        };
        if let Some((route, ingest, load)) = journey.start.take() {
            self.now = self.now.max(ingest);
            self.land_loads(&mut journey, route, vec![load]);
        }
        self.travel(*journey);
        true
    }

    /// Whether events of a route may wait: where a run can go on and nothing it reaches calls or wakes anybody or waits for
    /// time, but for one function of the host's (`function_of`).
    pub(super) fn may_wait(&mut self, route: usize) -> bool {
        let waits = |reach: &Reach| reach.quiet || reach.function.is_some();
        self.reaches(route) && self.routes[route].reach.as_deref().is_some_and(waits)
    }

    /// The function, by node and number, that has to be called with each event of a route that may wait.
    pub(super) fn function_of(&self, route: usize) -> Option<(u32, usize)> {
        self.routes[route].reach.as_ref()?.function
    }

    fn reaches(&mut self, route: usize) -> bool {
        let known = self.routes[route].reach.as_ref();
        if known.is_none_or(|reach| reach.topology != self.topology) {
            let reach = self.look_around(route);
            self.routes[route].reach = Some(Box::new(reach));
        }
        let plain = |at: &usize| {
            let r = &self.routes[*at];
            r.expires == i64::MAX && !r.bound.is_declared()
        };
        let reach = self.routes[route].reach.as_ref();
        reach.is_some_and(|reach| reach.ok && reach.routes.iter().all(plain))
    }

    /// What a run from a route would reach, and whether it may.
    fn look_around(&self, route: usize) -> Reach {
        let (mut routes, mut nodes, mut open) = (vec![route], Vec::new(), vec![route]);
        let (mut ok, mut direct, mut calls, mut quiet) = (true, false, 0, true);
        while let Some(at) = open.pop() {
            for id in &self.routes[at].edges {
                let edge = &self.edges[id];
                let mut onto = Vec::new();
                match &edge.kind {
                    Kind::Direct => direct = true,
                    Kind::Queue(_) => quiet = false,
                    Kind::Mail(_) => ok = false,
                    Kind::Forward(sink, _) => {
                        ok &= self.routes[at].codec == self.routes[*sink].codec;
                        onto.push(*sink);
                    }
                    Kind::Port(id, ..) => {
                        let Some(node) = self.nodes.get(id) else {
                            continue;
                        };
                        ok &= !node.boundary && !nodes.contains(id);
                        nodes.push(*id);
                        calls += node.foreign() + usize::from(node.sink == Sink::Host);
                        quiet &= node.timed().next().is_none();
                        onto.extend(node.outputs());
                    }
                }
                for sink in onto {
                    ok &= !routes.contains(&sink);
                    routes.push(sink);
                    open.push(sink);
                }
                if !ok {
                    break;
                }
            }
            if !ok {
                break;
            }
        }
        let lies_here =
            |at: &usize| !matches!(self.routes[*at].codec, Codec::Json | Codec::Foreign);
        let here = routes.iter().all(lies_here);
        let function = self.only_function(route).filter(|_| ok && here);
        Reach {
            topology: self.topology,
            function,
            // Functions are called in the order of elements, whatever calls them.
            ok: ok && (calls == 0 || (calls == 1 && !direct)),
            quiet: quiet && calls == 0 && !direct && here,
            routes,
        }
    }

    /// The function of the host's which, with a route that nobody reads, is all that hangs on a route: its node and number.
    fn only_function(&self, route: usize) -> Option<(u32, usize)> {
        let [edge] = self.routes[route].edges[..] else {
            return None;
        };
        let Kind::Port(id, 0, 0, _) = self.edges.get(&edge)?.kind else {
            return None;
        };
        let node = self.nodes.get(&id)?;
        let Sink::Route(sink) = node.sink else {
            return None;
        };
        let alone = node.stages.len() == 1 && self.routes[sink].edges.is_empty();
        let number = node.first_function().filter(|_| alone)?;
        Some((id, number))
    }
}

/// The values of a batch: numbers as such, the others as they lie there.
fn column_of(codec: Codec, route: usize, section: &[u8], places: Vec<(usize, usize)>) -> Column {
    if matches!(codec, Codec::Float | Codec::Int) {
        let value = |(start, len): (usize, usize)| {
            let payload = Payload::copy(&section[start..start + len]);
            Value::decode(codec, Some(&payload), route)
        };
        return Column::of(places.into_iter().map(value).collect());
    }
    Column::Packed(Packed {
        buffer: Arc::new(section.to_vec()),
        places,
        codec,
        route,
    })
}
