//! A route goes over to a newer schema: what it retains is rewritten, for whoever reads it next sees one schema (S1).

use std::sync::Arc;

use super::Engine;
use crate::event::Event;
use crate::payload::Payload;
use crate::value::Codec;

impl Engine {
    /// Whether nothing reads the route, writes it by itself, or brings it in from elsewhere: nobody would meet another
    /// schema than the one it was made for.
    pub fn unbound(&self, route: usize) -> bool {
        let r = &self.routes[route];
        let written = self
            .nodes
            .values()
            .any(|node| node.outputs().any(|at| at == route))
            || self
                .edges
                .values()
                .any(|edge| matches!(edge.kind, super::Kind::Forward(to, _) if to == route));
        r.edges.is_empty() && r.tracks.is_empty() && !written
    }

    /// What the route retains and what waits for its turn, oldest first.
    pub fn kept(&self, route: usize) -> Vec<Arc<Event>> {
        let waiting = self.input.iter().filter(|(at, _)| *at == route);
        let history = self.routes[route].history.iter();
        history
            .chain(waiting.map(|(_, event)| event))
            .cloned()
            .collect()
    }

    /// Give the route another codec, and what is `kept` these payloads in its order. False, and nothing has changed,
    /// where the route is bound or keeps something else by now.
    pub fn adopt(
        &mut self,
        route: usize,
        codec: Codec,
        kept: &[Arc<Event>],
        payloads: Vec<Option<Payload>>,
    ) -> bool {
        let now = self.kept(route);
        let same = now.len() == kept.len() && now.iter().zip(kept).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same || payloads.len() != kept.len() || !self.unbound(route) {
            return false;
        }
        let r = &mut self.routes[route];
        r.codec = codec;
        let waiting = self.input.iter_mut().filter(|(at, _)| *at == route);
        let places = r.history.iter_mut().chain(waiting.map(|(_, event)| event));
        for (place, payload) in places.zip(payloads) {
            *place = Arc::new(Event {
                payload,
                ..(**place).clone()
            });
        }
        r.history_bytes = r
            .history
            .iter()
            .map(|event| event.payload.as_ref().map_or(0, |p| p.len()))
            .sum();
        true
    }
}
