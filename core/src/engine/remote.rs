//! Batches of remote producers: unpacked once, taken in as far as there is credit, the rest when it comes back (S2, S6).

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Engine, Refused, Route, TRACKS_MAX};
use crate::batch;
use crate::counters::Counters;
use crate::event::{Event, Tag};
use crate::inlet::Track;
use crate::taint;

/// A batch on its way in, and how far it got.
#[derive(Debug)]
pub struct Incoming {
    producer: Tag,
    incarnation: Tag,
    /// What its events are tainted by the way they came.
    taints: u64,
    first: u64,
    last: u64,
    waiting: VecDeque<Event>,
    /// Bytes of what waits.
    bytes: usize,
}

impl Incoming {
    /// First and last number.
    pub fn numbers(&self) -> (u64, u64) {
        (self.first, self.last)
    }

    /// How many of its events wait for credit.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Payload bytes of all that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the first one that waits.
    pub fn needs(&self) -> usize {
        self.waiting.front().map_or(0, size)
    }
}

/// What `push` did with a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// New events.
    pub delivered: u64,
    /// Events that came before.
    pub duplicates: u64,
    /// Numbers found missing.
    pub lost: u64,
    /// First number of the batch.
    pub first_seq: u64,
    /// Last number of the batch.
    pub last_seq: u64,
}

impl Engine {
    /// Take in a batch that none waits before: as one run of columns where it can be, else as far as there is credit, and the
    /// batch itself where some of it waits.
    pub fn take_in(
        &mut self,
        route: usize,
        sections: (&[u8], Option<&[u8]>),
        (producer, incarnation): (Tag, Tag),
        taints: u64,
        ingest: i64,
    ) -> Result<(Receipt, Option<Incoming>), Refused> {
        let sender = (producer, incarnation);
        if let Some(receipt) = self.push_run(route, sections, sender, taints, ingest) {
            return Ok((receipt, None));
        }
        let mut incoming = self.unpack(route, sections, producer, incarnation, taints)?;
        let receipt = self.push(route, &mut incoming, ingest)?;
        Ok((receipt, Some(incoming).filter(|rest| rest.waiting() > 0)))
    }

    /// Read a batch of a remote producer; its events are taken in by `push`. The producer is heard of from here on.
    pub fn unpack(
        &mut self,
        route: usize,
        sections: (&[u8], Option<&[u8]>),
        producer: Tag,
        incarnation: Tag,
        taints: u64,
    ) -> Result<Incoming, Refused> {
        let tag = self.routes[route].tag;
        let events = batch::decode(sections.0, sections.1, tag, producer, incarnation)
            .map_err(Refused::Batch)?;
        let (first, last) = (events[0].seq, events[events.len() - 1].seq);
        let incoming = Incoming {
            producer,
            incarnation,
            taints,
            first,
            last,
            bytes: events.iter().map(size).sum(),
            waiting: events.into(),
        };
        self.check_bound(route, &incoming)?;
        track(&mut self.routes[route], producer, incarnation, first).ok_or(Refused::Producers)?;
        Ok(incoming)
    }

    fn check_bound(&self, route: usize, incoming: &Incoming) -> Result<(), Refused> {
        let above = incoming.waiting.iter().fold(0, |above, event| {
            above | self.above(route, event.taints | incoming.taints)
        });
        match above {
            0 => Ok(()),
            above => Err(Refused::Tainted(above)),
        }
    }

    /// Take in what waits of a batch: new events are queued with their own numbers (S2), each for credit like one that is
    /// published here (S6). Where that ends, the rest goes on to wait.
    pub fn push(
        &mut self,
        route: usize,
        incoming: &mut Incoming,
        ingest: i64,
    ) -> Result<Receipt, Refused> {
        // It may have been declared since the batch was unpacked.
        self.check_bound(route, incoming)?;
        let (producer, incarnation) = (incoming.producer, incoming.incarnation);
        let track = track(
            &mut self.routes[route],
            producer,
            incarnation,
            incoming.first,
        )
        .ok_or(Refused::Producers)?;
        let mut receipt = Receipt {
            first_seq: incoming.first,
            last_seq: incoming.last,
            ..Receipt::default()
        };
        let before = self.routes[route].tracks[track].counters.dropped;
        let as_run = self.takes_made(route, incoming.waiting.len());
        let mut made = Vec::new();
        while let Some(next) = incoming.waiting.front() {
            let (seq, bytes) = (next.seq, size(next));
            let seen = &mut self.routes[route].tracks[track];
            let fresh = seq > seen.last;
            let spent = if !fresh {
                // What came before costs nothing.
                seen.accept(seq);
                receipt.duplicates += 1;
                None
            } else if self.room() == 0 {
                break;
            } else {
                match self.spend(route, bytes, ingest) {
                    Ok(spent) => spent,
                    // It fits nowhere: the edge loses it and counts that, as it does with what an operator makes.
                    Err(Refused::TooLarge(..)) => None,
                    Err(_) => break,
                }
            };
            incoming.bytes -= bytes;
            let Some(mut event) = incoming.waiting.pop_front().filter(|_| fresh) else {
                continue;
            };
            receipt.delivered += 1;
            let r = &mut self.routes[route];
            r.tracks[track].accept(seq);
            event.seq_link = r.next_link;
            r.next_link += 1;
            event.taints = taint::join(event.taints, incoming.taints);
            event.ingest = ingest;
            if let Some(spent) = spent {
                self.reserved.insert(event.id(), spent);
            }
            if as_run {
                made.push(Arc::new(event));
            } else {
                self.input.push_back((route, Arc::new(event)));
            }
        }
        self.line_up_run(route, ingest, made);
        let after = self.routes[route].tracks[track].counters.dropped;
        receipt.lost = after.iter().sum::<u64>() - before.iter().sum::<u64>();
        Ok(receipt)
    }

    /// A checkpoint proves that numbers up to `last_seq` were sent; what has not come is lost. Returns how many.
    /// A producer not heard of is attached behind `last_seq`: what was sent before is not offered to this reader.
    pub fn expect(&mut self, route: usize, producer: Tag, incarnation: Tag, last_seq: u64) -> u64 {
        let r = &mut self.routes[route];
        match track(r, producer, incarnation, last_seq.saturating_add(1)) {
            Some(index) => r.tracks[index].lose_up_to(last_seq),
            None => 0,
        }
    }

    /// Remote producers of a route: (producer, incarnation, counters, last number, first number counted).
    pub fn tracks(&self, route: usize) -> Vec<(Tag, Tag, Counters, u64, u64)> {
        self.routes[route]
            .tracks
            .iter()
            .map(|t| (t.producer, t.incarnation, t.counters, t.last, t.attach))
            .collect()
    }
}

fn size(event: &Event) -> usize {
    event.payload.as_ref().map_or(0, |payload| payload.len())
}

pub(super) fn track(
    route: &mut Route,
    producer: Tag,
    incarnation: Tag,
    attach: u64,
) -> Option<usize> {
    let known = route
        .tracks
        .iter()
        .position(|t| t.producer == producer && t.incarnation == incarnation);
    if known.is_some() || route.tracks.len() >= TRACKS_MAX {
        return known;
    }
    route.tracks.push(Track::new(producer, incarnation, attach));
    Some(route.tracks.len() - 1)
}
