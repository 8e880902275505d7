//! `switch`: of several routes the values of the one that was chosen last.
//!
//! The choice is a cause of what passes: its event is a parent, and its taints go along (S28).

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::{BuildError, Item, Operator, Out, config, load, save};
use crate::operator::literal::Literal;
use crate::value::Value;

/// Ports have names, and so many routes may be chosen from.
const CASES_MAX: usize = 16;
const PORTS: [&str; CASES_MAX + 1] = [
    "in", "case 1", "case 2", "case 3", "case 4", "case 5", "case 6", "case 7", "case 8", "case 9",
    "case 10", "case 11", "case 12", "case 13", "case 14", "case 15", "case 16",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The value that chooses each route, in the order of the ports.
    cases: Vec<Literal>,
    /// The newest value of a route passes when it is chosen.
    replay: bool,
}

struct Switch {
    cases: Vec<Value>,
    replay: bool,
    state: State,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    /// The port that is open, with what chose it; None: no case.
    chosen: Option<(usize, Item)>,
    /// The newest value of each route, where it passes when it is chosen.
    newest: Vec<Option<Item>>,
    passed: u64,
}

pub(super) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let Settings { cases, replay } = config(with)?;
    if cases.is_empty() || cases.len() > CASES_MAX {
        return Err(BuildError(format!("1 to {CASES_MAX} cases")));
    }
    let state = State {
        newest: vec![None; cases.len()],
        ..State::default()
    };
    Ok(Box::new(Switch {
        cases: cases.iter().map(Literal::value).collect(),
        replay,
        state,
    }))
}

impl Switch {
    fn choose(&mut self, item: Item, out: &mut Out) {
        let found = self.cases.iter().position(|case| case.same(&item.value));
        let before = self.state.chosen.as_ref().map(|(port, _)| *port);
        let item = item.made().with(Value::None);
        self.state.chosen = found.map(|place| (place + 1, item));
        let Some(port) = found.map(|place| place + 1) else {
            return;
        };
        if self.replay
            && before != Some(port)
            && let Some(newest) = self.state.newest[port - 1].clone()
        {
            self.pass(newest, out);
        }
    }

    fn pass(&mut self, mut item: Item, out: &mut Out) {
        if let Some((_, choice)) = &self.state.chosen {
            item.ingest = item.ingest.max(choice.ingest);
            item.also(choice);
            self.state.passed += 1;
            out.emit(item);
        }
    }
}

impl Operator for Switch {
    fn ports(&self) -> &'static [&'static str] {
        &PORTS[..=self.cases.len()]
    }

    fn on_item(&mut self, port: usize, item: Item, out: &mut Out) {
        if port == 0 {
            self.choose(item, out);
            return;
        }
        if self.replay {
            self.state.newest[port - 1] = Some(item.clone().made());
        }
        if matches!(&self.state.chosen, Some((open, _)) if *open == port) {
            self.pass(item, out);
        }
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        let open = self.state.chosen.as_ref().map_or(0, |(port, _)| *port);
        vec![("case", open as u64), ("passed", self.state.passed)]
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&self.state)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        let state: State = load(state)?;
        if state.newest.len() != self.cases.len() {
            return Err(BuildError("the state of another number of cases".into()));
        }
        self.state = state;
        Ok(())
    }
}
