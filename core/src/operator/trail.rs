//! What a stateful operator remembers of the items its state comes from: parents, traces and taints of the next result.
//!
//! In the usual case - consecutive events of one route, one trace or many, no taints - a result costs the same however
//! long the trail is: a range of parents from the first to the last.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::item::same_trace;
use super::lot::Parents;
use super::{Item, Lot};
use crate::event::{EventId, ParentRange, add_range};
use crate::registry::LINEAGE_TRUNCATED;
use crate::taint;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Crumb {
    id: EventId,
    trace: Option<[u8; 16]>,
    causality: EventId,
    mixed: bool,
    sampled: bool,
    taints: u64,
    parents: Vec<ParentRange>,
    labels: Vec<Arc<str>>,
}

/// Where the state of an operator comes from, oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Trail {
    crumbs: VecDeque<Crumb>,
    /// Neighbours that are not consecutive events of one route.
    breaks: usize,
    /// Neighbours of different traces, and crumbs of several.
    turns: usize,
    /// Crumbs with taints or labels, or whose trace is recorded.
    marked: usize,
}

impl Crumb {
    fn marked(&self) -> bool {
        self.taints != 0 || self.sampled || !self.labels.is_empty()
    }

    fn breaks(&self, next: &Self) -> bool {
        let (a, b) = (&self.id, &next.id);
        !next.parents.is_empty()
            || (a.producer, a.incarnation, a.route) != (b.producer, b.incarnation, b.route)
            || a.seq + 1 != b.seq
    }

    fn of_one_trace(&self, other: &Self) -> bool {
        same_trace(
            (self.trace, &self.causality),
            (other.trace, &other.causality),
        )
    }
}

impl Trail {
    /// How many items it remembers.
    pub fn len(&self) -> usize {
        self.crumbs.len()
    }

    /// Whether it remembers none.
    pub fn is_empty(&self) -> bool {
        self.crumbs.is_empty()
    }

    /// Remember an item.
    pub fn push(&mut self, item: &Item) {
        self.remember(Crumb {
            id: item.id,
            trace: item.lineage.trace,
            causality: item.lineage.causality,
            mixed: item.lineage.mixed,
            sampled: item.lineage.sampled,
            taints: item.taints,
            parents: item.lineage.parents.clone(),
            labels: item.labels.clone(),
        });
    }

    fn remember(&mut self, crumb: Crumb) {
        if let Some(last) = self.crumbs.back() {
            self.breaks += usize::from(last.breaks(&crumb));
            self.turns += usize::from(!last.of_one_trace(&crumb) || crumb.mixed);
        } else {
            self.breaks = usize::from(!crumb.parents.is_empty());
            self.turns = usize::from(crumb.mixed);
        }
        self.marked += usize::from(crumb.marked());
        self.crumbs.push_back(crumb);
    }

    /// Forget the oldest item.
    pub fn pop(&mut self) {
        let Some(gone) = self.crumbs.pop_front() else {
            return;
        };
        self.marked -= usize::from(gone.marked());
        if let Some(first) = self.crumbs.front() {
            // The link between the two goes, and the first counts by itself again.
            self.breaks -= usize::from(gone.breaks(first)) + usize::from(!gone.parents.is_empty());
            self.breaks += usize::from(!first.parents.is_empty());
            let turns = !gone.of_one_trace(first) || first.mixed;
            self.turns -= usize::from(turns) + usize::from(gone.mixed);
            self.turns += usize::from(first.mixed);
        } else {
            (self.breaks, self.turns) = (0, 0);
        }
    }

    /// Forget all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many rows of a lot have to come one by one before `slide_over` can take the rest: then every result is of
    /// consecutive events of several traces, without marks.
    pub(super) fn alone(&self, lot: &Lot, size: usize) -> usize {
        let Some(first) = lot.plain().filter(|_| size > 1) else {
            return lot.len();
        };
        let Some(last) = self.crumbs.back() else {
            return 1;
        };
        let follows = EventId {
            seq: last.id.seq + 1,
            ..last.id
        } == first;
        if !follows || self.breaks > 0 {
            // Whatever is remembered now is forgotten after so many.
            return size.min(lot.len());
        }
        let (_, trace, causality) = lot.chain_of(0);
        let same = same_trace((last.trace, &last.causality), (trace, &causality));
        usize::from(same).max(self.marked.min(1) * size.min(lot.len()))
    }

    /// Remember the rows of a lot, forget all but `size`, and make each a result of what was remembered with it.
    pub(super) fn slide_over(&mut self, lot: &mut Lot, size: usize) {
        let oldest = self.crumbs.front().map_or(0, |first| first.id.seq);
        let fresh = lot.len().min(size);
        if fresh == size {
            self.crumbs.clear();
            self.marked = 0;
        }
        for row in lot.len() - fresh..lot.len() {
            let (id, trace, causality) = lot.chain_of(row);
            self.remember(Crumb {
                id,
                trace,
                causality,
                mixed: false,
                sampled: false,
                taints: 0,
                parents: Vec::new(),
                labels: Vec::new(),
            });
            if self.crumbs.len() > size {
                self.pop();
            }
        }
        lot.mix();
        lot.parents = Parents::Back(size as u64 - 1, oldest);
        lot.common = lot.common.clone().made();
    }

    /// Make `item` a result of consecutive unmarked events of different traces, from that of `oldest` to its own.
    pub(super) fn stamp_span(oldest: &Item, item: &mut Item) {
        item.edge = 0;
        item.lineage.parents = vec![ParentRange {
            last: item.id.seq,
            ..oldest.id.range()
        }];
        item.lineage.causality = item.id;
        item.lineage.mixed = true;
    }

    /// Make `item` a result of everything remembered (S28, S30).
    pub fn stamp(&self, item: &mut Item) {
        let (Some(first), Some(last)) = (self.crumbs.front(), self.crumbs.back()) else {
            return;
        };
        item.edge = 0;
        item.id = last.id;
        item.lineage.trace = last.trace;
        item.lineage.causality = if self.turns == 0 {
            first.causality
        } else {
            last.id
        };
        item.lineage.mixed = self.turns > 0;
        item.lineage.sampled = false;
        item.taints = 0;
        item.labels = Vec::new();
        let mut whole = true;
        let mut parents = Vec::new();
        if self.breaks == 0 {
            let range = ParentRange {
                last: last.id.seq,
                ..first.id.range()
            };
            parents.push(range);
        } else {
            for crumb in &self.crumbs {
                if crumb.parents.is_empty() {
                    whole &= add_range(&mut parents, crumb.id.range());
                }
                for range in &crumb.parents {
                    whole &= add_range(&mut parents, *range);
                }
            }
        }
        item.lineage.parents = parents;
        if self.marked > 0 {
            for crumb in self.crumbs.iter().filter(|crumb| crumb.marked()) {
                item.taints = taint::join(item.taints, crumb.taints);
                item.lineage.sampled |= crumb.sampled;
                for label in &crumb.labels {
                    if !item.labels.contains(label) {
                        item.labels.push(label.clone());
                    }
                }
            }
        }
        if !whole {
            item.mark(LINEAGE_TRUNCATED);
        }
    }
}
