//! Deferred events: published and numbered, and worked on before anybody looks.
//!
//! Where a route reaches nothing but what is retained and operators that call no host and wait for no time, nobody can tell
//! whether an event has had its turn until somebody looks. There, plain events that follow each other wait, and have their
//! turns as one run, which gives what they would give one at a time. Where all that is reached is one function of the
//! host's, that is called with each event at once, and the event waits with the result.
//!
//! Invariants
//! - While events wait the engine is idle, and no thread runs its turn, but to call that function.
//! - Whoever wants anything of the engine but to defer calls `settle` first. So what is said of a route here holds until
//!   then: nothing can be attached, changed or read in between. A function that looks finds its event in its turn.
//! - At most `DEFERRED_MAX` events wait, each of as many bytes as a payload holds in place.

use std::mem::{replace, take};

use super::journey::{Journey, Load};
use super::{Call, Engine, Made, Outcome, Step};
use crate::operator::lot::Times;
use crate::operator::{Column, Item, Lot};
use crate::payload::Payload;
use crate::taint;
use crate::value::Value;

/// Events that wait at most.
pub const DEFERRED_MAX: usize = 256;

/// An event whose turn is deferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Its number.
    pub seq: u64,
    /// Its taints.
    pub taints: u64,
    /// The function to call with its value, by node and number; then call `called`. None: the event waits now.
    pub function: Option<(u32, usize)>,
}

/// Events of one route that wait.
#[derive(Default)]
pub(super) struct Deferred {
    /// The route whose events may wait; its number and what its events have in common are as of when it was named.
    route: Option<usize>,
    next: u64,
    taints: u64,
    /// The function that is called with each.
    function: Option<(u32, usize)>,
    payloads: Vec<Payload>,
    ingests: Vec<i64>,
    /// What the function made, and of which of them.
    results: Vec<Value>,
    rows: Vec<u32>,
    /// The event with which the function is being called.
    called: Option<(Payload, i64)>,
    /// The same, once somebody has looked: that event has its turn, and the turn waits for the function.
    call: Option<Box<Call>>,
    /// What was worked on left something to the host: a result it has to encode, or a failure to be told.
    unfinished: bool,
}

impl Engine {
    /// Let plain events of a route wait from its next one on, if nobody could tell; until `settle`. Whether they may. To be
    /// called where the engine is idle or about to be, with no event waiting.
    pub fn allow_deferring(&mut self, route: usize) -> bool {
        let plain = self.gates == 0
            && self.routes[route].owners == 0
            && self.transcript.is_none()
            && !self.tracer.is_on();
        if !plain || !self.may_wait(route) {
            return false;
        }
        self.deferred.route = Some(route);
        self.deferred.function = self.function_of(route);
        self.deferred.next = self.routes[route].next_seq;
        self.deferred.taints = taint::normalize(self.routes[route].marks);
        true
    }

    /// Take in a plain event of a route without working on it. None, and nothing done, where that has to be done now.
    #[inline]
    pub fn defer(&mut self, route: usize, payload: &Payload, ingest: i64) -> Option<Waits> {
        let due = self.due;
        let waiting = &mut self.deferred;
        if waiting.route != Some(route) || due <= ingest || !payload.is_inline() {
            return None;
        }
        let waits = Waits {
            seq: waiting.next,
            taints: waiting.taints,
            function: waiting.function,
        };
        waiting.next += 1;
        if waits.function.is_some() {
            waiting.called = Some((payload.clone(), ingest));
            return Some(waits);
        }
        waiting.payloads.push(payload.clone());
        waiting.ingests.push(ingest);
        if waiting.payloads.len() >= DEFERRED_MAX {
            self.work_off(route);
        }
        Some(waits)
    }

    /// What became of the function that `defer` asked for. Some: the event has its turn now, which goes on with `resume`.
    pub fn called(&mut self, outcome: Outcome) -> Option<(Call, Outcome)> {
        if let Some(call) = self.deferred.call.take() {
            return Some((*call, outcome));
        }
        let result = match outcome {
            Outcome::Value(value) if self.fits(&value) => Some(value),
            Outcome::Discard => None,
            outcome => {
                // A failure to be told, or a result that is not for a column.
                self.settle();
                return Some((*self.deferred.call.take()?, outcome));
            }
        };
        let waiting = &mut self.deferred;
        let (payload, ingest) = waiting.called.take()?;
        if let Some(value) = result {
            waiting.rows.push(waiting.payloads.len() as u32);
            waiting.results.push(value);
        }
        waiting.payloads.push(payload);
        waiting.ingests.push(ingest);
        if waiting.payloads.len() >= DEFERRED_MAX
            && let Some(route) = waiting.route
        {
            self.work_off(route);
        }
        None
    }

    /// Whether a result of the function has bytes on the route it goes to.
    fn fits(&self, value: &Value) -> bool {
        let node = self
            .deferred
            .function
            .and_then(|(id, _)| self.nodes.get(&id));
        let sink = node.and_then(|node| node.outputs().next());
        sink.is_some_and(|sink| value.encode(self.routes[sink].codec, sink).is_some())
    }

    /// Work on what waits; false where the host has to run the turn before anybody looks.
    #[inline]
    pub fn settle(&mut self) -> bool {
        let open = self.deferred.route.is_some() || self.deferred.unfinished;
        !open || self.settle_open()
    }

    fn settle_open(&mut self) -> bool {
        if let Some(route) = self.deferred.route.take() {
            if !self.deferred.payloads.is_empty() {
                self.work_off(route);
            }
            if let Some((payload, ingest)) = self.deferred.called.take() {
                self.publish_plain(route, payload, ingest);
                // Nothing else is to be done, so this comes first.
                if let Step::Apply(call) = self.step() {
                    self.deferred.call = Some(call);
                }
            }
        }
        !take(&mut self.deferred.unfinished)
    }

    fn work_off(&mut self, route: usize) {
        let payloads = replace(
            &mut self.deferred.payloads,
            Vec::with_capacity(DEFERRED_MAX),
        );
        let ingests = replace(&mut self.deferred.ingests, Vec::with_capacity(DEFERRED_MAX));
        self.now = ingests
            .iter()
            .fold(self.now, |now, ingest| now.max(*ingest));
        let len = payloads.len();
        let landing = self.landing(route, None, len);
        let mut lot = Lot::published(
            landing.first,
            Column::decoded(&payloads, self.routes[route].codec, route),
            len,
            Times::Each(ingests.clone()),
            None,
            Item::default(),
        );
        lot.ingests = Some(ingests);
        let mut journey = Journey::default();
        self.land_loads(&mut journey, route, vec![Load::Lot(lot, landing)]);
        self.travel(journey);
        if self.deferred.function.is_some()
            && let Some(Step::ApplyRun(call)) = self.next.take()
        {
            let rows = take(&mut self.deferred.rows);
            let results = Column::of(take(&mut self.deferred.results));
            let made = Made::Column((rows.len() < len).then_some(rows), results, Vec::new());
            self.resume_run(*call, vec![made]);
        }
        if !self.idle() {
            // The next event comes after that.
            self.deferred.route = None;
            self.deferred.unfinished = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Kind, Step};
    use crate::node::Spec;
    use crate::value::Codec;

    const TAG: [u8; 8] = [1; 8];

    fn number(value: f64) -> Payload {
        Payload::eight(value.to_le_bytes())
    }

    fn publish(engine: &mut Engine, route: usize, at: i64) {
        engine.publish_plain(route, number(0.0), at);
        engine.allow_deferring(route);
        while !matches!(engine.step(), Step::Idle) {}
    }

    fn pipe(engine: &mut Engine, source: usize, kind: &str, with: &str) -> usize {
        let sink = engine.route([2; 8], Codec::Float);
        let spec = format!(
            r#"{{"name": "n", "stages": [{{"kind": "{kind}", "with": {with}}}], "inputs": [{{"route": 0}}], "sink": 1}}"#
        );
        let spec: Spec = serde_json::from_str(&spec).expect("a spec");
        engine.install(&spec, &[source, sink]).expect("a node");
        sink
    }

    #[test]
    fn events_wait_behind_a_plain_one_and_are_numbered_at_once() {
        let mut engine = Engine::new(TAG, TAG);
        let source = engine.route(TAG, Codec::Float);
        let sink = pipe(&mut engine, source, "capacitor", CAPACITOR);
        assert_eq!(
            engine.defer(source, &number(1.0), 1),
            None,
            "not yet allowed"
        );
        publish(&mut engine, source, 1);
        for seq in 2..2 + DEFERRED_MAX as u64 - 1 {
            assert_eq!(
                engine.defer(source, &number(1.0), 2),
                Some(Waits {
                    seq,
                    taints: 0,
                    function: None
                })
            );
        }
        assert_eq!(engine.published(sink), 1, "they wait");
        assert!(engine.defer(source, &number(1.0), 2).is_some());
        assert_eq!(
            engine.published(sink),
            1 + DEFERRED_MAX as u64,
            "no more may"
        );
        assert!(engine.defer(source, &number(1.0), 3).is_some());
        assert!(engine.settle());
        assert_eq!(engine.published(sink), 2 + DEFERRED_MAX as u64);
        assert_eq!(engine.defer(source, &number(1.0), 4), None, "settled");
    }

    #[test]
    fn nothing_waits_where_somebody_could_tell() {
        let mut engine = Engine::new(TAG, TAG);
        let source = engine.route(TAG, Codec::Float);
        let observer = engine.attach(source, "o".into(), "observer", Kind::Direct, false);
        publish(&mut engine, source, 1);
        assert_eq!(engine.defer(source, &number(1.0), 2), None, "an observer");
        engine.detach(observer);
        publish(&mut engine, source, 3);
        assert!(engine.defer(source, &number(1.0), 4).is_some());
        let long = Payload::copy(&[0; 64]);
        assert_eq!(engine.defer(source, &long, 5), None, "many bytes");
        assert!(engine.settle());
        engine.due_by(6);
        publish(&mut engine, source, 5);
        assert_eq!(
            engine.defer(source, &number(1.0), 6),
            None,
            "something is due"
        );
        pipe(&mut engine, source, "debounce", r#"{"ns": 5}"#);
        publish(&mut engine, source, 7);
        assert_eq!(
            engine.defer(source, &number(1.0), 8),
            None,
            "an operator waits for time"
        );
    }

    const CAPACITOR: &str =
        r#"{"capacity": 1, "overflow": "reject", "demand": false, "immediate": true}"#;
}
