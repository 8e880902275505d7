//! `partition`: puts items into one of `n` partitions by their key, and measures how evenly they fall (S27).

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::{BuildError, Item, Operator, Out, config, load, save};
use crate::event::mix;
use crate::expr::Expr;

/// Keys whose counts are kept exactly; beyond them the rarest makes room, so that hot keys stay.
const HOT_KEYS: usize = 64;
const PARTITIONS_MAX: usize = 1024;
const NAMES: [&str; 3] = ["largest", "hottest", "items"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    partitions: usize,
    /// The key as an expression; None: the key the item has.
    #[serde(default)]
    by: Option<Config>,
}

struct Partition {
    by: Option<Expr>,
    state: State,
}

#[derive(Serialize, Deserialize)]
struct State {
    sizes: Vec<u64>,
    hot: HashMap<Arc<str>, u64>,
}

pub(super) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let Settings { partitions, by } = config(with)?;
    if !(1..=PARTITIONS_MAX).contains(&partitions) {
        return Err(BuildError(format!("1 to {PARTITIONS_MAX} partitions")));
    }
    let state = State {
        sizes: vec![0; partitions],
        hot: HashMap::new(),
    };
    let by = by.as_ref().map(Expr::compile).transpose()?;
    Ok(Box::new(Partition { by, state }))
}

/// Stable over processes and versions, so that a key stays where it is.
fn place(key: &str, partitions: usize) -> usize {
    let spread = key
        .bytes()
        .fold(0u64, |lane, byte| mix(lane ^ u64::from(byte)));
    (spread % partitions as u64) as usize
}

impl Operator for Partition {
    fn on_item(&mut self, _port: usize, mut item: Item, out: &mut Out) {
        if let Some(by) = &self.by {
            match by.eval(&item).map(|value| value.key()) {
                Ok(Some(key)) => item.key = Some(key),
                Ok(None) => return out.fail("a partition key that is no text, int, float or bool"),
                Err(fault) => return out.fail(fault),
            }
        }
        let Some(key) = item.key.clone() else {
            return out.fail("an item without a partition key");
        };
        let at = place(&key, self.state.sizes.len());
        self.state.sizes[at] += 1;
        let hot = &mut self.state.hot;
        if hot.len() >= HOT_KEYS && !hot.contains_key(&key) {
            // Space-saving: a newcomer inherits the count of the rarest, so no hot key is missed.
            let rarest = hot
                .iter()
                .min_by_key(|(key, count)| (**count, (*key).clone()));
            if let Some((gone, count)) = rarest.map(|(gone, count)| (gone.clone(), *count)) {
                hot.remove(&gone);
                hot.insert(key.clone(), count);
            }
        }
        *hot.entry(key).or_default() += 1;
        out.emit(item);
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        let items = self.state.sizes.iter().sum();
        let largest = self.state.sizes.iter().copied().max().unwrap_or(0);
        let hottest = self.state.hot.values().copied().max().unwrap_or(0);
        NAMES.into_iter().zip([largest, hottest, items]).collect()
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        let sorted: std::collections::BTreeMap<_, _> = self.state.hot.iter().collect();
        save(&(&self.state.sizes, sorted))
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        let (sizes, hot): (Vec<u64>, _) = load(state)?;
        if sizes.len() != self.state.sizes.len() {
            return Err(BuildError("a state of another number of partitions".into()));
        }
        self.state = State { sizes, hot };
        Ok(())
    }
}
