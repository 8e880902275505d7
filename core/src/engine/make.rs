//! Making events: numbers, traces, parents and taints, before anything is delivered (S2, S28, S30).

use std::sync::Arc;

use super::{Engine, Input};
use crate::event::{Event, EventId, add_parent, root_trace};
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
        let mut event = Event {
            route: own.route,
            producer: own.producer,
            incarnation: own.incarnation,
            seq: own.seq,
            seq_link: 0,
            time: input.time,
            ingest: input.ingest,
            logical: input.logical,
            epoch: input.epoch,
            qos: input.qos,
            trace,
            sampled,
            causality,
            clock: input.clock.take(),
            key: input.key.take(),
            correlation: input.correlation.take(),
            operator: None,
            payload_ref: input.payload_ref.take(),
            guards: std::mem::take(&mut input.guards),
            labels: std::mem::take(&mut input.labels),
            parents: Vec::new(),
            taints: taint::normalize(input.taints | self.routes[route].marks),
            payload: input.payload.take(),
        };
        self.routes[route].next_seq += 1;
        for id in std::mem::take(&mut input.parents) {
            if !add_parent(&mut event.parents, id) {
                event.taints = taint::join(event.taints, LINEAGE_TRUNCATED);
            }
            if let Some(parent) = self.known(id) {
                event.taints = taint::join(event.taints, parent.taints);
            }
        }
        Arc::new(event)
    }

    /// The next event of a route, as an operator derived it.
    pub(super) fn derive(
        &mut self,
        route: usize,
        item: Item,
        payload: Option<Payload>,
        operator: &Arc<str>,
    ) -> Arc<Event> {
        let own = self.next_id(route);
        // S30: inputs of one trace go on in it, inputs of several begin a new one.
        // What time alone caused has no parent.
        let caused = item.id != EventId::default();
        let (trace, causality) = if item.lineage.mixed || !caused {
            (root_trace(&own), caused.then_some(item.id))
        } else {
            (item.lineage.trace, Some(item.lineage.causality))
        };
        let sampled = if caused {
            item.lineage.sampled
        } else {
            self.tracer.decide(&trace, item.ingest)
        };
        if sampled && caused && !item.lineage.mixed {
            self.tracer.made(own, &item.id);
        }
        let mut parents = item.lineage.parents;
        if parents.is_empty() && caused {
            parents = vec![item.id.range()];
        }
        self.routes[route].next_seq += 1;
        Arc::new(Event {
            route: own.route,
            producer: own.producer,
            incarnation: own.incarnation,
            seq: own.seq,
            seq_link: 0,
            time: item.time,
            ingest: item.ingest,
            logical: item.logical,
            epoch: item.epoch,
            qos: item.qos,
            trace,
            sampled,
            causality,
            clock: item.clock,
            key: item.key,
            correlation: item.correlation,
            operator: Some(operator.clone()),
            payload_ref: None,
            guards: item.guards,
            labels: item.labels,
            parents,
            taints: taint::normalize(item.taints | self.routes[route].marks),
            payload,
        })
    }

    /// A retained event, or one that waits for its turn.
    fn known(&mut self, id: EventId) -> Option<Arc<Event>> {
        let retained = self.find(id).cloned();
        retained.or_else(|| self.input.find(id).cloned())
    }

    /// What an event published with this would be tainted.
    pub(super) fn marks_of(&mut self, input: &Input) -> u64 {
        let (mut marks, mut ranges) = (taint::normalize(input.taints), Vec::new());
        for id in &input.parents {
            if !add_parent(&mut ranges, *id) {
                marks = taint::join(marks, LINEAGE_TRUNCATED);
            }
            if let Some(parent) = self.known(*id) {
                marks = taint::join(marks, parent.taints);
            }
        }
        marks
    }

    /// Trace, causality and the sampled bit (S30): inputs of one trace go on in it, a root or inputs of several begin a
    /// new one. A new trace is recorded if one of its inputs is, a root if the tracer decides so.
    fn chain(&mut self, own: EventId, input: &Input) -> ([u8; 16], Option<EventId>, bool) {
        if let Some(outside) = &input.outside
            && input.parents.is_empty()
        {
            let sampled = self.tracer.enter(own, outside, input.ingest);
            return (outside.trace, None, sampled);
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
}
