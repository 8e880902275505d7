//! What a graph retains and how it is connected, for queries and replays.

use std::sync::Arc;

use meshfold_core::engine::Kind;
use meshfold_core::event::{Event as Inner, Tag};
use pyo3::prelude::*;

use crate::convert::taint_bits;
use crate::errors::raise;
use crate::event::{Event, taint_names};
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
        ..event.inner.clone()
    };
    Event::new(Arc::new(inner), event.route(py))
}

/// The graph's wall clock, ns.
#[pyfunction]
pub(crate) fn wall_ns(py: Python<'_>, graph: &GraphBase) -> PyResult<i64> {
    graph.now(py)
}

/// Declare the most that events of a route may be tainted; it only ever grows (S29).
#[pyfunction]
pub(crate) fn bound_taints(
    py: Python<'_>,
    graph: &GraphBase,
    r: &Bound<'_, RouteBase>,
    taints: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let bits = taint_bits(py, taints)?;
    let index = graph.index(py, r)?;
    let declared = graph.state().engine.bound(index, bits);
    declared.map_err(|against| {
        let (text, names) = (r.get().text.as_str(), taint_names(against).join(", "));
        let what = format!("{text} may carry {names}, or has");
        let fix = "a bound only grows: declare these as well";
        raise(
            py,
            "TaintExceeded",
            &what,
            fix,
            &[("route", &text), ("taints", &names)],
        )
    })
}

/// (the declared bound or None, everything that was ever seen on the route).
#[pyfunction]
pub(crate) fn taint_bound(
    py: Python<'_>,
    graph: &GraphBase,
    r: &Bound<'_, RouteBase>,
) -> PyResult<(Option<Vec<&'static str>>, Vec<&'static str>)> {
    let index = graph.index(py, r)?;
    let (declared, seen) = graph.state().engine.bound_of(index);
    Ok((declared.map(taint_names), taint_names(seen)))
}
