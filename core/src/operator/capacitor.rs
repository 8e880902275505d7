//! `capacitor`: holds events until somebody asks for them (S9).
//!
//! A demand is one credit: with something stored it emits the oldest, else it is remembered, up to `capacity`. So what a
//! slow reader asks for early is not forgotten, and what nobody asks for costs bounded memory. Losses are counted on the
//! edge and mark the next emission.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::{BuildError, Item, Lot, Operator, Out, Ran, config, load, save};
use crate::registry::{DELIVERY_COALESCED, DELIVERY_DROPPED, DropReason};
use crate::value::Value;

const CAPACITY_MAX: usize = 1 << 20;
/// Side outputs: how many more it would take, whenever that changes; what it refused.
const UPSTREAM: usize = 0;
const REJECTED: usize = 1;

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Overflow {
    DropOldest,
    CoalesceLatest,
    Reject,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    capacity: usize,
    overflow: Overflow,
    /// Whether a route gives the demand.
    demand: bool,
    /// Unlimited credit.
    immediate: bool,
}

struct Capacitor {
    settings: Settings,
    state: State,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    held: VecDeque<Item>,
    credit: usize,
    /// Marks that the next emission has to carry.
    owed: u64,
}

pub(super) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let settings: Settings = config(with)?;
    let wrong = |what: &str| Err(BuildError(what.into()));
    if settings.capacity == 0 || settings.capacity > CAPACITY_MAX {
        return wrong("capacity is 1 to 1048576");
    }
    match (settings.demand, settings.immediate) {
        (true, true) => return wrong("demand and immediate exclude each other: choose one"),
        (false, false) => {
            return wrong("neither demand nor immediate: it would store and never emit");
        }
        _ => {}
    }
    let state = State::default();
    Ok(Box::new(Capacitor { settings, state }))
}

impl Capacitor {
    fn emit(&mut self, mut item: Item, now: i64, out: &mut Out) {
        item.ingest = item.ingest.max(now);
        item.mark(std::mem::take(&mut self.state.owed));
        out.emit(item);
    }

    fn room(&self) -> i64 {
        i64::try_from(self.settings.capacity - self.state.held.len()).unwrap_or(i64::MAX)
    }

    fn store(&mut self, item: Item, out: &mut Out) {
        let held = &mut self.state.held;
        if held.len() < self.settings.capacity {
            out.hold(&item);
            held.push_back(item);
            self.tell(out);
            return;
        }
        match self.settings.overflow {
            Overflow::Reject => {
                out.drop(DropReason::OverflowNewest, &item);
                self.state.owed |= DELIVERY_DROPPED;
                out.side(REJECTED, item.made());
            }
            Overflow::DropOldest => {
                if let Some(lost) = held.pop_front() {
                    out.drop_held(DropReason::OverflowOldest, &lost);
                }
                out.hold(&item);
                held.push_back(item);
                self.state.owed |= DELIVERY_DROPPED;
            }
            Overflow::CoalesceLatest => {
                if let Some(lost) = held.pop_back() {
                    out.drop_held(DropReason::Coalesced, &lost);
                }
                out.hold(&item);
                held.push_back(item);
                self.state.owed |= DELIVERY_COALESCED;
            }
        }
    }

    /// Tell upstream how many more events there is room for.
    fn tell(&self, out: &mut Out) {
        let room = self.room();
        if let Some(last) = self.state.held.back() {
            out.side(UPSTREAM, last.clone().made().with(Value::Int(room)));
        }
    }
}

impl Operator for Capacitor {
    fn ports(&self) -> &'static [&'static str] {
        &["in", "demand"]
    }

    fn sides(&self) -> &'static [&'static str] {
        &["upstream", "rejected"]
    }

    fn on_item(&mut self, port: usize, item: Item, out: &mut Out) {
        let now = item.ingest;
        if port == 0 {
            if self.settings.immediate {
                out.emit(item);
            } else if self.state.credit > 0 {
                self.state.credit -= 1;
                self.emit(item, now, out);
            } else {
                self.store(item, out);
            }
            return;
        }
        let Some(held) = self.state.held.pop_front() else {
            self.state.credit = (self.state.credit + 1).min(self.settings.capacity);
            return;
        };
        out.release(&held);
        let room = self.room();
        out.side(UPSTREAM, item.made().with(Value::Int(room)));
        self.emit(held, now, out);
    }

    fn on_lot(&mut self, port: usize, lot: Lot, _out: &mut Out) -> Ran {
        if port == 0 && self.settings.immediate {
            return Ran::Done(lot);
        }
        Ran::Alone(lot.len(), lot)
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        let depth = self.state.held.len() as u64;
        vec![
            ("depth", depth),
            ("credit", self.state.credit as u64),
            ("demand", self.settings.capacity as u64 - depth),
        ]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&self.state)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        let mut state: State = load(state)?;
        if state.held.len() > self.settings.capacity {
            return Err(BuildError("its state holds more than its capacity".into()));
        }
        // The edges of another life are not ours.
        for item in &mut state.held {
            item.edge = 0;
        }
        self.state = state;
        Ok(())
    }
}
