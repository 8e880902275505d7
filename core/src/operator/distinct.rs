//! `distinct`: a value that equals the one before it, of the same partition key, goes no further.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value as Config;

use super::{BuildError, Item, Lot, Operator, Out, Ran, config, load, save};
use crate::registry::DropReason;
use crate::value::Value;

/// Partition keys remembered unless told otherwise.
const KEYS_DEFAULT: usize = 65_536;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    keys_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keys_max: KEYS_DEFAULT,
        }
    }
}

struct Distinct {
    keys_max: usize,
    last: HashMap<Option<Arc<str>>, Value>,
}

pub(super) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let Settings { keys_max } = config(with)?;
    Ok(Box::new(Distinct {
        keys_max: keys_max.max(1),
        last: HashMap::new(),
    }))
}

impl Operator for Distinct {
    fn on_item(&mut self, _port: usize, item: Item, out: &mut Out) {
        if let Some(last) = self.last.get_mut(&item.key) {
            if last.same(&item.value) {
                out.drop(DropReason::Coalesced, &item);
                return;
            }
            *last = item.value.clone();
        } else if self.last.len() < self.keys_max {
            self.last.insert(item.key.clone(), item.value.clone());
        }
        out.emit(item);
    }

    fn on_lot(&mut self, _port: usize, mut lot: Lot, out: &mut Out) -> Ran {
        let room = self.last.len() < self.keys_max;
        let Some(last) = self.last.get_mut(&None).filter(|_| lot.keys.is_none()) else {
            let first = room && lot.keys.is_none();
            return Ran::Alone(if first { 1 } else { lot.len() }, lot);
        };
        let mut picks = Vec::with_capacity(lot.len());
        for row in 0..lot.len() {
            let value = lot.values.get(row);
            if last.same(&value) {
                out.drop(DropReason::Coalesced, &lot.item_with(row, value));
            } else {
                *last = value;
                picks.push(row as u32);
            }
        }
        lot.keep(picks);
        Ran::Done(lot)
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![("keys", self.last.len() as u64)]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        let sorted: std::collections::BTreeMap<_, _> = self.last.iter().collect();
        save(&sorted)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        self.last = load(state)?;
        Ok(())
    }
}
