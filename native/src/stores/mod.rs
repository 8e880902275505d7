//! The durable stores: plain parts and bytes in, typed errors out. No call holds the interpreter lock while it waits.

mod keyspace;
mod log;
mod replay;

pub(crate) use keyspace::KeyspaceBase;
pub(crate) use log::EventLogBase;
pub(crate) use replay::{derive_all, restore};

use meshfold_stores::error::StoreError;
use meshfold_stores::record;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::raise;
use crate::event::Event;

/// One event as bytes that `GraphBase.restore` takes back.
#[pyfunction]
pub(crate) fn pack_event<'py>(py: Python<'py>, event: &Event) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &record::body(&Arc::new(event.inner.clone())))
}

/// The error of `meshfold.core.errors` for a store's refusal.
pub(crate) fn refused(py: Python<'_>, error: &StoreError) -> PyErr {
    let unavailable = |path: &std::path::Path, because: &str, what: String, fix: &str| {
        let path = path.display().to_string();
        raise(
            py,
            "StoreUnavailable",
            &what,
            fix,
            &[("path", &path), ("because", &because)],
        )
    };
    match error {
        StoreError::Full(path) => unavailable(
            path,
            "full",
            format!(
                "no room to write {}; nothing of the call was kept",
                path.display()
            ),
            "free some space and call again",
        ),
        StoreError::Locked(path) => unavailable(
            path,
            "locked",
            format!("another writer has {} open", path.display()),
            "close it, or take an event log over with take_over=True",
        ),
        StoreError::Unreadable(path, why) => unavailable(
            path,
            "unreadable",
            format!("{} cannot be used: {why}", path.display()),
            "check that it exists and belongs to this user",
        ),
        StoreError::Unsure(path, why) => unavailable(
            path,
            "unsure",
            format!(
                "whether {} holds the last write is unknown: {why}",
                path.display()
            ),
            "open it again: what it holds then is the truth",
        ),
        StoreError::Closed(path) => unavailable(
            path,
            "closed",
            format!("{} is not open for writing", path.display()),
            "open it with mode=\"write\"",
        ),
        StoreError::Damaged(path, offset, what) => raise(
            py,
            "StoreDamaged",
            &format!("{} is damaged at byte {offset}: {what}", path.display()),
            "restore it from a copy; nothing was changed",
            &[("path", &path.display().to_string()), ("offset", offset)],
        ),
        StoreError::Fenced(path, token, highest) => raise(
            py,
            "Fenced",
            &format!(
                "a newer writer of {} exists: token {highest}, ours is {token}",
                path.display()
            ),
            "stop writing; nothing of this call was acknowledged",
            &[
                ("name", &path.display().to_string()),
                ("token", token),
                ("highest", highest),
            ],
        ),
        StoreError::TooLarge(item, size, most) => raise(
            py,
            "TooLarge",
            &format!("a {item} of {size} is above {most}"),
            "store it in parts",
            &[("item", item), ("size_bytes", size), ("limit_bytes", most)],
        ),
        StoreError::TooMany(path, most) => unavailable(
            path,
            "files",
            format!("{} holds more than {most} files of a log", path.display()),
            "move those away that do not belong there; a log of ours begins no more than that",
        ),
        StoreError::Schema(path, id, version, name) => raise(
            py,
            "SchemaMismatch",
            &format!("{} holds {name} version {version}", path.display()),
            "open it with that schema, or begin another log",
            &[
                ("route", &path.display().to_string()),
                ("found", name),
                ("found_id", id),
            ],
        ),
    }
}
