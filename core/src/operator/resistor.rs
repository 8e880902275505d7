//! `resistor`: lets a value pass when it is released (S10).
//!
//! Without a release every admitted value passes. With one, the last admitted value is held and a pulse emits it; a pulse
//! with nothing to emit does nothing and is not remembered. A gate that is a function stands before this stage.

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::{BuildError, Item, Operator, Out, config, load, save};
use crate::registry::{DELIVERY_DUPLICATED, DELIVERY_SAMPLED, DropReason};
use crate::value::Value;

const RELEASE: usize = 1;
const GATE: usize = 2;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Whether a route releases.
    release: bool,
    /// A second pulse without a newer value emits the old one again.
    repeat: bool,
}

struct Resistor {
    settings: Settings,
    state: State,
}

#[derive(Serialize, Deserialize)]
struct State {
    held: Option<Item>,
    /// Whether what is held was emitted already.
    emitted: bool,
    open: bool,
    gated: u64,
    owed: u64,
}

pub(super) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let state = State {
        held: None,
        emitted: false,
        open: true,
        gated: 0,
        owed: 0,
    };
    let settings = config(with)?;
    Ok(Box::new(Resistor { settings, state }))
}

impl Resistor {
    fn admit(&mut self, item: Item, out: &mut Out) {
        if !self.state.open {
            self.state.gated += 1;
            return;
        }
        if !self.settings.release {
            out.emit(item);
            return;
        }
        if let Some(lost) = self.state.held.take().filter(|_| !self.state.emitted) {
            out.drop_held(DropReason::Sampled, &lost);
            self.state.owed |= DELIVERY_SAMPLED;
        }
        out.hold(&item);
        self.state.held = Some(item);
        self.state.emitted = false;
    }

    fn release(&mut self, now: i64, out: &mut Out) {
        let Some(mut item) = self.state.held.take() else {
            return;
        };
        if self.state.emitted {
            item.mark(DELIVERY_DUPLICATED);
        } else {
            out.release(&item);
        }
        if self.settings.repeat {
            self.state.held = Some(item.clone().made());
            self.state.emitted = true;
        }
        item.ingest = item.ingest.max(now);
        item.mark(std::mem::take(&mut self.state.owed));
        out.emit(item);
    }
}

impl Operator for Resistor {
    fn ports(&self) -> &'static [&'static str] {
        &["in", "release", "gate"]
    }

    fn on_item(&mut self, port: usize, item: Item, out: &mut Out) {
        match port {
            RELEASE => self.release(item.ingest, out),
            GATE => match item.value {
                Value::Bool(open) => self.state.open = open,
                _ => out.fail("the gate's route carries no bool"),
            },
            _ => self.admit(item, out),
        }
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        let waits = self.state.held.is_some() && !self.state.emitted;
        vec![
            ("depth", u64::from(waits)),
            ("open", u64::from(self.state.open)),
            ("gated", self.state.gated),
        ]
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
