//! Nodes of the graph: from a description and functions, and back to what listings show.

use std::sync::Arc;

use meshfold_core::engine::Uninstallable;
use meshfold_core::node::Spec;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::chain::Chain;
use crate::convert::{cycle, reasons};
use crate::errors::error;
use crate::graph::GraphBase;
use crate::hosts::{Function, Functions, Host, Way};
use crate::route::RouteBase;

impl GraphBase {
    pub(crate) fn install_node(
        &self,
        py: Python<'_>,
        spec: &str,
        routes: &[Bound<'_, RouteBase>],
        functions: Vec<Vec<(String, Py<PyAny>)>>,
        observer: Option<Py<PyAny>>,
    ) -> PyResult<u32> {
        let wrong = |why: &str| {
            error(
                py,
                "WiringError",
                why,
                "see the operator's documentation",
                ("item", why),
            )
        };
        let spec: Spec = serde_json::from_str(spec).map_err(|why| wrong(&why.to_string()))?;
        let indices: PyResult<Vec<_>> = routes.iter().map(|route| self.index(py, route)).collect();
        let indices = indices?;
        let mut stages = Vec::with_capacity(functions.len());
        for run in functions {
            let named = |(way, call): (String, Py<PyAny>)| {
                Ok(Function {
                    way: Way::named(&way)?,
                    call,
                })
            };
            let functions: PyResult<Vec<_>> = run.into_iter().map(named).collect();
            stages.push(Chain::of(functions?));
        }
        let sink = spec
            .sink
            .and_then(|place| routes.get(place).zip(indices.get(place)));
        let sink = sink.map(|(route, index)| (*index as u32, route.clone().unbind()));
        let functions = Functions {
            stages,
            sink,
            observer,
        };
        let mut state = self.state();
        let installed = state.engine.install(&spec, &indices);
        match installed {
            Ok(id) => {
                state.hosts.insert(id, Arc::new(Host::Node(functions)));
                let speaks = state.engine.due() == i64::MIN;
                drop(state);
                // What it has to say without being asked comes before what reaches it.
                if speaks {
                    let now = self.now(py)?;
                    self.state().engine.advance(now);
                }
                self.run(py)?;
                let due = self.state().engine.due();
                self.ring_at(py, due)?;
                Ok(id)
            }
            Err(why) => {
                drop(state);
                Err(match why {
                    Uninstallable::Build(why) => wrong(&format!("{}: {}", spec.name, why.0)),
                    Uninstallable::Cycle(source) => {
                        let place = indices.iter().position(|index| *index == source);
                        cycle(py, &routes[place.unwrap_or(0)].get().text)
                    }
                })
            }
        }
    }

    pub(crate) fn describe_nodes<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let nodes = self.state().engine.describe();
        let mut out = Vec::with_capacity(nodes.len());
        for node in nodes {
            let mut stages = Vec::new();
            for stage in &node.stages {
                let gauges = PyDict::new(py);
                for (name, figure) in &stage.gauges {
                    gauges.set_item(name, figure)?;
                }
                stages.push((stage.kind.as_str(), stage.with.as_str(), gauges));
            }
            let route = |index: usize| self.route_at(py, index as u32);
            let inputs: Vec<_> = node
                .inputs
                .iter()
                .map(|(at, stage, port)| (route(*at), *stage, *port))
                .collect();
            let sides: Vec<_> = node
                .sides
                .iter()
                .map(|(stage, side, at)| (*stage, *side, route(*at)))
                .collect();
            let row = (
                node.id,
                &*node.name,
                &*node.label,
                stages,
                inputs,
                node.sink.and_then(route),
                sides,
                node.emitted,
                node.failed,
                reasons(py, &node.dropped)?,
                node.edges,
            );
            out.push(row.into_pyobject(py)?);
        }
        Ok(out)
    }
}

/// Keep a transcript of the graph from now on.
#[pyfunction]
pub(crate) fn keep_transcript(graph: &GraphBase) {
    graph.state().engine.keep_transcript();
}

/// The transcript of a graph: (hash, events); None if none is kept.
#[pyfunction]
pub(crate) fn transcript<'py>(
    py: Python<'py>,
    graph: &GraphBase,
) -> Option<(Bound<'py, PyBytes>, u64)> {
    let (hash, events) = graph.state().engine.transcript()?.state();
    Some((PyBytes::new(py, &hash), events))
}
