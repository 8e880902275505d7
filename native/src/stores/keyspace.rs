//! `KeyspaceBase`: keys of parts, values of bytes.

use std::path::PathBuf;
use std::sync::Mutex;

use meshfold_stores::key::{self, Part};
use meshfold_stores::keyspace::{Applied, Change, Keyspace};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyInt, PyList, PyString, PyTuple};

use crate::errors::raise;
use crate::graph::locked;
use crate::stores::refused;

/// Base of `meshfold.core.stores.Keyspace`: None once it is closed.
#[pyclass(frozen, module = "meshfold._native")]
pub(crate) struct KeyspaceBase {
    store: Mutex<Option<std::sync::Arc<Keyspace>>>,
    path: PathBuf,
}

fn parts(key: &Bound<'_, PyTuple>) -> PyResult<Vec<u8>> {
    let mut out = Vec::with_capacity(key.len());
    for part in key {
        if let Ok(text) = part.cast::<PyString>() {
            out.push(Part::Text(text.to_cow()?.into_owned()));
        } else if let Ok(bytes) = part.cast::<PyBytes>() {
            out.push(Part::Bytes(bytes.as_bytes().to_vec()));
        } else if part.is_instance_of::<PyInt>() && !part.is_instance_of::<PyBool>() {
            out.push(Part::Int(part.extract()?));
        } else {
            let kind = part.get_type().name()?.to_string();
            let what = format!("a key part of type {kind}");
            let fix = "use str, bytes or int";
            return Err(raise(
                key.py(),
                "WiringError",
                &what,
                fix,
                &[("item", &"key")],
            ));
        }
    }
    Ok(key::encode(&out))
}

fn tuple<'py>(py: Python<'py>, key: &[u8]) -> PyResult<Bound<'py, PyTuple>> {
    let parts = key::decode(key).unwrap_or_else(|| vec![Part::Bytes(key.to_vec())]);
    let mut out = Vec::with_capacity(parts.len());
    for part in parts {
        out.push(match part {
            Part::Int(value) => value.into_pyobject(py)?.into_any(),
            Part::Text(text) => PyString::new(py, &text).into_any(),
            Part::Bytes(bytes) => PyBytes::new(py, &bytes).into_any(),
        });
    }
    PyTuple::new(py, out)
}

impl KeyspaceBase {
    fn open_store(&self, py: Python<'_>) -> PyResult<std::sync::Arc<Keyspace>> {
        let store = locked(&self.store).clone();
        store.ok_or_else(|| {
            refused(
                py,
                &meshfold_stores::error::StoreError::Closed(self.path.clone()),
            )
        })
    }
}

type ChangeRow<'py> = (Bound<'py, PyTuple>, Option<Vec<u8>>, Option<u64>);

#[pymethods]
impl KeyspaceBase {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let opened = py.detach(|| Keyspace::open(&path));
        let store = opened.map_err(|error| refused(py, &error))?;
        Ok(Self {
            store: Mutex::new(Some(std::sync::Arc::new(store))),
            path,
        })
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// (version, value) of a key.
    fn read<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyTuple>,
    ) -> PyResult<Option<(u64, Bound<'py, PyBytes>)>> {
        let key = parts(key)?;
        let store = self.open_store(py)?;
        let found = py.detach(|| store.get(&key));
        let found = found.map_err(|error| refused(py, &error))?;
        Ok(found.map(|(version, value)| (version, PyBytes::new(py, &value))))
    }

    /// Apply (key, value or None, expected version or None) rows in one durable transaction; (version, None), or
    /// (0, (key, its version)) if one has another version than expected, and then nothing was done.
    #[allow(clippy::type_complexity, reason = "plain data")]
    fn apply<'py>(
        &self,
        py: Python<'py>,
        rows: Vec<ChangeRow<'py>>,
    ) -> PyResult<(u64, Option<(Bound<'py, PyTuple>, u64)>)> {
        let mut changes = Vec::with_capacity(rows.len());
        for (key, value, expected) in rows {
            let key = parts(&key)?;
            changes.push(match value {
                Some(value) => Change::Put(key, value, expected),
                None => Change::Delete(key, expected),
            });
        }
        let store = self.open_store(py)?;
        let applied = py.detach(|| store.apply(&changes));
        match applied.map_err(|error| refused(py, &error))? {
            Applied::Done(version) => Ok((version, None)),
            Applied::Conflict(key, found) => Ok((0, Some((tuple(py, &key)?, found)))),
        }
    }

    /// Up to `max` (key, version, value) rows whose key begins with `prefix` and is behind `after`.
    fn rows<'py>(
        &self,
        py: Python<'py>,
        prefix: &Bound<'py, PyTuple>,
        after: Option<&Bound<'py, PyTuple>>,
        max: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        let prefix = parts(prefix)?;
        let after = after.map(parts).transpose()?;
        let store = self.open_store(py)?;
        let found = py.detach(|| store.scan(&prefix, after.as_deref(), max));
        let out = PyList::empty(py);
        for (key, version, value) in found.map_err(|error| refused(py, &error))? {
            out.append((tuple(py, &key)?, version, PyBytes::new(py, &value)))?;
        }
        Ok(out)
    }

    /// Close the file. Idempotent.
    fn close(&self) {
        *locked(&self.store) = None;
    }
}
