//! `scatter`: each event to exactly one of several destinations (S33).
//!
//! The destination follows from the partition key (or the value's), by a hash that is the same everywhere and for ever, so
//! that a key keeps its destination over restarts and hosts; or they take turns; or a function before this stage has put
//! the destination's number in front of the value.

use serde::{Deserialize, Serialize};
use serde_json::Value as Config;

use super::{BuildError, Item, Operator, Out, config, load, save};
use crate::value::Value;

/// Destinations of one scatter.
pub(super) const WAYS_MAX: usize = 64;

/// Names of numbered ports and outputs.
pub(super) const NUMBERED: [&str; WAYS_MAX] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    "17", "18", "19", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31", "32",
    "33", "34", "35", "36", "37", "38", "39", "40", "41", "42", "43", "44", "45", "46", "47", "48",
    "49", "50", "51", "52", "53", "54", "55", "56", "57", "58", "59", "60", "61", "62", "63",
];

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum By {
    Key,
    Value,
    Turns,
    Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    ways: usize,
    by: By,
}

struct Scatter {
    settings: Settings,
    state: State,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    next: usize,
}

pub(super) fn build(with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    let settings: Settings = config(with)?;
    if !(1..=WAYS_MAX).contains(&settings.ways) {
        return Err(BuildError(format!("ways is 1 to {WAYS_MAX}")));
    }
    let state = State::default();
    Ok(Box::new(Scatter { settings, state }))
}

impl Scatter {
    /// The destination, and the item as it goes there; why it has none otherwise.
    fn place(&mut self, item: Item) -> Result<(usize, Item), String> {
        let ways = self.settings.ways;
        let text = match self.settings.by {
            By::Turns => {
                let place = self.state.next % ways;
                self.state.next = (place + 1) % ways;
                return Ok((place, item));
            }
            By::Given => return given(item, ways),
            By::Key => item.key.clone(),
            By::Value => item.value.key(),
        };
        let text = text.ok_or("it has no key to be placed by")?;
        let place = (fnv1a(text.as_bytes()) % ways as u64) as usize;
        Ok((place, item))
    }
}

fn given(mut item: Item, ways: usize) -> Result<(usize, Item), String> {
    let Value::List(parts) = &item.value else {
        return Err("no destination was given".into());
    };
    let [Value::Int(place), value] = &parts[..] else {
        return Err("the destination is no number".into());
    };
    let place = usize::try_from(*place).ok().filter(|place| *place < ways);
    let place = place.ok_or_else(|| format!("a destination outside 0 to {}", ways - 1))?;
    item.value = value.clone();
    Ok((place, item))
}

/// FNV-1a, 64 bit: the same on every machine and in every version.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Operator for Scatter {
    fn sides(&self) -> &'static [&'static str] {
        &NUMBERED[..self.settings.ways]
    }

    fn on_item(&mut self, _port: usize, item: Item, out: &mut Out) {
        match self.place(item) {
            Ok((place, item)) => out.side(place, item),
            Err(why) => out.fail(why),
        }
    }

    fn save(&self) -> Result<Vec<u8>, BuildError> {
        save(&self.state)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BuildError> {
        self.state = load(state)?;
        Ok(())
    }
}
