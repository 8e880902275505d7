//! Plain data across the boundary: counters, taints, parents and payloads as Python gives and takes them.

use std::sync::Arc;

use meshfold_core::counters::Counters;
use meshfold_core::event::{EventId, Tag};
use meshfold_core::registry::{DROP_REASONS, TAINTS};
use meshfold_core::ring::Overflow;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::codec::{Codec, encode};
use crate::errors::error;
use crate::event::Event;
use crate::route::RouteBase;

type Ids = Vec<(Tag, Tag, Tag, u64)>;

/// Counters as (offered, delivered, dropped by reason, pending, replayed).
pub(crate) fn counters<'py>(py: Python<'py>, c: &Counters) -> PyResult<Bound<'py, PyTuple>> {
    let dropped = PyDict::new(py);
    for (reason, count) in DROP_REASONS.iter().zip(c.dropped) {
        if count > 0 {
            dropped.set_item(reason, count)?;
        }
    }
    (c.offered, c.delivered, dropped, c.pending, c.replayed).into_pyobject(py)
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

pub(crate) fn overflow(name: &str) -> PyResult<Overflow> {
    match name {
        "drop_oldest" => Ok(Overflow::DropOldest),
        "drop_newest" => Ok(Overflow::DropNewest),
        "coalesce_latest" => Ok(Overflow::CoalesceLatest),
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

pub(crate) fn payloads(
    py: Python<'_>,
    route: &RouteBase,
    values: &Bound<'_, PyAny>,
) -> PyResult<Vec<Arc<[u8]>>> {
    match route.codec {
        Codec::Float => {
            if let Ok(buffer) = PyBuffer::<f64>::get(values) {
                let floats = buffer.to_vec(py)?;
                return Ok(floats
                    .into_iter()
                    .map(|float| Arc::from(float.to_le_bytes()))
                    .collect());
            }
        }
        Codec::Int => {
            if let Ok(buffer) = PyBuffer::<i64>::get(values) {
                let ints = buffer.to_vec(py)?;
                return Ok(ints
                    .into_iter()
                    .map(|int| Arc::from(int.to_le_bytes()))
                    .collect());
            }
        }
        _ => {}
    }
    values
        .try_iter()?
        .map(|value| encode(route, &value?))
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
