//! `join_latest` and `lookup_join` (S26): pairs of the latest values of two or more inputs. Both sides are parents.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::compute::{Keys, keys_default};
use super::{BuildError, Column, Item, Lot, Operator, Out, Ran, config, load, save};
use crate::registry::{DELIVERY_DROPPED, DET_EXTERNAL_LOOKUP, DropReason};
use crate::value::Value;

/// Inputs of one join.
const SIDES: &[&str] = &[
    "left", "right", "third", "fourth", "fifth", "sixth", "seventh", "eighth",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LatestSettings {
    #[serde(default = "two")]
    inputs: usize,
    /// Only items of one partition key go together.
    #[serde(default)]
    keyed: bool,
    /// The key as an expression, one for each input.
    #[serde(default)]
    by: Vec<Config>,
    #[serde(default = "keys_default")]
    keys_max: usize,
}

fn two() -> usize {
    2
}

type Key = Option<Arc<str>>;

struct Latest {
    by: Keys,
    inputs: usize,
    keyed: bool,
    keys_max: usize,
    known: HashMap<Key, Vec<Option<Item>>>,
}

pub(super) fn latest(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let LatestSettings {
        inputs,
        keyed,
        by,
        keys_max,
    } = config(with)?;
    let keyed = keyed || !by.is_empty();
    let by = Keys::compile(&by)?;
    if !(2..=SIDES.len()).contains(&inputs) {
        return Err(BuildError(format!("a join of 2 to {} inputs", SIDES.len())));
    }
    let keys_max = keys_max.max(1);
    Ok(Box::new(Latest {
        by,
        inputs,
        keyed,
        keys_max,
        known: HashMap::new(),
    }))
}

/// One item of several, caused by `main`: the values in order, all as parents.
fn combine<'a>(main: &Item, parts: impl Iterator<Item = Option<&'a Item>>) -> Item {
    let mut item = main.clone().made();
    let mut values = Vec::new();
    for part in parts {
        values.push(part.map_or(Value::None, |part| part.value.clone()));
        if let Some(part) = part.filter(|part| part.id != main.id) {
            item.also(part);
        }
    }
    item.value = Value::List(values.into());
    item
}

impl Operator for Latest {
    fn ports(&self) -> &'static [&'static str] {
        &SIDES[..self.inputs]
    }

    fn on_item(&mut self, port: usize, mut item: Item, out: &mut Out) {
        if let Err(fault) = self.by.set(port, &mut item) {
            return out.fail(fault);
        }
        let key = if self.keyed { item.key.clone() } else { None };
        if self.known.len() >= self.keys_max && !self.known.contains_key(&key) {
            return out.fail("more partition keys than keys_max");
        }
        let sides = self
            .known
            .entry(key)
            .or_insert_with(|| vec![None; self.inputs]);
        sides[port] = Some(item.clone());
        // Another side changes in this turn too: a result now would be half of the change.
        if out.more_on_other_ports() || sides.iter().any(Option::is_none) {
            return;
        }
        out.emit(combine(&item, sides.iter().map(Option::as_ref)));
    }

    fn on_lot(&mut self, port: usize, mut lot: Lot, out: &mut Out) -> Ran {
        let alone = if self.known.is_empty() { 1 } else { lot.len() };
        let whole = self.inputs == 2 && !self.keyed && !out.more_on_other_ports();
        let Some(sides) = self.known.get_mut(&None).filter(|_| whole) else {
            return Ran::Alone(if whole { alone } else { lot.len() }, lot);
        };
        let last = lot.item(lot.len() - 1);
        let Some(other) = sides[1 - port].clone() else {
            sides[port] = Some(last);
            return Ran::Items(Vec::new(), None);
        };
        if !lot.also(&other) {
            return Ran::Alone(lot.len(), lot);
        }
        sides[port] = Some(last);
        let own = std::mem::replace(&mut lot.values, Column::Same(Value::None));
        let mut columns = vec![own, Column::Same(other.value.clone())];
        if port == 1 {
            columns.swap(0, 1);
        }
        lot.values = Column::Zip(columns);
        Ran::Done(lot)
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![("keys", self.known.len() as u64)]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        let sorted: BTreeMap<_, _> = self.known.iter().collect();
        save(&sorted)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        self.known = load(state)?;
        Ok(())
    }
}

/// What becomes of a left item whose right side is not known.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Missing {
    Drop,
    Wait,
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LookupSettings {
    #[serde(default = "drop_it")]
    missing: Missing,
    /// How long to wait, ns of the host's clock.
    #[serde(default)]
    wait: Option<i64>,
    #[serde(default = "waiting_default")]
    waiting_max: usize,
    #[serde(default)]
    keyed: bool,
    /// The key as an expression, one for each input.
    #[serde(default)]
    by: Vec<Config>,
    /// False: the right side cannot be read again as it was, so a replay may differ.
    #[serde(default = "versioned_default")]
    versioned: bool,
    #[serde(default = "keys_default")]
    keys_max: usize,
}

fn drop_it() -> Missing {
    Missing::Drop
}

fn waiting_default() -> usize {
    1024
}

fn versioned_default() -> bool {
    true
}

#[derive(Default, Serialize, Deserialize)]
struct LookupState {
    right: BTreeMap<Key, Item>,
    waiting: VecDeque<Item>,
    mark: u64,
}

struct Lookup {
    by: Keys,
    settings: LookupSettings,
    state: LookupState,
}

pub(super) fn lookup(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let mut settings: LookupSettings = config(with)?;
    settings.keyed |= !settings.by.is_empty();
    if (settings.missing == Missing::Wait) != settings.wait.is_some_and(|wait| wait > 0) {
        return Err(BuildError(
            "`wait` goes with a time to wait, above 0".into(),
        ));
    }
    Ok(Box::new(Lookup {
        by: Keys::compile(&settings.by)?,
        settings,
        state: LookupState::default(),
    }))
}

impl Lookup {
    fn key(&self, item: &Item) -> Key {
        if self.settings.keyed {
            item.key.clone()
        } else {
            None
        }
    }

    fn emit(&mut self, left: &Item, right: Option<&Item>, out: &mut Out) {
        let mut item = combine(left, [Some(left), right].into_iter());
        item.mark(std::mem::take(&mut self.state.mark));
        if !self.settings.versioned {
            item.mark(DET_EXTERNAL_LOOKUP);
        }
        out.emit(item);
    }

    fn left(&mut self, item: Item, out: &mut Out) {
        let key = self.key(&item);
        if let Some(right) = self.state.right.get(&key).cloned() {
            return self.emit(&item, Some(&right), out);
        }
        match self.settings.missing {
            Missing::None => self.emit(&item, None, out),
            Missing::Drop => {
                self.state.mark |= DELIVERY_DROPPED;
                out.drop(DropReason::Expired, &item);
            }
            Missing::Wait => {
                out.hold(&item);
                self.state.waiting.push_back(item);
                if self.state.waiting.len() > self.settings.waiting_max {
                    self.give_up(DropReason::OverflowOldest, out);
                }
            }
        }
    }

    fn give_up(&mut self, reason: DropReason, out: &mut Out) {
        if let Some(item) = self.state.waiting.pop_front() {
            self.state.mark |= DELIVERY_DROPPED;
            out.drop_held(reason, &item);
        }
    }

    fn right(&mut self, item: &Item, out: &mut Out) {
        let key = self.key(item);
        if self.state.right.len() >= self.settings.keys_max && !self.state.right.contains_key(&key)
        {
            return out.fail("more partition keys than keys_max");
        }
        self.state.right.insert(key.clone(), item.clone());
        for left in std::mem::take(&mut self.state.waiting) {
            if self.key(&left) == key {
                out.release(&left);
                self.emit(&left, Some(item), out);
            } else {
                self.state.waiting.push_back(left);
            }
        }
    }
}

impl Operator for Lookup {
    fn ports(&self) -> &'static [&'static str] {
        &SIDES[..2]
    }

    fn on_item(&mut self, port: usize, mut item: Item, out: &mut Out) {
        self.on_time(item.ingest, out);
        if let Err(fault) = self.by.set(port, &mut item) {
            return out.fail(fault);
        }
        if port == 0 {
            self.left(item, out);
        } else {
            self.right(&item, out);
        }
    }

    fn on_lot(&mut self, port: usize, mut lot: Lot, out: &mut Out) -> Ran {
        self.on_time(lot.ingest(0), out);
        let right = self.state.right.get(&None);
        let Some(right) = right.filter(|_| port == 0 && !self.settings.keyed) else {
            return Ran::Alone(lot.len(), lot);
        };
        if self.state.mark != 0 {
            return Ran::Alone(1, lot);
        }
        if !lot.also(right) {
            return Ran::Alone(lot.len(), lot);
        }
        if !self.settings.versioned {
            lot.mark(DET_EXTERNAL_LOOKUP);
        }
        let left = std::mem::replace(&mut lot.values, Column::Same(Value::None));
        lot.values = Column::Zip(vec![left, Column::Same(right.value.clone())]);
        Ran::Done(lot)
    }

    fn timed(&self) -> bool {
        self.settings.wait.is_some()
    }

    fn deadline(&self) -> Option<i64> {
        let first = self.state.waiting.front()?;
        Some(first.ingest.saturating_add(self.settings.wait?))
    }

    fn on_time(&mut self, now: i64, out: &mut Out) {
        while self.deadline().is_some_and(|due| due <= now) {
            self.give_up(DropReason::Expired, out);
        }
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        let (right, waiting) = (self.state.right.len(), self.state.waiting.len());
        vec![("keys", right as u64), ("waiting", waiting as u64)]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&self.state)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        self.state = load(state)?;
        Ok(())
    }
}
