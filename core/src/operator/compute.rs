//! `map`, `filter`, `key` and `rolling`: expressions and aggregates, item by item.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::fold::{Aggregate, Fold};
use super::trail::Trail;
use super::{BuildError, Item, Operator, Out, config, load, save};
use crate::expr::{Expr, Fault};

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
}

impl Operator for Filter {
    fn on_item(&mut self, _port: usize, item: Item, out: &mut Out) {
        match self.0.holds(&item) {
            Ok(true) => out.emit(item),
            Ok(false) => {}
            Err(fault) => out.fail(fault),
        }
    }
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
            state.fold.enter(&self.aggregate, number);
            state.trail.push(&item);
            if state.trail.len() > size {
                state.fold.leave(&self.aggregate);
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
