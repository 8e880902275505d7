//! The reading end of a bounded queue: streams, queued observers and taps.

use std::sync::{Mutex, MutexGuard, PoisonError};

use meshfold_core::batch;
use meshfold_core::engine;
use meshfold_core::registry::TRUST_MIXED_SOURCES;
use meshfold_core::ring::Ring;
use meshfold_core::trace::SpanRecord;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::convert::counters;
use crate::event::{Event, taint_names};
use crate::graph::{GraphBase, State};

/// The reading end of an edge's queue.
#[pyclass(frozen, module = "meshfold._native")]
pub(crate) struct Queue {
    pub(crate) graph: Py<GraphBase>,
    pub(crate) edge: u32,
}

/// Encoded events of one route and incarnation with consecutive numbers (MB1).
#[pyclass(frozen, module = "meshfold._native")]
pub(crate) struct Batch {
    #[pyo3(get)]
    count: usize,
    #[pyo3(get)]
    first_seq: u64,
    #[pyo3(get)]
    last_seq: u64,
    #[pyo3(get)]
    producer: Py<PyBytes>,
    #[pyo3(get)]
    incarnation: Py<PyBytes>,
    #[pyo3(get)]
    meta: Py<PyBytes>,
    #[pyo3(get)]
    payload: Py<PyBytes>,
    #[pyo3(get)]
    mixed_sources: bool,
    /// Number of events whose hand-over `trace_bridge` records.
    #[pyo3(get)]
    sampled: usize,
    spans: Mutex<Vec<SpanRecord>>,
}

impl Batch {
    pub(crate) fn spans(&self) -> MutexGuard<'_, Vec<SpanRecord>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Queue {
    /// The edge's number.
    #[getter]
    fn edge(&self) -> u32 {
        self.edge
    }

    /// Take the oldest event; None if nothing waits.
    fn pop(&self, py: Python<'_>) -> PyResult<Option<Event>> {
        let graph = self.graph.get();
        let (taken, gate) = {
            let engine = &mut graph.state().engine;
            let taken = engine.ring(self.edge).and_then(Ring::pop);
            let edge = engine.edge(self.edge);
            (taken, edge.is_some_and(engine::Edge::is_gate))
        };
        let Some(taken) = taken else {
            return Ok(None);
        };
        if gate {
            graph.let_on(py)?;
        }
        graph.event(py, taken).map(Some)
    }

    /// Take up to `max` events.
    fn take(&self, py: Python<'_>, max: usize) -> PyResult<Vec<Event>> {
        let graph = self.graph.get();
        let taken = graph
            .state()
            .engine
            .ring(self.edge)
            .map(|ring| ring.take(max))
            .unwrap_or_default();
        if !taken.is_empty() {
            graph.let_on(py)?;
        }
        taken
            .into_iter()
            .map(|inner| graph.event(py, inner))
            .collect()
    }

    /// Take up to `max` events as columns: (numbers, device times, payloads one behind the other or None, keys if any has
    /// one, taints, producer, incarnation). None if nothing waits.
    #[allow(clippy::type_complexity, reason = "plain data for one batch")]
    fn take_columns<'py>(
        &self,
        py: Python<'py>,
        max: usize,
    ) -> PyResult<
        Option<(
            Bound<'py, PyBytes>,
            Bound<'py, PyBytes>,
            Option<Bound<'py, PyBytes>>,
            Option<Vec<Option<String>>>,
            Vec<&'static str>,
            Bound<'py, PyBytes>,
            Bound<'py, PyBytes>,
        )>,
    > {
        let graph = self.graph.get();
        let taken = {
            let engine = &mut graph.state().engine;
            engine.ring(self.edge).map(|ring| ring.take_columns(max))
        };
        let taken = taken.unwrap_or_default();
        let Some(first) = taken.first() else {
            return Ok(None);
        };
        graph.let_on(py)?;
        let seqs: Vec<u8> = taken.iter().flat_map(|e| e.seq.to_ne_bytes()).collect();
        let times: Vec<u8> = taken.iter().flat_map(|e| e.time.to_ne_bytes()).collect();
        let payloads = first.payload.is_some().then(|| {
            let all = taken.iter().filter_map(|event| event.payload.as_ref());
            all.fold(Vec::new(), |mut data: Vec<u8>, payload| {
                data.extend_from_slice(payload);
                data
            })
        });
        let key = |event: &meshfold_core::event::Event| event.key.as_deref().map(str::to_owned);
        let keyed = taken.iter().any(|event| event.key.is_some());
        let keys = keyed.then(|| taken.iter().map(|event| key(event)).collect());
        Ok(Some((
            PyBytes::new(py, &seqs),
            PyBytes::new(py, &times),
            payloads.map(|data| PyBytes::new(py, &data)),
            keys,
            taint_names(first.taints),
            PyBytes::new(py, &first.producer),
            PyBytes::new(py, &first.incarnation),
        )))
    }

    /// Take one batch and encode it; None if nothing waits.
    fn drain(
        &self,
        py: Python<'_>,
        max_events: usize,
        max_bytes: usize,
    ) -> PyResult<Option<Batch>> {
        let graph = self.graph.get();
        let (taken, traced, gate) = {
            let engine = &mut graph.state().engine;
            let gate = engine.edge(self.edge).is_some_and(engine::Edge::is_gate);
            let Some(ring) = engine.ring(self.edge) else {
                return Ok(None);
            };
            let taken = ring.take_batch(max_events, max_bytes);
            (taken, engine.tracer.is_on(), gate)
        };
        if gate && !taken.is_empty() {
            graph.let_on(py)?;
        }
        let spans = if traced {
            graph.bridge_spans(py, &taken)
        } else {
            Vec::new()
        };
        let (Some(first), Some(last)) = (taken.first(), taken.last()) else {
            return Ok(None);
        };
        let (meta, size) = py.detach(|| (batch::encode_meta(&taken), batch::payload_bytes(&taken)));
        let payload = PyBytes::new_with(py, size, |out| {
            py.detach(|| batch::encode_payload(&taken, out));
            Ok(())
        })?;
        Ok(Some(Batch {
            count: taken.len(),
            first_seq: first.seq,
            last_seq: last.seq,
            producer: PyBytes::new(py, &first.producer).unbind(),
            incarnation: PyBytes::new(py, &first.incarnation).unbind(),
            meta: PyBytes::new(py, &meta).unbind(),
            payload: payload.unbind(),
            mixed_sources: taken
                .iter()
                .any(|event| event.taints & TRUST_MIXED_SOURCES != 0),
            sampled: spans.len(),
            spans: Mutex::new(spans),
        }))
    }

    /// Wait without the interpreter lock until something is there, for at most `timeout` seconds; whether it is.
    fn wait(&self, py: Python<'_>, timeout: f64) -> bool {
        let graph = self.graph.get();
        let edge = self.edge;
        py.detach(|| {
            let empty = |state: &mut State| {
                let ring = state.engine.ring(edge);
                ring.is_some_and(|ring| ring.is_empty())
            };
            let mut state = graph.sleep_while(graph.state(), timeout, empty);
            let ring = state.engine.ring(edge);
            ring.is_some_and(|ring| !ring.is_empty())
        })
    }

    /// Events waiting; 0 once closed.
    #[getter]
    fn pending(&self) -> usize {
        self.graph
            .get()
            .state()
            .engine
            .ring(self.edge)
            .map_or(0, |ring| ring.len())
    }

    /// Whether the edge is there.
    #[getter]
    fn open(&self) -> bool {
        self.graph.get().state().engine.edge(self.edge).is_some()
    }

    /// (offered, delivered, dropped by reason, pending, replayed); None once closed.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let total = self
            .graph
            .get()
            .state()
            .engine
            .edge(self.edge)
            .map(|edge| edge.ledger().total());
        total.map(|total| counters(py, &total)).transpose()
    }
}
