//! `EventLogBase`: events in, events out, durable when a call returns.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use meshfold_core::event::Event as Inner;
use meshfold_stores::error::StoreError;
use meshfold_stores::log::{EventLog, Mode, SchemaMark};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::event::Event;
use crate::graph::locked;
use crate::route::RouteBase;
use crate::stores::refused;

/// Base of `meshfold.core.stores.EventLog`.
#[pyclass(subclass, frozen, module = "meshfold._native")]
pub(crate) struct EventLogBase {
    log: Mutex<EventLog>,
    path: PathBuf,
}

impl EventLogBase {
    pub(crate) fn append_inner(&self, events: &[Arc<Inner>]) -> Result<u64, StoreError> {
        locked(&self.log).append(events)
    }

    pub(crate) fn read_inner(
        &self,
        first: u64,
        max: usize,
        bytes: usize,
    ) -> Result<Vec<(u64, Inner)>, StoreError> {
        locked(&self.log).read(first, max, bytes)
    }

    pub(crate) fn forget_inner(&self, index: u64) -> Result<u64, StoreError> {
        locked(&self.log).forget_before(index)
    }

    pub(crate) fn left_at(&self) -> Result<u64, StoreError> {
        locked(&self.log).left_at()
    }

    pub(crate) fn keep_place(&self, number: u64, durable: bool) -> Result<(), StoreError> {
        locked(&self.log).keep_place(number, durable)
    }

    pub(crate) fn next_number(&self) -> u64 {
        locked(&self.log).next()
    }
}

#[pymethods]
impl EventLogBase {
    #[new]
    #[pyo3(signature = (path, schema_id, schema_version, schema_name, mode, segment_bytes, *_args, **_kwargs))]
    #[allow(clippy::too_many_arguments, reason = "plain data for one log")]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        schema_id: [u8; 8],
        schema_version: u32,
        schema_name: String,
        mode: &str,
        segment_bytes: u64,
        _args: &Bound<'_, pyo3::types::PyTuple>,
        _kwargs: Option<&Bound<'_, pyo3::types::PyDict>>,
    ) -> PyResult<Self> {
        let mode = match mode {
            "read" => Mode::Read,
            "write" => Mode::Write,
            "take_over" => Mode::TakeOver,
            _ => return Err(PyValueError::new_err(format!("unknown mode {mode}"))),
        };
        let schema = SchemaMark {
            id: schema_id,
            version: schema_version,
            name: schema_name,
        };
        let opened = py.detach(|| EventLog::open(&path, &schema, mode, segment_bytes));
        let log = opened.map_err(|error| refused(py, &error))?;
        Ok(Self {
            log: Mutex::new(log),
            path,
        })
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Append events, all or none; returns the number of the first. Durable on return.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "extracted from Python objects"
    )]
    fn append_events(&self, py: Python<'_>, events: Vec<PyRef<'_, Event>>) -> PyResult<u64> {
        let events: Vec<_> = events
            .iter()
            .map(|event| Arc::new(event.inner.clone()))
            .collect();
        let done = py.detach(|| self.append_inner(&events));
        done.map_err(|error| refused(py, &error))
    }

    /// Up to `max` (number, event) rows from number `from` on, and about `bytes` bytes of them.
    fn read_events(
        &self,
        py: Python<'_>,
        route: &Bound<'_, RouteBase>,
        first: u64,
        max: usize,
        bytes: usize,
    ) -> PyResult<Vec<(u64, Event)>> {
        let rows = py.detach(|| locked(&self.log).read(first, max, bytes));
        let rows = rows.map_err(|error| refused(py, &error))?;
        let event = |(index, inner)| (index, Event::new(Arc::new(inner), route.clone().unbind()));
        Ok(rows.into_iter().map(event).collect())
    }

    /// Forget whole files of records below `index`; returns the number of the oldest that is left.
    fn forget_before(&self, py: Python<'_>, index: u64) -> PyResult<u64> {
        let done = py.detach(|| locked(&self.log).forget_before(index));
        done.map_err(|error| refused(py, &error))
    }

    /// (first, next, token, torn bytes).
    fn state(&self) -> (u64, u64, u64, u64) {
        let log = locked(&self.log);
        (log.first(), log.next(), log.token(), log.torn_bytes)
    }

    /// Give the writer's lease back; reading goes on. Idempotent.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let done = py.detach(|| locked(&self.log).close());
        done.map_err(|error| refused(py, &error))
    }
}
