//! Plain data across the boundary: counters, taints, parents and payloads as Python gives and takes them.

use std::sync::Arc;

use meshfold_core::batch::{TEXT_BYTES_MAX, TEXTS_MAX};
use meshfold_core::counters::Counters;
use meshfold_core::event::{EventId, Tag};
use meshfold_core::payload::Payload;
use meshfold_core::registry::{DROP_REASONS, TAINTS};
use meshfold_core::ring::Overflow;
use meshfold_core::value::Codec;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::codec::encode;
use crate::errors::error;
use crate::event::Event;
use crate::route::RouteBase;

type Ids = Vec<(Tag, Tag, Tag, u64)>;

/// Counters as (offered, delivered, dropped by reason, pending, replayed).
pub(crate) fn counters<'py>(py: Python<'py>, c: &Counters) -> PyResult<Bound<'py, PyTuple>> {
    let dropped = reasons(py, &c.dropped)?;
    (c.offered, c.delivered, dropped, c.pending, c.replayed).into_pyobject(py)
}

/// Counts by reason, without those that are 0.
pub(crate) fn reasons<'py>(py: Python<'py>, counts: &[u64]) -> PyResult<Bound<'py, PyDict>> {
    let dropped = PyDict::new(py);
    for (reason, count) in DROP_REASONS.iter().zip(counts) {
        if *count > 0 {
            dropped.set_item(reason, count)?;
        }
    }
    Ok(dropped)
}

/// Taint names as bits; an unknown name is a `WiringError`.
pub(crate) fn taint_bits(py: Python<'_>, taints: &Bound<'_, PyAny>) -> PyResult<u64> {
    let mut bits = 0;
    for taint in taints.try_iter()? {
        let taint = taint?;
        let name = taint.str()?.to_string();
        let bit = TAINTS.iter().position(|known| *known == name);
        let unknown = || {
            error(
                py,
                "WiringError",
                &format!("unknown taint {name}"),
                "use one of Taint",
                ("item", &name),
            )
        };
        bits |= 1 << bit.ok_or_else(unknown)?;
    }
    Ok(bits)
}

/// Short texts of an envelope, within the limits of the batch format.
pub(crate) fn texts(
    py: Python<'_>,
    given: &Bound<'_, PyAny>,
    what: &str,
) -> PyResult<Vec<Arc<str>>> {
    let refused = |why: &str| {
        error(
            py,
            "WiringError",
            why,
            "use fewer or shorter ones",
            ("item", what),
        )
    };
    let mut out: Vec<Arc<str>> = Vec::new();
    for text in given.try_iter()? {
        let text: String = text?.extract()?;
        if text.len() > TEXT_BYTES_MAX {
            let why = format!("{what} of more than {TEXT_BYTES_MAX} bytes");
            return Err(refused(&why));
        }
        out.push(text.into());
    }
    if out.len() > TEXTS_MAX {
        return Err(refused(&format!("more than {TEXTS_MAX} {what}")));
    }
    Ok(out)
}

pub(crate) fn overflow(name: &str) -> PyResult<Overflow> {
    match name {
        "drop_oldest" => Ok(Overflow::DropOldest),
        "drop_newest" => Ok(Overflow::DropNewest),
        "coalesce_latest" => Ok(Overflow::CoalesceLatest),
        "block" => Ok(Overflow::Block),
        "reject" => Ok(Overflow::Reject),
        _ => Err(PyValueError::new_err(format!(
            "unknown overflow rule {name}"
        ))),
    }
}

pub(crate) fn cycle(py: Python<'_>, text: &str) -> PyErr {
    let what = format!("an edge from {text} would close a cycle");
    error(
        py,
        "WiringError",
        &what,
        "cut it with a mailbox or an epoch boundary",
        ("item", text),
    )
}

/// Many values as bytes. Arrays of other libraries come as one buffer of rows, so that no object is made for each value.
pub(crate) fn payloads(
    py: Python<'_>,
    route: &RouteBase,
    values: &Bound<'_, PyAny>,
) -> PyResult<Vec<Payload>> {
    if !values.is_exact_instance_of::<PyList>() && !values.is_exact_instance_of::<PyTuple>() {
        let schema = route.schema.bind(py);
        let found = schema.call_method1("rows", (values, route.text.as_str()))?;
        if !found.is_none() {
            let (data, by): (PyBuffer<u8>, Bound<'_, PyAny>) = found.extract()?;
            return rows(py, &data.to_vec(py)?, &by);
        }
        if let Some(found) = buffered(py, route.codec, values)? {
            return Ok(found);
        }
    }
    let many = values.try_iter().map_err(|_| {
        let what = format!("{} takes many values here, not one", route.text);
        error(
            py,
            "EncodeError",
            &what,
            "use publish for one",
            ("route", &route.text),
        )
    })?;
    many.map(|value| encode(route, &value?)).collect()
}

/// Whether a buffer has one axis and this machine's byte order, which `PyBuffer` does not look at.
fn native_axis<T: pyo3::buffer::Element>(buffer: &PyBuffer<T>) -> bool {
    let order = buffer.format().to_bytes().first().copied();
    buffer.dimensions() == 1 && !matches!(order, Some(b'>' | b'!'))
}

/// One axis of native doubles or 64-bit integers, as `array.array` is.
fn buffered(
    py: Python<'_>,
    codec: Codec,
    values: &Bound<'_, PyAny>,
) -> PyResult<Option<Vec<Payload>>> {
    match codec {
        Codec::Float => match PyBuffer::<f64>::get(values) {
            Ok(buffer) if native_axis(&buffer) => {
                let floats = buffer.to_vec(py)?.into_iter();
                Ok(Some(
                    floats
                        .map(|float| Payload::eight(float.to_le_bytes()))
                        .collect(),
                ))
            }
            _ => Ok(None),
        },
        Codec::Int => match PyBuffer::<i64>::get(values) {
            Ok(buffer) if native_axis(&buffer) => {
                let ints = buffer.to_vec(py)?.into_iter();
                Ok(Some(
                    ints.map(|int| Payload::eight(int.to_le_bytes())).collect(),
                ))
            }
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Cut a buffer into rows: `by` is the bytes of each, or the n + 1 offsets of n rows.
fn rows(py: Python<'_>, data: &[u8], by: &Bound<'_, PyAny>) -> PyResult<Vec<Payload>> {
    let uneven = || PyValueError::new_err("rows do not fit their buffer");
    if let Ok(width) = by.extract::<usize>() {
        if width == 0 || !data.len().is_multiple_of(width) {
            return Err(uneven());
        }
        return Ok(data.chunks_exact(width).map(Payload::copy).collect());
    }
    let offsets = PyBuffer::<i64>::get(by)?.to_vec(py)?;
    offsets
        .windows(2)
        .map(|pair| {
            let (from, to) = (usize::try_from(pair[0]), usize::try_from(pair[1]));
            let (Ok(from), Ok(to)) = (from, to) else {
                return Err(uneven());
            };
            data.get(from..to).map(Payload::copy).ok_or_else(uneven)
        })
        .collect()
}

/// Parents as given: events, or tuples (producer, incarnation, route tag, number).
pub(crate) fn ids(py: Python<'_>, parents: &Bound<'_, PyAny>) -> PyResult<Vec<EventId>> {
    let mut out = Vec::new();
    for parent in parents.try_iter()? {
        let parent = parent?;
        if let Ok(event) = parent.cast::<Event>() {
            out.push(event.get().inner.id());
            continue;
        }
        let parse = py.import("meshfold.core.ids")?.getattr("parse_event_id")?;
        let parts: Ids = vec![parse.call1((parent,))?.extract()?];
        let (producer, incarnation, route, seq) = parts[0];
        out.push(EventId {
            producer,
            incarnation,
            route,
            seq,
        });
    }
    Ok(out)
}
