//! Running the turn: one thread at a time does what the engine says (S3).
//!
//! Rules: no Python object is released and no Python called while the engine's lock is held; the interpreter lock is
//! never held while waiting.

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use meshfold_core::engine::{Call, Engine, INPUT_EVENTS_MAX, Outcome, Refused, Step};
use meshfold_core::event::Event;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use crate::errors::{error, raise};
use crate::event::taint_names;
use crate::graph::{FAILURES_MAX, GraphBase, State, locked, me};
use crate::hosts::{Host, outcome_of};
use crate::mailbox::{lane_of, no_credit, too_large};

/// What to do when the input queue has no room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// Wait without the interpreter lock.
    Wait,
    /// Raise `WouldBlock`.
    Raise,
}

impl GraphBase {
    /// Queue numbered events for their turn, then run the turn unless another thread does (S3).
    pub(crate) fn submit(
        &self,
        py: Python<'_>,
        text: &str,
        full: Full,
        mut put: impl FnMut(&mut Engine) -> Result<(), Refused>,
    ) -> PyResult<()> {
        let mut waited = None;
        loop {
            let mut state = self.state();
            let refused = match put(&mut state.engine) {
                Ok(()) if state.owner != 0 => return Ok(()),
                Ok(()) => return self.turn(py, state, None),
                Err(refused) => refused,
            };
            let inside = state.owner == me();
            drop(state);
            match refused {
                Refused::Full if inside || full == Full::Raise => {
                    return Err(no_room(py, text, inside));
                }
                Refused::NoCredit(edge) | Refused::Rejected(edge)
                    if inside || full == Full::Raise || refused == Refused::Rejected(edge) =>
                {
                    let state = self.state();
                    let (name, row) = (state.engine.name(edge), state.engine.credit_of(edge));
                    drop(state);
                    let rejected = refused == Refused::Rejected(edge);
                    let class = if rejected { "QueueFull" } else { "WouldBlock" };
                    let capacity = row.map_or(0, |row| row.capacity);
                    return Err(no_credit(py, class, text, &name, capacity));
                }
                Refused::NoCredit(edge) | Refused::Rejected(edge) => {
                    self.wait_for_credit(py, text, edge, &mut waited)?;
                }
                Refused::TooLarge(edge, most) => {
                    let name = self.state().engine.name(edge);
                    return Err(too_large(py, text, &name, most));
                }
                Refused::Full => {
                    py.detach(|| {
                        let state = self.state();
                        if !state.engine.room_in(lane_of(text)) {
                            drop(self.nap(state));
                        }
                    });
                    py.check_signals()?;
                }
                Refused::Owned => {
                    let what = format!("{text} is written by what owns it");
                    let fix = "write through its binding or operator";
                    return Err(error(py, "WiringError", &what, fix, ("item", text)));
                }
                Refused::Expired => {
                    let what =
                        format!("{text} is ephemeral and has no time to live, or none any more");
                    let fix = "declare it with graph.ephemeral";
                    return Err(error(py, "WiringError", &what, fix, ("item", text)));
                }
                Refused::Tainted(above) => return Err(tainted(py, text, above)),
                Refused::Batch(why) => {
                    let what = format!("not a batch: {}", why.0);
                    return Err(error(py, "DecodeError", &what, "", ("reason", "batch")));
                }
                Refused::Producers => {
                    let what = "too many producers on one route";
                    return Err(error(py, "DecodeError", what, "", ("reason", "limit")));
                }
            }
        }
    }

    /// Wait for credit on an edge, without the interpreter lock; what was numbered before goes on meanwhile.
    #[allow(
        clippy::disallowed_methods,
        reason = "the binding is where waiting is measured"
    )]
    fn wait_for_credit(
        &self,
        py: Python<'_>,
        text: &str,
        edge: u32,
        since: &mut Option<Instant>,
    ) -> PyResult<()> {
        self.run(py)?;
        let since = *since.get_or_insert_with(Instant::now);
        let limit = self.state().engine.block_ns(edge);
        if limit > 0 && since.elapsed() >= Duration::from_nanos(limit.unsigned_abs()) {
            let state = self.state();
            let (name, row) = (state.engine.name(edge), state.engine.credit_of(edge));
            drop(state);
            let capacity = row.map_or(0, |row| row.capacity);
            return Err(no_credit(py, "QueueFull", text, &name, capacity));
        }
        py.detach(|| {
            let mut state = self.state();
            if state
                .engine
                .credit_of(edge)
                .is_some_and(|row| row.available > 0)
            {
                return;
            }
            state.engine.waits_for(edge, true);
            self.nap(state).engine.waits_for(edge, false);
        });
        py.check_signals()
    }

    /// Credit has come back: whoever waits for it looks again.
    pub(crate) fn let_on(&self, py: Python<'_>) -> PyResult<()> {
        if self.state().sleepers > 0 {
            self.changed.notify_all();
        }
        let mut interrupted = None;
        self.wake_waiting(py, &mut interrupted);
        interrupted.map_or(Ok(()), Err)
    }

    /// Run the turn unless another thread does, or nothing is to be done.
    pub(crate) fn run(&self, py: Python<'_>) -> PyResult<()> {
        let state = self.state();
        if state.owner != 0 || state.engine.idle() {
            return Ok(());
        }
        self.turn(py, state, None)
    }

    /// Run the turn to its end, as its owner. An exception that is no `Exception` (Ctrl-C) is raised after it.
    pub(crate) fn turn(
        &self,
        py: Python<'_>,
        state: MutexGuard<'_, State>,
        mut interrupted: Option<PyErr>,
    ) -> PyResult<()> {
        let mut held = Some(state);
        let mut traced = false;
        // One Python object for all observers of an event.
        let mut last: Option<(Arc<Event>, Py<crate::event::Event>)> = None;
        loop {
            // Only a sampled event asks for the time after each step; a clock that fails costs a duration, no event.
            let now = traced.then(|| self.now(py).ok()).flatten();
            let mut state = held.take().unwrap_or_else(|| self.state());
            if let Some(now) = now {
                state.engine.tracer.tick(now);
            }
            let step = state.engine.step();
            traced = state.engine.tracer.is_open();
            state.owner = if matches!(step, Step::Idle) { 0 } else { me() };
            let room = state.engine.room() > 0;
            let sleepers = state.sleepers > 0;
            let (host, route) = match &step {
                Step::Ready(id) | Step::Spill(id, _) | Step::Refill(id) => (state.host(*id), None),
                Step::Observe(id, event) => (state.host(*id), state.route_of(py, event)),
                Step::Apply(call) => (state.host(call.node), None),
                Step::ApplyRun(call) => (state.host(call.node), None),
                Step::Failed(..) | Step::Idle => (None, None),
            };
            let due = state.engine.due();
            drop(state);
            match step {
                Step::Idle => {
                    if sleepers {
                        self.changed.notify_all();
                    }
                    if due < i64::MAX {
                        let result = self.ring_at(py, due);
                        self.note(py, 0, result, &mut interrupted);
                    }
                    self.grave.empty();
                    self.wake_waiting(py, &mut interrupted);
                    return interrupted.map_or(Ok(()), Err);
                }
                Step::Ready(edge) => {
                    if sleepers {
                        self.changed.notify_all();
                    }
                    if let Some(Host::Wake(Some(wake)) | Host::Mail(wake, _)) = host.as_deref() {
                        let result = wake.call0(py).map(|_| ());
                        self.note(py, edge, result, &mut interrupted);
                    }
                }
                Step::Spill(edge, event) => match host.as_deref() {
                    Some(host) => self.keep_spilled(py, edge, &event, host),
                    None => self.state().engine.spilled(edge, &event, false),
                },
                Step::Refill(edge) => {
                    let came = host
                        .as_deref()
                        .map_or(Ok(false), |host| self.bring_back(py, edge, host));
                    if !matches!(came, Ok(true)) {
                        self.state().engine.give_up_refill(edge);
                    }
                    self.note(py, edge, came.map(|_| ()), &mut interrupted);
                }
                Step::Observe(edge, event) => {
                    if let (Some(Host::Observe(callback)), Some(route)) = (host.as_deref(), route) {
                        let known = last
                            .as_ref()
                            .filter(|(inner, _)| Arc::ptr_eq(inner, &event));
                        let object = match known {
                            Some((_, object)) => Ok(object.clone_ref(py)),
                            None => Py::new(py, crate::event::Event::new(event.clone(), route)),
                        };
                        let result = object.and_then(|object| {
                            let result = callback.call1(py, (&object,)).map(|_| ());
                            last = Some((event, object));
                            result
                        });
                        self.note(py, edge, result, &mut interrupted);
                    }
                }
                Step::Apply(call) => {
                    held = self.apply(py, host, *call, &mut interrupted);
                }
                Step::ApplyRun(call) => {
                    self.apply_run(py, host.as_deref(), *call, &mut interrupted);
                }
                Step::Failed(id, why) => self.keep_failure(py, id, &why),
            }
            if room && held.is_none() {
                self.wake_waiting(py, &mut interrupted);
            }
        }
    }

    /// Do what a call asks for; the lock is given back if nothing has to be done without it.
    fn apply(
        &self,
        py: Python<'_>,
        host: Option<Arc<Host>>,
        call: Call,
        interrupted: &mut Option<PyErr>,
    ) -> Option<MutexGuard<'_, State>> {
        let outcome = match host.as_deref() {
            Some(Host::Node(functions)) => {
                let result = functions.run(py, self, call.function, &call.item.value);
                outcome_of(py, result, interrupted)
            }
            _ => Outcome::Discard,
        };
        // Should this be the last of it, it is released without the lock.
        drop(host);
        let mut state = self.state();
        state.engine.resume(call, outcome);
        // A clock in Python is asked without the lock.
        if self.grave.is_empty() && !state.engine.tracer.is_open() {
            return Some(state);
        }
        drop(state);
        self.grave.empty();
        None
    }

    /// A failing observer is isolated: counted and kept, the others go on (S4).
    pub(crate) fn note(
        &self,
        py: Python<'_>,
        edge: u32,
        result: PyResult<()>,
        interrupted: &mut Option<PyErr>,
    ) {
        let Err(failure) = result else { return };
        if !failure.is_instance_of::<PyException>(py) {
            interrupted.get_or_insert(failure);
            return;
        }
        self.keep_failure(py, edge, &failure.to_string());
    }

    fn keep_failure(&self, py: Python<'_>, id: u32, text: &str) {
        let state = self.state();
        let name = state.engine.name(id);
        let route = state.engine.edge(id).map(|edge| edge.route);
        let route = route.map(|index| state.routes[index].get().text.clone());
        drop(state);
        let mut failures = locked(&self.failures);
        failures.0 += 1;
        if failures.1.len() >= FAILURES_MAX {
            failures.1.pop_front();
        }
        failures.1.push_back((name.clone(), text.to_owned()));
        drop(failures);
        let call = locked(&self.failed).as_ref().map(|call| call.clone_ref(py));
        if let Some(call) = call {
            // Whoever is told of failures fails in silence: there is nobody left to tell.
            let _ = call.call1(py, (&name, route.unwrap_or_default(), text));
        }
    }

    /// Whether somebody waits for room without blocking a thread.
    pub(crate) fn waits(&self) -> bool {
        self.waiting.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Tell those who wait for room without blocking a thread.
    fn wake_waiting(&self, py: Python<'_>, interrupted: &mut Option<PyErr>) {
        if !self.waits() {
            return;
        }
        let calls = std::mem::take(&mut *locked(&self.rooms));
        self.waiting
            .store(false, std::sync::atomic::Ordering::Release);
        for call in calls {
            let result = call.call0(py).map(|_| ());
            self.note(py, 0, result, interrupted);
        }
    }
}

pub(crate) fn tainted(py: Python<'_>, text: &str, above: u64) -> PyErr {
    let names = taint_names(above).join(", ");
    let what = format!("{names} is above the declared bound of taints of {text}");
    let fix = "repair it before it comes here, or declare a wider bound with graph.bound_taints";
    raise(
        py,
        "TaintExceeded",
        &what,
        fix,
        &[("route", &text), ("taints", &names)],
    )
}

fn no_room(py: Python<'_>, text: &str, inside: bool) -> PyErr {
    let what = format!("the input queue of the graph is full ({INPUT_EVENTS_MAX} events)");
    let (class, fix) = if inside {
        ("QueueFull", "publish less inside an observer")
    } else {
        (
            "WouldBlock",
            "publish waits for room, apublish too without blocking the event loop",
        )
    };
    error(py, class, &what, fix, ("route", text))
}
