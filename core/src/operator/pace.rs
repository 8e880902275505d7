//! Fewer items in time: `debounce`, `throttle` and `sample`. Time is the host's, as items carry it.

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::{BuildError, Item, Operator, Out, config, load, save};
use crate::registry::{DELIVERY_SAMPLED, DropReason};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Every {
    ns: i64,
}

fn every(with: &Config) -> Result<i64, BuildError> {
    match config::<Every>(with)?.ns {
        ns if ns > 0 => Ok(ns),
        _ => Err(BuildError("ns has to be above 0".into())),
    }
}

/// Holds the newest item until its time has come, or a pulse.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// After so long without another item.
    Quiet(i64),
    /// At every multiple of it (`sample`).
    Beat(i64),
    /// When something comes on the second port.
    Pulse,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    held: Option<Item>,
    due: i64,
    /// Marks of what was lost since the last result.
    lost: u64,
}

struct Hold {
    when: When,
    state: State,
}

fn hold(when: When) -> Box<dyn Operator> {
    let state = State::default();
    Box::new(Hold { when, state })
}

pub(super) fn debounce(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    Ok(hold(When::Quiet(every(with)?)))
}

pub(super) fn sample(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    if with.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(hold(When::Pulse));
    }
    Ok(hold(When::Beat(every(with)?)))
}

impl Hold {
    fn emit(&mut self, out: &mut Out) {
        if let Some(mut item) = self.state.held.take() {
            out.release(&item);
            item.mark(std::mem::take(&mut self.state.lost));
            out.emit(item);
        }
    }
}

impl Operator for Hold {
    fn ports(&self) -> &'static [&'static str] {
        if self.when == When::Pulse {
            &["in", "pulse"]
        } else {
            &["in"]
        }
    }

    fn on_item(&mut self, port: usize, item: Item, out: &mut Out) {
        // An item that comes at the due time or later finds what was due gone.
        if self.deadline().is_some_and(|due| due <= item.ingest) {
            self.emit(out);
        }
        if port == 1 {
            return self.emit(out);
        }
        let fresh = self.state.held.is_none();
        if let Some(old) = self.state.held.take() {
            out.drop_held(DropReason::Sampled, &old);
            self.state.lost |= DELIVERY_SAMPLED | old.taints;
        }
        match self.when {
            When::Quiet(ns) => self.state.due = item.ingest.saturating_add(ns),
            When::Beat(ns) if fresh => {
                self.state.due = (item.ingest.div_euclid(ns) + 1).saturating_mul(ns);
            }
            _ => {}
        }
        out.hold(&item);
        self.state.held = Some(item);
    }

    fn timed(&self) -> bool {
        self.when != When::Pulse
    }

    fn deadline(&self) -> Option<i64> {
        let timed = self.when != When::Pulse && self.state.held.is_some();
        timed.then_some(self.state.due)
    }

    fn on_time(&mut self, _now: i64, out: &mut Out) {
        self.emit(out);
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![("held", u64::from(self.state.held.is_some()))]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&self.state)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        self.state = load(state)?;
        Ok(())
    }
}

/// The first item passes, then none for so long.
struct Throttle {
    ns: i64,
    next: i64,
    lost: u64,
}

pub(super) fn throttle(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let ns = every(with)?;
    Ok(Box::new(Throttle {
        ns,
        next: i64::MIN,
        lost: 0,
    }))
}

impl Operator for Throttle {
    fn on_item(&mut self, _port: usize, mut item: Item, out: &mut Out) {
        if item.ingest < self.next {
            self.lost |= DELIVERY_SAMPLED;
            out.drop(DropReason::Sampled, &item);
            return;
        }
        self.next = item.ingest.saturating_add(self.ns);
        item.mark(std::mem::take(&mut self.lost));
        out.emit(item);
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&(self.next, self.lost))
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        (self.next, self.lost) = load(state)?;
        Ok(())
    }
}
