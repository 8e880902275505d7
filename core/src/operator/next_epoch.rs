//! `next_epoch`: what is made of epoch n passes when epoch n + 1 begins (S21).
//!
//! It is a barrier, not a label: results wait, in order, until the epoch route has reached theirs. So a loop through it
//! runs once for each epoch, however fast it is.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::{BuildError, Item, Operator, Out, config, load, save};
use crate::registry::{DELIVERY_DROPPED, DropReason, SCHED_GATED};
use crate::value::Value;

const EPOCH: usize = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    waiting_max: usize,
}

struct NextEpoch {
    waiting_max: usize,
    state: State,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    epoch: u64,
    held: VecDeque<Item>,
    owed: u64,
}

pub(super) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let Settings { waiting_max } = config(with)?;
    let state = State::default();
    Ok(Box::new(NextEpoch {
        waiting_max: waiting_max.max(1),
        state,
    }))
}

impl NextEpoch {
    fn begin(&mut self, item: &Item, out: &mut Out) {
        let epoch = match item.value {
            Value::Int(value) => u64::try_from(value).ok(),
            _ if item.epoch > 0 => Some(item.epoch),
            _ => None,
        };
        let Some(epoch) = epoch else {
            out.fail("the epoch route carries neither an integer nor a control epoch");
            return;
        };
        // S19: epochs only move forward.
        if epoch <= self.state.epoch {
            return;
        }
        self.state.epoch = epoch;
        while self
            .state
            .held
            .front()
            .is_some_and(|held| held.epoch <= epoch)
        {
            if let Some(mut held) = self.state.held.pop_front() {
                out.release(&held);
                held.ingest = held.ingest.max(item.ingest);
                held.mark(SCHED_GATED | std::mem::take(&mut self.state.owed));
                out.emit(held);
            }
        }
    }
}

impl Operator for NextEpoch {
    fn ports(&self) -> &'static [&'static str] {
        &["in", "epoch"]
    }

    fn on_item(&mut self, port: usize, mut item: Item, out: &mut Out) {
        if port == EPOCH {
            self.begin(&item, out);
            return;
        }
        // What has no epoch of its own belongs to the current one; order is never changed.
        let last = self.state.held.back().map_or(0, |held| held.epoch);
        let own = if item.epoch > 0 {
            item.epoch
        } else {
            self.state.epoch
        };
        item.epoch = own.saturating_add(1).max(last);
        if self.state.held.len() >= self.waiting_max {
            out.drop(DropReason::OverflowNewest, &item);
            self.state.owed |= DELIVERY_DROPPED;
            return;
        }
        if item.epoch <= self.state.epoch && self.state.held.is_empty() {
            out.emit(item);
            return;
        }
        out.hold(&item);
        self.state.held.push_back(item);
    }

    fn boundary(&self) -> bool {
        true
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("epoch", self.state.epoch),
            ("depth", self.state.held.len() as u64),
        ]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&self.state)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        self.state = load(state)?;
        for item in &mut self.state.held {
            item.edge = 0;
        }
        Ok(())
    }
}
