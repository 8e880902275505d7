//! What a graph retains and how it is connected, for queries and replays.

use std::sync::Arc;

use meshfold_core::engine::Kind;
use meshfold_core::event::{Event as Inner, Tag};
use pyo3::prelude::*;

use crate::event::Event;
use crate::graph::GraphBase;
use crate::route::RouteBase;

/// Everything a route retains or has queued, oldest first.
#[pyfunction]
pub(crate) fn kept(
    py: Python<'_>,
    graph: &GraphBase,
    r: &Bound<'_, RouteBase>,
) -> PyResult<Vec<Event>> {
    let index = graph.index(py, r)?;
    let kept = graph.state().engine.kept(index);
    let event = |inner| Event::new(inner, r.clone().unbind());
    Ok(kept.into_iter().map(event).collect())
}

/// Connections as (name, source, sink), in the order they were made.
#[pyfunction]
pub(crate) fn connections(
    py: Python<'_>,
    graph: &GraphBase,
) -> Vec<(String, Py<RouteBase>, Py<RouteBase>)> {
    let state = graph.state();
    let edges = state.engine.edges().into_iter();
    edges
        .filter_map(|(_, edge)| match edge.kind {
            Kind::Forward(sink, _) => Some((
                edge.name.clone(),
                state.routes[edge.route].clone_ref(py),
                state.routes[sink].clone_ref(py),
            )),
            _ => None,
        })
        .collect()
}

/// The route with this tag.
#[pyfunction]
pub(crate) fn route_of(py: Python<'_>, graph: &GraphBase, tag: Tag) -> Option<Py<RouteBase>> {
    let state = graph.state();
    let index = state.engine.index(tag)?;
    Some(state.routes[index].clone_ref(py))
}

/// The event without its payload, for whoever may read metadata only.
#[pyfunction]
pub(crate) fn redact(py: Python<'_>, event: &Event) -> Event {
    let inner = Inner {
        payload: None,
        ..(*event.inner).clone()
    };
    Event::new(Arc::new(inner), event.route(py))
}

/// The graph's wall clock, ns.
#[pyfunction]
pub(crate) fn wall_ns(py: Python<'_>, graph: &GraphBase) -> PyResult<i64> {
    graph.now(py)
}
