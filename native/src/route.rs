//! The native part of a route: what the engine and the codecs need of it.

use meshfold_core::event::Tag;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::codec::{Codec, decode, encode};

/// Base of `meshfold.core.Route`.
#[pyclass(subclass, frozen, module = "meshfold._native")]
pub(crate) struct RouteBase {
    pub(crate) tag: Tag,
    pub(crate) codec: Codec,
    /// The Python schema, which encodes and decodes what `codec` leaves to Python.
    pub(crate) schema: Py<PyAny>,
    pub(crate) text: String,
}

#[pymethods]
impl RouteBase {
    #[new]
    #[pyo3(signature = (tag, codec, schema, text, *_args, **_kwargs))]
    fn new(
        tag: Tag,
        codec: &str,
        schema: Py<PyAny>,
        text: String,
        _args: &Bound<'_, pyo3::types::PyTuple>,
        _kwargs: Option<&Bound<'_, pyo3::types::PyDict>>,
    ) -> Self {
        Self {
            tag,
            codec: Codec::named(codec),
            schema,
            text,
        }
    }

    /// The bytes of a value. Raises `EncodeError` if it does not fit the schema.
    fn encode_value<'py>(
        slf: &Bound<'py, Self>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(slf.py(), &encode(slf.get(), value)?))
    }

    /// The value of bytes. Raises `DecodeError` if they are none of the schema.
    fn decode_value(slf: &Bound<'_, Self>, data: &[u8]) -> PyResult<Py<PyAny>> {
        decode(slf.py(), slf.get(), data)
    }
}
