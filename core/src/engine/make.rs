//! Making events: numbers, traces, parents and taints, before anything is delivered (S2, S28, S30).

use std::sync::Arc;

use super::{Engine, Input};
use crate::event::{Event, EventId, Extra, ParentRange, Parents, add_parent, root_trace};
use crate::operator::Item;
use crate::payload::Payload;
use crate::registry::LINEAGE_TRUNCATED;
use crate::taint;

impl Engine {
    pub(super) fn next_id(&self, route: usize) -> EventId {
        EventId {
            producer: self.producer,
            incarnation: self.incarnation,
            route: self.routes[route].tag,
            seq: self.routes[route].next_seq,
        }
    }

    /// The next event of a route, as published. What the input holds moves into it.
    pub(super) fn make(&mut self, route: usize, input: &mut Input) -> Arc<Event> {
        let own = self.next_id(route);
        let (trace, causality, sampled) = self.chain(own, input);
        let (parents, inherited) = self.inherit(&std::mem::take(&mut input.parents));
        let taints = input.taints | self.routes[route].marks | inherited;
        self.routes[route].next_seq += 1;
        Arc::new(Event {
            route: own.route,
            producer: own.producer,
            incarnation: own.incarnation,
            seq: own.seq,
            seq_link: 0,
            time: input.time,
            ingest: input.ingest,
            taints: taint::normalize(taints),
            sampled,
            payload: input.payload.take(),
            extra: Extra {
                logical: input.logical,
                epoch: input.epoch,
                qos: input.qos,
                trace,
                causality,
                clock: input.clock.take(),
                key: input.key.take(),
                correlation: input.correlation.take(),
                operator: None,
                payload_ref: input.payload_ref.take(),
                guards: std::mem::take(&mut input.guards),
                labels: std::mem::take(&mut input.labels),
                parents: parents.into(),
            }
            .held(),
        })
    }

    /// The next event of a route, of which nothing is given but value and time.
    pub(super) fn make_plain(
        &mut self,
        route: usize,
        payload: Option<Payload>,
        ingest: i64,
    ) -> Arc<Event> {
        let own = self.next_id(route);
        let sampled = self.tracer.is_on() && self.tracer.decide(&root_trace(&own), ingest);
        let r = &mut self.routes[route];
        r.next_seq += 1;
        Arc::new(Event {
            route: own.route,
            producer: own.producer,
            incarnation: own.incarnation,
            seq: own.seq,
            seq_link: 0,
            time: ingest,
            ingest,
            taints: taint::normalize(r.marks),
            sampled,
            payload,
            extra: None,
        })
    }

    /// The next event of a route, as an operator derived it.
    pub(super) fn derive(
        &mut self,
        route: usize,
        mut item: Item,
        payload: Option<Payload>,
        operator: Arc<str>,
    ) -> Arc<Event> {
        let own = self.next_id(route);
        // S30: inputs of one trace go on in it, inputs of several begin a new one.
        // What time alone caused has no parent.
        let caused = item.id != EventId::default();
        let (trace, causality) = match (caused, item.lineage.mixed) {
            (true, true) => (Some(root_trace(&own)), Some(item.id)),
            (true, false) => (item.lineage.trace, Some(item.lineage.causality)),
            (false, _) => (None, None),
        };
        let sampled = if caused {
            item.lineage.sampled
        } else {
            self.tracer.is_on() && self.tracer.decide(&root_trace(&own), item.ingest)
        };
        if sampled && caused && !item.lineage.mixed {
            self.tracer.made(own, &item.id);
        }
        let parents = match std::mem::take(&mut item.lineage.parents) {
            parents if parents.is_empty() && caused => Parents::One([item.id.range()]),
            parents => parents.into(),
        };
        self.routes[route].next_seq += 1;
        Arc::new(Event {
            route: own.route,
            producer: own.producer,
            incarnation: own.incarnation,
            seq: own.seq,
            seq_link: 0,
            time: item.time,
            ingest: item.ingest,
            taints: taint::normalize(item.taints | self.routes[route].marks),
            sampled,
            payload,
            extra: Some(Arc::new(Extra {
                logical: item.logical,
                epoch: item.epoch,
                qos: item.qos,
                trace,
                causality,
                clock: item.clock.take(),
                key: item.key.take(),
                correlation: item.correlation.take(),
                operator: Some(operator),
                payload_ref: None,
                guards: std::mem::take(&mut item.guards),
                labels: std::mem::take(&mut item.labels),
                parents,
            })),
        })
    }

    /// A retained event, or one that waits for its turn.
    fn known(&mut self, id: EventId) -> Option<Arc<Event>> {
        let retained = self.find(id).cloned();
        retained.or_else(|| self.input.find(id).cloned())
    }

    /// What an event published with this would be tainted.
    pub(super) fn marks_of(&mut self, input: &Input) -> u64 {
        taint::join(input.taints, self.inherit(&input.parents).1)
    }

    /// Parents as an event keeps them, and the taints that come with them (S28, S30).
    fn inherit(&mut self, parents: &[EventId]) -> (Vec<ParentRange>, u64) {
        let (mut ranges, mut taints) = (Vec::new(), 0);
        for id in parents {
            if !add_parent(&mut ranges, *id) {
                taints |= LINEAGE_TRUNCATED;
            }
            if let Some(parent) = self.known(*id) {
                taints |= parent.taints;
            }
        }
        (ranges, taints)
    }

    /// Trace (None: the usual one), causality and the sampled bit (S30): inputs of one trace go on in it, a root or inputs
    /// of several begin a new one. A new trace is recorded if one of its inputs is, a root if the tracer decides so.
    fn chain(&mut self, own: EventId, input: &Input) -> (Option<[u8; 16]>, Option<EventId>, bool) {
        self.tracer.ignored += u64::from(input.context_ignored);
        if let Some(outside) = &input.outside
            && input.parents.is_empty()
        {
            let sampled = self.tracer.enter(own, outside, input.ingest);
            return (Some(outside.trace), None, sampled);
        }
        let Some(last) = input.parents.last().copied() else {
            let sampled =
                self.tracer.is_on() && self.tracer.decide(&root_trace(&own), input.ingest);
            return (None, None, sampled);
        };
        let (mut found, mut mixed, mut sampled) = (None, false, false);
        for id in &input.parents {
            if let Some(event) = self.known(*id) {
                sampled |= event.sampled;
                match &found {
                    None => found = Some((event.trace(), event.causality.unwrap_or(*id))),
                    Some((trace, _)) => mixed |= *trace != event.trace(),
                }
            }
        }
        match found {
            Some((trace, causality)) if !mixed => {
                let usual = trace == root_trace(&causality);
                ((!usual).then_some(trace), Some(causality), sampled)
            }
            Some(_) => (Some(root_trace(&own)), Some(last), sampled),
            None => {
                let trace = root_trace(&own);
                let sampled = self.tracer.decide(&trace, input.ingest);
                (Some(trace), Some(last), sampled)
            }
        }
    }
}
