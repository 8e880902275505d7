//! Span records of sampled events, as the thread that exports them fetches them.

use std::sync::Arc;

use meshfold_core::event::{Event, EventId};
use meshfold_core::trace::{SpanKind, SpanRecord};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::event::{id_text, taint_names};
use crate::graph::GraphBase;
use crate::queue::Batch;

const fn kind_name(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Publish => "publish",
        SpanKind::Operator => "operator",
        SpanKind::Process => "process",
        SpanKind::Bridge => "bridge",
    }
}

/// Record sampled events: a root is sampled if the low half of its trace id is not above `bound`, and at most
/// `roots_max` in a second; at most `records_max` records are kept in a second.
#[pyfunction]
pub(crate) fn trace_start(
    graph: &Bound<'_, GraphBase>,
    bound: u64,
    roots_max: u32,
    records_max: u32,
) {
    let tracer = &mut graph.get().state().engine.tracer;
    tracer.start(bound, roots_max, records_max);
}

/// Record nothing more.
#[pyfunction]
pub(crate) fn trace_stop(graph: &Bound<'_, GraphBase>) {
    graph.get().state().engine.tracer.stop();
}

/// Records made ever, and of these dropped.
#[pyfunction]
pub(crate) fn trace_counts(graph: &Bound<'_, GraphBase>) -> (u64, u64) {
    graph.get().state().engine.tracer.counts()
}

/// Trace contexts from outside that were none, and were ignored.
#[pyfunction]
pub(crate) fn trace_ignored(graph: &Bound<'_, GraphBase>) -> u64 {
    graph.get().state().engine.tracer.ignored
}

/// Take up to `max` records, oldest first, each as the fields of `meshfold.core.SpanRecord`.
#[pyfunction]
pub(crate) fn trace_take<'py>(
    graph: &Bound<'py, GraphBase>,
    max: usize,
) -> PyResult<Vec<Bound<'py, PyTuple>>> {
    let taken = graph.get().state().engine.tracer.take(max);
    taken.iter().map(|record| row(graph, record)).collect()
}

/// Note that the sampled events of a batch were handed to the broker, or why not.
#[pyfunction]
pub(crate) fn trace_bridge(
    graph: &Bound<'_, GraphBase>,
    batch: &Bound<'_, Batch>,
    error: Option<&str>,
) -> PyResult<()> {
    let base = graph.get();
    let end = base.now(graph.py())?;
    let records = std::mem::take(&mut *batch.get().spans());
    let tracer = &mut base.state().engine.tracer;
    for mut record in records {
        record.end = end.max(record.start);
        record.error = error.map(Into::into);
        tracer.keep(record);
    }
    Ok(())
}

/// The span id of an event where it was made.
#[pyfunction]
pub(crate) fn event_span(
    py: Python<'_>,
    producer: [u8; 8],
    incarnation: [u8; 8],
    route: [u8; 8],
    seq: u64,
) -> Bound<'_, PyBytes> {
    let id = EventId {
        producer,
        incarnation,
        route,
        seq,
    };
    PyBytes::new(py, &meshfold_core::trace::event_span(&id))
}

fn row<'py>(graph: &Bound<'py, GraphBase>, r: &SpanRecord) -> PyResult<Bound<'py, PyTuple>> {
    let py = graph.py();
    let links: Vec<_> = r
        .links
        .iter()
        .map(|link| (PyBytes::new(py, &link.trace), PyBytes::new(py, &link.span)))
        .collect();
    // Two tuples: conversions exist for up to twelve fields.
    let what = (
        kind_name(r.kind),
        id_text(&r.event),
        PyBytes::new(py, &r.event.producer),
        graph.get().route_text(r.event.route),
        PyBytes::new(py, &r.trace),
        PyBytes::new(py, &r.span),
        r.parent.map(|parent| PyBytes::new(py, &parent)),
        links,
        r.inputs,
    );
    let how = (
        r.operator.as_deref(),
        r.correlation.as_deref(),
        taint_names(r.taints),
        r.size,
        r.start,
        r.end,
        r.error.as_deref(),
    );
    let (what, how) = (what.into_pyobject(py)?, how.into_pyobject(py)?);
    what.as_sequence().concat(how.as_sequence())?.to_tuple()
}

impl GraphBase {
    /// Records of the sampled events of a batch that is about to leave, from now on.
    pub(crate) fn bridge_spans(&self, py: Python<'_>, events: &[Arc<Event>]) -> Vec<SpanRecord> {
        let mut records: Vec<_> = events
            .iter()
            .filter(|event| event.sampled)
            .map(|event| SpanRecord::of(SpanKind::Bridge, event, self.producer))
            .collect();
        if !records.is_empty() {
            // A clock that fails costs a duration, no event.
            let now = self.now(py).unwrap_or(0);
            for record in &mut records {
                record.start = record.start.max(now);
            }
        }
        records
    }
}
