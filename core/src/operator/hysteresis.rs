//! `hysteresis`: true from `high` on until it falls to `low`; a result for each change, and for the first item.
//! `carry`: what goes through keeps the taints of all that went through before it.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value as Config;

use super::compute::KEYS_DEFAULT;
use super::{BuildError, Item, Operator, Out, config, load, save};
use crate::expr::Expr;
use crate::registry::DropReason;
use crate::value::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    low: f64,
    high: f64,
    #[serde(default)]
    of: Option<Config>,
}

struct Hysteresis {
    low: f64,
    high: f64,
    of: Expr,
    on: HashMap<Option<Arc<str>>, bool>,
}

pub(super) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let Settings { low, high, of } = config(with)?;
    if low.is_nan() || high.is_nan() || low > high {
        return Err(BuildError("low has to be at most high".into()));
    }
    let of = of.map_or(Ok(Expr::Value), |of| Expr::compile(&of))?;
    Ok(Box::new(Hysteresis {
        low,
        high,
        of,
        on: HashMap::new(),
    }))
}

impl Operator for Hysteresis {
    fn on_item(&mut self, _port: usize, item: Item, out: &mut Out) {
        let number = match self.of.value(&item).map(|value| value.number()) {
            Ok(Some(number)) => number,
            Ok(None) => return out.fail("a value that is no number"),
            Err(fault) => return out.fail(fault),
        };
        if self.on.len() >= KEYS_DEFAULT && !self.on.contains_key(&item.key) {
            return out.fail("more partition keys than are kept");
        }
        let before = self.on.get(&item.key).copied();
        let now = if before == Some(true) {
            number > self.low
        } else {
            number >= self.high
        };
        if before == Some(now) {
            return out.drop(DropReason::Coalesced, &item);
        }
        self.on.insert(item.key.clone(), now);
        out.emit(item.with(Value::Bool(now)));
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        let sorted: std::collections::BTreeMap<_, _> = self.on.iter().collect();
        save(&sorted)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        self.on = load(state)?;
        Ok(())
    }
}

#[derive(Default)]
struct Carry(u64);

/// Behind a function of the host's that keeps a state: the engine cannot see into it, so every mark stays (S28).
pub(super) fn carry() -> Box<dyn Operator> {
    Box::new(Carry::default())
}

impl Operator for Carry {
    fn on_item(&mut self, _port: usize, mut item: Item, out: &mut Out) {
        self.0 |= item.taints;
        item.mark(self.0);
        out.emit(item);
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&self.0)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        self.0 = load(state)?;
        Ok(())
    }
}
