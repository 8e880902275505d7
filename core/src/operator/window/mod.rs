//! Windows: `window_count` over the last items, `window_time` over event time, `window_session` over activity.

mod block;
mod count;
mod session;
mod time;

pub(super) use count::build as count;
pub(super) use session::build as session;
pub(super) use time::build as time;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::{Aggregate, BuildError, Item, Out, Trail};
use crate::expr::Fault;
use crate::value::Value;

/// Items a windowed operator holds unless told otherwise.
pub(crate) const ITEMS_DEFAULT: usize = 1 << 20;

fn items_default() -> usize {
    ITEMS_DEFAULT
}

/// What a window makes of its items.
pub(crate) enum Content {
    /// The values as a list.
    Values,
    /// One number.
    Aggregate(Aggregate),
}

impl Content {
    pub(crate) fn compile(aggregate: Option<&Config>) -> Result<Self, BuildError> {
        aggregate.map_or(Ok(Self::Values), |form| {
            Aggregate::compile(form).map(Self::Aggregate)
        })
    }

    /// What is kept of an item: its value, or the number the aggregate takes of it.
    pub(crate) fn keep(&self, item: &Item) -> Result<Value, Fault> {
        match self {
            Self::Values => Ok(item.value.clone()),
            Self::Aggregate(aggregate) => aggregate.number(item).map(Value::Float),
        }
    }

    /// The result over what was kept.
    pub(crate) fn result<'a>(&self, kept: impl Iterator<Item = &'a Value>) -> Value {
        match self {
            Self::Values => Value::List(kept.cloned().collect()),
            Self::Aggregate(aggregate) => aggregate.over(kept.filter_map(Value::number)),
        }
    }
}

/// An item in a window.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) time: i64,
    /// The order in which items came: equal times stay apart, and in it.
    pub(crate) order: u64,
    /// With the value that the content keeps.
    pub(crate) item: Item,
}

/// When and how often a window fired.
pub(crate) struct Firing {
    /// The window's end, ns.
    pub(crate) end: i64,
    /// How often it fired before.
    pub(crate) revision: u64,
    /// Marks of items it lost.
    pub(crate) mark: u64,
    /// The host's clock, ns.
    pub(crate) now: i64,
}

/// Emit a window's result: its end as time, its revision as logical time, its items as parents.
pub(crate) fn emit(
    content: &Content,
    key: Option<&Arc<str>>,
    firing: &Firing,
    kept: &[&Kept],
    out: &mut Out,
) {
    let Some(last) = kept.last() else { return };
    let mut trail = Trail::default();
    for kept in kept {
        trail.push(&kept.item);
    }
    let mut item = last.item.clone();
    trail.stamp(&mut item);
    item.value = content.result(kept.iter().map(|kept| &kept.item.value));
    finish(item, key, firing, out);
}

/// Emit a result as that of a window.
fn finish(mut item: Item, key: Option<&Arc<str>>, firing: &Firing, out: &mut Out) {
    item.key = key.cloned();
    item.time = firing.end;
    item.logical = firing.revision;
    item.ingest = firing.now;
    item.mark(firing.mark);
    out.emit(item);
}
