//! Raising the errors of `meshfold.core.errors`, which build their own messages.

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// An error of that module: class, what happened, what to do, and one field.
pub(crate) fn error(
    py: Python<'_>,
    class: &str,
    what: &str,
    fix: &str,
    field: (&str, &str),
) -> PyErr {
    let build = || -> PyResult<PyErr> {
        let fields = PyDict::new(py);
        fields.set_item("fix", fix)?;
        fields.set_item(field.0, field.1)?;
        let kind = py.import("meshfold.core.errors")?.getattr(class)?;
        Ok(PyErr::from_value(kind.call((what,), Some(&fields))?))
    };
    build().unwrap_or_else(|error| error)
}
