//! The declared bound of a route's taints (S29): the most that anything on it may carry, known before any event is.
//!
//! A bound only ever grows. What is above it is refused before it has a number: a publish by an error, what an operator
//! or a connection made as its failure, a remote batch as a whole.

use super::Engine;
use crate::registry::TAINT_DOMAINS;
use crate::taint;

/// Nothing was declared.
const UNBOUND: u64 = u64::MAX;

/// What a route may carry and what it has carried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    declared: u64,
    /// Taints of everything that was ever stored: it does not shrink when events are forgotten.
    seen: u64,
}

impl Default for Bound {
    fn default() -> Self {
        Self {
            declared: UNBOUND,
            seen: 0,
        }
    }
}

impl Bound {
    pub(super) fn note(&mut self, taints: u64) {
        self.seen |= taints;
    }

    pub(super) fn is_declared(self) -> bool {
        self.declared != UNBOUND
    }

    fn above(self, taints: u64) -> u64 {
        taints & !self.declared
    }
}

/// Values that mean nothing is wrong: a bound never excludes them.
fn perfect() -> u64 {
    TAINT_DOMAINS
        .iter()
        .fold(0, |all, (perfect, _)| all | perfect)
}

impl Engine {
    /// Declare the most that events of a route may carry. What stands against it, where it is less than was declared
    /// before or than events have carried; then nothing has changed.
    pub fn bound(&mut self, route: usize, taints: u64) -> Result<(), u64> {
        let marks = self.routes[route].marks;
        let bound = &mut self.routes[route].bound;
        let declared = taints | perfect();
        let before = if bound.is_declared() {
            bound.declared
        } else {
            0
        };
        let against = (before | bound.seen | marks) & !declared;
        if against != 0 {
            return Err(against);
        }
        bound.declared = declared;
        Ok(())
    }

    /// (what was declared, what was ever seen), without values that mean nothing is wrong.
    pub fn bound_of(&self, route: usize) -> (Option<u64>, u64) {
        let bound = self.routes[route].bound;
        let declared = bound.is_declared().then_some(bound.declared & !perfect());
        (declared, taint::normalize(bound.seen) & !perfect())
    }

    /// Which of these are above the bound of a route; 0: none.
    pub(super) fn above(&self, route: usize, taints: u64) -> u64 {
        let r = &self.routes[route];
        r.bound.above(taint::normalize(taints | r.marks))
    }

    /// Whether what `by` made may go to a route; if not, it is counted as its failure.
    pub(super) fn within(&mut self, by: u32, route: usize, taints: u64) -> bool {
        let fits = self.above(route, taints) == 0;
        if !fits {
            self.fail(
                by,
                "a result is tainted above the bound of its route".into(),
            );
        }
        fits
    }
}
