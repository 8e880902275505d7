//! The order in which a group gets entries: lanes, each first in first out, and a rule that says whose turn it is.
//!
//! One lane for `fifo`; one for each class, key or producer for the others. A lane whose head waits for its backoff waits
//! as a whole, so its order never changes.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::Ordering;
use crate::event::Event;

/// What tells lanes apart: a class (inverted, so that the first is the highest), and a key or producer.
type LaneKey = (u8, Vec<u8>);

#[derive(Default)]
struct Lane {
    waiting: VecDeque<u64>,
    in_flight: usize,
    /// The head is not due before this.
    after: i64,
    /// Turns it has left.
    turns: u32,
    /// Whose it is while something of it is in flight.
    owner: Option<String>,
}

pub(super) struct Lanes {
    ordering: Ordering,
    affine: bool,
    weights: BTreeMap<String, u32>,
    by_key: BTreeMap<LaneKey, Lane>,
    /// Lanes by turns.
    turn: VecDeque<LaneKey>,
    attempts: HashMap<u64, u32>,
    waiting: usize,
    /// When the first lane that waits for a backoff is due; None: none waits.
    soonest: Option<i64>,
}

impl Lanes {
    pub(super) fn new(ordering: Ordering, affine: bool, weights: BTreeMap<String, u32>) -> Self {
        Self {
            ordering,
            affine,
            weights,
            by_key: BTreeMap::new(),
            turn: VecDeque::new(),
            attempts: HashMap::new(),
            waiting: 0,
            soonest: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    pub(super) fn all(&self) -> Vec<u64> {
        let waiting = self.by_key.values().flat_map(|lane| lane.waiting.iter());
        waiting.copied().collect()
    }

    fn key(&self, event: &Event) -> LaneKey {
        let key = || {
            event
                .key
                .as_ref()
                .map_or_else(Vec::new, |key| key.as_bytes().to_vec())
        };
        let class = match self.ordering {
            Ordering::PriorityStable => u8::MAX - event.qos,
            _ => 0,
        };
        let rest = match self.ordering {
            _ if self.affine => key(),
            Ordering::WeightedFair | Ordering::KeyedFifo => key(),
            Ordering::RoundRobinByProducer => [event.producer, event.incarnation].concat(),
            _ => Vec::new(),
        };
        (class, rest)
    }

    fn lane(&mut self, key: &LaneKey) -> &mut Lane {
        if !self.by_key.contains_key(key) {
            self.turn.push_back(key.clone());
        }
        self.by_key.entry(key.clone()).or_default()
    }

    pub(super) fn push(&mut self, event: &Event, arrival: u64) {
        let key = self.key(event);
        self.lane(&key).waiting.push_back(arrival);
        self.waiting += 1;
    }

    /// The entry whose turn it is; `affine` has the member that asks, and all of them.
    pub(super) fn pick(&mut self, now: i64, affine: Option<(&str, &Vec<String>)>) -> Option<u64> {
        self.refresh(now);
        let one_at_a_time = self.ordering == Ordering::KeyedFifo;
        let ready = |key: &LaneKey, lane: &Lane| {
            let mine = affine.is_none_or(|(member, members)| match &lane.owner {
                Some(owner) => owner == member,
                None => owner_of(&key.1, members).is_some_and(|owner| owner == member),
            });
            let free = !one_at_a_time || lane.in_flight == 0;
            (!lane.waiting.is_empty() && lane.after <= now && mine && free).then(|| lane.waiting[0])
        };
        let by_turns = self.affine
            || matches!(
                self.ordering,
                Ordering::WeightedFair | Ordering::RoundRobinByProducer | Ordering::KeyedFifo
            );
        if !by_turns {
            // A class that waits for its backoff does not hold up the others.
            return self.by_key.iter().find_map(|(key, lane)| ready(key, lane));
        }
        for _ in 0..self.turn.len() {
            let key = self.turn.front()?.clone();
            let weight = self.weight(&key);
            let Some(lane) = self.by_key.get_mut(&key) else {
                self.turn.pop_front();
                continue;
            };
            let Some(arrival) = ready(&key, lane) else {
                lane.turns = 0;
                self.turn.rotate_left(1);
                continue;
            };
            lane.turns = if lane.turns == 0 { weight } else { lane.turns } - 1;
            if lane.turns == 0 {
                self.turn.rotate_left(1);
            }
            return Some(arrival);
        }
        None
    }

    /// Lanes whose backoff is over wait no more; whether there were some.
    pub(super) fn refresh(&mut self, now: i64) -> bool {
        let over = self.soonest.is_some_and(|soonest| soonest <= now);
        if over {
            let later = self.by_key.values().map(|lane| lane.after);
            self.soonest = later.filter(|after| *after > now).min();
        }
        over
    }

    fn weight(&self, key: &LaneKey) -> u32 {
        if self.ordering != Ordering::WeightedFair {
            return 1;
        }
        let text = std::str::from_utf8(&key.1).unwrap_or_default();
        self.weights.get(text).copied().unwrap_or(1)
    }

    /// A picked entry is on its way to a member; returns which attempt it is.
    pub(super) fn begin(&mut self, event: &Event, arrival: u64, member: &str) -> u32 {
        let key = self.key(event);
        let affine = self.affine;
        let lane = self.lane(&key);
        take_out(&mut lane.waiting, arrival);
        lane.in_flight += 1;
        if affine {
            lane.owner = Some(member.into());
        }
        self.waiting -= 1;
        let attempt = self.attempts.entry(arrival).or_insert(0);
        *attempt += 1;
        *attempt
    }

    /// An entry that was on its way is done.
    pub(super) fn finish(&mut self, event: &Event, arrival: u64) {
        self.attempts.remove(&arrival);
        self.land(event);
    }

    /// An entry that was on its way is back, at the head.
    pub(super) fn back(&mut self, event: &Event, arrival: u64, after: i64) {
        let key = self.key(event);
        let lane = self.lane(&key);
        // Where several are in flight, the earliest stands first whatever the order they come back in.
        let place = lane.waiting.partition_point(|waiting| *waiting < arrival);
        lane.waiting.insert(place, arrival);
        lane.after = lane.after.max(after);
        self.waiting += 1;
        self.soonest = Some(self.soonest.map_or(after, |soonest| soonest.min(after)));
        self.land(event);
    }

    fn land(&mut self, event: &Event) {
        let key = self.key(event);
        if let Some(lane) = self.by_key.get_mut(&key) {
            lane.in_flight = lane.in_flight.saturating_sub(1);
            if lane.in_flight == 0 {
                lane.owner = None;
            }
        }
        self.tidy(&key);
    }

    /// An entry leaves without being delivered.
    pub(super) fn remove(&mut self, event: &Event, arrival: u64) {
        let key = self.key(event);
        if let Some(lane) = self.by_key.get_mut(&key) {
            let before = lane.waiting.len();
            take_out(&mut lane.waiting, arrival);
            self.waiting -= before - lane.waiting.len();
        }
        self.attempts.remove(&arrival);
        self.tidy(&key);
    }

    /// A lane with nothing in it goes, so that keys of the past cost nothing.
    fn tidy(&mut self, key: &LaneKey) {
        let empty = self
            .by_key
            .get(key)
            .is_some_and(|lane| lane.waiting.is_empty() && lane.in_flight == 0);
        if empty {
            self.by_key.remove(key);
            self.turn.retain(|known| known != key);
        }
    }

    /// When the first lane that waits for a backoff is due.
    pub(super) fn earliest(&self) -> Option<i64> {
        self.soonest.filter(|_| self.waiting > 0)
    }
}

/// Remove an entry that mostly stands at one of the ends.
pub(super) fn take_out(queue: &mut VecDeque<u64>, arrival: u64) {
    if queue.front() == Some(&arrival) {
        queue.pop_front();
    } else if queue.back() == Some(&arrival) {
        queue.pop_back();
    } else {
        queue.retain(|waiting| *waiting != arrival);
    }
}

/// Whose key it is: the member with the highest hash of both. One that joins or leaves moves only its own keys.
fn owner_of<'a>(key: &[u8], members: &'a [String]) -> Option<&'a str> {
    let weigh = |member: &&String| fnv(key, member.as_bytes());
    members.iter().max_by_key(weigh).map(String::as_str)
}

/// FNV-1a over both, then mixed: stable over versions and machines, which the standard hasher is not.
fn fnv(a: &[u8], b: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in a.iter().chain(&[0]).chain(b) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ hash >> 33
}
