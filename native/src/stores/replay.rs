//! Events of a store back into a graph: derived anew, or restored under their identities.

use std::sync::Arc;

use meshfold_core::engine::RUN_MAX;
use pyo3::prelude::*;

use crate::convert::taint_bits;
use crate::errors::error;
use crate::event::Event;
use crate::graph::GraphBase;
use crate::route::RouteBase;
use crate::turn::Full;

/// Publish events derived from these on `sink`, in order, with their values, taints, trace and them as parents.
#[pyfunction]
#[allow(
    clippy::needless_pass_by_value,
    reason = "extracted from Python objects"
)]
pub(crate) fn derive_all(
    py: Python<'_>,
    graph: &GraphBase,
    sink: &Bound<'_, RouteBase>,
    sources: Vec<PyRef<'_, Event>>,
    operator: &str,
    taints: &Bound<'_, PyAny>,
) -> PyResult<usize> {
    let bits = taint_bits(py, taints)?;
    let index = graph.index(py, sink)?;
    let sources: Vec<_> = sources.iter().map(|event| event.inner.clone()).collect();
    for slice in sources.chunks(RUN_MAX) {
        let mut done = 0;
        graph.submit(py, &sink.get().text, Full::Wait, |engine| {
            while done < slice.len() {
                engine.publish_from(index, operator, &slice[done], bits)?;
                done += 1;
            }
            Ok(())
        })?;
    }
    Ok(sources.len())
}

/// Put remembered events back into a route's history, oldest first; numbering goes on at `next` or behind them.
#[pyfunction]
#[allow(
    clippy::needless_pass_by_value,
    reason = "extracted from Python objects"
)]
pub(crate) fn restore(
    py: Python<'_>,
    graph: &GraphBase,
    r: &Bound<'_, RouteBase>,
    packed: Vec<Vec<u8>>,
    next: u64,
) -> PyResult<usize> {
    let index = graph.index(py, r)?;
    let mut events = Vec::with_capacity(packed.len());
    for bytes in &packed {
        let event = meshfold_stores::record::decode(bytes);
        let Some(event) = event.filter(|event| event.route == r.get().tag) else {
            let what = format!(
                "{} bytes remembered of {} are no event",
                bytes.len(),
                r.get().text
            );
            let fix = "restore the memory's file from a copy";
            return Err(error(py, "DecodeError", &what, fix, ("reason", "batch")));
        };
        events.push(Arc::new(event));
    }
    let mut state = graph.state();
    for event in &events {
        state.engine.restore(index, event.clone());
    }
    state.engine.number_from(index, next);
    Ok(events.len())
}
