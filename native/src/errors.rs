//! Raising the errors of `meshfold.core.errors`, which build their own messages.

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// A value of an error's field.
pub(crate) trait Field {
    /// As a Python object.
    fn put(&self, fields: &Bound<'_, PyDict>, name: &str) -> PyResult<()>;
}

macro_rules! field {
    ($($kind:ty),*) => {$(
        impl Field for $kind {
            fn put(&self, fields: &Bound<'_, PyDict>, name: &str) -> PyResult<()> {
                fields.set_item(name, self)
            }
        }
    )*};
}
field!(&str, String, u64, usize, [u8; 8]);

/// An error with any number of fields.
pub(crate) fn raise(
    py: Python<'_>,
    class: &str,
    what: &str,
    fix: &str,
    given: &[(&str, &dyn Field)],
) -> PyErr {
    let build = || -> PyResult<PyErr> {
        let fields = PyDict::new(py);
        fields.set_item("fix", fix)?;
        for (name, value) in given {
            value.put(&fields, name)?;
        }
        let kind = py.import("meshfold.core.errors")?.getattr(class)?;
        Ok(PyErr::from_value(kind.call((what,), Some(&fields))?))
    };
    build().unwrap_or_else(|error| error)
}

/// An error of that module: class, what happened, what to do, and one field.
pub(crate) fn error(
    py: Python<'_>,
    class: &str,
    what: &str,
    fix: &str,
    field: (&str, &str),
) -> PyErr {
    raise(py, class, what, fix, &[(field.0, &field.1)])
}
