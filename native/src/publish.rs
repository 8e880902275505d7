//! The way of one published value: encode, number, deliver.
//!
//! Where nobody runs the turn and only direct observers read the route, the event goes to them at once, under one lock
//! before and one after, and is one Python object for all of them and the caller. Everything else takes the turn.

use std::sync::Arc;

use meshfold_core::engine::Input;
use meshfold_core::event::Event as Inner;
use meshfold_core::trace::Outside;
use meshfold_core::value::Codec;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString};

use crate::codec::encode;
use crate::convert::{ids, taint_bits, texts};
use crate::errors::error;
use crate::event::Event;
use crate::graph::{GraphBase, Readers};
use crate::hosts::Host;
use crate::route::RouteBase;
use crate::turn::Full;

/// What a publisher may say besides the value.
pub(crate) struct Envelope<'a, 'py> {
    pub(crate) time: Option<i64>,
    pub(crate) key: Option<&'a str>,
    pub(crate) parents: Option<&'a Bound<'py, PyAny>>,
    pub(crate) correlation: Option<&'a str>,
    pub(crate) taints: Option<&'a Bound<'py, PyAny>>,
    pub(crate) labels: Option<&'a Bound<'py, PyAny>>,
    pub(crate) guards: Option<&'a Bound<'py, PyAny>>,
    pub(crate) qos: u8,
    pub(crate) epoch: u64,
    pub(crate) clock: Option<&'a str>,
    pub(crate) logical_time: u64,
    /// A W3C trace context from outside.
    pub(crate) traceparent: Option<&'a str>,
    /// It comes from what owns the route.
    pub(crate) owner: bool,
}

impl Envelope<'_, '_> {
    fn outside(&self, py: Python<'_>, header: &str) -> PyResult<Outside> {
        let refused = |what: &str, fix: &str| error(py, "WiringError", what, fix, ("item", header));
        if self.parents.is_some() {
            let fix = "give parents or traceparent, and not both";
            return Err(refused("an event has causes or comes from outside", fix));
        }
        let fix = "write 00-TRACE-SPAN-FLAGS in lower-case hex, as `event.traceparent` does";
        Outside::parse(header).ok_or_else(|| refused("this is no W3C traceparent", fix))
    }

    pub(crate) fn input(&self, py: Python<'_>, ingest: i64) -> PyResult<Input> {
        let text = |text: Option<&str>| text.map(Arc::<str>::from);
        Ok(Input {
            payload: None,
            time: self.time.unwrap_or(ingest),
            ingest,
            key: text(self.key),
            correlation: text(self.correlation),
            parents: match self.parents {
                Some(parents) => ids(py, parents)?,
                None => Vec::new(),
            },
            taints: self.taints.map_or(Ok(0), |taints| taint_bits(py, taints))?,
            clock: text(self.clock),
            logical: self.logical_time,
            epoch: self.epoch,
            qos: self.qos,
            guards: self
                .guards
                .map_or_else(|| Ok(Vec::new()), |guards| texts(py, guards, "guards"))?,
            labels: self
                .labels
                .map_or_else(|| Ok(Vec::new()), |labels| texts(py, labels, "labels"))?,
            owner: self.owner,
            payload_ref: None,
            outside: self
                .traceparent
                .map(|header| self.outside(py, header))
                .transpose()?,
        })
    }
}

impl GraphBase {
    /// Publish one value (S3).
    pub(crate) fn publish_one(
        &self,
        r: &Bound<'_, RouteBase>,
        value: &Bound<'_, PyAny>,
        full: Full,
        envelope: &Envelope<'_, '_>,
    ) -> PyResult<Py<Event>> {
        let py = r.py();
        let route = r.get();
        let mut payload = [encode(route, value)?];
        let mut input = envelope.input(py, self.now(py)?)?;
        let (index, home) = self.admit(py, r, &mut payload)?;
        let [payload] = payload;
        input.payload = Some(payload);
        // A value that cannot change need not be decoded again.
        let keep = same_object(route.codec, value) && home.is(r);
        let keep = keep.then(|| value.clone().unbind());
        let wrap = |inner: Arc<Inner>| Py::new(py, Event::with_value(inner, home, keep));
        let mut state = self.state();
        if state.owner.is_none()
            && let Some(inner) = state.engine.publish_direct(index, &mut input)
        {
            let readers = state.readers(index);
            state.owner = (!readers.is_empty()).then(|| std::thread::current().id());
            if readers.is_empty() {
                state.engine.tracer.finish();
            }
            drop(state);
            let event = wrap(inner)?;
            if !readers.is_empty() {
                self.deliver(py, &event, &readers)?;
            }
            return Ok(event);
        }
        drop(state);
        let mut made = None;
        self.submit(py, &route.text, full, |engine| {
            made = Some(engine.publish_taking(index, &mut input)?);
            Ok(())
        })?;
        let made =
            made.ok_or_else(|| pyo3::exceptions::PyRuntimeError::new_err("not published"))?;
        wrap(made)
    }

    /// Call direct observers with one event, as the owner of the turn, then run what came up meanwhile.
    fn deliver(&self, py: Python<'_>, event: &Py<Event>, readers: &Readers) -> PyResult<()> {
        let mut interrupted = None;
        for (edge, host) in &**readers {
            if let Host::Observe(callback) = &**host {
                let result = callback.call1(py, (event,));
                if let Err(failure) = result {
                    self.note(py, *edge, Err(failure), &mut interrupted);
                }
            }
        }
        // Only a sampled event asks for the time; a clock that fails costs a duration, no event.
        let sampled = event.get().inner.sampled;
        let now = sampled.then(|| self.now(py).ok()).flatten();
        let mut state = self.state();
        if let Some(now) = now {
            state.engine.tracer.tick(now);
        }
        state.engine.tracer.finish();
        if state.engine.idle() && state.sleepers == 0 && interrupted.is_none() && !self.waits() {
            state.owner = None;
            return Ok(());
        }
        drop(state);
        self.turn(py, interrupted)
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
