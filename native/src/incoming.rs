//! Batches of remote producers, unpacked once and taken in as credit allows.

use std::sync::Mutex;

use meshfold_core::engine;
use meshfold_core::event::Tag;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::convert::taint_bits;
use crate::graph::{GraphBase, locked};
use crate::route::RouteBase;
use crate::turn::Full;

/// A batch of which some events may still wait for credit.
#[pyclass(frozen, module = "meshfold._native")]
pub(crate) struct Incoming {
    inner: Mutex<engine::Incoming>,
}

#[pymethods]
impl Incoming {
    /// First and last number.
    #[getter]
    fn numbers(&self) -> (u64, u64) {
        locked(&self.inner).numbers()
    }

    /// How many events wait for credit.
    #[getter]
    fn waiting(&self) -> usize {
        locked(&self.inner).waiting()
    }

    /// Payload bytes of all that wait.
    #[getter]
    fn payload_bytes(&self) -> usize {
        locked(&self.inner).bytes()
    }

    /// Bytes of the first one that waits.
    #[getter]
    fn needs(&self) -> usize {
        locked(&self.inner).needs()
    }
}

/// Read a batch of a remote producer; nothing of it is taken in yet.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "plain data for one batch")]
pub(crate) fn unpack_batch(
    py: Python<'_>,
    graph: &GraphBase,
    r: &Bound<'_, RouteBase>,
    meta: &[u8],
    payload: Option<&[u8]>,
    producer: Tag,
    incarnation: Tag,
    taints: &Bound<'_, PyAny>,
) -> PyResult<Incoming> {
    let bits = taint_bits(py, taints)?;
    let index = graph.index(py, r)?;
    let mut unpacked = None;
    graph.submit(py, &r.get().text, Full::Wait, |engine| {
        unpacked = Some(engine.unpack(index, (meta, payload), producer, incarnation, bits)?);
        Ok(())
    })?;
    let inner = unpacked.ok_or_else(|| PyValueError::new_err("not unpacked"))?;
    Ok(Incoming {
        inner: Mutex::new(inner),
    })
}

/// (delivered, duplicates, lost, first, last, what waits of it or None).
type Taken = (u64, u64, u64, u64, u64, Option<Incoming>);

/// Take in a batch of a remote producer that none waits before, as far as there is credit.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "plain data for one batch")]
pub(crate) fn push_batch(
    py: Python<'_>,
    graph: &GraphBase,
    r: &Bound<'_, RouteBase>,
    meta: &[u8],
    payload: Option<&[u8]>,
    producer: Tag,
    incarnation: Tag,
    taints: &Bound<'_, PyAny>,
) -> PyResult<Taken> {
    let bits = taint_bits(py, taints)?;
    let ingest = graph.now(py)?;
    let index = graph.index(py, r)?;
    let mut taken = None;
    graph.submit(py, &r.get().text, Full::Wait, |engine| {
        let sender = (producer, incarnation);
        taken = Some(engine.take_in(index, (meta, payload), sender, bits, ingest)?);
        Ok(())
    })?;
    let (r, rest) = taken.ok_or_else(|| PyValueError::new_err("not pushed"))?;
    let rest = rest.map(|inner| Incoming {
        inner: Mutex::new(inner),
    });
    Ok((
        r.delivered,
        r.duplicates,
        r.lost,
        r.first_seq,
        r.last_seq,
        rest,
    ))
}

/// Take in what waits of a batch, as far as there is credit.
#[pyfunction]
pub(crate) fn push_waiting(
    py: Python<'_>,
    graph: &GraphBase,
    r: &Bound<'_, RouteBase>,
    incoming: &Incoming,
) -> PyResult<()> {
    let ingest = graph.now(py)?;
    let index = graph.index(py, r)?;
    graph.submit(py, &r.get().text, Full::Wait, |engine| {
        engine
            .push(index, &mut locked(&incoming.inner), ingest)
            .map(|_| ())
    })
}
