//! Frames sealed and signed, sections opened: keys of the security room that stay on this side.

use std::sync::{Mutex, MutexGuard, PoisonError};

use meshfold_security as inner;
use meshfold_security::{FrameError, HEADER_BYTES, Limits, SIGNATURE_BYTES, TAG_BYTES};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// From so many bytes on, other threads go on meanwhile: below, a frame is sealed and signed in 50 us.
const DETACH_BYTES: usize = 64 * 1024 + 1024;

fn unfit(what: &str) -> PyErr {
    PyValueError::new_err(what.to_owned())
}

/// An Ed25519 private key.
#[pyclass(frozen, module = "meshfold._native")]
pub(crate) struct SigningKey(inner::SigningKey);

#[pymethods]
impl SigningKey {
    #[new]
    fn new(seed: &[u8]) -> PyResult<Self> {
        let key = inner::SigningKey::from_seed(seed);
        key.map(Self).ok_or_else(|| unfit("a seed has 32 bytes"))
    }

    /// 64 bytes.
    fn sign<'py>(&self, py: Python<'py>, message: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.sign(message))
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// An Ed25519 public key.
#[pyclass(frozen, module = "meshfold._native")]
pub(crate) struct VerifyingKey(inner::VerifyingKey);

#[pymethods]
impl VerifyingKey {
    #[new]
    fn new(public: &[u8]) -> PyResult<Self> {
        let key = inner::VerifyingKey::new(public);
        key.map(Self)
            .ok_or_else(|| unfit("a public key has 32 bytes"))
    }

    /// Whether the signature is that of the message.
    fn holds(&self, py: Python<'_>, signature: &[u8], message: &[u8]) -> bool {
        py.detach(|| self.0.holds(signature, message))
    }
}

/// A subkey of one suite.
#[pyclass(frozen, module = "meshfold._native")]
pub(crate) struct SectionKey(inner::SectionKey);

#[pymethods]
impl SectionKey {
    #[new]
    fn new(suite: u8, key: &[u8]) -> PyResult<Self> {
        section_key(suite, key).map(Self)
    }

    /// What is sealed under a counter, and its tag.
    fn seal<'py>(
        &self,
        py: Python<'py>,
        counter: u64,
        plain: &[u8],
        bound: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        PyBytes::new_with(py, plain.len() + TAG_BYTES, |out| {
            let sealed = self.0.seal(counter, plain, bound, out);
            sealed.then_some(()).ok_or_else(|| unfit("not sealed"))
        })
    }

    /// What was sealed; None where the tag does not hold.
    fn open<'py>(
        &self,
        py: Python<'py>,
        counter: u64,
        sealed: &[u8],
        bound: &[u8],
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let Some(len) = sealed.len().checked_sub(TAG_BYTES) else {
            return Ok(None);
        };
        let mut holds = false;
        let opened = PyBytes::new_with(py, len, |out| {
            holds = self.0.open(counter, sealed, bound, out);
            Ok(())
        })?;
        Ok(holds.then_some(opened))
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

fn fixed<const N: usize>(given: &[u8]) -> PyResult<[u8; N]> {
    let bytes = given.try_into();
    bytes.map_err(|_| unfit(&format!("{N} bytes are needed, these are {}", given.len())))
}

fn section_key(suite: u8, key: &[u8]) -> PyResult<inner::SectionKey> {
    inner::SectionKey::new(suite, key).ok_or_else(|| unfit("a suite of the mesh, and 32 bytes"))
}

/// A sealed batch in its two forms.
#[pyclass(frozen, module = "meshfold.security.seal")]
pub(crate) struct EventFrame {
    whole: Py<PyBytes>,
    meta_len: usize,
    payload_len: usize,
}

impl EventFrame {
    fn part<'py>(&self, py: Python<'py>, from: usize, to: usize) -> Bound<'py, PyBytes> {
        let whole = self.whole.as_bytes(py);
        PyBytes::new(py, whole.get(from..to.min(whole.len())).unwrap_or_default())
    }

    fn payload_at(&self) -> usize {
        HEADER_BYTES + self.meta_len
    }
}

#[pymethods]
impl EventFrame {
    /// The 96 bytes that the broker sees.
    #[getter]
    fn raw_header<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.part(py, 0, HEADER_BYTES)
    }

    /// The metadata section as it goes out.
    #[getter]
    fn meta_section<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.part(py, HEADER_BYTES, self.payload_at())
    }

    /// The payload section as it goes out.
    #[getter]
    fn payload_section<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.part(py, self.payload_at(), self.payload_at() + self.payload_len)
    }

    /// 64 bytes, or none of a frame that is not signed.
    #[getter]
    fn signature<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let at = self.payload_at() + self.payload_len;
        self.part(py, at, at + SIGNATURE_BYTES)
    }

    /// For the payload subject (class d).
    fn whole(&self, py: Python<'_>) -> Py<PyBytes> {
        self.whole.clone_ref(py)
    }

    /// For the metadata subject (class m): the payload's digest in its place.
    fn meta_only<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let (head, rest) = self.whole.as_bytes(py).split_at(self.payload_at());
        let (payload, signature) = rest.split_at(self.payload_len);
        let digest = inner::sha256(payload);
        let digest: &[u8] = if payload.is_empty() { &[] } else { &digest };
        PyBytes::new(py, &[head, digest, signature].concat())
    }
}

/// How far the subkeys of one route have been used, and what it seals under now. Of one process: two with one subkey and
/// one counter would seal under one nonce twice.
#[pyclass(frozen, module = "meshfold._native")]
pub(crate) struct RouteSeal {
    pid: u32,
    inner: Mutex<inner::RouteSeal>,
}

impl RouteSeal {
    fn state(&self) -> MutexGuard<'_, inner::RouteSeal> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<'py>(
        &self,
        py: Python<'py>,
        event: &inner::Event<'_>,
        revision: u64,
        signer: &inner::SigningKey,
    ) -> PyResult<Result<Bound<'py, PyBytes>, FrameError>> {
        let bytes = event.frame_bytes();
        let mut made = Ok(());
        let whole = PyBytes::new_with(py, bytes, |out| {
            let mut write = || self.state().write(event, revision, signer, out);
            made = if bytes > DETACH_BYTES {
                py.detach(write)
            } else {
                write()
            };
            Ok(())
        })?;
        Ok(made.map(|()| whole))
    }
}

#[pymethods]
impl RouteSeal {
    /// `pid`: the process that may seal; `limits`: frames, bytes and milliseconds of one generation.
    #[new]
    fn new(
        pid: u32,
        digest: &[u8],
        sender_tag: &[u8],
        incarnation: &[u8],
        limits: (u64, u64, u64),
    ) -> PyResult<Self> {
        let (frames, bytes, ms) = limits;
        let limits = Limits { frames, bytes, ms };
        let (tag, life) = (fixed(sender_tag)?, fixed(incarnation)?);
        let route = inner::RouteSeal::new(fixed(digest)?, tag, life, limits);
        let inner = Mutex::new(route);
        Ok(Self { pid, inner })
    }

    /// (generation, next counter).
    fn standing(&self) -> (u32, u64) {
        self.state().standing()
    }

    /// Seal under these keys: each with what it binds before and behind the header.
    #[allow(clippy::too_many_arguments, reason = "plain data for one seat")]
    fn take_seat(
        &self,
        revision: u64,
        generation: u32,
        from_ms: u64,
        until_ms: u64,
        vector: &[u8],
        suite: u8,
        meta: (&[u8], &[u8], &[u8]),
        payload: (&[u8], &[u8], &[u8]),
    ) -> PyResult<()> {
        let part = |(key, before, behind): (&[u8], &[u8], &[u8])| {
            Ok::<_, PyErr>((section_key(suite, key)?, before.to_vec(), behind.to_vec()))
        };
        let sections = [part(meta)?, part(payload)?];
        self.state().take_seat(inner::Seat {
            revision,
            generation,
            ms: (from_ms, until_ms),
            vector: fixed(vector)?,
            suite,
            sections,
        });
        Ok(())
    }

    /// Forget the keys.
    fn erase(&self) {
        self.state().erase();
    }

    /// A frame. Where keys are lacking its sealer makes new ones first (`new_seat`), before anything is counted. In another
    /// process than its own nothing is sealed.
    #[allow(clippy::too_many_arguments, reason = "plain data for one frame")]
    fn frame(
        &self,
        py: Python<'_>,
        sealer: &Bound<'_, PyAny>,
        address: &Bound<'_, PyAny>,
        signer: &SigningKey,
        revision: u64,
        flags: u8,
        suite: u8,
        kind: u8,
        count: u16,
        first_seq: u64,
        policy_epoch: u32,
        hlc: u64,
        schema_id: &[u8],
        meta: &[u8],
        payload: &[u8],
    ) -> PyResult<EventFrame> {
        if std::process::id() != self.pid {
            sealer.call_method0("check_fork")?;
            return Err(unfit("this seals in another process"));
        }
        let event = inner::Event {
            flags,
            suite,
            kind,
            count,
            first_seq,
            policy_epoch,
            hlc,
            schema_id: fixed(schema_id)?,
            meta,
            payload,
        };
        let ready = self.state().ready(&event, revision);
        if let Err(FrameError::Seat(generation)) = ready {
            sealer.call_method1("new_seat", (address, generation, hlc >> 16))?;
        }
        match self.write(py, &event, revision, &signer.0)? {
            Ok(whole) => Ok(EventFrame {
                whole: whole.unbind(),
                meta_len: meta.len() + event.tag_bytes(),
                payload_len: payload.len() + event.tag_bytes(),
            }),
            Err(FrameError::Seat(_)) => Err(unfit("the keys changed while they were made")),
            Err(FrameError::Refused) => Err(unfit("a section beyond what a frame can hold")),
        }
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.state())
    }
}
