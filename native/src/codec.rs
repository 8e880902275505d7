//! Values to bytes and back. Scalars are done here; everything else by the schema's own Python methods.

use meshfold_core::json;
use meshfold_core::payload::Payload;
use meshfold_core::value::Codec;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString};

use crate::errors::error;
use crate::route::RouteBase;

/// The values of a codec, for messages.
fn values(codec: Codec) -> &'static str {
    match codec {
        Codec::Foreign | Codec::Json => "values of its schema",
        Codec::Bytes => "bytes",
        Codec::Float => "a float",
        Codec::Int => "a 64-bit int",
        Codec::Bool => "a bool",
        Codec::Str => "UTF-8 text",
    }
}

/// Whether the schema's own Python methods encode and decode.
fn python(codec: Codec) -> bool {
    matches!(codec, Codec::Foreign | Codec::Json)
}

/// Encode by the route's schema.
#[inline]
pub(crate) fn encode(route: &RouteBase, value: &Bound<'_, PyAny>) -> PyResult<Payload> {
    // What is published most.
    if route.codec == Codec::Float
        && let Ok(float) = value.cast_exact::<PyFloat>()
    {
        return Ok(Payload::eight(float.value().to_le_bytes()));
    }
    encode_any(route, value)
}

fn encode_any(route: &RouteBase, value: &Bound<'_, PyAny>) -> PyResult<Payload> {
    if !python(route.codec) {
        return scalar(route.codec, &route.text, value);
    }
    let bytes = route
        .schema
        .bind(value.py())
        .call_method1("encode", (value, route.text.as_str()))?;
    Ok(Payload::copy(bytes.cast::<PyBytes>()?.as_bytes()))
}

/// Encode, strictly by type: a bool is no number, an int is not silently a float beyond 2^53.
fn scalar(codec: Codec, text: &str, value: &Bound<'_, PyAny>) -> PyResult<Payload> {
    let py = value.py();
    let wrong = || {
        let kind = value
            .get_type()
            .name()
            .map_or_else(|_| "?".into(), |n| n.to_string());
        let what = format!("{text} takes {}, not a value of type {kind}", values(codec));
        let fix = "publish a value of the route's schema";
        error(py, "EncodeError", &what, fix, ("route", text))
    };
    match codec {
        Codec::Bytes => value
            .cast::<PyBytes>()
            .map(|b| Payload::copy(b.as_bytes()))
            .map_err(|_| wrong()),
        Codec::Float => {
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
                return Ok(Payload::eight((int as f64).to_le_bytes()));
            }
            value
                .cast::<PyFloat>()
                .map(|f| Payload::eight(f.value().to_le_bytes()))
                .map_err(|_| wrong())
        }
        Codec::Int => {
            if value.is_instance_of::<PyBool>() || !value.is_instance_of::<PyInt>() {
                return Err(wrong());
            }
            let int: i64 = value.extract().map_err(|_| {
                let what = format!("{text} does not take an integer beyond 64 bits");
                let fix = "use a str or bytes schema for it";
                error(py, "EncodeError", &what, fix, ("route", text))
            })?;
            Ok(Payload::eight(int.to_le_bytes()))
        }
        Codec::Bool => value
            .cast::<PyBool>()
            .map(|b| Payload::copy(&[u8::from(b.is_true())]))
            .map_err(|_| wrong()),
        Codec::Str => {
            let string = value.cast::<PyString>().map_err(|_| wrong())?;
            let string = string.to_cow().map_err(|_| {
                let what = format!("{text} does not take text with a lone surrogate");
                let fix = "decode the text with the encoding it has";
                error(py, "EncodeError", &what, fix, ("route", text))
            })?;
            Ok(Payload::copy(string.as_bytes()))
        }
        Codec::Foreign | Codec::Json => Err(wrong()),
    }
}

/// Decode by the route's schema; bytes that are no value of it are a `DecodeError`.
pub(crate) fn decode(py: Python<'_>, route: &RouteBase, bytes: &[u8]) -> PyResult<Py<PyAny>> {
    if python(route.codec) {
        let schema = route.schema.bind(py);
        return Ok(schema
            .call_method1("decode", (PyBytes::new(py, bytes),))?
            .unbind());
    }
    from_scalar(py, route.codec, &route.text, bytes)
}

fn from_scalar(py: Python<'_>, codec: Codec, text: &str, bytes: &[u8]) -> PyResult<Py<PyAny>> {
    let wrong = || {
        let what = format!("{} bytes are not {} for {text}", bytes.len(), values(codec));
        error(py, "DecodeError", &what, "", ("reason", "schema"))
    };
    let eight = || <[u8; 8]>::try_from(bytes).map_err(|_| wrong());
    Ok(match codec {
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
        Codec::Foreign | Codec::Json => return Err(wrong()),
    })
}

/// A value of a scalar kind as bytes; `text` names where it should go.
#[pyfunction]
pub(crate) fn encode_scalar<'py>(
    kind: &str,
    text: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = scalar(Codec::named(kind), text, value)?;
    Ok(PyBytes::new(value.py(), &bytes))
}

/// The value of bytes of a scalar kind.
#[pyfunction]
pub(crate) fn decode_scalar(
    py: Python<'_>,
    kind: &str,
    text: &str,
    data: &[u8],
) -> PyResult<Py<PyAny>> {
    from_scalar(py, Codec::named(kind), text, data)
}

/// Hold JSON to the strict reading; raises `ValueError` with the byte at fault.
#[pyfunction]
pub(crate) fn check_json(data: &[u8]) -> PyResult<()> {
    json::check(data)
        .map_err(|fault| PyValueError::new_err(format!("{} at byte {}", fault.what, fault.at)))
}
