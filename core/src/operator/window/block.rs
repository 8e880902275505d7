//! Items of a window in columns: what came as a run stays one while the window holds it.
//!
//! The rows of a block are in the order of (time, order), as the items beside it are in their map. So a firing takes its
//! part of each, and as long as these parts do not overlap nothing is made for a row.

use super::Kept;
use crate::event::EventId;
use crate::operator::lot::{Column, Lot, Times};
use crate::operator::{Aggregate, Item, Trail};
use crate::value::Value;

/// Rows of a run, with the values that the window keeps.
#[derive(Clone, Debug)]
pub(super) struct Block {
    lot: Lot,
    /// The order of the first row.
    order: u64,
    /// Rows before this one are forgotten.
    from: usize,
}

/// Some rows of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    block: &'a Block,
    from: usize,
    to: usize,
}

/// The first row at which the time is above.
fn above(times: &Times, len: usize, time: i64) -> usize {
    match times {
        Times::Same(same) if *same > time => 0,
        Times::Same(_) => len,
        Times::Each(times) => times.partition_point(|one| *one <= time),
    }
}

impl Block {
    pub(super) fn new(lot: Lot, order: u64) -> Self {
        let from = 0;
        Self { lot, order, from }
    }

    /// Rows held.
    pub(super) fn len(&self) -> usize {
        self.lot.len() - self.from
    }

    /// Rows later than `from` and not later than `to`, ns.
    pub(super) fn part(&self, from: i64, to: i64) -> Part<'_> {
        let (times, len) = (&self.lot.times, self.lot.len());
        Part {
            block: self,
            from: above(times, len, from).max(self.from),
            to: above(times, len, to).max(self.from),
        }
    }

    /// Forget rows not later than that; how many.
    pub(super) fn forget(&mut self, time: i64) -> usize {
        let before = self.from;
        self.from = above(&self.lot.times, self.lot.len(), time).max(before);
        self.from - before
    }

    /// All rows held, one by one.
    pub(super) fn kept(&self) -> impl Iterator<Item = Kept> + '_ {
        let all = Part {
            block: self,
            from: self.from,
            to: self.lot.len(),
        };
        all.kept()
    }
}

impl<'a> Part<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.from >= self.to
    }

    /// (time, order) of the first and the last row.
    pub(super) fn span(&self) -> [(i64, u64); 2] {
        [self.from, self.to - 1].map(|row| {
            let order = self.block.order + row as u64;
            (self.block.lot.times.get(row), order)
        })
    }

    pub(super) fn kept(self) -> impl Iterator<Item = Kept> + 'a {
        (self.from..self.to).map(move |row| Kept {
            time: self.block.lot.times.get(row),
            order: self.block.order + row as u64,
            item: self.block.lot.item(row),
        })
    }

    fn numbers(&self) -> &'a [f64] {
        match &self.block.lot.values {
            Column::Floats(floats) => &floats[self.from..self.to],
            _ => &[],
        }
    }
}

/// The result over parts in their order: consecutive events of one route, unmarked. None where they are something else, or
/// the parts overlap.
pub(super) fn result(aggregate: &Aggregate, parts: &[Part<'_>]) -> Option<Item> {
    let ordered = parts
        .windows(2)
        .all(|two| two[0].span()[1] < two[1].span()[0]);
    let mut next: Option<EventId> = None;
    for part in parts {
        let first = part.block.lot.plain()?;
        let seq = first.seq + part.from as u64;
        let follows = next.is_none_or(|next| EventId { seq, ..first } == next);
        if !follows || !ordered {
            return None;
        }
        let seq = first.seq + part.to as u64;
        next = Some(EventId { seq, ..first });
    }
    let (first, last) = (parts.first()?, parts.last()?);
    let oldest = first.block.lot.item_with(first.from, Value::None);
    let mut item = last.block.lot.item_with(last.to - 1, Value::None);
    if oldest.id == item.id {
        let mut trail = Trail::default();
        trail.push(&oldest);
        trail.stamp(&mut item);
    } else {
        // Events of a run are of a trace each.
        Trail::stamp_span(&oldest, &mut item);
    }
    item.value = aggregate.over_slices(parts.iter().map(Part::numbers));
    Some(item)
}
