//! Values of operators to Python and back. What the engine does not know travels as an object of ours.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use meshfold_core::value::{Object, Value};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString, PyTuple};

use crate::codec::decode;
use crate::errors::error;
use crate::route::RouteBase;

/// Python objects that the engine let go of. Releasing one may run code, so it waits until no lock is held.
#[derive(Clone, Default)]
pub(crate) struct Grave(Arc<(AtomicBool, Mutex<Vec<Py<PyAny>>>)>);

impl Grave {
    /// Whether nothing lies here.
    pub(crate) fn is_empty(&self) -> bool {
        !self.0.0.load(Ordering::Acquire)
    }

    /// Release what lies here. No lock may be held.
    pub(crate) fn empty(&self) {
        if !self.is_empty() {
            let mut grave = self.0.1.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.0.store(false, Ordering::Release);
            let released = std::mem::take(&mut *grave);
            drop(grave);
            drop(released);
        }
    }

    fn put(&self, object: Py<PyAny>) {
        let mut grave = self.0.1.lock().unwrap_or_else(PoisonError::into_inner);
        grave.push(object);
        self.0.0.store(true, Ordering::Release);
    }
}

struct Held {
    object: Option<Py<PyAny>>,
    grave: Grave,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            self.grave.put(object);
        }
    }
}

/// A Python value for the engine.
pub(crate) fn take(value: &Bound<'_, PyAny>, grave: &Grave) -> Value {
    if let Ok(float) = value.cast_exact::<PyFloat>() {
        return Value::Float(float.value());
    }
    if let Ok(truth) = value.cast_exact::<PyBool>() {
        return Value::Bool(truth.is_true());
    }
    if let Ok(int) = value.cast_exact::<PyInt>()
        && let Ok(int) = int.extract()
    {
        return Value::Int(int);
    }
    if let Ok(text) = value.cast_exact::<PyString>()
        && let Ok(text) = text.to_cow()
    {
        return Value::Str(text.as_ref().into());
    }
    if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        return Value::Bytes(bytes.as_bytes().into());
    }
    if value.is_none() {
        return Value::None;
    }
    if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        return Value::List(tuple.iter().map(|item| take(&item, grave)).collect());
    }
    let object = Some(value.clone().unbind());
    let grave = grave.clone();
    Value::Object(Object(Arc::new(Held { object, grave })))
}

fn gone(py: Python<'_>) -> PyErr {
    error(
        py,
        "PayloadGone",
        "the payload is not here, so there is no value to compute with",
        "open it first with graph.open_payload, and publish what comes of it",
        ("event", ""),
    )
}

/// A value of the engine for Python; `routes` decode what still lies as bytes.
pub(crate) fn give(
    py: Python<'_>,
    value: &Value,
    route: &dyn Fn(u32) -> Option<Py<RouteBase>>,
) -> PyResult<Py<PyAny>> {
    Ok(match value {
        Value::None => py.None(),
        Value::Gone => return Err(gone(py)),
        Value::Float(float) => PyFloat::new(py, *float).into_any().unbind(),
        Value::Int(int) => int.into_pyobject(py)?.into_any().unbind(),
        Value::Bool(truth) => PyBool::new(py, *truth).to_owned().into_any().unbind(),
        Value::Str(text) => PyString::new(py, text).into_any().unbind(),
        Value::Bytes(bytes) => PyBytes::new(py, bytes).into_any().unbind(),
        Value::Json(text) => {
            let decoder = py.import("msgspec.json")?.getattr("decode")?;
            decoder.call1((PyBytes::new(py, text),))?.unbind()
        }
        Value::Encoded(payload, index, _) => match route(*index) {
            Some(route) => decode(py, route.get(), payload)?,
            None => py.None(),
        },
        Value::List(values) => {
            let items: PyResult<Vec<_>> =
                values.iter().map(|value| give(py, value, route)).collect();
            PyTuple::new(py, items?)?.into_any().unbind()
        }
        Value::Object(object) => match object.0.downcast_ref::<Held>() {
            Some(Held {
                object: Some(object),
                ..
            }) => object.clone_ref(py),
            _ => py.None(),
        },
    })
}
