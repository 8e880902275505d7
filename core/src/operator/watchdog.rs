//! `watchdog`: a pulse when nothing has reset it for too long (S11).
//!
//! With a clock route there is one clock domain, the route's progress: the reset event's own numbers are never compared
//! with it, and progress that stands still or goes back counts for nothing. Without one the host's timer is asked.

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::literal::Literal;
use super::{BuildError, Item, Operator, Out, config, load, save};
use crate::value::Value;

const CLOCK: usize = 1;

/// What of a clock event is its progress. `auto`: the control epoch if the first event has one, else its number.
#[derive(Clone, Copy, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Progress {
    Auto,
    Epoch,
    Seq,
    Time,
    Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// In units of the clock's progress, or ns without one.
    after: i64,
    /// Whether a route is the clock.
    clock: bool,
    progress: Progress,
    pulse: Literal,
    /// When it was installed, ns: without a clock route the first wait begins here.
    since: i64,
}

struct Watchdog {
    settings: Settings,
    state: State,
}

#[derive(Serialize, Deserialize)]
struct State {
    progress: Progress,
    /// The newest progress of the clock.
    now: Option<i64>,
    /// The progress at the last reset.
    last_reset: Option<i64>,
    reset: Option<Item>,
    armed: bool,
    fired: u64,
}

pub(super) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let settings: Settings = config(with)?;
    if settings.after <= 0 {
        return Err(BuildError("after is above 0".into()));
    }
    let state = State {
        progress: settings.progress,
        now: None,
        last_reset: (!settings.clock).then_some(settings.since),
        reset: None,
        armed: true,
        fired: 0,
    };
    Ok(Box::new(Watchdog { settings, state }))
}

impl Watchdog {
    fn progress(&mut self, item: &Item) -> Option<i64> {
        if self.state.progress == Progress::Auto {
            self.state.progress = if item.epoch > 0 {
                Progress::Epoch
            } else {
                Progress::Seq
            };
        }
        match self.state.progress {
            Progress::Epoch => i64::try_from(item.epoch).ok(),
            Progress::Time => Some(item.time),
            Progress::Value => match item.value {
                Value::Int(value) => Some(value),
                _ => None,
            },
            Progress::Seq | Progress::Auto => i64::try_from(item.id.seq).ok(),
        }
    }

    fn fire(&mut self, mut item: Item, epoch: u64, out: &mut Out) {
        self.state.armed = false;
        self.state.fired += 1;
        if let Some(reset) = &self.state.reset
            && reset.id != item.id
        {
            item.also(reset);
        }
        item.epoch = epoch;
        let value = self.settings.pulse.value();
        out.emit(item.made().with(value));
    }

    fn tick(&mut self, item: Item, out: &mut Out) {
        let Some(progress) = self.progress(&item) else {
            out.fail("the clock's event has no such progress");
            return;
        };
        if self.state.now.is_some_and(|now| progress <= now) {
            return;
        }
        self.state.now = Some(progress);
        let last = *self.state.last_reset.get_or_insert(progress);
        if self.state.armed && progress.saturating_sub(last) >= self.settings.after {
            let epoch = u64::try_from(progress).unwrap_or(0);
            self.fire(item, epoch, out);
        }
    }
}

impl Operator for Watchdog {
    fn ports(&self) -> &'static [&'static str] {
        &["reset", "clock"]
    }

    fn on_item(&mut self, port: usize, item: Item, out: &mut Out) {
        if port == CLOCK {
            self.tick(item, out);
            return;
        }
        self.state.armed = true;
        self.state.last_reset = if self.settings.clock {
            self.state.now
        } else {
            Some(item.ingest)
        };
        self.state.reset = Some(item.made().with(Value::None));
    }

    fn timed(&self) -> bool {
        !self.settings.clock
    }

    fn deadline(&self) -> Option<i64> {
        let waits = !self.settings.clock && self.state.armed;
        let last = self.state.last_reset.filter(|_| waits)?;
        Some(last.saturating_add(self.settings.after))
    }

    fn on_time(&mut self, now: i64, out: &mut Out) {
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            let mut item = self.state.reset.clone().unwrap_or_default();
            (item.ingest, item.time) = (now, now);
            let epoch = item.epoch;
            self.fire(item, epoch, out);
        }
    }

    fn on_clock_set(&mut self, by: i64) {
        if !self.settings.clock {
            self.state.last_reset = self.state.last_reset.map(|last| last.saturating_add(by));
        }
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("armed", u64::from(self.state.armed)),
            ("fired", self.state.fired),
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
