//! What write bindings and control loops need of a graph: routes with an owner, and many routes read at one moment.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::envelope::Given;
use crate::errors::error;
use crate::event::Event;
use crate::graph::{GraphBase, me};
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
#[pyo3(signature = (graph, r, value, *, time=None, key=None, parents=None, correlation=None, taints=None, guards=None, epoch=None), text_signature = "(graph, r, value, *, time=None, key=None, \
    parents=None, correlation=None, taints=None, guards=None, epoch=0)")]
#[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
pub(crate) fn publish_owned(
    graph: &GraphBase,
    r: &Bound<'_, RouteBase>,
    value: &Bound<'_, PyAny>,
    time: Option<&Bound<'_, PyAny>>,
    key: Option<&Bound<'_, PyAny>>,
    parents: Option<&Bound<'_, PyAny>>,
    correlation: Option<&Bound<'_, PyAny>>,
    taints: Option<&Bound<'_, PyAny>>,
    guards: Option<&Bound<'_, PyAny>>,
    epoch: Option<&Bound<'_, PyAny>>,
) -> PyResult<Py<Event>> {
    let given = Given {
        time,
        key,
        parents,
        correlation,
        taints,
        guards,
        epoch,
        ..Given::default()
    };
    graph.publish_one(r, value, Full::Wait, &given, true)
}

/// Publish the metadata of a value whose bytes stay where `reference` says.
#[pyfunction]
#[pyo3(signature = (graph, r, reference, *, time=None, key=None, parents=None, correlation=None, taints=None, epoch=None), text_signature = "(graph, r, reference, *, time=None, key=None, \
    parents=None, correlation=None, taints=None, epoch=0)")]
#[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
pub(crate) fn publish_reference(
    py: Python<'_>,
    graph: &GraphBase,
    r: &Bound<'_, RouteBase>,
    reference: &str,
    time: Option<&Bound<'_, PyAny>>,
    key: Option<&Bound<'_, PyAny>>,
    parents: Option<&Bound<'_, PyAny>>,
    correlation: Option<&Bound<'_, PyAny>>,
    taints: Option<&Bound<'_, PyAny>>,
    epoch: Option<&Bound<'_, PyAny>>,
) -> PyResult<Event> {
    let given = Given {
        time,
        key,
        parents,
        correlation,
        taints,
        epoch,
        ..Given::default()
    };
    let mut input = given.input(py, graph.now(py)?)?;
    input.payload_ref = Some(reference.into());
    let index = graph.index(py, r)?;
    let mut made = None;
    graph.submit(py, &r.get().text, Full::Wait, |engine| {
        made = Some(engine.publish_taking(index, &mut input)?);
        Ok(())
    })?;
    let made = made.ok_or_else(|| pyo3::exceptions::PyRuntimeError::new_err("not published"))?;
    Ok(Event::new(made, r.clone().unbind()))
}

/// Let an ephemeral route live until then (ns of the graph's clock).
#[pyfunction]
pub(crate) fn live_until(
    py: Python<'_>,
    graph: &GraphBase,
    r: &Bound<'_, RouteBase>,
    expires: i64,
    seeded: bool,
) -> PyResult<()> {
    let index = graph.index(py, r)?;
    graph.state().engine.live_until(index, expires, seeded);
    graph.ring_at(py, graph.state().engine.due())
}

/// Whether an ephemeral route has time left.
#[pyfunction]
pub(crate) fn lives(py: Python<'_>, graph: &GraphBase, r: &Bound<'_, RouteBase>) -> PyResult<bool> {
    let index = graph.index(py, r)?;
    let now = graph.now(py)?;
    Ok(graph.state().engine.lives(index, now))
}

/// End an ephemeral route now. Idempotent.
#[pyfunction]
pub(crate) fn end_route(
    py: Python<'_>,
    graph: &GraphBase,
    r: &Bound<'_, RouteBase>,
) -> PyResult<()> {
    let index = graph.index(py, r)?;
    let mut state = graph.state();
    state.engine.end_route(index);
    let hosts = state.let_go();
    drop(state);
    drop(hosts);
    Ok(())
}

/// The state of every operator between two turns: (name, state of each stage), and the names of those that have none to give.
#[pyfunction]
#[allow(clippy::type_complexity, reason = "plain data")]
pub(crate) fn checkpoint_rows<'py>(
    py: Python<'py>,
    graph: &GraphBase,
) -> PyResult<Vec<(String, Vec<Bound<'py, PyBytes>>)>> {
    let rows = loop {
        let state = graph.state();
        if state.owner == 0 {
            let saved = state.engine.describe().into_iter().map(|node| {
                let states = state.engine.save(node.id);
                (node.name.to_string(), states)
            });
            break saved.collect::<Vec<_>>();
        }
        if state.owner == me() {
            drop(state);
            let what = "a checkpoint inside an observer would see half of a turn";
            return Err(error(
                py,
                "WiringError",
                what,
                "take it outside",
                ("item", "checkpoint"),
            ));
        }
        drop(state);
        py.detach(|| drop(graph.nap(graph.state())));
        py.check_signals()?;
    };
    let mut out = Vec::with_capacity(rows.len());
    for (name, states) in rows {
        let states = states.map_err(|why| {
            let what = format!("{name} cannot be kept: {}", why.0);
            error(
                py,
                "WiringError",
                &what,
                "give the map before it a schema",
                ("item", &name),
            )
        })?;
        let states = states.iter().map(|state| PyBytes::new(py, state)).collect();
        out.push((name, states));
    }
    Ok(out)
}
