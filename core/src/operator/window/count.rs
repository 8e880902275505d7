//! The last `size` items of each partition (S23).

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::Content;
use crate::operator::compute::keys_default;
use crate::operator::{BuildError, Item, Operator, Out, Trail, config, load, save};
use crate::value::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    size: usize,
    #[serde(default)]
    aggregate: Option<Config>,
    /// Nothing before a window is full.
    #[serde(default)]
    full_only: bool,
    /// Results on a pulse of the second port only, for all partitions in the order they came.
    #[serde(default)]
    trigger: bool,
    /// A pulse empties the windows.
    #[serde(default)]
    flush: bool,
    /// Partitions without an item for so long (host's clock, ns) are forgotten.
    #[serde(default)]
    idle: Option<i64>,
    #[serde(default = "keys_default")]
    keys_max: usize,
}

#[derive(Default, Serialize, Deserialize)]
struct Partition {
    first: u64,
    seen: i64,
    values: VecDeque<Value>,
    trail: Trail,
    last: Item,
}

struct CountWindow {
    settings: Settings,
    content: Content,
    partitions: HashMap<Option<Arc<str>>, Partition>,
    arrived: u64,
}

pub(in crate::operator) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let settings: Settings = config(with)?;
    if settings.size == 0 || settings.idle.is_some_and(|idle| idle <= 0) {
        return Err(BuildError("size and idle have to be above 0".into()));
    }
    Ok(Box::new(CountWindow {
        content: Content::compile(settings.aggregate.as_ref())?,
        settings,
        partitions: HashMap::new(),
        arrived: 0,
    }))
}

impl CountWindow {
    fn result(&self, partition: &Partition, now: i64) -> Item {
        let mut item = partition.last.clone();
        partition.trail.stamp(&mut item);
        item.ingest = now;
        item.value = self.content.result(partition.values.iter());
        item
    }

    fn pulse(&mut self, now: i64, out: &mut Out) {
        let mut order: Vec<_> = self.partitions.values().collect();
        order.sort_by_key(|partition| partition.first);
        for partition in order {
            if !self.settings.full_only || partition.values.len() == self.settings.size {
                out.emit(self.result(partition, now));
            }
        }
        if self.settings.flush {
            self.partitions.clear();
        }
    }

    fn expire(&mut self, now: i64) {
        if let Some(idle) = self.settings.idle {
            self.partitions
                .retain(|_, partition| partition.seen.saturating_add(idle) > now);
        }
    }
}

impl Operator for CountWindow {
    fn ports(&self) -> &'static [&'static str] {
        if self.settings.trigger {
            &["in", "trigger"]
        } else {
            &["in"]
        }
    }

    fn on_item(&mut self, port: usize, item: Item, out: &mut Out) {
        let now = item.ingest;
        if port == 1 {
            self.expire(now);
            return self.pulse(now, out);
        }
        let kept = match self.content.keep(&item) {
            Ok(kept) => kept,
            Err(fault) => return out.fail(fault),
        };
        if !self.partitions.contains_key(&item.key)
            && self.partitions.len() >= self.settings.keys_max
        {
            self.expire(now);
            if self.partitions.len() >= self.settings.keys_max {
                return out.fail("more partitions than keys_max");
            }
        }
        let partition = self.partitions.entry(item.key.clone()).or_default();
        // A partition that was silent for too long begins anew.
        if self
            .settings
            .idle
            .is_some_and(|idle| partition.seen.saturating_add(idle) <= now)
        {
            *partition = Partition::default();
        }
        if partition.values.is_empty() {
            self.arrived += 1;
            partition.first = self.arrived;
        }
        partition.seen = now;
        partition.values.push_back(kept);
        partition.trail.push(&item);
        partition.last = item;
        if partition.values.len() > self.settings.size {
            partition.values.pop_front();
            partition.trail.pop();
        }
        let full = partition.values.len() == self.settings.size;
        if !self.settings.trigger && (full || !self.settings.full_only) {
            let key = partition.last.key.clone();
            out.emit(self.result(&self.partitions[&key], now));
        }
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        let items = self
            .partitions
            .values()
            .map(|partition| partition.values.len() as u64)
            .sum();
        vec![
            ("partitions", self.partitions.len() as u64),
            ("items", items),
        ]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        let sorted: std::collections::BTreeMap<_, _> = self.partitions.iter().collect();
        save(&(sorted, self.arrived))
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        (self.partitions, self.arrived) = load(state)?;
        Ok(())
    }
}
