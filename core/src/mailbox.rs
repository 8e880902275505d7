//! A mailbox: a bounded store between producers and groups of consumers, with leases, acknowledgements and redelivery.
//!
//! Rules (S12 to S14)
//! - An entry owns its event until every group has acknowledged it; capacity counts entries, waiting or leased.
//! - Within a lane the order never changes: what is given back stands at the lane's head again.
//! - A lease that runs out is a negative acknowledgement. After the last attempt the entry goes to the poison route.
//! - Time, as everywhere in the engine, comes with each call.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde::Deserialize;

use crate::counters::Ledger;
use crate::event::Event;
use crate::registry::{DELIVERY_DUPLICATED, DropReason, ORDER_POSSIBLY_OUT_OF_ORDER};
use crate::taint;

mod group;
mod lanes;

use group::{Group, Lease, Past};
pub use group::{GroupCounters, Settled};

/// Consumer groups of one mailbox.
pub const GROUPS_MAX: usize = 64;
/// Members of one group.
pub const MEMBERS_MAX: usize = 1024;
/// Entries of one mailbox.
pub const CAPACITY_MAX: usize = 1 << 20;

/// Who gets an entry (S12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One consumer.
    MpscSerial,
    /// One member of each group.
    MpmcUnique,
    /// Every consumer, unless they join into groups.
    MpmcReplicated,
    /// The member that the entry's key belongs to.
    KeyAffine,
}

/// In which order entries are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ordering {
    /// As they came.
    Fifo,
    /// Higher quality-of-service class first, as they came within one.
    PriorityStable,
    /// By turns over partition keys, each as often as its weight.
    WeightedFair,
    /// By turns over producers.
    RoundRobinByProducer,
    /// As they came within a key, and one of a key at a time.
    KeyedFifo,
    /// Only the newest.
    LatestOnly,
    /// As they came, without a promise.
    Unordered,
}

/// What a full mailbox does (S14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Producers wait.
    Block,
    /// Producers get an error, and nothing is stored.
    RejectWrite,
    /// The new one goes.
    DropNewest,
    /// The oldest that is not leased goes.
    DropOldest,
    /// The newest that is not leased is replaced.
    CoalesceLatest,
    /// What is past its time goes first; then as `RejectWrite`.
    DeadlineDrop,
    /// The host keeps it on disk until there is room.
    SpillToStore,
}

/// How a mailbox behaves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Entries.
    pub capacity: usize,
    /// Bytes of payloads.
    pub bytes_max: usize,
    /// Who gets them.
    pub mode: Mode,
    /// In which order.
    pub ordering: Ordering,
    /// What happens when it is full.
    pub overflow: Overflow,
    /// How long an entry is worth delivering, ns; 0: for ever.
    pub ttl_ns: i64,
    /// How long a member has to acknowledge, ns.
    pub lease_ns: i64,
    /// Deliveries of one entry to one group.
    pub attempts_max: u32,
    /// How long a given-back entry waits, ns.
    pub backoff_ns: i64,
    /// How long a producer waits when it is full and blocks, ns; 0: as long as it takes.
    pub block_ns: i64,
    /// For `WeightedFair`: turns by key; 1 where none is given.
    pub weights: BTreeMap<String, u32>,
}

impl Policy {
    /// Why the policy cannot be had.
    pub fn check(&self) -> Result<(), String> {
        let fits = (1..=CAPACITY_MAX).contains(&self.capacity);
        if !fits || self.bytes_max == 0 {
            return Err(format!("a mailbox holds 1 to {CAPACITY_MAX} entries"));
        }
        if self.lease_ns <= 0 || self.ttl_ns < 0 || self.backoff_ns < 0 || self.attempts_max == 0 {
            return Err("lease and attempts are above 0, ttl and backoff not below".into());
        }
        if self.weights.values().any(|weight| *weight == 0) {
            return Err("weights are above 0".into());
        }
        if self.ordering == Ordering::LatestOnly && self.capacity != 1 {
            return Err("latest_only holds one entry".into());
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) event: Arc<Event>,
    expires: i64,
    /// Groups that have not acknowledged it.
    owed: usize,
    /// Whether the oldest of its kind counts on the edge: replays do not.
    bytes: usize,
    /// Number of the record on disk that it came back from.
    record: Option<u64>,
}

/// What a consumer gets.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The event, marked where it is delivered again.
    pub event: Arc<Event>,
    /// Names this delivery, for `ack` and `nack`.
    pub ticket: u64,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// When the lease runs out, ns.
    pub deadline: i64,
}

/// An entry that no group could take, for the poison route.
#[derive(Clone, Debug)]
pub struct Poisoned {
    /// The event.
    pub event: Arc<Event>,
    /// Whose attempts are used up, and why the last one failed.
    pub reason: String,
}

/// How a delivery ends that was not worked off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Retry,
    Poison,
    RanOut,
}

/// The mailbox.
pub struct Mailbox {
    policy: Policy,
    entries: BTreeMap<u64, Entry>,
    bytes: usize,
    arrived: u64,
    groups: BTreeMap<String, Group>,
    /// What waits for a first group.
    unclaimed: VecDeque<u64>,
    tickets: u64,
    /// Ticket -> group: what is leased.
    leased: HashMap<u64, String>,
    /// (deadline, ticket) of what is leased.
    ends: BTreeSet<(i64, u64)>,
    /// For the poison route, until the engine takes them.
    pub(crate) poisoned: VecDeque<Poisoned>,
    /// On disk, and how far on the way: the host refills from there.
    pub(crate) spilled: u64,
    /// Of these, from an earlier life: they were never offered here.
    left_over: u64,
    /// Records on disk whose entries are here: not worked off yet.
    records: BTreeSet<u64>,
    changes: u64,
    /// Most entries it ever held.
    pub largest_depth: usize,
    /// Accounting of the edge (S43).
    pub ledger: Ledger,
}

impl Mailbox {
    /// Make an empty one.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            entries: BTreeMap::new(),
            bytes: 0,
            arrived: 0,
            groups: BTreeMap::new(),
            unclaimed: VecDeque::new(),
            tickets: 0,
            leased: HashMap::new(),
            ends: BTreeSet::new(),
            poisoned: VecDeque::new(),
            spilled: 0,
            left_over: 0,
            records: BTreeSet::new(),
            changes: 0,
            largest_depth: 0,
            ledger: Ledger::default(),
        }
    }

    /// How it behaves.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Entries, waiting or leased.
    pub fn depth(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of their payloads.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How long the oldest entry has been here, ns.
    pub fn oldest_age(&self, now: i64) -> i64 {
        let oldest = self.entries.values().next();
        oldest.map_or(0, |entry| now.saturating_sub(entry.event.ingest))
    }

    /// Whether one more event of that size fits.
    pub fn fits(&self, bytes: usize) -> bool {
        self.entries.len() < self.policy.capacity && self.bytes + bytes <= self.policy.bytes_max
    }

    /// Whether the host keeps further events on disk: order is kept by sending all there until they are back.
    pub fn spills(&self, bytes: usize) -> bool {
        self.policy.overflow == Overflow::SpillToStore && (self.spilled > 0 || !self.fits(bytes))
    }

    /// Take an event in, or apply the overflow rule; whether a consumer should look. `counted`: it is offered on the edge.
    pub fn offer(&mut self, event: Arc<Event>, now: i64, counted: bool) -> bool {
        let bytes = event.payload.as_ref().map_or(0, |payload| payload.len());
        if counted {
            let row = self.ledger.row(event.producer, event.incarnation);
            row.offered += 1;
            row.pending += 1;
        }
        if self.policy.ordering == Ordering::LatestOnly {
            self.make_room(bytes, DropReason::Coalesced, true);
        }
        if !self.fits(bytes) {
            match self.policy.overflow {
                Overflow::DropOldest => self.make_room(bytes, DropReason::OverflowOldest, false),
                Overflow::CoalesceLatest => self.make_room(bytes, DropReason::Coalesced, true),
                Overflow::DeadlineDrop => self.expire(now),
                _ => {}
            }
        }
        if !self.fits(bytes) {
            let row = self.ledger.row(event.producer, event.incarnation);
            row.drop_pending(DropReason::OverflowNewest, 1);
            return false;
        }
        self.store(event, bytes);
        true
    }

    fn store(&mut self, event: Arc<Event>, bytes: usize) {
        self.arrived += 1;
        self.changes += 1;
        let expires = match self.policy.ttl_ns {
            0 => i64::MAX,
            ttl => event.ingest.saturating_add(ttl),
        };
        self.bytes += bytes;
        let owed = self.groups.len();
        for group in self.groups.values_mut() {
            group.lanes.push(&event, self.arrived);
        }
        if owed == 0 {
            self.unclaimed.push_back(self.arrived);
        }
        let entry = Entry {
            event,
            expires,
            owed: owed.max(1),
            bytes,
            record: None,
        };
        self.entries.insert(self.arrived, entry);
        self.largest_depth = self.largest_depth.max(self.entries.len());
    }

    /// Drop entries that nobody has leased until one more fits.
    fn make_room(&mut self, bytes: usize, reason: DropReason, newest: bool) {
        while !self.fits(bytes) {
            let leased = |arrival: &u64| self.groups.values().any(|group| group.holds(*arrival));
            let mut free = self.entries.keys().filter(|arrival| !leased(arrival));
            let found = if newest {
                free.next_back()
            } else {
                free.next()
            };
            let Some(&arrival) = found else { return };
            self.forget(arrival, Some(reason));
        }
    }

    /// An entry leaves: delivered, or dropped for a reason.
    fn forget(&mut self, arrival: u64, reason: Option<DropReason>) {
        let Some(entry) = self.entries.remove(&arrival) else {
            return;
        };
        self.bytes -= entry.bytes;
        if let Some(record) = entry.record {
            self.records.remove(&record);
        }
        if reason.is_some() {
            for group in self.groups.values_mut() {
                group.lanes.remove(&entry.event, arrival);
            }
            lanes::take_out(&mut self.unclaimed, arrival);
        }
        let row = self
            .ledger
            .row(entry.event.producer, entry.event.incarnation);
        if let Some(reason) = reason {
            row.drop_pending(reason, 1);
        } else {
            row.pending -= 1;
            row.delivered += 1;
        }
    }

    /// Drop what is past its time and not leased.
    pub fn expire(&mut self, now: i64) {
        let late: Vec<u64> = self
            .entries
            .iter()
            .take_while(|(_, entry)| entry.expires <= now)
            .filter(|(arrival, _)| !self.groups.values().any(|group| group.holds(**arrival)))
            .map(|(arrival, _)| *arrival)
            .collect();
        for arrival in late {
            self.forget(arrival, Some(DropReason::Deadline));
        }
    }

    /// A consumer joins a group; the first group gets what waits. Why not, else.
    pub fn join(&mut self, group: &str, member: &str) -> Result<(), String> {
        let serial = self.policy.mode == Mode::MpscSerial;
        let members: usize = self.groups.values().map(|group| group.members.len()).sum();
        if serial && members > 0 {
            return Err("mpsc_serial has one consumer".into());
        }
        if !self.groups.contains_key(group) {
            if self.groups.len() >= GROUPS_MAX {
                return Err(format!("at most {GROUPS_MAX} groups"));
            }
            let mut fresh = Group::new(&self.policy);
            if self.groups.is_empty() {
                for arrival in std::mem::take(&mut self.unclaimed) {
                    if let Some(entry) = self.entries.get(&arrival) {
                        fresh.lanes.push(&entry.event, arrival);
                    }
                }
            }
            self.groups.insert(group.into(), fresh);
        }
        let Some(known) = self.groups.get_mut(group) else {
            return Ok(());
        };
        if known.members.len() >= MEMBERS_MAX {
            return Err(format!("at most {MEMBERS_MAX} members of a group"));
        }
        if known.members.iter().any(|name| name == member) {
            return Err(format!("{member} is a member of {group} already"));
        }
        known.members.push(member.into());
        known.members.sort_unstable();
        Ok(())
    }

    /// A consumer leaves: its leases end as if they had run out. An empty group goes; what only it had to take as well,
    /// except that the last group leaves its entries to the next one.
    pub fn leave(&mut self, group: &str, member: &str, now: i64) {
        let Some(known) = self.groups.get_mut(group) else {
            return;
        };
        known.members.retain(|name| name != member);
        let mine: Vec<u64> = known
            .leases
            .iter()
            .filter(|(_, lease)| lease.member == member)
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in mine {
            self.give_back(group, ticket, now, "the consumer left", End::RanOut);
        }
        if self.groups.get(group).is_some_and(|g| g.members.is_empty()) {
            let Some(gone) = self.groups.remove(group) else {
                return;
            };
            let last = self.groups.is_empty();
            let mut left: Vec<u64> = gone.lanes.all();
            left.sort_unstable();
            for arrival in left {
                if last {
                    self.unclaimed.push_back(arrival);
                } else {
                    self.settle(arrival);
                }
            }
        }
    }

    /// One group is done with an entry.
    fn settle(&mut self, arrival: u64) {
        let Some(entry) = self.entries.get_mut(&arrival) else {
            return;
        };
        entry.owed -= 1;
        if entry.owed == 0 {
            self.forget(arrival, None);
        }
    }

    /// The next entry for a member of a group, leased to it.
    pub fn receive(&mut self, group: &str, member: &str, now: i64) -> Option<Delivery> {
        self.tick(now);
        let known = self.groups.get_mut(group)?;
        let affine = (self.policy.mode == Mode::KeyAffine).then_some((member, &known.members));
        let arrival = known.lanes.pick(now, affine)?;
        let entry = self.entries.get(&arrival)?;
        self.tickets += 1;
        let attempt = known.lanes.begin(&entry.event, arrival, member);
        let deadline = now.saturating_add(self.policy.lease_ns);
        known.leases.insert(
            self.tickets,
            Lease {
                arrival,
                member: member.into(),
                deadline,
                attempt,
            },
        );
        known.counters.deliveries += 1;
        known.counters.redeliveries += u64::from(attempt > 1);
        self.leased.insert(self.tickets, group.into());
        self.ends.insert((deadline, self.tickets));
        let mut marks = 0;
        if attempt > 1 {
            marks |= DELIVERY_DUPLICATED;
        }
        if self.policy.ordering == Ordering::Unordered {
            marks |= ORDER_POSSIBLY_OUT_OF_ORDER;
        }
        let event = if marks == 0 {
            entry.event.clone()
        } else {
            let mut copy = (*entry.event).clone();
            copy.taints = taint::join(copy.taints, marks);
            Arc::new(copy)
        };
        Some(Delivery {
            event,
            ticket: self.tickets,
            attempt,
            deadline,
        })
    }

    /// A delivery was worked off. Idempotent; one whose lease ran out is refused with the ticket of who has it now.
    pub fn ack(&mut self, ticket: u64) -> Settled {
        let Some(name) = self.leased.get(&ticket).cloned() else {
            return self.settled(ticket, false);
        };
        let Some(group) = self.groups.get_mut(&name) else {
            return Settled::Unknown;
        };
        let Some(lease) = group.leases.remove(&ticket) else {
            return Settled::Unknown;
        };
        self.leased.remove(&ticket);
        self.ends.remove(&(lease.deadline, ticket));
        self.changes += 1;
        group.counters.acks += 1;
        group.remember(ticket, Past::Acked);
        if let Some(entry) = self.entries.get(&lease.arrival) {
            group.lanes.finish(&entry.event, lease.arrival);
        }
        self.settle(lease.arrival);
        Settled::Done
    }

    fn settled(&self, ticket: u64, again: bool) -> Settled {
        for group in self.groups.values() {
            match group.recent.get(&ticket) {
                Some(Past::Acked) => return Settled::Done,
                Some(Past::Returned(_)) if again => return Settled::Done,
                Some(Past::Returned(arrival) | Past::RanOut(arrival)) => {
                    let now = group.leases.iter().find(|(_, l)| l.arrival == *arrival);
                    return Settled::Expired(now.map(|(ticket, _)| *ticket));
                }
                None => {}
            }
        }
        Settled::Unknown
    }

    /// A delivery failed. Retryable: the entry waits at the head of its lane; else it goes to the poison route.
    pub fn nack(&mut self, ticket: u64, retryable: bool, now: i64, why: &str) -> Settled {
        let Some(group) = self.leased.get(&ticket).cloned() else {
            return self.settled(ticket, true);
        };
        let end = if retryable { End::Retry } else { End::Poison };
        self.give_back(&group, ticket, now, why, end);
        Settled::Done
    }

    fn give_back(&mut self, name: &str, ticket: u64, now: i64, why: &str, end: End) {
        self.leased.remove(&ticket);
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let Some(lease) = group.leases.remove(&ticket) else {
            return;
        };
        self.ends.remove(&(lease.deadline, ticket));
        group.remember(
            ticket,
            match end {
                End::RanOut => Past::RanOut(lease.arrival),
                _ => Past::Returned(lease.arrival),
            },
        );
        group.counters.nacks += 1;
        let Some(entry) = self.entries.get(&lease.arrival) else {
            return;
        };
        if end == End::Poison || lease.attempt >= self.policy.attempts_max {
            group.counters.poisoned += 1;
            group.lanes.finish(&entry.event, lease.arrival);
            self.poisoned.push_back(Poisoned {
                event: entry.event.clone(),
                reason: format!("{name}, attempt {}: {why}", lease.attempt),
            });
            self.settle(lease.arrival);
            return;
        }
        self.changes += 1;
        let after = now.saturating_add(self.policy.backoff_ns);
        group.lanes.back(&entry.event, lease.arrival, after);
    }

    /// Let leases run out and, where the rule says so, entries.
    pub fn tick(&mut self, now: i64) {
        while let Some(&(deadline, ticket)) = self.ends.first() {
            if deadline > now {
                break;
            }
            self.ends.pop_first();
            if let Some(group) = self.leased.get(&ticket).cloned() {
                self.give_back(&group, ticket, now, "the lease ran out", End::RanOut);
            }
        }
        for group in self.groups.values_mut() {
            self.changes += u64::from(group.lanes.refresh(now));
        }
        if self.policy.ttl_ns > 0 {
            self.expire(now);
        }
    }

    /// When `tick` has something to do next.
    pub fn deadline(&self) -> Option<i64> {
        let leases = self.ends.first().map(|(deadline, _)| *deadline);
        let waits = self.groups.values().filter_map(|g| g.lanes.earliest());
        let oldest = self.entries.values().next();
        let expiry = oldest.filter(|_| self.policy.ttl_ns > 0);
        leases
            .into_iter()
            .chain(waits)
            .chain(expiry.map(|entry| entry.expires))
            .min()
    }

    /// Its groups with members, entries that wait, leases and counters.
    pub fn groups(&self) -> Vec<(String, Vec<String>, usize, usize, GroupCounters)> {
        let row = |(name, group): (&String, &Group)| {
            (
                name.clone(),
                group.members.clone(),
                group.lanes.len(),
                group.leases.len(),
                group.counters,
            )
        };
        self.groups.iter().map(row).collect()
    }

    /// Entries by producer's incarnation.
    pub fn producers(&self) -> BTreeMap<(crate::event::Tag, crate::event::Tag), usize> {
        let mut found = BTreeMap::new();
        for entry in self.entries.values() {
            let who = (entry.event.producer, entry.event.incarnation);
            *found.entry(who).or_insert(0) += 1;
        }
        found
    }

    /// An event that was offered is on disk now, or (`kept` false) could not be put there and is lost.
    pub(crate) fn spill(&mut self, event: &Event, kept: bool) {
        let row = self.ledger.row(event.producer, event.incarnation);
        if kept {
            self.spilled += 1;
        } else {
            row.drop_pending(DropReason::OverflowNewest, 1);
        }
    }

    /// So many events of an earlier life are on disk.
    pub fn left_over(&mut self, count: u64) {
        self.spilled = count;
        self.left_over = count;
    }

    /// Events on disk.
    pub fn on_disk(&self) -> u64 {
        self.spilled
    }

    /// Grows with everything that a consumer who waits wants to know.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether something is for the poison route.
    pub fn has_poisoned(&self) -> bool {
        !self.poisoned.is_empty()
    }

    /// The oldest record on disk whose entry is here: everything before it was worked off or counted as dropped.
    pub fn oldest_record(&self) -> Option<u64> {
        self.records.first().copied()
    }

    /// An event is back from the disk, where it is the record of that number.
    pub(crate) fn back(&mut self, event: Arc<Event>, record: u64, now: i64) -> bool {
        self.spilled = self.spilled.saturating_sub(1);
        let new_here = self.left_over > 0;
        self.left_over = self.left_over.saturating_sub(1);
        // How far an earlier life had come with it is not known: a consumer may have seen it (S13).
        let event = if new_here {
            let taints = taint::join(event.taints, DELIVERY_DUPLICATED);
            Arc::new(Event {
                taints,
                ..(*event).clone()
            })
        } else {
            event
        };
        let stored = self.offer(event, now, new_here);
        if let Some(entry) = self.entries.get_mut(&self.arrived).filter(|_| stored) {
            entry.record = Some(record);
            self.records.insert(record);
        }
        stored
    }

    /// Count an event as offered that goes to the disk.
    pub(crate) fn offer_apart(&mut self, event: &Event) {
        let row = self.ledger.row(event.producer, event.incarnation);
        row.offered += 1;
        row.pending += 1;
    }

    /// Give up what is here, counted as closed.
    pub fn close(&mut self) {
        let all: Vec<u64> = self.entries.keys().copied().collect();
        for arrival in all {
            self.forget(arrival, Some(DropReason::Closed));
        }
    }
}
