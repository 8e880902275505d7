//! Operators: what a node of the graph does with the items that reach it.
//!
//! An operator is a state machine: an item on a port in, items out. It reads no clock (time is in the items, and in
//! `on_time` where it asked for it), calls no foreign code, and keeps bounded state. To add one: a file beside this one
//! with a `build`, and a line in `build` below. The README of the room has an example.

use serde::de::DeserializeOwned;
use serde_json::Value as Config;

use crate::registry::DropReason;

mod await_ack;
mod capacitor;
mod coalesce;
mod compute;
mod distinct;
mod fan_in;
mod fold;
mod hysteresis;
mod interval;
pub mod item;
mod join;
mod literal;
pub mod lot;
mod mark;
mod next_epoch;
mod order;
mod pace;
mod partition;
mod probe;
mod quorum;
mod resistor;
mod scatter;
mod shadow;
mod switch;
mod take;
mod trail;
mod watchdog;
pub mod watermark;
mod window;

pub use fold::{Aggregate, Fold};
pub use item::{Item, Lineage, Record};
pub use lot::{Batch, Column, Lot, Ran};
pub use probe::Probe;
pub use trail::Trail;

/// Why an operator cannot be made, or its state not be read; says which field is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildError(pub String);

/// A stage that runs in the engine.
pub trait Operator: Send {
    /// Names of the input ports; the first is the one a pipeline enters by.
    fn ports(&self) -> &'static [&'static str] {
        &["in"]
    }

    /// Names of the outputs beside the main one, such as `late`.
    fn sides(&self) -> &'static [&'static str] {
        &[]
    }

    /// Take one item.
    fn on_item(&mut self, port: usize, item: Item, out: &mut Out);

    /// Take many items on one port, none of which has company on another. It does to each what `on_item` would; what it
    /// cannot do in columns it leaves to that.
    fn on_lot(&mut self, _port: usize, lot: Lot, _out: &mut Out) -> Ran {
        Ran::Alone(lot.len(), lot)
    }

    /// Whether it may ever wait for time, as it is configured: only then is it asked for a deadline.
    fn timed(&self) -> bool {
        false
    }

    /// When `on_time` wants to be called next, in the ns of items' `ingest`.
    fn deadline(&self) -> Option<i64> {
        None
    }

    /// The host's clock has reached `now`.
    fn on_time(&mut self, _now: i64, _out: &mut Out) {}

    /// The host's wall clock was set by so many ns: deadlines told in it move along.
    fn on_clock_set(&mut self, _by: i64) {}

    /// Whether what it emits begins a turn of its own, so that it may stand in a cycle (S22).
    fn boundary(&self) -> bool {
        false
    }

    /// Figures worth seeing beside its configuration: depth, credit, open windows.
    fn gauges(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// The state as bytes, empty where there is none.
    fn save(&self) -> Result<Vec<u8>, BuildError> {
        Ok(Vec::new())
    }

    /// Take over a saved state of an operator with the same configuration.
    fn load(&mut self, _state: &[u8]) -> Result<(), BuildError> {
        Ok(())
    }
}

/// Where an operator puts what it did.
#[derive(Debug, Default)]
pub struct Out {
    /// What it emits, with the side output, or `MAIN`.
    pub(crate) items: Vec<(usize, Item)>,
    pub(crate) moves: Vec<Move>,
    pub(crate) failures: Vec<String>,
    /// Failures of rows of a lot.
    pub(crate) faults: Vec<(u32, &'static str)>,
    pub(crate) more: bool,
}

/// The main output.
pub(crate) const MAIN: usize = usize::MAX;

/// What became of an item that came in by an edge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    pub(crate) edge: u32,
    pub(crate) id: crate::event::EventId,
    pub(crate) what: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Held,
    Released,
    Dropped(DropReason),
    DroppedHeld(DropReason),
}

impl Out {
    /// Give an item to the next stage.
    pub fn emit(&mut self, item: Item) {
        self.items.push((MAIN, item));
    }

    /// Give an item to a side output, by its place in `sides`.
    pub fn side(&mut self, side: usize, item: Item) {
        self.items.push((side, item));
    }

    /// An item that just came in goes nowhere, for a reason that is counted on its edge (S43).
    pub fn drop(&mut self, reason: DropReason, item: &Item) {
        self.note(Fate::Dropped(reason), item);
    }

    /// An item that just came in is kept: its edge counts it as pending.
    pub fn hold(&mut self, item: &Item) {
        self.note(Fate::Held, item);
    }

    /// A held item goes on its way.
    pub fn release(&mut self, item: &Item) {
        self.note(Fate::Released, item);
    }

    /// A held item goes nowhere.
    pub fn drop_held(&mut self, reason: DropReason, item: &Item) {
        self.note(Fate::DroppedHeld(reason), item);
    }

    /// The item could not be worked on; counted as a failure of the node and told on the debug plane (S4).
    pub fn fail(&mut self, why: impl Into<String>) {
        self.failures.push(why.into());
    }

    /// As `fail`, for the row of a lot that an element of the run caused.
    pub fn fail_row(&mut self, row: u32, why: &'static str) {
        self.faults.push((row, why));
    }

    /// Whether another item waits for this node on another port in the same turn: a join that waits for it sees no
    /// mixture of before and after.
    pub fn more_on_other_ports(&self) -> bool {
        self.more
    }

    /// The one item for the main output, where there is nothing else.
    pub(crate) fn take_one(&mut self) -> Option<Item> {
        let alone = self.items.len() == 1
            && self.items[0].0 == MAIN
            && self.moves.is_empty()
            && self.failures.is_empty();
        if alone {
            return self.items.pop().map(|(_, item)| item);
        }
        None
    }

    fn note(&mut self, what: Fate, item: &Item) {
        let (edge, id) = (item.edge, item.id);
        self.moves.push(Move { edge, id, what });
    }
}

/// Read an operator's configuration; unknown and missing fields are errors that name them.
pub fn config<T: DeserializeOwned>(config: &Config) -> Result<T, BuildError> {
    let empty = Config::Object(serde_json::Map::new());
    let config = if config.is_null() { &empty } else { config };
    T::deserialize(config).map_err(|error| BuildError(error.to_string()))
}

/// State to bytes.
pub fn save<T: serde::Serialize>(state: &T) -> Result<Vec<u8>, BuildError> {
    postcard::to_stdvec(state).map_err(|_| {
        BuildError(
            "its state holds objects that only this process knows: give the map before it a schema"
                .into(),
        )
    })
}

/// State from bytes.
pub fn load<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BuildError> {
    postcard::from_bytes(bytes).map_err(|error| BuildError(format!("not its state: {error}")))
}

/// Make the operator of a kind. `null` stands for an empty configuration.
pub fn build(kind: &str, with: &Config) -> Result<Box<dyn Operator>, BuildError> {
    match kind {
        "await_ack" => await_ack::build(with),
        "capacitor" => capacitor::build(with),
        "coalesce" => coalesce::build(with),
        "distinct" => distinct::build(with),
        "fan_in" => fan_in::build(with),
        "next_epoch" => next_epoch::build(with),
        "quorum" => quorum::build(with),
        "resistor" => resistor::build(with),
        "scatter" => scatter::build(with),
        "shadow" => shadow::build(with),
        "switch" => switch::build(with),
        "take" => take::take(with),
        "watchdog" => watchdog::build(with),
        "carry" => Ok(hysteresis::carry()),
        "debounce" => pace::debounce(with),
        "dedupe" => order::dedupe(with),
        "filter" => compute::filter(with),
        "hysteresis" => hysteresis::build(with),
        "interval_join" => interval::build(with),
        "join_latest" => join::latest(with),
        "key" => compute::key(with),
        "lookup_join" => join::lookup(with),
        "map" => compute::map(with),
        "mark" => mark::build(with),
        "partition" => partition::build(with),
        "repair" => order::repair(with),
        "resequence" => order::resequence(with),
        "rolling" => compute::rolling(with),
        "sample" => pace::sample(with),
        "start_with" => take::start_with(with),
        "throttle" => pace::throttle(with),
        "window_count" => window::count(with),
        "window_session" => window::session(with),
        "window_time" => window::time(with),
        _ => Err(BuildError(format!("unknown operator {kind}"))),
    }
}
