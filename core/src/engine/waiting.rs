//! Events that wait for their turn, in order, and finding one of them by its id.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::event::{Event, EventId};

/// Events searched one by one before an index is made: a parent is mostly one of the last.
const NEAR: usize = 32;

/// The input queue. Its index grows only when somebody asks for an event that is not near the end, so that each event
/// is entered at most once, and those that nobody asks for never.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queue: VecDeque<(usize, Arc<Event>)>,
    /// Events ever taken off: the place of the first.
    taken: u64,
    /// Places of the events before `indexed`; of those before `taken` none counts.
    places: HashMap<EventId, u64>,
    indexed: u64,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn front(&self) -> Option<&(usize, Arc<Event>)> {
        self.queue.front()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(usize, Arc<Event>)> {
        self.queue.iter()
    }

    /// To exchange events for others of the same id.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut (usize, Arc<Event>)> {
        self.queue.iter_mut()
    }

    pub(super) fn push_back(&mut self, entry: (usize, Arc<Event>)) {
        self.queue.push_back(entry);
    }

    pub(super) fn pop_front(&mut self) -> Option<(usize, Arc<Event>)> {
        let entry = self.queue.pop_front()?;
        self.taken += 1;
        if self.queue.is_empty() && !self.places.is_empty() {
            self.places.clear();
        }
        Some(entry)
    }

    /// The event with this id.
    pub(super) fn find(&mut self, id: EventId) -> Option<&Arc<Event>> {
        let near = self.queue.iter().rev().take(NEAR);
        let mut at = near
            .enumerate()
            .find(|(_, entry)| entry.1.id() == id)
            .map(|(back, _)| self.queue.len() - 1 - back);
        if at.is_none() && self.queue.len() > NEAR {
            self.index();
            let place = self.places.get(&id);
            at = place.and_then(|place| usize::try_from(place.checked_sub(self.taken)?).ok());
        }
        self.queue.get(at?).map(|entry| &entry.1)
    }

    fn index(&mut self) {
        let first = self.indexed.max(self.taken);
        // What was taken off meanwhile is forgotten once it is the most of the index.
        if self.places.len() > 2 * self.queue.len() + NEAR {
            let taken = self.taken;
            self.places.retain(|_, place| *place >= taken);
        }
        let skip = usize::try_from(first - self.taken).unwrap_or(usize::MAX);
        for (place, entry) in (first..).zip(self.queue.iter().skip(skip)) {
            self.places.insert(entry.1.id(), place);
        }
        self.indexed = self.taken + self.queue.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64) -> Arc<Event> {
        Arc::new(Event {
            seq,
            ..Event::default()
        })
    }

    fn id(seq: u64) -> EventId {
        event(seq).id()
    }

    #[test]
    fn every_waiting_event_is_found_and_no_other() {
        let mut waiting = Waiting::default();
        let (mut first, mut next) = (1_u64, 1_u64);
        // By turns growing and shrinking, asked after each step.
        for round in 0..40_u64 {
            for _ in 0..(round * 37) % 101 {
                waiting.push_back((0, event(next)));
                next += 1;
            }
            for _ in 0..(round * 53) % 97 {
                if waiting.pop_front().is_some() {
                    first += 1;
                }
            }
            for seq in first.saturating_sub(5)..next + 5 {
                let found = waiting.find(id(seq)).map(|event| event.seq);
                let expected = (first..next).contains(&seq).then_some(seq);
                assert_eq!(found, expected, "round {round}");
            }
            assert!(waiting.places.len() <= 2 * waiting.len() + NEAR + 101);
        }
    }

    #[test]
    fn an_event_is_entered_once_however_often_somebody_asks() {
        let mut waiting = Waiting::default();
        for seq in 1..=1000 {
            waiting.push_back((0, event(seq)));
        }
        for seq in 1..=900 {
            assert!(waiting.find(id(seq)).is_some());
        }
        assert_eq!(waiting.indexed, 1000);
        assert_eq!(waiting.places.len(), 1000);
        assert!(waiting.find(id(5000)).is_none());
        while waiting.pop_front().is_some() {}
        assert!(waiting.places.is_empty(), "nothing is kept for nobody");
    }
}
