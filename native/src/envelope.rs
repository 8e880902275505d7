//! What a publisher may say of an event besides its value: keyword arguments that most publishes do not have.

use std::sync::Arc;

use meshfold_core::engine::Input;
use meshfold_core::trace::Outside;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::convert::{ids, taint_bits, texts};
use crate::errors::error;

/// The keyword arguments of a publish; None: not given.
#[derive(Clone, Copy, Default)]
pub(crate) struct Given<'a, 'py> {
    pub(crate) time: Arg<'a, 'py>,
    pub(crate) key: Arg<'a, 'py>,
    pub(crate) parents: Arg<'a, 'py>,
    pub(crate) correlation: Arg<'a, 'py>,
    pub(crate) taints: Arg<'a, 'py>,
    pub(crate) labels: Arg<'a, 'py>,
    pub(crate) guards: Arg<'a, 'py>,
    pub(crate) qos: Arg<'a, 'py>,
    pub(crate) epoch: Arg<'a, 'py>,
    pub(crate) clock: Arg<'a, 'py>,
    pub(crate) logical_time: Arg<'a, 'py>,
    pub(crate) traceparent: Arg<'a, 'py>,
}

/// One keyword argument.
pub(crate) type Arg<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

impl Given<'_, '_> {
    /// Whether nothing is.
    pub(crate) fn is_nothing(&self) -> bool {
        let first = [self.time, self.key, self.parents, self.correlation];
        let then = [self.taints, self.labels, self.guards, self.qos];
        let last = [self.epoch, self.clock, self.logical_time, self.traceparent];
        [first, then, last].iter().flatten().all(Option::is_none)
    }

    /// The input of an event that was published at `ingest` with these, without its value.
    pub(crate) fn input(&self, py: Python<'_>, ingest: i64) -> PyResult<Input> {
        let mut input = Input {
            time: of("time", self.time)?.unwrap_or(ingest),
            ingest,
            key: text("key", self.key)?,
            correlation: text("correlation", self.correlation)?,
            clock: text("clock", self.clock)?,
            qos: of("qos", self.qos)?.unwrap_or_default(),
            epoch: of("epoch", self.epoch)?.unwrap_or_default(),
            logical: of("logical_time", self.logical_time)?.unwrap_or_default(),
            ..Input::default()
        };
        if let Some(parents) = self.parents {
            input.parents = ids(py, parents)?;
        }
        if let Some(taints) = self.taints {
            input.taints = taint_bits(py, taints)?;
        }
        if let Some(labels) = self.labels {
            input.labels = texts(py, labels, "labels")?;
        }
        if let Some(guards) = self.guards {
            input.guards = texts(py, guards, "guards")?;
        }
        if let Some(header) = of::<String>("traceparent", self.traceparent)? {
            input.outside = outside(py, &header, self.parents.is_some())?;
            input.context_ignored = input.outside.is_none();
        }
        Ok(input)
    }
}

/// A keyword argument; a wrong type is named as Python does.
fn of<'py, T: for<'a> FromPyObject<'a, 'py>>(
    name: &str,
    value: Arg<'_, 'py>,
) -> PyResult<Option<T>> {
    let Some(value) = value else {
        return Ok(None);
    };
    let taken = value.extract::<T>().map_err(|failure| {
        let failure: PyErr = failure.into();
        if failure.is_instance_of::<PyTypeError>(value.py()) {
            let why = failure.value(value.py());
            PyTypeError::new_err(format!("argument '{name}': {why}"))
        } else {
            failure
        }
    });
    taken.map(Some)
}

fn text(name: &str, value: Arg<'_, '_>) -> PyResult<Option<Arc<str>>> {
    Ok(of::<String>(name, value)?.map(Into::into))
}

/// The header comes from whoever asks: one that is none loses its trace, and never the event.
fn outside(py: Python<'_>, header: &str, parents: bool) -> PyResult<Option<Outside>> {
    if parents {
        let fix = "give parents or traceparent, and not both";
        let what = "an event has causes or comes from outside";
        return Err(error(py, "WiringError", what, fix, ("item", header)));
    }
    Ok(Outside::parse(header))
}
