//! Values to bytes and back. Scalars are done here; everything else by the schema's own Python methods.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString};

use crate::errors::error;
use crate::route::RouteBase;

/// How values of a route are encoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// By `schema.encode` and `schema.decode`.
    Python,
    Bytes,
    /// IEEE 754 binary64, little-endian.
    Float,
    /// Two's complement 64 bit, little-endian.
    Int,
    Bool,
    /// UTF-8.
    Str,
}

impl Codec {
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "bytes" => Self::Bytes,
            "float" => Self::Float,
            "int" => Self::Int,
            "bool" => Self::Bool,
            "str" => Self::Str,
            _ => Self::Python,
        }
    }
}

/// Encode, strictly by type: a bool is no number, an int is not silently a float beyond 2^53.
pub(crate) fn encode(route: &RouteBase, value: &Bound<'_, PyAny>) -> PyResult<Arc<[u8]>> {
    let py = value.py();
    let wrong = || {
        let kind = value
            .get_type()
            .name()
            .map_or_else(|_| "?".into(), |n| n.to_string());
        let what = format!("{} does not take a value of type {kind}", route.text);
        error(
            py,
            "EncodeError",
            &what,
            "publish a value of the route's schema",
            ("route", &route.text),
        )
    };
    match route.codec {
        Codec::Bytes => value
            .cast::<PyBytes>()
            .map(|b| Arc::from(b.as_bytes()))
            .map_err(|_| wrong()),
        Codec::Float => {
            if let Ok(float) = value.cast_exact::<PyFloat>() {
                return Ok(Arc::from(float.value().to_le_bytes()));
            }
            if value.is_instance_of::<PyBool>() {
                return Err(wrong());
            }
            if value.is_instance_of::<PyInt>() {
                // An int that a float holds exactly is one.
                let int: i64 = value.extract().map_err(|_| wrong())?;
                if int.unsigned_abs() > 1 << 53 {
                    return Err(wrong());
                }
                #[allow(clippy::cast_precision_loss, reason = "checked just above")]
                return Ok(Arc::from((int as f64).to_le_bytes()));
            }
            value
                .cast::<PyFloat>()
                .map(|f| Arc::from(f.value().to_le_bytes()))
                .map_err(|_| wrong())
        }
        Codec::Int => {
            if value.is_instance_of::<PyBool>() || !value.is_instance_of::<PyInt>() {
                return Err(wrong());
            }
            let int: i64 = value.extract().map_err(|_| {
                let what = format!("{} does not take an integer beyond 64 bits", route.text);
                error(
                    py,
                    "EncodeError",
                    &what,
                    "use a str or bytes schema for it",
                    ("route", &route.text),
                )
            })?;
            Ok(Arc::from(int.to_le_bytes()))
        }
        Codec::Bool => value
            .cast::<PyBool>()
            .map(|b| Arc::from([u8::from(b.is_true())]))
            .map_err(|_| wrong()),
        Codec::Str => {
            let text = value.cast::<PyString>().map_err(|_| wrong())?;
            let text = text.to_cow().map_err(|_| wrong())?;
            Ok(Arc::from(text.as_bytes()))
        }
        Codec::Python => {
            let bytes = route
                .schema
                .bind(py)
                .call_method1("encode", (value, route.text.as_str()))?;
            Ok(Arc::from(bytes.cast::<PyBytes>()?.as_bytes()))
        }
    }
}

/// Decode; bytes that are no value of the schema are a `DecodeError`.
pub(crate) fn decode(py: Python<'_>, route: &RouteBase, bytes: &[u8]) -> PyResult<Py<PyAny>> {
    let wrong = || {
        let what = format!(
            "{} bytes are no value of the schema of {}",
            bytes.len(),
            route.text
        );
        error(py, "DecodeError", &what, "", ("reason", "schema"))
    };
    let eight = || <[u8; 8]>::try_from(bytes).map_err(|_| wrong());
    Ok(match route.codec {
        Codec::Bytes => PyBytes::new(py, bytes).into_any().unbind(),
        Codec::Float => PyFloat::new(py, f64::from_le_bytes(eight()?))
            .into_any()
            .unbind(),
        Codec::Int => i64::from_le_bytes(eight()?)
            .into_pyobject(py)?
            .into_any()
            .unbind(),
        Codec::Bool => match bytes {
            [0] => PyBool::new(py, false).to_owned().into_any().unbind(),
            [1] => PyBool::new(py, true).to_owned().into_any().unbind(),
            _ => return Err(wrong()),
        },
        Codec::Str => {
            let text = std::str::from_utf8(bytes).map_err(|_| wrong())?;
            PyString::new(py, text).into_any().unbind()
        }
        Codec::Python => route
            .schema
            .bind(py)
            .call_method1("decode", (PyBytes::new(py, bytes),))?
            .unbind(),
    })
}
