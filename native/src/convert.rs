//! Plain data across the boundary: counters, taints, parents and payloads as Python gives and takes them.

use std::sync::Arc;

use meshfold_core::batch::{TEXT_BYTES_MAX, TEXTS_MAX};
use meshfold_core::counters::Counters;
use meshfold_core::event::{EventId, Tag};
use meshfold_core::registry::DROP_REASONS;
use meshfold_core::ring::Overflow;
use meshfold_core::taint;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::errors::error;
use crate::event::Event;

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
        let unknown = || {
            error(
                py,
                "WiringError",
                &format!("unknown taint {name}"),
                "use one of Taint",
                ("item", &name),
            )
        };
        bits |= taint::bit(&name).ok_or_else(unknown)?;
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
