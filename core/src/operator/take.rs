//! `take`: the first values, or those until a route speaks; `start_with`: values before the first.

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::literal::Literal;
use super::{BuildError, Item, Operator, Out, Record, config, load, save};

const UNTIL: usize = 1;
/// Values `start_with` takes at most.
const STARTS_MAX: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TakeSettings {
    /// How many; None: as many as come.
    #[serde(default)]
    count: Option<u64>,
}

struct Take {
    count: Option<u64>,
    state: Taken,
}

#[derive(Default, Serialize, Deserialize)]
struct Taken {
    passed: u64,
    /// The route has spoken.
    over: bool,
}

pub(super) fn take(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let TakeSettings { count } = config(with)?;
    let state = Taken::default();
    Ok(Box::new(Take { count, state }))
}

impl Take {
    fn ended(&self) -> bool {
        self.state.over || self.count.is_some_and(|count| self.state.passed >= count)
    }
}

impl Operator for Take {
    fn ports(&self) -> &'static [&'static str] {
        &["in", "until"]
    }

    fn on_item(&mut self, port: usize, item: Item, out: &mut Out) {
        if port == UNTIL {
            self.state.over = true;
        } else if !self.ended() {
            self.state.passed += 1;
            out.emit(item);
        }
    }

    fn gauges(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("passed", self.state.passed),
            ("ended", u64::from(self.ended())),
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartSettings {
    values: Vec<Literal>,
}

struct StartWith {
    values: Vec<Literal>,
    begun: bool,
}

pub(super) fn start_with(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let StartSettings { values } = config(with)?;
    if values.is_empty() || values.len() > STARTS_MAX {
        return Err(BuildError(format!("1 to {STARTS_MAX} values")));
    }
    let begun = false;
    Ok(Box::new(StartWith { values, begun }))
}

impl StartWith {
    /// Nothing caused these: they have no parents.
    fn begin(&mut self, now: i64, out: &mut Out) {
        if !std::mem::replace(&mut self.begun, true) {
            for value in &self.values {
                let record = Record {
                    value: value.value(),
                    time: now,
                    ingest: now,
                    ..Record::default()
                };
                out.emit(record.into());
            }
        }
    }
}

impl Operator for StartWith {
    fn on_item(&mut self, _port: usize, item: Item, out: &mut Out) {
        self.begin(item.ingest, out);
        out.emit(item);
    }

    fn timed(&self) -> bool {
        true
    }

    fn deadline(&self) -> Option<i64> {
        // At once, when it is installed.
        (!self.begun).then_some(i64::MIN)
    }

    fn on_time(&mut self, now: i64, out: &mut Out) {
        self.begin(now, out);
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&self.begun)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        self.begun = load(state)?;
        Ok(())
    }
}
