//! Driving one operator by itself: what tests and simulators hold it against.

use super::{Fate, Item, MAIN, Operator, Out};

/// Collects what an operator does with what it is given.
#[derive(Debug, Default)]
pub struct Probe {
    out: Out,
}

impl Probe {
    /// Give it an item.
    pub fn item(&mut self, operator: &mut dyn Operator, port: usize, item: Item) {
        operator.on_item(port, item, &mut self.out);
    }

    /// Tell it the time.
    pub fn time(&mut self, operator: &mut dyn Operator, now: i64) {
        operator.on_time(now, &mut self.out);
    }

    /// What it emitted, in order.
    pub fn emitted(&self) -> impl Iterator<Item = &Item> {
        self.beside(MAIN)
    }

    /// What it gave to a side output.
    pub fn beside(&self, side: usize) -> impl Iterator<Item = &Item> {
        self.out
            .items
            .iter()
            .filter(move |(to, _)| *to == side)
            .map(|(_, item)| item)
    }

    /// Items it holds by its own account.
    pub fn held(&self) -> usize {
        let count = |wanted: fn(Fate) -> bool| {
            self.out
                .moves
                .iter()
                .filter(|entry| wanted(entry.what))
                .count()
        };
        count(|fate| fate == Fate::Held)
            - count(|fate| matches!(fate, Fate::Released | Fate::DroppedHeld(_)))
    }

    /// Items it dropped by its own account.
    pub fn dropped(&self) -> usize {
        let dropped = |fate: Fate| matches!(fate, Fate::Dropped(_) | Fate::DroppedHeld(_));
        self.out
            .moves
            .iter()
            .filter(|entry| dropped(entry.what))
            .count()
    }

    /// Why it failed, each time.
    pub fn failures(&self) -> &[String] {
        &self.out.failures
    }
}
