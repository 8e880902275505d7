//! What write bindings and control loops need of a graph: routes with an owner, and many routes read at one moment.

use pyo3::prelude::*;

use crate::event::Event;
use crate::graph::GraphBase;
use crate::publish::Envelope;
use crate::route::RouteBase;
use crate::turn::Full;

/// From now on only `publish_owned` publishes on the route, or (`on` false) one owner gives it up.
#[pyfunction]
pub(crate) fn own(
    py: Python<'_>,
    graph: &GraphBase,
    r: &Bound<'_, RouteBase>,
    on: bool,
) -> PyResult<()> {
    let index = graph.index(py, r)?;
    graph.state().engine.own(index, on);
    Ok(())
}

/// The newest event of each route, all of one moment between two steps of the turn.
#[pyfunction]
#[allow(
    clippy::needless_pass_by_value,
    reason = "extracted from Python objects"
)]
pub(crate) fn frozen(
    py: Python<'_>,
    graph: &GraphBase,
    routes: Vec<Bound<'_, RouteBase>>,
) -> PyResult<Vec<Option<Event>>> {
    let indices: PyResult<Vec<_>> = routes.iter().map(|r| graph.index(py, r)).collect();
    let indices = indices?;
    let state = graph.state();
    let found: Vec<_> = indices
        .iter()
        .map(|index| state.engine.latest(*index).cloned())
        .collect();
    drop(state);
    let event = |(inner, r): (Option<_>, &Bound<'_, RouteBase>)| {
        inner.map(|inner| Event::new(inner, r.clone().unbind()))
    };
    Ok(found.into_iter().zip(&routes).map(event).collect())
}

/// As `publish`, from what owns the route.
#[pyfunction]
#[pyo3(signature = (graph, r, value, *, time=None, key=None, parents=None, correlation=None, taints=None, guards=None,
    epoch=0))]
#[allow(clippy::too_many_arguments, reason = "as publish")]
pub(crate) fn publish_owned(
    graph: &GraphBase,
    r: &Bound<'_, RouteBase>,
    value: &Bound<'_, PyAny>,
    time: Option<i64>,
    key: Option<&str>,
    parents: Option<&Bound<'_, PyAny>>,
    correlation: Option<&str>,
    taints: Option<&Bound<'_, PyAny>>,
    guards: Option<&Bound<'_, PyAny>>,
    epoch: u64,
) -> PyResult<Py<Event>> {
    let envelope = Envelope {
        time,
        key,
        parents,
        correlation,
        taints,
        labels: None,
        guards,
        qos: 0,
        epoch,
        clock: None,
        logical_time: 0,
        traceparent: None,
        owner: true,
    };
    graph.publish_one(r, value, Full::Wait, &envelope)
}
