//! `await_ack`: one write at a time; the next passes when the acknowledgement of *this* one has come (S22).
//!
//! It sees its own requests come by on the request route and so learns which event an acknowledgement must name as its
//! cause. An acknowledgement of an earlier write opens nothing.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::{BuildError, Item, Operator, Out, config, load, save};
use crate::event::EventId;
use crate::registry::{DELIVERY_COALESCED, DropReason, SCHED_GATED};

const ACK: usize = 1;
const SENT: usize = 2;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    waiting_max: usize,
}

struct AwaitAck {
    waiting_max: usize,
    state: State,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    /// What was let through, and the request that it became.
    passed: Option<(EventId, Option<EventId>)>,
    held: VecDeque<Item>,
    owed: u64,
}

pub(super) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let Settings { waiting_max } = config(with)?;
    let state = State::default();
    Ok(Box::new(AwaitAck {
        waiting_max: waiting_max.max(1),
        state,
    }))
}

impl AwaitAck {
    fn pass(&mut self, item: Item, out: &mut Out) {
        self.state.passed = Some((item.id, None));
        out.emit(item);
    }
}

impl Operator for AwaitAck {
    fn ports(&self) -> &'static [&'static str] {
        &["in", "ack", "sent"]
    }

    fn on_item(&mut self, port: usize, item: Item, out: &mut Out) {
        if port == SENT {
            if let Some((source, request)) = &mut self.state.passed
                && item.cause == Some(*source)
            {
                *request = Some(item.id);
            }
            return;
        }
        if port == ACK {
            let request = self.state.passed.and_then(|(_, request)| request);
            if request.is_none() || item.cause != request {
                return;
            }
            self.state.passed = None;
            if let Some(mut next) = self.state.held.pop_front() {
                out.release(&next);
                next.ingest = next.ingest.max(item.ingest);
                next.mark(SCHED_GATED | std::mem::take(&mut self.state.owed));
                self.pass(next, out);
            }
            return;
        }
        if self.state.passed.is_none() {
            self.pass(item, out);
            return;
        }
        if self.state.held.len() >= self.waiting_max
            && let Some(lost) = self.state.held.pop_back()
        {
            out.drop_held(DropReason::Coalesced, &lost);
            self.state.owed |= DELIVERY_COALESCED;
        }
        out.hold(&item);
        self.state.held.push_back(item);
    }

    fn boundary(&self) -> bool {
        true
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("waits", u64::from(self.state.passed.is_some())),
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
