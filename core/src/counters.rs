//! The accounting of one edge (S43): `offered = delivered + dropped(reason) + pending`.

use crate::event::Tag;
use crate::registry::{DROP_REASONS, DropReason};

/// Counters of one edge for one producer's incarnation, or summed over all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// First deliveries asked for since the reader attached.
    pub offered: u64,
    /// Handed over.
    pub delivered: u64,
    /// Waiting in the edge's queue.
    pub pending: u64,
    /// Not delivered, by reason.
    pub dropped: [u64; DROP_REASONS.len()],
    /// Deliveries of events that had been delivered before; no part of the equation.
    pub replayed: u64,
}

impl Counters {
    /// What the equation leaves unexplained; always 0.
    pub fn unexplained(&self) -> i128 {
        let dropped: u64 = self.dropped.iter().sum();
        i128::from(self.offered)
            - i128::from(self.delivered)
            - i128::from(dropped)
            - i128::from(self.pending)
    }

    /// Count events as dropped that were pending.
    pub fn drop_pending(&mut self, reason: DropReason, count: u64) {
        self.pending -= count;
        self.dropped[reason as usize] += count;
    }
}

/// Counters of one edge, by (producer, incarnation).
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    rows: Vec<((Tag, Tag), Counters)>,
}

/// Producers' incarnations an edge keeps apart; beyond it the oldest two are merged, so sums stay right.
pub const LEDGER_ROWS_MAX: usize = 256;

impl Ledger {
    /// The counters of one producer's incarnation.
    pub fn row(&mut self, producer: Tag, incarnation: Tag) -> &mut Counters {
        let key = (producer, incarnation);
        // Newest last: the search from the end is one step in the usual case of one producer.
        let found = self.rows.iter().rposition(|row| row.0 == key);
        let index = found.unwrap_or_else(|| {
            if self.rows.len() >= LEDGER_ROWS_MAX {
                let oldest = self.rows.remove(0).1;
                add(&mut self.rows[0].1, &oldest);
            }
            self.rows.push((key, Counters::default()));
            self.rows.len() - 1
        });
        &mut self.rows[index].1
    }

    /// Count what is pending as dropped.
    pub fn close(&mut self, reason: DropReason) {
        for (_, row) in &mut self.rows {
            row.drop_pending(reason, row.pending);
        }
    }

    /// All rows.
    pub fn rows(&self) -> &[((Tag, Tag), Counters)] {
        &self.rows
    }

    /// The sum of all rows.
    pub fn total(&self) -> Counters {
        let mut sum = Counters::default();
        for (_, row) in &self.rows {
            add(&mut sum, row);
        }
        sum
    }
}

fn add(into: &mut Counters, from: &Counters) {
    into.offered += from.offered;
    into.delivered += from.delivered;
    into.pending += from.pending;
    into.replayed += from.replayed;
    for (a, b) in into.dropped.iter_mut().zip(from.dropped) {
        *a += b;
    }
}
