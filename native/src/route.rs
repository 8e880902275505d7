//! The native part of a route: what the engine and the codecs need of it.

use std::sync::atomic::{AtomicU64, Ordering};

use meshfold_core::event::Tag;
use meshfold_core::value::Codec;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::codec::{decode, encode};

/// Base of `meshfold.core.Route`.
#[pyclass(subclass, frozen, module = "meshfold._native")]
pub(crate) struct RouteBase {
    pub(crate) tag: Tag,
    pub(crate) codec: Codec,
    /// The Python schema, which encodes and decodes what `codec` leaves to Python.
    pub(crate) schema: Py<PyAny>,
    pub(crate) text: String,
    /// The graph that used it last and its index there, so that publishing looks nothing up.
    place: AtomicU64,
}

impl RouteBase {
    /// Its index in a graph, if that one used it last.
    pub(crate) fn place(&self, graph: u32) -> Option<usize> {
        let place = self.place.load(Ordering::Relaxed);
        (place >> 32 == u64::from(graph)).then_some(place as u32 as usize)
    }

    pub(crate) fn remember(&self, graph: u32, index: usize) {
        let place = u64::from(graph) << 32 | index as u64;
        self.place.store(place, Ordering::Relaxed);
    }
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
            place: AtomicU64::new(0),
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
