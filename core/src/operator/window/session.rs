//! Sessions: items of a partition that follow each other within `gap` of event time. A session ends `gap` after its last
//! item and fires when the watermark reaches that; a late item within grace extends or joins sessions and fires again.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::{Content, Firing, Kept, emit, items_default};
use crate::operator::compute::keys_default;
use crate::operator::watermark::{Clock, TimeSettings, Watermark, watermark_of};
use crate::operator::{BuildError, Item, Operator, Out, config, load, save};
use crate::registry::{DELIVERY_DROPPED, DropReason};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    gap: i64,
    #[serde(default)]
    aggregate: Option<Config>,
    clock: TimeSettings,
    #[serde(default = "items_default")]
    items_max: usize,
    #[serde(default = "keys_default")]
    keys_max: usize,
}

#[derive(Clone, Serialize, Deserialize)]
struct Session {
    first: i64,
    last: i64,
    /// Of the last result; None: it has not fired.
    revision: Option<u64>,
    /// Something came since.
    due: bool,
    kept: BTreeMap<(i64, u64), Kept>,
    mark: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    watermark: Watermark,
    /// By partition, oldest first.
    sessions: BTreeMap<Option<Arc<str>>, Vec<Session>>,
    order: u64,
    items: usize,
    late: u64,
}

struct SessionWindow {
    gap: i64,
    content: Content,
    clock: Clock,
    items_max: usize,
    keys_max: usize,
    state: State,
}

pub(in crate::operator) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let Settings {
        gap,
        aggregate,
        clock,
        items_max,
        keys_max,
    } = config(with)?;
    if gap <= 0 {
        return Err(BuildError("gap has to be above 0".into()));
    }
    Ok(Box::new(SessionWindow {
        gap,
        content: Content::compile(aggregate.as_ref())?,
        clock: Clock::compile(&clock)?,
        items_max: items_max.max(1),
        keys_max: keys_max.max(1),
        state: State::default(),
    }))
}

impl SessionWindow {
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
        let known = state.sessions.contains_key(&item.key);
        if state.items >= self.items_max || (!known && state.sessions.len() >= self.keys_max) {
            out.drop(DropReason::OverflowNewest, &item);
            let sessions = state.sessions.get_mut(&item.key);
            if let Some(last) = sessions.and_then(|sessions| sessions.last_mut()) {
                last.mark |= DELIVERY_DROPPED;
            }
            return;
        }
        let (now, source, key) = (item.ingest, item.clone(), item.key.clone());
        item.value = kept;
        state.order += 1;
        state.items += 1;
        let order = state.order;
        let sessions = state.sessions.entry(key.clone()).or_default();
        let place = join(sessions, Kept { time, order, item }, self.gap);
        let end = sessions[place].last.saturating_add(self.gap);
        let late = state.watermark.late(time);
        if state.watermark.at().is_some_and(|at| end <= at) {
            self.fire(key.as_ref(), place, now, out);
        }
        if !self.clock.watermark
            && !late
            && self.state.watermark.advance(&self.clock, 0, &source, time)
        {
            self.sweep(now, out);
        }
    }

    fn fire(&mut self, key: Option<&Arc<str>>, place: usize, now: i64, out: &mut Out) {
        let sessions = self.state.sessions.get_mut(&key.cloned());
        let Some(session) = sessions.and_then(|sessions| sessions.get_mut(place)) else {
            return;
        };
        let revision = session.revision.map_or(0, |revision| revision + 1);
        session.revision = Some(revision);
        session.due = false;
        let kept: Vec<&Kept> = session.kept.values().collect();
        let mark = std::mem::take(&mut session.mark);
        let end = session.last.saturating_add(self.gap);
        let firing = Firing {
            end,
            revision,
            mark,
            now,
        };
        emit(&self.content, key, &firing, &kept, out);
    }

    fn sweep(&mut self, now: i64, out: &mut Out) {
        let Some(at) = self.state.watermark.at() else {
            return;
        };
        let mut due: Vec<(i64, u64, Option<Arc<str>>, usize)> = Vec::new();
        for (key, sessions) in &self.state.sessions {
            for (place, session) in sessions.iter().enumerate() {
                let end = session.last.saturating_add(self.gap);
                let order = session.kept.values().next().map_or(0, |kept| kept.order);
                // One that was extended after it fired is due again.
                if end <= at && session.due {
                    due.push((end, order, key.clone(), place));
                }
            }
        }
        due.sort_unstable();
        for (_, _, key, place) in due {
            self.fire(key.as_ref(), place, now, out);
        }
        let over = at.saturating_sub(self.clock.grace);
        let (gap, items) = (self.gap, &mut self.state.items);
        for sessions in self.state.sessions.values_mut() {
            sessions.retain(|session| {
                let stays = session.last.saturating_add(gap) > over;
                *items -= if stays { 0 } else { session.kept.len() };
                stays
            });
        }
        self.state
            .sessions
            .retain(|_, sessions| !sessions.is_empty());
    }
}

/// Put an item into the session it belongs to, joining those it connects. Returns the session's place.
fn join(sessions: &mut Vec<Session>, kept: Kept, gap: i64) -> usize {
    let time = kept.time;
    let mut merged = Session {
        first: time,
        last: time,
        revision: None,
        due: true,
        kept: BTreeMap::new(),
        mark: 0,
    };
    merged.kept.insert((time, kept.order), kept);
    let mut rest = Vec::with_capacity(sessions.len() + 1);
    for session in sessions.drain(..) {
        // Neighbours less than `gap` apart are one session.
        let near =
            session.first.saturating_sub(gap) < time && time < session.last.saturating_add(gap);
        if near {
            merged.first = merged.first.min(session.first);
            merged.last = merged.last.max(session.last);
            merged.revision = merged.revision.max(session.revision);
            merged.mark |= session.mark;
            merged.kept.extend(session.kept);
        } else {
            rest.push(session);
        }
    }
    let place = rest.partition_point(|session| session.first < merged.first);
    rest.insert(place, merged);
    *sessions = rest;
    place
}

impl Operator for SessionWindow {
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
        vec![
            ("partitions", self.state.sessions.len() as u64),
            ("items", self.state.items as u64),
            ("late", self.state.late),
        ]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&self.state)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        self.state = load(state)?;
        Ok(())
    }
}
