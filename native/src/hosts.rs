//! What the graph calls for its edges and nodes: observers, functions of stages, wake-ups.

use meshfold_core::engine::Outcome;
use meshfold_core::value::Value;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::chain::{Chain, Once};
use crate::codec::encode;
use crate::graph::GraphBase;
use crate::route::RouteBase;
use crate::values::{give, take};

/// What the host does for an edge or a node.
pub(crate) enum Host {
    Observe(Py<PyAny>),
    Node(Functions),
    Wake(Option<Py<PyAny>>),
    /// A mailbox: who is told of entries, and what keeps those that do not fit.
    Mail(Py<PyAny>, Option<crate::mailbox::Spill>),
}

/// The foreign functions of a node: for each foreign stage a run of them, and what takes the results.
pub(crate) struct Functions {
    pub(crate) stages: Vec<Chain>,
    pub(crate) sink: Option<(u32, Py<RouteBase>)>,
    pub(crate) observer: Option<Py<PyAny>>,
}

/// How a function is called and what its result means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The result takes the place of the value.
    Map,
    /// The value goes on if the result is true.
    Filter,
    /// The result is iterated; each item goes on.
    FlatMap,
    /// The result is the partition key; the value stays.
    Key,
    /// The result is the device time in ns; the value stays.
    Time,
    /// As `Map`; called with the items of the value as arguments.
    Spread,
}

pub(crate) struct Function {
    pub(crate) way: Way,
    pub(crate) call: Py<PyAny>,
}

impl Way {
    pub(crate) fn named(name: &str) -> PyResult<Self> {
        match name {
            "map" => Ok(Self::Map),
            "filter" => Ok(Self::Filter),
            "flat_map" => Ok(Self::FlatMap),
            "spread" => Ok(Self::Spread),
            "key" => Ok(Self::Key),
            "time" => Ok(Self::Time),
            _ => Err(PyValueError::new_err(format!(
                "unknown way to call a function: {name}"
            ))),
        }
    }
}

/// What a function raised: a failure of its item, unless somebody wants the program to end.
pub(crate) fn failed(
    py: Python<'_>,
    failure: PyErr,
    interrupted: &mut Option<PyErr>,
) -> Option<String> {
    if failure.is_instance_of::<PyException>(py) {
        return Some(failure.to_string());
    }
    interrupted.get_or_insert(failure);
    None
}

/// The outcome of a call that raised.
pub(crate) fn raised(why: Option<String>) -> Outcome {
    why.map_or(Outcome::Discard, Outcome::Failed)
}

/// What a function made or raised. What is no `Exception` (Ctrl-C) is kept for after the turn.
pub(crate) fn outcome_of(
    py: Python<'_>,
    result: PyResult<Outcome>,
    interrupted: &mut Option<PyErr>,
) -> Outcome {
    result.unwrap_or_else(|failure| raised(failed(py, failure, interrupted)))
}

impl Functions {
    /// Run a function on a value; none: encode it for the sink, or hand it to the observer. `Err` is what it raised.
    pub(crate) fn run(
        &self,
        py: Python<'_>,
        graph: &GraphBase,
        function: Option<usize>,
        value: &Value,
    ) -> PyResult<Outcome> {
        let value = give(py, value, &|index| graph.route_at(py, index))?;
        match function {
            Some(function) => self.call(py, graph, function, value),
            None => self.end(py, value.bind(py)),
        }
    }

    /// Run the functions of a foreign stage on a value. `Err` is what one raised.
    pub(crate) fn call(
        &self,
        py: Python<'_>,
        graph: &GraphBase,
        function: usize,
        mut value: Py<PyAny>,
    ) -> PyResult<Outcome> {
        let Some(chain) = self.stages.get(function) else {
            return Ok(Outcome::Discard);
        };
        match chain.single(py, &value)? {
            Once::Made(made) => return Ok(Outcome::Value(take(made.bind(py), &graph.grave))),
            Once::Discarded => return Ok(Outcome::Discard),
            Once::Otherwise => {}
        }
        for function in &chain.functions {
            let result = if function.way == Way::Spread {
                function.call.call1(py, value.bind(py).cast::<PyTuple>()?)?
            } else {
                function.call.call1(py, (&value,))?
            };
            match function.way {
                Way::Map | Way::Spread => value = result,
                Way::Filter => {
                    if !result.bind(py).is_truthy()? {
                        return Ok(Outcome::Discard);
                    }
                }
                Way::Key => return Ok(Outcome::Key(take(result.bind(py), &graph.grave))),
                Way::Time => return Ok(Outcome::Time(result.extract(py)?)),
                Way::FlatMap => {
                    let items = result.bind(py).try_iter()?;
                    let taken: PyResult<Vec<Value>> =
                        items.map(|item| Ok(take(&item?, &graph.grave))).collect();
                    return Ok(Outcome::Values(taken?));
                }
            }
        }
        Ok(Outcome::Value(take(value.bind(py), &graph.grave)))
    }

    fn end(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Outcome> {
        if let Some(observer) = &self.observer {
            observer.call1(py, (value,))?;
        }
        match &self.sink {
            Some((index, sink)) => {
                let payload = encode(sink.get(), value)?;
                Ok(Outcome::Value(Value::Encoded(payload, *index, false)))
            }
            None => Ok(Outcome::Discard),
        }
    }
}
