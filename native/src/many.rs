//! Many values at once, from Python to columns. Arrays of other libraries come as one buffer of rows, so that no object is
//! made for each value.

use std::sync::Arc;

use meshfold_core::operator::Column;
use meshfold_core::operator::lot::Packed;
use meshfold_core::payload::Payload;
use meshfold_core::value::{Codec, Value};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyFloat, PyList, PyTuple};

use crate::codec::encode;
use crate::errors::error;
use crate::route::RouteBase;

/// Bytes asked for at once, before it is known how many a list has.
const PACKED_BYTES_MAX: usize = 1 << 20;

/// Values for a route.
pub(crate) enum Many {
    Floats(Vec<f64>),
    Ints(Vec<i64>),
    Payloads(Vec<Payload>),
    /// In one buffer: start and length of each.
    Packed(Arc<Vec<u8>>, Vec<(usize, usize)>),
}

impl Many {
    /// What Python gives for a route; an `EncodeError` if one does not fit.
    pub(crate) fn take(
        py: Python<'_>,
        route: &RouteBase,
        values: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        if !values.is_exact_instance_of::<PyList>() && !values.is_exact_instance_of::<PyTuple>() {
            let schema = route.schema.bind(py);
            let found = schema.call_method1("rows", (values, route.text.as_str()))?;
            if !found.is_none() {
                let (data, by): (PyBuffer<u8>, Bound<'_, PyAny>) = found.extract()?;
                return rows(py, route.codec, data.to_vec(py)?, &by);
            }
            if let Some(found) = buffered(py, route.codec, values)? {
                return Ok(found);
            }
        }
        if route.codec == Codec::Float
            && let Ok(list) = values.cast_exact::<PyList>()
        {
            let float = |value: Bound<'_, PyAny>| Some(value.cast_exact::<PyFloat>().ok()?.value());
            if let Some(floats) = list.iter().map(float).collect() {
                return Ok(Self::Floats(floats));
            }
        }
        if route.codec == Codec::Bytes
            && let Ok(list) = values.cast_exact::<PyList>()
            && let Some(packed) = packed(list)
        {
            return Ok(packed);
        }
        let many = values.try_iter().map_err(|_| {
            let what = format!("{} takes many values here, not one", route.text);
            let fix = "use publish for one";
            error(py, "EncodeError", &what, fix, ("route", &route.text))
        })?;
        let payloads: PyResult<_> = many.map(|value| encode(route, &value?)).collect();
        payloads.map(Self::Payloads)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Floats(floats) => floats.len(),
            Self::Ints(ints) => ints.len(),
            Self::Payloads(payloads) => payloads.len(),
            Self::Packed(_, places) => places.len(),
        }
    }

    /// The bytes of one.
    pub(crate) fn payload(&self, at: usize) -> Payload {
        match self {
            Self::Floats(floats) => Payload::eight(floats[at].to_le_bytes()),
            Self::Ints(ints) => Payload::eight(ints[at].to_le_bytes()),
            Self::Payloads(payloads) => payloads[at].clone(),
            Self::Packed(buffer, places) => {
                let (start, len) = places[at];
                Payload::copy(&buffer[start..start + len])
            }
        }
    }

    /// Some of them as a column with their size in bytes; `index` is the place of their route in the engine.
    pub(crate) fn column(
        &self,
        from: usize,
        to: usize,
        codec: Codec,
        index: usize,
    ) -> (Column, usize) {
        match self {
            Self::Floats(floats) => (Column::Floats(floats[from..to].to_vec()), 8 * (to - from)),
            Self::Ints(ints) => (Column::Ints(ints[from..to].to_vec()), 8 * (to - from)),
            Self::Payloads(payloads) => {
                let payloads = &payloads[from..to];
                let value = |payload| Value::decode(codec, Some(payload), index);
                (
                    Column::of(payloads.iter().map(value).collect()),
                    payloads.iter().map(|payload| payload.len()).sum(),
                )
            }
            Self::Packed(buffer, places) => {
                let places = places[from..to].to_vec();
                let bytes = places.iter().map(|place| place.1).sum();
                let packed = Packed {
                    buffer: buffer.clone(),
                    places,
                    codec,
                    route: index,
                };
                (Column::Packed(packed), bytes)
            }
        }
    }
}

/// A list of bytes in one buffer; None where it has anything else.
fn packed(list: &Bound<'_, PyList>) -> Option<Many> {
    let (mut buffer, mut places) = (Vec::new(), Vec::with_capacity(list.len()));
    for value in list.iter() {
        let value = value.cast_exact::<PyBytes>().ok()?.as_bytes();
        places.push((buffer.len(), value.len()));
        if places.len() == 1 {
            // Most lists are of values of about one size.
            buffer.reserve(value.len().saturating_mul(list.len()).min(PACKED_BYTES_MAX));
        }
        buffer.extend_from_slice(value);
    }
    Some(Many::Packed(Arc::new(buffer), places))
}

/// 64-bit integers: a buffer of them without an object each, or a sequence.
pub(crate) fn whole_numbers(py: Python<'_>, given: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
    match PyBuffer::<i64>::get(given) {
        Ok(buffer) if native_axis(&buffer) => buffer.to_vec(py),
        _ => given.try_iter()?.map(|number| number?.extract()).collect(),
    }
}

/// Whether a buffer has one axis and this machine's byte order, which `PyBuffer` does not look at.
fn native_axis<T: pyo3::buffer::Element>(buffer: &PyBuffer<T>) -> bool {
    let order = buffer.format().to_bytes().first().copied();
    buffer.dimensions() == 1 && !matches!(order, Some(b'>' | b'!'))
}

/// One axis of native doubles or 64-bit integers, as `array.array` is.
fn buffered(py: Python<'_>, codec: Codec, values: &Bound<'_, PyAny>) -> PyResult<Option<Many>> {
    match codec {
        Codec::Float => match PyBuffer::<f64>::get(values) {
            Ok(buffer) if native_axis(&buffer) => Ok(Some(Many::Floats(buffer.to_vec(py)?))),
            _ => Ok(None),
        },
        Codec::Int => match PyBuffer::<i64>::get(values) {
            Ok(buffer) if native_axis(&buffer) => Ok(Some(Many::Ints(buffer.to_vec(py)?))),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Cut a buffer into rows: `by` is the bytes of each, or the n + 1 offsets of n rows.
fn rows(py: Python<'_>, codec: Codec, data: Vec<u8>, by: &Bound<'_, PyAny>) -> PyResult<Many> {
    let uneven = || PyValueError::new_err("rows do not fit their buffer");
    if let Ok(width) = by.extract::<usize>() {
        if width == 0 || !data.len().is_multiple_of(width) {
            return Err(uneven());
        }
        let (words, rest) = data.as_chunks::<8>();
        return Ok(match codec {
            Codec::Float if width == 8 && rest.is_empty() => {
                Many::Floats(words.iter().map(|word| f64::from_le_bytes(*word)).collect())
            }
            Codec::Int if width == 8 && rest.is_empty() => {
                Many::Ints(words.iter().map(|word| i64::from_le_bytes(*word)).collect())
            }
            _ => {
                let places = (0..data.len()).step_by(width);
                let places = places.map(|start| (start, width)).collect();
                Many::Packed(Arc::new(data), places)
            }
        });
    }
    let offsets = PyBuffer::<i64>::get(by)?.to_vec(py)?;
    let cut = offsets.windows(2).map(|pair| {
        let (from, to) = (usize::try_from(pair[0]), usize::try_from(pair[1]));
        let (Ok(from), Ok(to)) = (from, to) else {
            return Err(uneven());
        };
        let place = data.get(from..to).map(|row| (from, row.len()));
        place.ok_or_else(uneven)
    });
    let places = cut.collect::<PyResult<_>>()?;
    Ok(Many::Packed(Arc::new(data), places))
}
