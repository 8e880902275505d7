//! `Event` as Python sees it: an envelope whose value decodes on first use.

use std::sync::{Arc, OnceLock};

use meshfold_core::event::{Event as Inner, EventId, ParentRange};
use meshfold_core::registry::TAINTS;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::codec::decode;
use crate::errors::error;
use crate::route::RouteBase;

/// An immutable event: envelope fields as attributes, `value` decoded on first use.
#[pyclass(frozen, generic, module = "meshfold._native")]
pub(crate) struct Event {
    pub(crate) inner: Inner,
    route: Py<RouteBase>,
    /// The object that was published, where it cannot change.
    known: Option<Py<PyAny>>,
    value: OnceLock<Py<PyAny>>,
}

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Lower-case base32 (RFC 4648 section 6, no padding) of the 32 bytes of an id.
pub(crate) fn id_text(id: &EventId) -> String {
    let mut raw = [0; 32];
    raw[..8].copy_from_slice(&id.producer);
    raw[8..16].copy_from_slice(&id.incarnation);
    raw[16..24].copy_from_slice(&id.route);
    raw[24..].copy_from_slice(&id.seq.to_be_bytes());
    let (mut bits, mut held) = (0u32, 0);
    let mut text = String::with_capacity(52);
    for byte in raw {
        bits = bits << 8 | u32::from(byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(BASE32[(bits >> held & 31) as usize]));
        }
        bits &= (1 << held) - 1;
    }
    text.push(char::from(BASE32[(bits << (5 - held) & 31) as usize]));
    text
}

pub(crate) fn taint_names(taints: u64) -> Vec<&'static str> {
    (0..TAINTS.len())
        .filter(|bit| taints >> bit & 1 == 1)
        .map(|bit| TAINTS[bit])
        .collect()
}

/// A parent range as (producer, incarnation, route tag, first, last).
pub(crate) fn range<'py>(py: Python<'py>, r: &ParentRange) -> PyResult<Bound<'py, PyTuple>> {
    (
        PyBytes::new(py, &r.producer),
        PyBytes::new(py, &r.incarnation),
        PyBytes::new(py, &r.route),
        r.first,
        r.last,
    )
        .into_pyobject(py)
}

impl Event {
    pub(crate) fn new(inner: Arc<Inner>, route: Py<RouteBase>) -> Self {
        Self::with_value(Arc::unwrap_or_clone(inner), route, None)
    }

    /// One whose value is known without decoding.
    pub(crate) fn with_value(inner: Inner, route: Py<RouteBase>, known: Option<Py<PyAny>>) -> Self {
        Self {
            inner,
            route,
            known,
            value: OnceLock::new(),
        }
    }
}

#[pymethods]
impl Event {
    /// The event's id as text: base32 of producer, incarnation, route tag and number.
    #[getter]
    fn id(&self) -> String {
        id_text(&self.inner.id())
    }
    #[getter]
    pub(crate) fn route(&self, py: Python<'_>) -> Py<RouteBase> {
        self.route.clone_ref(py)
    }
    /// The decoded value. Raises `PayloadGone` where only metadata travelled, `DecodeError` for foreign bytes.
    #[getter]
    fn value(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if let Some(value) = self.known.as_ref().or_else(|| self.value.get()) {
            return Ok(value.clone_ref(py));
        }
        let route = self.route.get();
        let Some(payload) = &self.inner.payload else {
            let what = format!("event {} of {} has no payload here", self.id(), route.text);
            let fix = "this reader holds META_READ only, or refused to upcast the event";
            return Err(error(py, "PayloadGone", &what, fix, ("route", &route.text)));
        };
        let value = decode(py, route, payload)?;
        Ok(self.value.get_or_init(|| value).clone_ref(py))
    }
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.inner
            .payload
            .as_ref()
            .map(|bytes| PyBytes::new(py, bytes))
    }
    #[getter]
    fn producer<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.producer)
    }
    #[getter]
    fn incarnation<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.incarnation)
    }
    #[getter]
    fn seq(&self) -> u64 {
        self.inner.seq
    }
    #[getter]
    fn seq_link(&self) -> u64 {
        self.inner.seq_link
    }
    #[getter]
    fn time(&self) -> i64 {
        self.inner.time
    }
    #[getter]
    fn ingest_time(&self) -> i64 {
        self.inner.ingest
    }
    #[getter]
    fn logical_time(&self) -> u64 {
        self.inner.logical
    }
    #[getter]
    fn clock(&self) -> &str {
        self.inner.clock.as_deref().unwrap_or("system")
    }
    #[getter]
    fn key(&self) -> Option<&str> {
        self.inner.key.as_deref()
    }
    #[getter]
    fn trace<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.trace())
    }
    /// Whether the trace is recorded.
    #[getter]
    fn sampled(&self) -> bool {
        self.inner.sampled
    }
    /// The event's W3C trace context, as a `traceparent` header says it.
    #[getter]
    fn traceparent(&self) -> String {
        let span = meshfold_core::trace::event_span(&self.inner.id());
        let (trace, span) = (
            u128::from_be_bytes(self.inner.trace()),
            u64::from_be_bytes(span),
        );
        format!(
            "00-{trace:032x}-{span:016x}-{:02x}",
            u8::from(self.inner.sampled)
        )
    }
    #[getter]
    fn causality(&self) -> String {
        id_text(&self.inner.causality.unwrap_or_else(|| self.inner.id()))
    }
    #[getter]
    fn correlation(&self) -> Option<&str> {
        self.inner.correlation.as_deref()
    }
    #[getter]
    fn operator(&self) -> Option<&str> {
        self.inner.operator.as_deref()
    }
    /// Ids of the causes; a range is written out.
    #[getter]
    fn parents(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for r in self.inner.parents.iter() {
            for seq in r.first..=r.last {
                ids.push(id_text(&EventId {
                    producer: r.producer,
                    incarnation: r.incarnation,
                    route: r.route,
                    seq,
                }));
            }
        }
        ids
    }
    #[getter]
    fn parent_ranges<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        self.inner.parents.iter().map(|r| range(py, r)).collect()
    }
    #[getter]
    fn taints(&self) -> Vec<&'static str> {
        taint_names(self.inner.taints)
    }
    #[getter]
    fn guards(&self) -> Vec<&str> {
        self.inner.guards.iter().map(|text| &**text).collect()
    }
    #[getter]
    fn labels(&self) -> Vec<&str> {
        self.inner.labels.iter().map(|text| &**text).collect()
    }
    #[getter]
    fn epoch(&self) -> u64 {
        self.inner.epoch
    }
    #[getter]
    fn qos(&self) -> u8 {
        self.inner.qos
    }
    #[getter]
    fn payload_reference(&self) -> Option<&str> {
        self.inner.payload_ref.as_deref()
    }
    fn __repr__(&self, py: Python<'_>) -> String {
        let value = match self.value(py) {
            Ok(value) => value
                .bind(py)
                .repr()
                .map_or_else(|_| "?".into(), |text| text.to_string()),
            Err(_) => "(no value here)".into(),
        };
        let value: String = value.chars().take(80).collect();
        format!(
            "<Event {} seq={} value={value}>",
            self.route.get().text,
            self.inner.seq
        )
    }
}
