//! What a publisher may say of an event besides its value: keyword arguments that most publishes do not have.
//!
//! They are taken as a dictionary, which Python makes only where one is given, so that a plain publish parses two arguments.

use std::sync::Arc;

use meshfold_core::engine::Input;
use meshfold_core::trace::Outside;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::convert::{ids, taint_bits, texts};
use crate::errors::error;

/// The input of an event that was published at `ingest` with these keyword arguments, without its value.
pub(crate) fn input(
    py: Python<'_>,
    ingest: i64,
    given: Option<&Bound<'_, PyDict>>,
) -> PyResult<Input> {
    let mut input = Input {
        time: ingest,
        ingest,
        ..Input::default()
    };
    let mut header = None;
    for (name, value) in given.into_iter().flatten() {
        let name: String = name.extract()?;
        if !value.is_none() {
            put(py, &mut input, &mut header, &name, &value)?;
        } else if !NAMES.contains(&name.as_str()) {
            return Err(unexpected(&name));
        }
    }
    if let Some(header) = header {
        let parents = given.is_some_and(|given| given.contains("parents").unwrap_or(false));
        input.outside = outside(py, &header, parents)?;
        input.context_ignored = input.outside.is_none();
    }
    Ok(input)
}

const NAMES: [&str; 12] = [
    "time",
    "key",
    "parents",
    "correlation",
    "taints",
    "labels",
    "guards",
    "qos",
    "epoch",
    "clock",
    "logical_time",
    "traceparent",
];

fn put(
    py: Python<'_>,
    input: &mut Input,
    header: &mut Option<String>,
    name: &str,
    value: &Bound<'_, PyAny>,
) -> PyResult<()> {
    match name {
        "time" => input.time = of(name, value)?,
        "key" => input.key = Some(text(name, value)?),
        "parents" => input.parents = ids(py, value)?,
        "correlation" => input.correlation = Some(text(name, value)?),
        "taints" => input.taints = taint_bits(py, value)?,
        "labels" => input.labels = texts(py, value, "labels")?,
        "guards" => input.guards = texts(py, value, "guards")?,
        "qos" => input.qos = of(name, value)?,
        "epoch" => input.epoch = of(name, value)?,
        "clock" => input.clock = Some(text(name, value)?),
        "logical_time" => input.logical = of(name, value)?,
        "traceparent" => *header = Some(of(name, value)?),
        _ => return Err(unexpected(name)),
    }
    Ok(())
}

fn unexpected(name: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "publish() got an unexpected keyword argument '{name}'"
    ))
}

/// A keyword argument; a wrong type is named as Python does.
fn of<'py, T: for<'a> FromPyObject<'a, 'py>>(name: &str, value: &Bound<'py, PyAny>) -> PyResult<T> {
    value.extract::<T>().map_err(|failure| {
        let failure: PyErr = failure.into();
        if failure.is_instance_of::<PyTypeError>(value.py()) {
            let why = failure.value(value.py());
            PyTypeError::new_err(format!("argument '{name}': {why}"))
        } else {
            failure
        }
    })
}

fn text(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Arc<str>> {
    Ok(of::<String>(name, value)?.into())
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
