//! `coalesce`: of all values within a span of time only the newest, at its end.
//!
//! The first value after a quiet time opens a span. What is replaced is counted as coalesced, and marks what is emitted.

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::{BuildError, Item, Operator, Out, config, load, save};
use crate::registry::{DELIVERY_COALESCED, DropReason};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    window_ns: i64,
}

struct Coalesce {
    window_ns: i64,
    state: State,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    held: Option<Item>,
    due: i64,
    owed: u64,
}

pub(super) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let Settings { window_ns } = config(with)?;
    if window_ns <= 0 {
        return Err(BuildError("window_ns is above 0".into()));
    }
    let state = State::default();
    Ok(Box::new(Coalesce { window_ns, state }))
}

impl Coalesce {
    fn emit(&mut self, now: i64, out: &mut Out) {
        if let Some(mut item) = self.state.held.take() {
            out.release(&item);
            item.ingest = item.ingest.max(now);
            item.mark(std::mem::take(&mut self.state.owed));
            out.emit(item);
        }
    }
}

impl Operator for Coalesce {
    fn on_item(&mut self, _port: usize, item: Item, out: &mut Out) {
        // Under a virtual clock nothing calls between two items.
        if self.state.held.is_some() && item.ingest >= self.state.due {
            self.emit(self.state.due, out);
        }
        if let Some(lost) = self.state.held.take() {
            out.drop_held(DropReason::Coalesced, &lost);
            self.state.owed |= DELIVERY_COALESCED;
        } else {
            self.state.due = item.ingest.saturating_add(self.window_ns);
        }
        out.hold(&item);
        self.state.held = Some(item);
    }

    fn timed(&self) -> bool {
        true
    }

    fn deadline(&self) -> Option<i64> {
        self.state.held.as_ref().map(|_| self.state.due)
    }

    fn on_time(&mut self, now: i64, out: &mut Out) {
        if now >= self.state.due {
            self.emit(now, out);
        }
    }

    fn on_clock_set(&mut self, by: i64) {
        self.state.due = self.state.due.saturating_add(by);
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![("depth", u64::from(self.state.held.is_some()))]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&self.state)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        self.state = load(state)?;
        if let Some(held) = &mut self.state.held {
            held.edge = 0;
        }
        Ok(())
    }
}
