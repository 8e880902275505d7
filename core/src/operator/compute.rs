//! `map`, `filter`, `key` and `rolling`: expressions and aggregates, item by item.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::fold::{Aggregate, Fold};
use super::trail::Trail;
use super::{BuildError, Column, Item, Lot, Operator, Out, Ran, config, load, save};
use crate::expr::{Expr, Fault};
use crate::value::Value;

/// Partition keys with a state of their own unless told otherwise; items of further keys are failures.
pub(super) const KEYS_DEFAULT: usize = 65_536;
/// The longest rolling window.
const SIZE_MAX: usize = 16_777_216;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfExpr {
    expr: Config,
}

fn compile(with: &Config) -> Result<Expr, BuildError> {
    Expr::compile(&config::<OfExpr>(with)?.expr)
}

struct Map(Expr);
struct Filter(Expr);
struct Key(Expr);

pub(super) fn map(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    Ok(Box::new(Map(compile(with)?)))
}

pub(super) fn filter(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    Ok(Box::new(Filter(compile(with)?)))
}

pub(super) fn key(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    Ok(Box::new(Key(compile(with)?)))
}

impl Operator for Map {
    fn on_item(&mut self, _port: usize, mut item: Item, out: &mut Out) {
        match self.0.value(&item) {
            Ok(value) => {
                item.value = value;
                out.emit(item);
            }
            Err(fault) => out.fail(fault),
        }
    }

    fn on_lot(&mut self, _port: usize, mut lot: Lot, out: &mut Out) -> Ran {
        if let Some(column) = self.0.column(&lot) {
            lot.values = column;
            return Ran::Done(lot);
        }
        let mut values = Vec::with_capacity(lot.len());
        let picks = each(&lot, out, |item| {
            values.push(self.0.value(item)?);
            Ok(true)
        });
        lot.values = Column::Same(Value::None);
        lot.keep(picks);
        lot.values = Column::of(values);
        Ran::Done(lot)
    }
}

impl Operator for Filter {
    fn on_item(&mut self, _port: usize, item: Item, out: &mut Out) {
        match self.0.holds(&item) {
            Ok(true) => out.emit(item),
            Ok(false) => {}
            Err(fault) => out.fail(fault),
        }
    }

    fn on_lot(&mut self, _port: usize, mut lot: Lot, out: &mut Out) -> Ran {
        let picks = self.0.picks(&lot);
        let picks = picks.unwrap_or_else(|| each(&lot, out, |item| self.0.holds(item)));
        lot.keep(picks);
        Ran::Done(lot)
    }
}

/// The rows of a lot for which `holds`; those that fault are failures. One item is reused for all.
fn each(lot: &Lot, out: &mut Out, mut holds: impl FnMut(&Item) -> Result<bool, Fault>) -> Vec<u32> {
    let mut picks = Vec::with_capacity(lot.len());
    let mut item = lot.item_with(0, Value::None);
    for row in 0..lot.len() {
        item.value = lot.values.get(row);
        item.time = lot.times.get(row);
        item.ingest = lot.ingest(row);
        item.key = lot.keys.as_ref().map(|keys| keys[row].clone());
        match holds(&item) {
            Ok(true) => picks.push(row as u32),
            Ok(false) => {}
            Err(fault) => out.fail_row(lot.row(row), fault),
        }
    }
    picks
}

impl Operator for Key {
    fn on_item(&mut self, _port: usize, mut item: Item, out: &mut Out) {
        match self.0.eval(&item).map(|value| value.key()) {
            Ok(Some(key)) => {
                item.key = Some(key);
                out.emit(item);
            }
            Ok(None) => out.fail("a partition key that is no text, int, float or bool"),
            Err(fault) => out.fail(fault),
        }
    }

    fn on_lot(&mut self, _port: usize, mut lot: Lot, out: &mut Out) -> Ran {
        let mut keys = Vec::with_capacity(lot.len());
        let picks = each(&lot, out, |item| {
            let key = self.0.eval(item)?.key();
            keys.push(key.ok_or("a partition key that is no text, int, float or bool")?);
            Ok(true)
        });
        lot.keep(picks);
        lot.keys = Some(keys);
        Ran::Done(lot)
    }
}

/// Partition keys as expressions, one for each input of a join.
#[derive(Default)]
pub(super) struct Keys(Vec<Expr>);

impl Keys {
    pub(super) fn compile(forms: &[Config]) -> Result<Self, BuildError> {
        forms
            .iter()
            .map(Expr::compile)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Set the key of an item of that input.
    pub(super) fn set(&self, port: usize, item: &mut Item) -> Result<(), Fault> {
        if let Some(by) = self.0.get(port) {
            let key = by.eval(item)?.key();
            item.key = Some(key.ok_or("a partition key that is no text, int, float or bool")?);
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RollingSettings {
    aggregate: Config,
    /// Items; None: all since the beginning.
    #[serde(default)]
    size: Option<usize>,
    #[serde(default = "keys_default")]
    keys_max: usize,
}

pub(super) fn keys_default() -> usize {
    KEYS_DEFAULT
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    fold: Fold,
    trail: Trail,
    /// Taints of everything, where nothing ever leaves.
    taints: u64,
}

struct Rolling {
    aggregate: Aggregate,
    size: Option<usize>,
    keys_max: usize,
    plain: State,
    keyed: HashMap<Arc<str>, State>,
}

pub(super) fn rolling(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let RollingSettings {
        aggregate,
        size,
        keys_max,
    } = config(with)?;
    if size.is_some_and(|size| size == 0 || size > SIZE_MAX) {
        return Err(BuildError(format!(
            "size has to be between 1 and {SIZE_MAX}"
        )));
    }
    Ok(Box::new(Rolling {
        aggregate: Aggregate::compile(&aggregate)?,
        size,
        keys_max: keys_max.max(1),
        plain: State::default(),
        keyed: HashMap::new(),
    }))
}

impl Operator for Rolling {
    fn on_item(&mut self, _port: usize, mut item: Item, out: &mut Out) {
        let number = match self.aggregate.number(&item) {
            Ok(number) => number,
            Err(fault) => return out.fail(fault),
        };
        let state = match &item.key {
            None => &mut self.plain,
            Some(key) => {
                if self.keyed.len() >= self.keys_max && !self.keyed.contains_key(key) {
                    return out.fail("more partition keys than keys_max");
                }
                self.keyed.entry(key.clone()).or_default()
            }
        };
        if let Some(size) = self.size {
            state.fold.slide(&self.aggregate, number, size);
            state.trail.push(&item);
            if state.trail.len() > size {
                state.trail.pop();
            }
            state.trail.stamp(&mut item);
        } else {
            // Everything is a parent; only the last is named, and the marks of all stay (S28).
            state.fold.push(&self.aggregate, number);
            state.taints |= item.taints;
            item.mark(state.taints);
        }
        item.value = state.fold.value(&self.aggregate);
        out.emit(item);
    }

    fn on_lot(&mut self, _port: usize, mut lot: Lot, _out: &mut Out) -> Ran {
        let Some(numbers) = self.aggregate.numbers(&lot).filter(|_| lot.keys.is_none()) else {
            return Ran::Alone(lot.len(), lot);
        };
        let State {
            fold,
            trail,
            taints,
        } = &mut self.plain;
        let Some(size) = self.size else {
            *taints |= lot.common.taints;
            lot.mark(*taints);
            lot.values = fold.over_all(&self.aggregate, &numbers);
            return Ran::Done(lot);
        };
        let alone = trail.alone(&lot, size);
        if alone > 0 {
            return Ran::Alone(alone, lot);
        }
        lot.values = fold.slide_over(&self.aggregate, &numbers, size);
        trail.slide_over(&mut lot, size);
        Ran::Done(lot)
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![("keys", self.keyed.len() as u64)]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        let sorted: std::collections::BTreeMap<_, _> = self.keyed.iter().collect();
        save(&(&self.plain, sorted))
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        (self.plain, self.keyed) = load(state)?;
        Ok(())
    }
}
