//! Ephemeral routes: they have a time to live, keep nothing for replay, and go with all their state (S42).

use super::Engine;
use crate::registry::{DET_NONREPLAYABLE, DET_SEEDED_ENTROPY};

impl Engine {
    /// A route that is ephemeral by its layer, and was not given a time to live yet: nothing may be published on it.
    pub fn undeclared(&mut self, route: usize) {
        let r = &mut self.routes[route];
        (r.history_max, r.marks, r.expires) = (0, DET_NONREPLAYABLE, i64::MIN);
    }

    /// Let a route live until then, ns. `seeded`: what is on it can be made again from recorded entropy.
    pub fn live_until(&mut self, route: usize, expires: i64, seeded: bool) {
        let r = &mut self.routes[route];
        r.expires = expires;
        r.marks = if seeded {
            DET_SEEDED_ENTROPY
        } else {
            DET_NONREPLAYABLE
        };
        r.history_max = 0;
        self.due = self.due.min(expires);
    }

    /// Whether an ephemeral route has time left.
    pub fn lives(&self, route: usize, now: i64) -> bool {
        self.routes[route].expires > now.max(self.now)
    }

    /// End a route now.
    pub fn end_route(&mut self, route: usize) {
        if self.routes[route].expires < i64::MAX {
            self.routes[route].expires = self.routes[route].expires.min(self.now);
            self.end_routes(self.now);
        }
    }

    pub(super) fn ends(&self) -> impl Iterator<Item = i64> + '_ {
        let ends = self.routes.iter().map(|r| r.expires);
        ends.filter(|expires| *expires > i64::MIN && *expires < i64::MAX)
    }

    /// End the routes whose time is over: what they keep goes, and whatever hangs on them.
    pub(super) fn end_routes(&mut self, now: i64) {
        for route in 0..self.routes.len() {
            let r = &mut self.routes[route];
            if r.expires == i64::MIN || r.expires > now {
                continue;
            }
            r.expires = i64::MIN;
            r.history.clear();
            r.history_bytes = 0;
            for id in r.edges.clone() {
                let node = match self.edges.get(&id).map(|edge| &edge.kind) {
                    Some(super::Kind::Port(node, ..)) => *node,
                    _ => id,
                };
                self.detach(node);
                self.gone.push(node);
            }
        }
    }

    /// What went with its routes since the last call.
    pub fn take_gone(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.gone)
    }
}
