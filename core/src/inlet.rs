//! What a remote producer's numbers say: which events are new, which came twice, which are lost.

use crate::counters::Counters;
use crate::event::Tag;
use crate::registry::DropReason;

/// The numbers of one producer's incarnation on one route.
#[derive(Clone, Debug)]
pub(crate) struct Track {
    pub(crate) producer: Tag,
    pub(crate) incarnation: Tag,
    /// First number counted: where the reader attached.
    pub(crate) attach: u64,
    /// Last number seen or proven sent.
    pub(crate) last: u64,
    pub(crate) counters: Counters,
}

impl Track {
    pub(crate) fn new(producer: Tag, incarnation: Tag, attach: u64) -> Self {
        Self {
            producer,
            incarnation,
            attach,
            last: attach - 1,
            counters: Counters::default(),
        }
    }

    /// Take one number; false if it came before. Numbers skipped are lost on the link (S43).
    pub(crate) fn accept(&mut self, seq: u64) -> bool {
        if seq <= self.last {
            self.counters.replayed += 1;
            return false;
        }
        self.lose_up_to(seq - 1);
        self.last = seq;
        self.counters.offered += 1;
        self.counters.delivered += 1;
        true
    }

    /// Take so many numbers from `first` on, none of which came before; returns how many are lost before them.
    pub(crate) fn accept_run(&mut self, first: u64, count: u64) -> u64 {
        let lost = self.lose_up_to(first - 1);
        self.last += count;
        self.counters.offered += count;
        self.counters.delivered += count;
        lost
    }

    /// Everything up to `seq` was sent: what has not come is lost. Returns how many.
    pub(crate) fn lose_up_to(&mut self, seq: u64) -> u64 {
        let lost = seq.saturating_sub(self.last);
        self.counters.offered += lost;
        self.counters.dropped[DropReason::LinkLoss as usize] += lost;
        self.last = self.last.max(seq);
        lost
    }
}
