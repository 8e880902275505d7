//! `interval_join` (S26): pairs of equal key whose event times are at most `within` apart, each pair once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::compute::Keys;
use super::watermark::{Clock, TimeSettings, Watermark, watermark_of};
use super::window::ITEMS_DEFAULT;
use super::{BuildError, Item, Operator, Out, config, load, save};
use crate::event::EventId;
use crate::registry::{DELIVERY_DROPPED, DropReason};
use crate::value::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    within: i64,
    clock: TimeSettings,
    /// Pair everything with everything: only where that is meant.
    #[serde(default)]
    unsafe_cross: bool,
    /// The key as an expression, one for each side.
    #[serde(default)]
    by: Vec<Config>,
    #[serde(default = "items_default")]
    items_max: usize,
}

fn items_default() -> usize {
    ITEMS_DEFAULT
}

type ByTime = BTreeMap<(i64, u64), Item>;

#[derive(Default, Serialize, Deserialize)]
struct Side {
    /// By key, then time and order.
    kept: BTreeMap<Option<Arc<str>>, ByTime>,
    ids: BTreeSet<EventId>,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    sides: [Side; 2],
    watermark: Watermark,
    order: u64,
    late: u64,
    duplicates: u64,
    mark: u64,
}

struct Interval {
    by: Keys,
    within: i64,
    unsafe_cross: bool,
    clock: Clock,
    items_max: usize,
    state: State,
}

pub(super) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let Settings {
        within,
        clock,
        unsafe_cross,
        by,
        items_max,
    } = config(with)?;
    if within < 0 {
        return Err(BuildError("within cannot be negative".into()));
    }
    Ok(Box::new(Interval {
        by: Keys::compile(&by)?,
        within,
        unsafe_cross,
        clock: Clock::compile(&clock)?.of_ports(if clock.watermark { 1 } else { 2 }),
        items_max: items_max.max(1),
        state: State::default(),
    }))
}

impl Interval {
    fn items(&self) -> usize {
        self.state.sides.iter().map(|side| side.ids.len()).sum()
    }

    fn pair(&mut self, port: usize, mut item: Item, out: &mut Out) {
        if let Err(fault) = self.by.set(port, &mut item) {
            return out.fail(fault);
        }
        let time = match self.clock.time_of(&item) {
            Ok(time) => time,
            Err(fault) => return out.fail(fault),
        };
        if !self.unsafe_cross && item.key.is_none() {
            return out.fail("an item without a partition key in a join by key");
        }
        if self.state.watermark.too_late(time, &self.clock) {
            self.state.late += 1;
            out.drop(DropReason::Late, &item);
            return out.side(port, item.made());
        }
        if self.state.sides[port].ids.contains(&item.id) {
            self.state.duplicates += 1;
            return out.drop(DropReason::Coalesced, &item);
        }
        if self.items() >= self.items_max {
            self.state.mark |= DELIVERY_DROPPED;
            return out.drop(DropReason::OverflowNewest, &item);
        }
        let key = if self.unsafe_cross {
            None
        } else {
            item.key.clone()
        };
        let (from, to) = (
            time.saturating_sub(self.within),
            time.saturating_add(self.within),
        );
        if let Some(others) = self.state.sides[1 - port].kept.get(&key) {
            for other in others
                .range((from, 0)..=(to, u64::MAX))
                .map(|(_, other)| other)
            {
                let mut made = item.clone().made();
                made.also(other);
                let (left, right) = if port == 0 {
                    (&item, other)
                } else {
                    (other, &item)
                };
                made.value = Value::List([left.value.clone(), right.value.clone()].into());
                made.mark(std::mem::take(&mut self.state.mark));
                out.emit(made);
            }
        }
        let source = item.clone();
        self.state.order += 1;
        let order = self.state.order;
        let side = &mut self.state.sides[port];
        side.ids.insert(item.id);
        side.kept
            .entry(key)
            .or_default()
            .insert((time, order), item);
        if !self.clock.watermark
            && self
                .state
                .watermark
                .advance(&self.clock, port, &source, time)
        {
            self.forget();
        }
    }

    fn forget(&mut self) {
        let Some(at) = self.state.watermark.at() else {
            return;
        };
        // An item is of no more use once every item it could meet would be too late.
        let over = at
            .saturating_sub(self.clock.grace)
            .saturating_sub(self.within);
        for side in &mut self.state.sides {
            for kept in side.kept.values_mut() {
                let rest = kept.split_off(&(over.saturating_add(1), 0));
                for gone in std::mem::replace(kept, rest).into_values() {
                    side.ids.remove(&gone.id);
                }
            }
            side.kept.retain(|_, kept| !kept.is_empty());
        }
    }
}

impl Operator for Interval {
    fn ports(&self) -> &'static [&'static str] {
        if self.clock.watermark {
            &["left", "right", "watermark"]
        } else {
            &["left", "right"]
        }
    }

    fn sides(&self) -> &'static [&'static str] {
        &["late_left", "late_right"]
    }

    fn on_item(&mut self, port: usize, item: Item, out: &mut Out) {
        if port < 2 {
            return self.pair(port, item, out);
        }
        let time = watermark_of(&item);
        if self.state.watermark.advance(&self.clock, port, &item, time) {
            self.forget();
        }
    }

    fn timed(&self) -> bool {
        self.clock.timed()
    }

    fn deadline(&self) -> Option<i64> {
        self.state.watermark.deadline(&self.clock)
    }

    fn on_time(&mut self, now: i64, _out: &mut Out) {
        if self.state.watermark.settle(&self.clock, now) {
            self.forget();
        }
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("left", self.state.sides[0].ids.len() as u64),
            ("right", self.state.sides[1].ids.len() as u64),
            ("late", self.state.late),
            ("duplicates", self.state.duplicates),
        ]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&self.state)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        self.state = load(state)?;
        Ok(())
    }
}
