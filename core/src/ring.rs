//! A bounded queue at the end of an edge: behind it stands a tap, a stream or a queued observer.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::counters::Ledger;
use crate::event::Event;
use crate::registry::DropReason;

/// What a full queue does with one more event. Every loss is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest waiting event goes.
    DropOldest,
    /// The new event goes.
    DropNewest,
    /// The newest waiting event is replaced.
    CoalesceLatest,
    /// Producers wait for credit; what an operator emits beyond it goes like `DropNewest`.
    Block,
    /// Producers get an error; else as `Block`.
    Reject,
}

/// The queue with its accounting.
#[derive(Debug)]
pub struct Ring {
    queue: VecDeque<Arc<Event>>,
    /// The oldest waiting event was there before the reader: it is counted apart (S43).
    replay: bool,
    capacity: usize,
    overflow: Overflow,
    /// Accounting by producer and incarnation (S43).
    pub ledger: Ledger,
}

impl Ring {
    /// Make an empty one; `capacity` is at least 1.
    pub fn new(capacity: usize, overflow: Overflow) -> Self {
        Self {
            queue: VecDeque::new(),
            replay: false,
            capacity: capacity.max(1),
            overflow,
            ledger: Ledger::default(),
        }
    }

    /// Put the event that was there before the reader into the queue, which is empty.
    pub fn replay(&mut self, event: Arc<Event>) {
        self.ledger.row(event.producer, event.incarnation).replayed += 1;
        self.replay = true;
        self.queue.push_back(event);
    }

    /// Offer one event; true if the queue was empty before, so that a reader must be woken.
    pub fn push(&mut self, event: Arc<Event>) -> bool {
        let was_empty = self.queue.is_empty();
        let row = self.ledger.row(event.producer, event.incarnation);
        row.offered += 1;
        row.pending += 1;
        if self.queue.len() < self.capacity {
            self.queue.push_back(event);
            return was_empty;
        }
        match self.overflow {
            Overflow::DropNewest | Overflow::Block | Overflow::Reject => {
                row.drop_pending(DropReason::OverflowNewest, 1);
            }
            Overflow::DropOldest => {
                let lost = self.queue.pop_front();
                self.queue.push_back(event);
                let replay = std::mem::take(&mut self.replay);
                self.drop(lost, DropReason::OverflowOldest, replay);
            }
            Overflow::CoalesceLatest => {
                let lost = self.queue.pop_back();
                let replay = self.queue.is_empty() && std::mem::take(&mut self.replay);
                self.queue.push_back(event);
                self.drop(lost, DropReason::Coalesced, replay);
            }
        }
        false
    }

    fn drop(&mut self, lost: Option<Arc<Event>>, reason: DropReason, replay: bool) {
        if let Some(lost) = lost.filter(|_| !replay) {
            self.ledger
                .row(lost.producer, lost.incarnation)
                .drop_pending(reason, 1);
        }
    }

    /// Take up to `max` events, counted as delivered.
    pub fn take(&mut self, max: usize) -> Vec<Arc<Event>> {
        let count = max.min(self.queue.len());
        let taken: Vec<_> = self.queue.drain(..count).collect();
        self.delivered(&taken);
        taken
    }

    /// Take the oldest, counted as delivered.
    pub fn pop(&mut self) -> Option<Arc<Event>> {
        let event = self.queue.pop_front()?;
        self.delivered(std::slice::from_ref(&event));
        Some(event)
    }

    /// Take what fits into one batch: one producer's incarnation, consecutive numbers, at most `events` and `bytes`.
    /// A single event larger than `bytes` is a batch of its own.
    pub fn take_batch(&mut self, events: usize, bytes: usize) -> Vec<Arc<Event>> {
        let mut count = 0;
        let mut size = 0;
        for event in self.queue.iter().take(events) {
            if count > 0 {
                let last: &Event = &self.queue[count - 1];
                let follows = last.producer == event.producer
                    && last.incarnation == event.incarnation
                    && last.seq + 1 == event.seq;
                if !follows || size + weight(event) > bytes {
                    break;
                }
            }
            size += weight(event);
            count += 1;
        }
        self.take(count)
    }

    /// Take what can stand in columns: one producer's incarnation, payloads of one size or none, one set of taints.
    pub fn take_columns(&mut self, max: usize) -> Vec<Arc<Event>> {
        let of = |event: &Event| {
            let size = event.payload.as_ref().map(|payload| payload.len());
            (event.producer, event.incarnation, event.taints, size)
        };
        let first = self.queue.front().map(|event| of(event));
        let alike = self.queue.iter().take(max);
        let count = alike.take_while(|event| Some(of(event)) == first).count();
        self.take(count)
    }

    fn delivered(&mut self, taken: &[Arc<Event>]) {
        let replay = !taken.is_empty() && std::mem::take(&mut self.replay);
        for event in &taken[usize::from(replay)..] {
            let row = self.ledger.row(event.producer, event.incarnation);
            row.pending -= 1;
            row.delivered += 1;
        }
    }

    /// Events it holds at most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// What it does when it is full.
    pub fn overflow(&self) -> Overflow {
        self.overflow
    }

    /// Events waiting.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Give up what waits, counted as closed.
    pub fn close(&mut self) {
        let replay = std::mem::take(&mut self.replay);
        for event in std::mem::take(&mut self.queue)
            .into_iter()
            .skip(usize::from(replay))
        {
            self.ledger
                .row(event.producer, event.incarnation)
                .drop_pending(DropReason::Closed, 1);
        }
    }
}

fn weight(event: &Event) -> usize {
    64 + event.payload.as_ref().map_or(0, |payload| payload.len())
}
