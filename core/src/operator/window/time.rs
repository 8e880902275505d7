//! Event-time windows (S24, S25): a window that ends at `e` holds what is in `(e - width, e]`, and ends lie at multiples
//! of `slide`. It fires when the watermark reaches its end; late items within grace fire it again as a correction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::block::{self, Block, Part};
use super::{Content, Firing, Kept, emit, finish, items_default};
use crate::operator::compute::keys_default;
use crate::operator::lot::{Column, Lot, Times, first_from};
use crate::operator::watermark::{Clock, TimeSettings, Watermark, watermark_of};
use crate::operator::{BuildError, Item, Operator, Out, Ran, config, load, save};
use crate::registry::{DELIVERY_DROPPED, DropReason};
use crate::value::Value;

/// Windows one item may be in.
const OVERLAP_MAX: i64 = 10_000;
/// Rows in order that are taken at once; fewer come one by one.
const ROWS_MIN: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    width: i64,
    /// None: as wide as the window, so that each item is in one.
    #[serde(default)]
    slide: Option<i64>,
    #[serde(default)]
    aggregate: Option<Config>,
    clock: TimeSettings,
    #[serde(default = "items_default")]
    items_max: usize,
    #[serde(default = "keys_default")]
    keys_max: usize,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Partition {
    first: u64,
    kept: BTreeMap<(i64, u64), Kept>,
    /// What came as runs; a checkpoint has it among the items.
    #[serde(skip)]
    blocks: Vec<Block>,
    /// Ends of windows that hold something and have not fired.
    open: BTreeSet<i64>,
    /// Revisions of those that fired and may be corrected.
    fired: BTreeMap<i64, u64>,
    /// Marks of items lost for want of room.
    mark: u64,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct State {
    watermark: Watermark,
    partitions: BTreeMap<Option<Arc<str>>, Partition>,
    order: u64,
    items: usize,
    late: u64,
}

struct TimeWindow {
    width: i64,
    slide: i64,
    content: Content,
    clock: Clock,
    items_max: usize,
    keys_max: usize,
    state: State,
}

pub(in crate::operator) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let Settings {
        width,
        slide,
        aggregate,
        clock,
        items_max,
        keys_max,
    } = config(with)?;
    let slide = slide.unwrap_or(width);
    if width <= 0 || slide <= 0 || width / slide > OVERLAP_MAX {
        return Err(BuildError(format!(
            "width and slide have to be above 0, and an item in at most {OVERLAP_MAX} windows"
        )));
    }
    Ok(Box::new(TimeWindow {
        width,
        slide,
        content: Content::compile(aggregate.as_ref())?,
        clock: Clock::compile(&clock)?,
        items_max: items_max.max(1),
        keys_max: keys_max.max(1),
        state: State::default(),
    }))
}

impl Partition {
    fn holds(&self) -> bool {
        !self.kept.is_empty() || !self.blocks.is_empty()
    }
}

impl TimeWindow {
    /// How many of the first rows of a lot are in time and in the order of times, whatever those before them do.
    fn in_order(&self, lot: &Lot, source: &Item) -> usize {
        let time = lot.times.get(0);
        let watermark = &self.state.watermark;
        // The source itself may have been further, while another one held the watermark back.
        let late = watermark.late(time)
            || watermark.reached_at(&self.clock, 0, source, time) == Some(i64::MIN);
        match &lot.times {
            _ if late => 0,
            Times::Same(_) => lot.len(),
            Times::Each(times) => {
                let at = times.windows(2).position(|two| two[1] < two[0]);
                at.map_or(lot.len(), |at| at + 1)
            }
        }
    }

    /// Take in rows that are in order.
    fn insert_lot(&mut self, lot: Lot, out: &mut Out) -> Vec<(u32, Item)> {
        let first = self.state.order + 1;
        self.state.order += lot.len() as u64;
        self.state.items += lot.len();
        let (mut ends, mut next) = (Vec::new(), i64::MIN);
        for row in (0..lot.len()).rev() {
            // The last of a stretch is in all windows that the others are in.
            let time = lot.times.get(row);
            if ends.is_empty() || time <= next {
                ends.extend(self.ends(time));
                next = time.div_euclid(self.slide) * self.slide;
                if next == time {
                    next -= self.slide;
                }
            }
            if matches!(lot.times, Times::Same(_)) {
                break;
            }
        }
        let partition = self.state.partitions.entry(None).or_default();
        if partition.first == 0 {
            partition.first = first;
        }
        partition.open.extend(ends);
        let (len, common) = (lot.len(), lot.common.ingest);
        let (mut source, rows) = (lot.item_with(0, Value::None), lot.steps());
        let (times, ingests) = (lot.times.clone(), lot.ingests.clone());
        partition.blocks.push(Block::new(lot, first));
        let mut results = Vec::new();
        let mut row = 0;
        while row < len && !self.clock.watermark {
            let opened = self.state.partitions.values();
            let due = opened.filter_map(|partition| partition.open.first()).min();
            let watermark = &self.state.watermark;
            let at = due.and_then(|end| watermark.reached_at(&self.clock, 0, &source, *end));
            let reached = at.map_or(len, |at| first_from(&times, len, at)).max(row);
            let until = reached.min(len - 1);
            let time = times.get(until);
            let now = ingests.as_ref().map_or(common, |ingests| ingests[until]);
            source.ingest = now;
            if self.state.watermark.advance(&self.clock, 0, &source, time) {
                self.sweep(now, out);
                let made = out.items.drain(..).map(|(_, item)| (rows.at(until), item));
                results.extend(made);
            }
            row = until + 1;
        }
        results
    }

    /// Ends of the windows a time is in.
    fn ends(&self, time: i64) -> impl Iterator<Item = i64> + use<> {
        let (slide, width) = (self.slide, self.width);
        let below = time.div_euclid(slide);
        let first = if below * slide == time {
            time
        } else {
            (below + 1).saturating_mul(slide)
        };
        std::iter::successors(Some(first), move |end| end.checked_add(slide))
            .take_while(move |end| end.saturating_sub(width) < time)
    }

    fn insert(&mut self, mut item: Item, out: &mut Out) {
        let (time, kept) = match (self.clock.time_of(&item), self.content.keep(&item)) {
            (Ok(time), Ok(kept)) => (time, kept),
            (Err(fault), _) | (_, Err(fault)) => return out.fail(fault),
        };
        let state = &mut self.state;
        if state.watermark.too_late(time, &self.clock) {
            state.late += 1;
            out.drop(DropReason::Late, &item);
            return out.side(0, item.made());
        }
        let known = state.partitions.contains_key(&item.key);
        if state.items >= self.items_max || (!known && state.partitions.len() >= self.keys_max) {
            out.drop(DropReason::OverflowNewest, &item);
            if let Some(partition) = state.partitions.get_mut(&item.key) {
                partition.mark |= DELIVERY_DROPPED;
            }
            return;
        }
        let (now, source) = (item.ingest, item.clone());
        let key = item.key.clone();
        item.value = kept;
        state.order += 1;
        let order = state.order;
        let partition = state.partitions.entry(key.clone()).or_default();
        if partition.first == 0 {
            partition.first = order;
        }
        partition
            .kept
            .insert((time, order), Kept { time, order, item });
        state.items += 1;
        let (late, at) = (state.watermark.late(time), state.watermark.at());
        for end in self.ends(time) {
            if at.is_some_and(|at| end <= at) {
                self.fire(key.as_ref(), end, now, out);
            } else if let Some(partition) = self.state.partitions.get_mut(&key) {
                partition.open.insert(end);
            }
        }
        if !self.clock.watermark
            && !late
            && self.state.watermark.advance(&self.clock, 0, &source, time)
        {
            self.sweep(now, out);
        }
    }

    /// Fire one window of one partition, for the first time or again.
    fn fire(&mut self, key: Option<&Arc<str>>, end: i64, now: i64, out: &mut Out) {
        let Some(partition) = self.state.partitions.get_mut(&key.cloned()) else {
            return;
        };
        partition.open.remove(&end);
        let from = (end.saturating_sub(self.width).saturating_add(1), 0);
        let mut kept: Vec<&Kept> = partition
            .kept
            .range(from..=(end, u64::MAX))
            .map(|(_, kept)| kept)
            .collect();
        let blocks = partition.blocks.iter();
        let mut parts: Vec<Part<'_>> = blocks
            .map(|block| block.part(end.saturating_sub(self.width), end))
            .filter(|part| !part.is_empty())
            .collect();
        if kept.is_empty() && parts.is_empty() {
            return;
        }
        parts.sort_by_key(Part::span);
        let revision = partition.fired.get(&end).map_or(0, |revision| revision + 1);
        let mark = std::mem::take(&mut partition.mark);
        let firing = Firing {
            end,
            revision,
            mark,
            now,
        };
        let whole = match &self.content {
            Content::Aggregate(aggregate) if kept.is_empty() => block::result(aggregate, &parts),
            _ => None,
        };
        if let Some(item) = whole {
            finish(item, key, &firing, out);
        } else {
            let made: Vec<Kept> = parts.iter().flat_map(|part| part.kept()).collect();
            kept.extend(&made);
            kept.sort_by_key(|kept| (kept.time, kept.order));
            emit(&self.content, key, &firing, &kept, out);
        }
        partition.fired.insert(end, revision);
    }

    /// The watermark moved: fire every end it passed, in order, and forget what no correction can need.
    fn sweep(&mut self, now: i64, out: &mut Out) {
        let Some(at) = self.state.watermark.at() else {
            return;
        };
        let mut due: Vec<(i64, u64, Option<Arc<str>>)> = Vec::new();
        for (key, partition) in &self.state.partitions {
            due.extend(
                partition
                    .open
                    .range(..=at)
                    .map(|end| (*end, partition.first, key.clone())),
            );
        }
        due.sort_unstable();
        for (end, _, key) in due {
            self.fire(key.as_ref(), end, now, out);
        }
        let over = at.saturating_sub(self.clock.grace);
        let gone = over.saturating_sub(self.width);
        let state = &mut self.state;
        for partition in state.partitions.values_mut() {
            let rest = partition.kept.split_off(&(gone.saturating_add(1), 0));
            state.items -= partition.kept.len();
            partition.kept = rest;
            for block in &mut partition.blocks {
                state.items -= block.forget(gone);
            }
            partition.blocks.retain(|block| block.len() > 0);
            partition.fired = partition.fired.split_off(&over.saturating_add(1));
        }
        state
            .partitions
            .retain(|_, partition| partition.holds() || !partition.fired.is_empty());
    }
}

impl Operator for TimeWindow {
    fn ports(&self) -> &'static [&'static str] {
        if self.clock.watermark {
            &["in", "watermark"]
        } else {
            &["in"]
        }
    }

    fn sides(&self) -> &'static [&'static str] {
        &["late"]
    }

    fn on_item(&mut self, port: usize, item: Item, out: &mut Out) {
        if port == 0 {
            return self.insert(item, out);
        }
        let time = watermark_of(&item);
        if self.state.watermark.advance(&self.clock, port, &item, time) {
            self.sweep(item.ingest, out);
        }
    }

    fn on_lot(&mut self, port: usize, mut lot: Lot, out: &mut Out) -> Ran {
        let source = lot.item_with(0, Value::None);
        if port != 0 || lot.keys.is_some() || !self.clock.is_device_time() {
            return Ran::Alone(lot.len(), lot);
        }
        if !self.clock.watermark && !self.state.watermark.knows(0, &source) {
            return Ran::Alone(1, lot);
        }
        let rows = self.in_order(&lot, &source);
        let known = self.state.partitions.contains_key(&None);
        let fits = self.state.items + rows <= self.items_max
            && (known || self.state.partitions.len() < self.keys_max);
        // Short pieces are not worth it.
        if !fits || (rows < lot.len() && rows < ROWS_MIN) {
            return Ran::Alone(lot.len(), lot);
        }
        let numbers = match &self.content {
            Content::Aggregate(aggregate) => match aggregate.numbers(&lot) {
                None => return Ran::Alone(lot.len(), lot),
                numbers => numbers,
            },
            Content::Values => None,
        };
        let rest = (rows < lot.len()).then(|| lot.split_off(rows));
        if let Some(mut numbers) = numbers {
            numbers.truncate(rows);
            lot.values = Column::Floats(numbers);
        }
        Ran::Items(self.insert_lot(lot, out), rest)
    }

    fn timed(&self) -> bool {
        self.clock.timed()
    }

    fn deadline(&self) -> Option<i64> {
        self.state.watermark.deadline(&self.clock)
    }

    fn on_time(&mut self, now: i64, out: &mut Out) {
        if self.state.watermark.settle(&self.clock, now) {
            self.sweep(now, out);
        }
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        let mut gauges = vec![
            ("partitions", self.state.partitions.len() as u64),
            ("items", self.state.items as u64),
            ("late", self.state.late),
        ];
        let at = self
            .state
            .watermark
            .at()
            .and_then(|at| u64::try_from(at).ok());
        gauges.extend(at.map(|at| ("watermark", at)));
        gauges
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        if self.state.partitions.values().all(|p| p.blocks.is_empty()) {
            return save(&self.state);
        }
        let mut state = self.state.clone();
        for partition in state.partitions.values_mut() {
            let kept = partition.blocks.iter().flat_map(Block::kept);
            partition
                .kept
                .extend(kept.map(|kept| ((kept.time, kept.order), kept)));
        }
        save(&state)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        self.state = load(state)?;
        Ok(())
    }
}
