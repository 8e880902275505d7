//! The way of one published value: encode, number, deliver.
//!
//! Where nobody runs the turn and only direct observers read the route, the event goes to them at once, under one lock
//! before and one after, and is one Python object for all of them and the caller. Everything else takes the turn.

use std::sync::{Arc, MutexGuard};

use meshfold_core::engine::Outcome;
use meshfold_core::event::Event as Inner;
use meshfold_core::value::Codec;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString};

use crate::codec::encode;
use crate::envelope::Given;
use crate::event::Event;
use crate::graph::{GraphBase, State, me};
use crate::hosts::{Host, outcome_of};
use crate::route::RouteBase;
use crate::turn::Full;

impl GraphBase {
    /// Publish one value (S3). `owner`: it comes from what owns the route.
    pub(crate) fn publish_one(
        &self,
        r: &Bound<'_, RouteBase>,
        value: &Bound<'_, PyAny>,
        full: Full,
        given: &Given<'_, '_>,
        owner: bool,
    ) -> PyResult<Py<Event>> {
        let py = r.py();
        let route = r.get();
        let payload = encode(route, value)?;
        let ingest = self.now(py)?;
        // A value that cannot change need not be decoded again.
        let keep = same_object(route.codec, value).then(|| value.clone().unbind());
        if given.is_nothing()
            && !owner
            && let Some(index) = self.known(route)
        {
            let mut state = self.unsettled();
            if state.owner == 0
                && keep.is_some()
                && let Some(waits) = state.engine.defer(index, &payload, ingest)
            {
                if let Some(function) = waits.function {
                    self.call_before(py, state, function, value)?;
                } else {
                    drop(state);
                }
                let inner = Inner {
                    route: route.tag,
                    producer: self.producer,
                    incarnation: self.incarnation,
                    seq: waits.seq,
                    seq_link: 0,
                    time: ingest,
                    ingest,
                    taints: waits.taints,
                    sampled: false,
                    payload: Some(payload),
                    extra: None,
                };
                return Py::new(py, Event::with_value(inner, r.clone().unbind(), keep));
            }
            let mut state = self.settled(state);
            if state.owner == 0 && state.engine.takes_plain(index, ingest) {
                let home = r.clone().unbind();
                if state.engine.only_direct(index) {
                    let inner = state.engine.publish_direct(index, payload, ingest);
                    let inner = Arc::unwrap_or_clone(inner);
                    return self.hand_out(py, state, index, Event::with_value(inner, home, keep));
                }
                let inner = state.engine.publish_plain(index, payload, ingest);
                let waits = !state.tells && state.engine.allow_deferring(index);
                self.turn(py, state, None)?;
                // The turn has looked, if it called somebody.
                let mut state = self.unsettled();
                if waits && state.owner == 0 && state.engine.idle() {
                    state.engine.allow_deferring(index);
                }
                drop(state);
                let inner = Arc::unwrap_or_clone(inner);
                return Py::new(py, Event::with_value(inner, home, keep));
            }
        }
        let mut input = given.input(py, ingest)?;
        let mut payload = payload;
        let (index, home) = self.admit(py, r, |upcast| {
            payload = upcast(&payload)?;
            Ok(())
        })?;
        (input.payload, input.owner) = (Some(payload), owner);
        let keep = keep.filter(|_| home.is(r));
        let mut made = None;
        self.submit(py, &route.text, full, |engine| {
            made = Some(engine.publish_taking(index, &mut input)?);
            Ok(())
        })?;
        let made =
            made.ok_or_else(|| pyo3::exceptions::PyRuntimeError::new_err("not published"))?;
        let made = Arc::unwrap_or_clone(made);
        Py::new(py, Event::with_value(made, home, keep))
    }

    /// Call the function that all of a deferred event's turn is, as the owner of the turn.
    fn call_before(
        &self,
        py: Python<'_>,
        mut state: MutexGuard<'_, State>,
        (node, function): (u32, usize),
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let host = state.host(node);
        state.owner = me();
        drop(state);
        let mut interrupted = None;
        let outcome = match host.as_deref() {
            Some(Host::Node(functions)) => {
                let result = functions.call(py, self, function, value.clone().unbind());
                outcome_of(py, result, &mut interrupted)
            }
            _ => Outcome::Discard,
        };
        drop(host);
        let mut state = self.unsettled();
        if let Some((call, outcome)) = state.engine.called(outcome) {
            state.engine.resume(call, outcome);
            return self.turn(py, state, interrupted);
        }
        state.owner = 0;
        drop(state);
        self.grave.empty();
        interrupted.map_or(Ok(()), Err)
    }

    /// Give an event to the direct observers of its route, as the owner of the turn, then run what came up meanwhile.
    fn hand_out(
        &self,
        py: Python<'_>,
        mut state: MutexGuard<'_, State>,
        route: usize,
        event: Event,
    ) -> PyResult<Py<Event>> {
        if state.engine.edges_of(route).is_empty() {
            state.engine.tracer.finish();
            if !state.tells {
                state.engine.allow_deferring(route);
            }
            drop(state);
            return Py::new(py, event);
        }
        let readers = state.readers(route);
        state.owner = me();
        drop(state);
        let sampled = event.inner.sampled;
        let event = Py::new(py, event)?;
        let mut interrupted = None;
        for (edge, host) in &*readers {
            if let Host::Observe(callback) = &**host
                && let Err(failure) = callback.call1(py, (&event,))
            {
                self.note(py, *edge, Err(failure), &mut interrupted);
            }
        }
        // Only a sampled event asks for the time; a clock that fails costs a duration, no event.
        let now = sampled.then(|| self.now(py).ok()).flatten();
        let mut state = self.state();
        if let Some(now) = now {
            state.engine.tracer.tick(now);
        }
        state.engine.tracer.finish();
        if state.engine.idle() && state.sleepers == 0 && interrupted.is_none() && !self.waits() {
            state.owner = 0;
            return Ok(event);
        }
        self.turn(py, state, interrupted)?;
        Ok(event)
    }
}

/// Whether the event may hand out the very object that was published: it is what decoding would give.
fn same_object(codec: Codec, value: &Bound<'_, PyAny>) -> bool {
    match codec {
        Codec::Float => value.is_exact_instance_of::<PyFloat>(),
        Codec::Int => value.is_exact_instance_of::<PyInt>(),
        Codec::Bool => value.is_exact_instance_of::<PyBool>(),
        Codec::Str => value.is_exact_instance_of::<PyString>(),
        Codec::Bytes => value.is_exact_instance_of::<PyBytes>(),
        Codec::Json | Codec::Foreign => false,
    }
}
