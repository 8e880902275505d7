//! `fan_in`: several routes become one, in an order that was chosen (S33).
//!
//! - `timestamp`: by device time. An event waits until every source has got as far, or has been silent for `wait_ns`. One
//!   that comes behind what was emitted goes to `late`, counted.
//! - `priority`: events that come within `wait_ns` of each other go in the order of their sources.
//! - `partition`: a key belongs to the source it first came from, which keeps its order; from another it is refused.
//! - `unsafe`: as they come, tainted.
//!
//! What waits is bounded by `budget`: beyond it the first in order goes early, and is tainted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::scatter::{NUMBERED, WAYS_MAX};
use super::{BuildError, Item, Operator, Out, config, load, save};
use crate::registry::{DropReason, ORDER_POSSIBLY_OUT_OF_ORDER};

const BUDGET_MAX: usize = 1 << 20;
const KEYS_MAX: usize = 65_536;
const LATE: usize = 0;

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Order {
    Timestamp,
    Priority,
    Partition,
    Unsafe,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    sources: usize,
    order: Order,
    budget: usize,
    wait_ns: i64,
}

struct FanIn {
    settings: Settings,
    state: State,
}

/// (time or source, the number of its coming): the order in which what waits will go.
type Place = (i64, u64);

#[derive(Default, Serialize, Deserialize)]
struct State {
    waiting: BTreeMap<Place, Item>,
    came: u64,
    /// Per source: device time of its newest event, and when it came.
    heard: Vec<Option<(i64, i64)>>,
    /// When the first source was heard: one that never speaks is silent since then.
    began: Option<i64>,
    emitted: Option<i64>,
    owners: HashMap<Arc<str>, usize>,
    /// When what waits goes by priority.
    due: Option<i64>,
    /// The latest moment it was told of.
    now: i64,
}

pub(super) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let settings: Settings = config(with)?;
    let wrong = |what: &str| Err(BuildError(what.into()));
    if !(1..=WAYS_MAX).contains(&settings.sources) {
        return wrong("sources is 1 to 64");
    }
    if !(1..=BUDGET_MAX).contains(&settings.budget) {
        return wrong("budget is 1 to 1048576");
    }
    if settings.wait_ns <= 0 {
        return wrong("wait_ns is above 0");
    }
    let state = State {
        heard: vec![None; settings.sources],
        ..State::default()
    };
    Ok(Box::new(FanIn { settings, state }))
}

impl FanIn {
    fn wait(&mut self, rank: i64, item: Item, out: &mut Out) {
        out.hold(&item);
        self.state.waiting.insert((rank, self.state.came), item);
        self.state.came += 1;
        while self.state.waiting.len() > self.settings.budget {
            self.release_first(ORDER_POSSIBLY_OUT_OF_ORDER, 0, out);
        }
    }

    fn release_first(&mut self, taints: u64, now: i64, out: &mut Out) {
        if let Some((_, mut item)) = self.state.waiting.pop_first() {
            out.release(&item);
            if self.settings.order == Order::Timestamp {
                self.state.emitted = Some(item.time.max(self.state.emitted.unwrap_or(item.time)));
            }
            item.ingest = item.ingest.max(now);
            item.mark(taints);
            out.emit(item);
        }
    }

    /// How far every source has got that is not silent; None while one that may yet speak has said nothing.
    fn watermark(&self, now: i64) -> Option<i64> {
        let silent = |since: i64| now.saturating_sub(since) >= self.settings.wait_ns;
        let began = self.state.began.unwrap_or(now);
        let mut lowest = i64::MAX;
        for heard in &self.state.heard {
            match heard {
                None if silent(began) => {}
                None => return None,
                Some((_, came)) if silent(*came) => {}
                Some((time, _)) => lowest = lowest.min(*time),
            }
        }
        Some(lowest)
    }

    fn release_ripe(&mut self, now: i64, out: &mut Out) {
        let Some(watermark) = self.watermark(now) else {
            return;
        };
        while (self.state.waiting.first_key_value())
            .is_some_and(|((time, _), _)| *time <= watermark)
        {
            self.release_first(0, now, out);
        }
    }

    fn by_time(&mut self, port: usize, item: Item, out: &mut Out) {
        let now = item.ingest;
        self.state.began.get_or_insert(now);
        let newest = self.state.heard[port].map_or(item.time, |(time, _)| time.max(item.time));
        self.state.heard[port] = Some((newest, now));
        if self
            .state
            .emitted
            .is_some_and(|emitted| item.time < emitted)
        {
            out.drop(DropReason::Late, &item);
            return out.side(LATE, item.made());
        }
        self.wait(item.time, item, out);
        self.release_ripe(now, out);
    }

    fn by_priority(&mut self, port: usize, item: Item, out: &mut Out) {
        let now = item.ingest;
        if self.state.due.is_some_and(|due| now >= due) {
            self.release_all(now, out);
        }
        self.state
            .due
            .get_or_insert(now.saturating_add(self.settings.wait_ns));
        self.wait(i64::try_from(port).unwrap_or(i64::MAX), item, out);
    }

    fn release_all(&mut self, now: i64, out: &mut Out) {
        while !self.state.waiting.is_empty() {
            self.release_first(0, now, out);
        }
        self.state.due = None;
    }

    fn by_partition(&mut self, port: usize, item: Item, out: &mut Out) {
        let Some(key) = item.key.clone() else {
            return out.fail("it has no key to be merged by");
        };
        if !self.state.owners.contains_key(&key) && self.state.owners.len() >= KEYS_MAX {
            return out.fail("too many keys to remember their sources");
        }
        let owner = *self.state.owners.entry(key).or_insert(port);
        if owner == port {
            out.emit(item);
        } else {
            out.fail("its key belongs to another source");
        }
    }
}

impl Operator for FanIn {
    fn ports(&self) -> &'static [&'static str] {
        &NUMBERED[..self.settings.sources]
    }

    fn sides(&self) -> &'static [&'static str] {
        &["late"]
    }

    fn on_item(&mut self, port: usize, mut item: Item, out: &mut Out) {
        self.state.now = self.state.now.max(item.ingest);
        match self.settings.order {
            Order::Timestamp => self.by_time(port, item, out),
            Order::Priority => self.by_priority(port, item, out),
            Order::Partition => self.by_partition(port, item, out),
            Order::Unsafe => {
                item.mark(ORDER_POSSIBLY_OUT_OF_ORDER);
                out.emit(item);
            }
        }
    }

    fn timed(&self) -> bool {
        true
    }

    fn deadline(&self) -> Option<i64> {
        if self.settings.order == Order::Priority {
            return self.state.due;
        }
        if self.state.waiting.is_empty() {
            return None;
        }
        // The first moment at which a source that still holds the rest up counts as silent.
        let began = self.state.began?;
        let since = self
            .state
            .heard
            .iter()
            .map(|heard| heard.map_or(began, |(_, came)| came));
        let silent = since.map(|came| came.saturating_add(self.settings.wait_ns));
        silent.filter(|moment| *moment > self.state.now).min()
    }

    fn on_time(&mut self, now: i64, out: &mut Out) {
        self.state.now = self.state.now.max(now);
        match self.settings.order {
            Order::Priority if self.state.due.is_some_and(|due| now >= due) => {
                self.release_all(now, out);
            }
            Order::Timestamp => self.release_ripe(now, out),
            _ => {}
        }
    }

    fn on_clock_set(&mut self, by: i64) {
        for came in self.state.heard.iter_mut().flatten().map(|(_, came)| came) {
            *came = came.saturating_add(by);
        }
        self.state.now = self.state.now.saturating_add(by);
        for moment in [&mut self.state.began, &mut self.state.due]
            .into_iter()
            .flatten()
        {
            *moment = moment.saturating_add(by);
        }
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![("depth", self.state.waiting.len() as u64)]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&self.state)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        let mut state: State = load(state)?;
        if state.heard.len() != self.settings.sources {
            return Err(BuildError("its state has another number of sources".into()));
        }
        for item in state.waiting.values_mut() {
            item.edge = 0; // the edges of another life are not ours
        }
        self.state = state;
        Ok(())
    }
}
