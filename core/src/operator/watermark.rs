//! How far event time has come (S24): a watermark `w` promises no more items at or before `w`. It never goes back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{BuildError, Item};
use crate::event::Tag;
use crate::expr::{Expr, Fault};

/// Sources whose progress is kept apart; the one that was silent for longest makes room.
const SOURCES_MAX: usize = 1024;

/// What a windowed operator says of time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeSettings {
    /// Event time as an expression giving ns; None: the device time.
    #[serde(default)]
    pub time: Option<serde_json::Value>,
    /// Whether watermarks come on a port of their own.
    #[serde(default)]
    pub watermark: bool,
    /// Without that: how far behind the latest time an item may come and be in time, ns.
    #[serde(default)]
    pub disorder: i64,
    /// How long behind the watermark a late item still corrects a result, ns.
    #[serde(default)]
    pub grace: i64,
    /// A source silent for so long (host's clock, ns) holds nobody back.
    #[serde(default)]
    pub idle: Option<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Progress {
    time: i64,
    seen: i64,
}

/// The watermark of an operator.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Watermark {
    at: Option<i64>,
    /// When it was last looked who is active.
    settled: i64,
    /// By input port and, there, by producer, incarnation and route.
    sources: BTreeMap<(usize, Tag, Tag, Tag), Progress>,
}

/// Event time, lateness and grace of an operator.
#[derive(Clone, Debug)]
pub struct Clock {
    time: Option<Expr>,
    /// See `TimeSettings`.
    pub watermark: bool,
    disorder: i64,
    /// See `TimeSettings`.
    pub grace: i64,
    idle: Option<i64>,
    /// Inputs that have to have spoken before there is a watermark.
    ports: usize,
}

impl Clock {
    /// Whether a source that is silent for long holds nobody back, so that time alone may move the watermark.
    pub fn timed(&self) -> bool {
        self.idle.is_some()
    }

    /// There is no watermark before that many inputs have spoken.
    #[must_use]
    pub fn of_ports(mut self, ports: usize) -> Self {
        self.ports = ports;
        self
    }

    /// Compile the settings.
    pub fn compile(settings: &TimeSettings) -> Result<Self, BuildError> {
        if settings.disorder < 0
            || settings.grace < 0
            || settings.idle.is_some_and(|idle| idle <= 0)
        {
            return Err(BuildError(
                "disorder, grace and idle cannot be negative".into(),
            ));
        }
        Ok(Self {
            time: settings.time.as_ref().map(Expr::compile).transpose()?,
            watermark: settings.watermark,
            disorder: settings.disorder,
            grace: settings.grace,
            idle: settings.idle,
            ports: 1,
        })
    }

    /// Whether event time is the device time.
    pub fn is_device_time(&self) -> bool {
        self.time.is_none()
    }

    /// How far the watermark stays behind the latest time, ns. A watermark from a route says itself what it promises. Ours
    /// promises no more at or before it, and an item as late as `disorder` allows may come: so it is 1 ns before that one.
    fn behind(&self) -> i64 {
        if self.watermark {
            0
        } else {
            self.disorder.saturating_add(1)
        }
    }

    /// The event time of an item.
    pub fn time_of(&self, item: &Item) -> Result<i64, Fault> {
        let Some(expr) = &self.time else {
            return Ok(item.time);
        };
        whole(expr.eval(item)?.number()).ok_or("an event time that is no number of ns")
    }
}

/// The time a watermark's item says: its value where that is a number, else its device time.
pub fn watermark_of(item: &Item) -> i64 {
    match item.value {
        crate::value::Value::Int(ns) => ns,
        _ => whole(item.value.number()).unwrap_or(item.time),
    }
}

fn whole(number: Option<f64>) -> Option<i64> {
    #[allow(clippy::cast_precision_loss, reason = "a bound")]
    let fits = |number: &f64| number.is_finite() && number.abs() < i64::MAX as f64;
    number.filter(fits).map(|number| number as i64)
}

impl Watermark {
    /// The watermark, if there is one yet.
    pub fn at(&self) -> Option<i64> {
        self.at
    }

    /// Whether an item of that time is late.
    pub fn late(&self, time: i64) -> bool {
        self.at.is_some_and(|at| time <= at)
    }

    /// Whether an item of that time is later than grace allows.
    pub fn too_late(&self, time: i64, clock: &Clock) -> bool {
        self.at
            .is_some_and(|at| time <= at.saturating_sub(clock.grace))
    }

    /// A source has come to `time`; the least of the active ones counts. Returns whether the watermark moved.
    pub fn advance(&mut self, clock: &Clock, port: usize, item: &Item, time: i64) -> bool {
        let key = (port, item.id.producer, item.id.incarnation, item.id.route);
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&key) {
            let oldest = self
                .sources
                .iter()
                .min_by_key(|(_, source)| source.seen)
                .map(|(key, _)| *key);
            oldest.map(|key| self.sources.remove(&key));
        }
        let source = self.sources.entry(key).or_insert(Progress {
            time,
            seen: item.ingest,
        });
        source.time = source.time.max(time);
        source.seen = source.seen.max(item.ingest);
        self.settle(clock, item.ingest)
    }

    /// The time `item`'s source has to come to for the watermark to reach `mark`, if nothing else happens; the least number
    /// where it has come that far. None: not by that source alone.
    pub fn reached_at(&self, clock: &Clock, port: usize, item: &Item, mark: i64) -> Option<i64> {
        let own = (port, item.id.producer, item.id.incarnation, item.id.route);
        let active = |seen: i64| {
            clock
                .idle
                .is_none_or(|idle| seen.saturating_add(idle) > item.ingest)
        };
        let needed = mark.saturating_add(clock.behind());
        let mut others = self.sources.iter().filter(|(key, _)| **key != own);
        let held = others.any(|(_, other)| active(other.seen) && other.time < needed);
        let there = self.sources.get(&own)?.time >= needed;
        (!held).then_some(if there { i64::MIN } else { needed })
    }

    /// Whether a source is known.
    pub fn knows(&self, port: usize, item: &Item) -> bool {
        let own = (port, item.id.producer, item.id.incarnation, item.id.route);
        self.sources.contains_key(&own)
    }

    /// Look again at who is active.
    pub fn settle(&mut self, clock: &Clock, now: i64) -> bool {
        self.settled = self.settled.max(now);
        let ports: std::collections::BTreeSet<_> = self.sources.keys().map(|key| key.0).collect();
        if ports.len() < clock.ports {
            return false;
        }
        let active = self.sources.values().filter(|source| {
            clock
                .idle
                .is_none_or(|idle| source.seen.saturating_add(idle) > now)
        });
        let Some(least) = active.map(|source| source.time).min() else {
            return false;
        };
        let next = least.saturating_sub(clock.behind());
        let moved = self.at.is_none_or(|at| next > at);
        if moved {
            self.at = Some(next);
        }
        moved
    }

    /// When a silent source will hold nobody back any more.
    pub fn deadline(&self, clock: &Clock) -> Option<i64> {
        let idle = clock.idle?;
        let ends = self
            .sources
            .values()
            .map(|source| source.seen.saturating_add(idle));
        ends.filter(|end| *end > self.settled).min()
    }
}
