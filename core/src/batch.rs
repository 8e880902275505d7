//! MB1, the batch format: events of one route and incarnation with consecutive numbers, as two byte strings.
//!
//! The metadata section holds every envelope field, the payload section the encoded values, so that each can be sealed
//! under its own key. Integers are LEB128 in their shortest form; signed ones are zig-zag first. Whatever decodes,
//! encodes to the same bytes; anything else is refused. `docs/batch-format.md` specifies it for other languages.

use crate::event::{Event, EventId, Extra, PARENT_RANGES_MAX, ParentRange, Tag};
use crate::payload::Payload;
use crate::taint;
use std::sync::Arc;

/// First byte of both sections.
pub const VERSION: u8 = 1;
/// Events in one batch.
pub const BATCH_EVENTS_MAX: usize = 65_535;
/// Bytes of one text field.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Guards or labels of one event.
pub const TEXTS_MAX: usize = 64;

const HAS_LOGICAL: u64 = 1;
const HAS_EPOCH: u64 = 2;
const HAS_QOS: u64 = 4;
const HAS_CAUSALITY: u64 = 8;
const HAS_CLOCK: u64 = 16;
const HAS_KEY: u64 = 32;
const HAS_CORRELATION: u64 = 64;
const HAS_OPERATOR: u64 = 128;
const HAS_REF: u64 = 256;
const HAS_GUARDS: u64 = 512;
const HAS_LABELS: u64 = 1024;
const HAS_PARENTS: u64 = 2048;
const HAS_TAINTS: u64 = 4096;
const HAS_TRACE: u64 = 8192;
const SAMPLED: u64 = 16_384;
const HAS_ALL: u64 = 32_767;
/// The fields of `Extra` except the trace.
const HAS_EXTRA: u64 = HAS_TAINTS - 1;

/// Why bytes are not a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchError(pub &'static str);

/// Encode both sections. The events must be of one route, producer and incarnation with consecutive numbers.
pub fn encode(events: &[Arc<Event>]) -> (Vec<u8>, Vec<u8>) {
    let mut payload = vec![0; payload_bytes(events)];
    encode_payload(events, &mut payload);
    (encode_meta(events), payload)
}

/// The metadata section.
pub fn encode_meta(events: &[Arc<Event>]) -> Vec<u8> {
    let mut meta = Vec::with_capacity(32 + events.len() * 24);
    meta.push(VERSION);
    put(&mut meta, events.len() as u64);
    put(&mut meta, events.first().map_or(0, |e| e.seq));
    let mut time = 0;
    for event in events {
        encode_event(&mut meta, event, time);
        time = event.time;
    }
    meta
}

/// Bytes of the payload section.
pub fn payload_bytes(events: &[Arc<Event>]) -> usize {
    let value = |event: &Arc<Event>| {
        let payload = event.payload.as_ref();
        payload.map_or(1, |bytes| shortest(bytes.len() as u64 + 1).1 + bytes.len())
    };
    1 + shortest(events.len() as u64).1 + events.iter().map(value).sum::<usize>()
}

/// The payload section, into a buffer of `payload_bytes`.
pub fn encode_payload(events: &[Arc<Event>], out: &mut [u8]) {
    let mut at = 0;
    let mut copy = |bytes: &[u8]| {
        out[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    copy(&[VERSION]);
    let (bytes, len) = shortest(events.len() as u64);
    copy(&bytes[..len]);
    for event in events {
        let value = event.payload.as_deref();
        let (bytes, len) = shortest(value.map_or(0, |value| value.len() as u64 + 1));
        copy(&bytes[..len]);
        copy(value.unwrap_or_default());
    }
}

fn encode_event(out: &mut Vec<u8>, e: &Event, previous_time: i64) {
    if e.extra.is_none() && e.taints == 0 && !e.sampled {
        // Most events say nothing else.
        put(out, 0);
        put(out, zigzag(e.time.wrapping_sub(previous_time)));
        put(out, zigzag(e.ingest.wrapping_sub(e.time)));
        return;
    }
    let trace = e.trace.filter(|trace| *trace != e.usual_trace());
    let mut has = 0;
    for (bit, there) in [
        (HAS_LOGICAL, e.logical != 0),
        (HAS_EPOCH, e.epoch != 0),
        (HAS_QOS, e.qos != 0),
        (HAS_CAUSALITY, e.causality.is_some()),
        (HAS_CLOCK, e.clock.is_some()),
        (HAS_KEY, e.key.is_some()),
        (HAS_CORRELATION, e.correlation.is_some()),
        (HAS_OPERATOR, e.operator.is_some()),
        (HAS_REF, e.payload_ref.is_some()),
        (HAS_GUARDS, !e.guards.is_empty()),
        (HAS_LABELS, !e.labels.is_empty()),
        (HAS_PARENTS, !e.parents.is_empty()),
        (HAS_TAINTS, e.taints != 0),
        (HAS_TRACE, trace.is_some()),
        (SAMPLED, e.sampled),
    ] {
        has |= if there { bit } else { 0 };
    }
    put(out, has);
    put(out, zigzag(e.time.wrapping_sub(previous_time)));
    put(out, zigzag(e.ingest.wrapping_sub(e.time)));
    for (bit, value) in [
        (HAS_LOGICAL, e.logical),
        (HAS_EPOCH, e.epoch),
        (HAS_QOS, u64::from(e.qos)),
    ] {
        if has & bit != 0 {
            put(out, value);
        }
    }
    if let Some(id) = &e.causality {
        for tag in [id.producer, id.incarnation, id.route] {
            out.extend_from_slice(&tag);
        }
        put(out, id.seq);
    }
    for text in [
        &e.clock,
        &e.key,
        &e.correlation,
        &e.operator,
        &e.payload_ref,
    ]
    .into_iter()
    .flatten()
    {
        put_text(out, text);
    }
    for list in [&e.guards, &e.labels] {
        if !list.is_empty() {
            put(out, list.len() as u64);
            for text in list {
                put_text(out, text);
            }
        }
    }
    if !e.parents.is_empty() {
        put(out, e.parents.len() as u64);
        for range in e.parents.iter() {
            for tag in [range.producer, range.incarnation, range.route] {
                out.extend_from_slice(&tag);
            }
            put(out, range.first);
            put(out, range.last - range.first);
        }
    }
    if e.taints != 0 {
        put(out, e.taints);
    }
    if let Some(trace) = &trace {
        out.extend_from_slice(trace);
    }
}

/// A batch whose events have values and times, and nothing else to say but the same taints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Number of the first event; the others follow.
    pub first: u64,
    /// Device times, ns.
    pub times: Vec<i64>,
    /// Of each event.
    pub taints: u64,
    /// Where the values lie in the payload section: start and length.
    pub values: Vec<(usize, usize)>,
}

/// Read a batch as columns. None where it is not so plain, or no batch: `decode` tells.
pub fn columns(meta: &[u8], payload: &[u8]) -> Option<Columns> {
    let (mut m, mut p) = (Reader::new(meta).ok()?, Reader::new(payload).ok()?);
    let count = m.uint().ok()?;
    if count == 0 || count > BATCH_EVENTS_MAX as u64 || p.uint().ok()? != count {
        return None;
    }
    let first = m.uint().ok()?;
    if first == 0 || first.checked_add(count).is_none() {
        return None;
    }
    // Three bytes of metadata an event at least, so that a short batch asks for no more memory than it is worth.
    let most = (count as usize).min(meta.len() / 3 + 1);
    let (mut times, mut values) = (Vec::with_capacity(most), Vec::with_capacity(most));
    let (mut time, mut taints) = (0i64, None);
    for _ in 0..count {
        let has = m.uint().ok()?;
        if has & !HAS_TAINTS != 0 {
            return None;
        }
        time = time.wrapping_add(unzigzag(m.uint().ok()?));
        m.uint().ok()?;
        let own = if has == 0 { 0 } else { m.nonzero().ok()? };
        if *taints.get_or_insert(own) != own {
            return None;
        }
        times.push(time);
        let size = p.uint().ok()?.checked_sub(1)? as usize;
        values.push((payload.len() - p.rest.len(), size));
        p.take(size).ok()?;
    }
    m.end().ok()?;
    p.end().ok()?;
    let taints = taints.filter(|taints| taint::normalize(*taints) == *taints)?;
    Some(Columns {
        first,
        times,
        taints,
        values,
    })
}

/// Decode a batch of the given route, producer and incarnation. `payload` None: the metadata-only form.
pub fn decode(
    meta: &[u8],
    payload: Option<&[u8]>,
    route: Tag,
    producer: Tag,
    incarnation: Tag,
) -> Result<Vec<Event>, BatchError> {
    let mut m = Reader::new(meta)?;
    let mut p = payload.map(Reader::new).transpose()?;
    let count = m.uint()? as usize;
    if count == 0 || count > BATCH_EVENTS_MAX {
        return Err(BatchError("number of events"));
    }
    if let Some(p) = &mut p
        && p.uint()? as usize != count
    {
        return Err(BatchError("sections of different batches"));
    }
    let first = m.uint()?;
    if first == 0 || first.checked_add(count as u64).is_none() {
        return Err(BatchError("sequence number"));
    }
    let mut events = Vec::with_capacity(count.min(meta.len() / 3 + 1));
    let mut time = 0;
    for index in 0..count as u64 {
        let mut event = Event {
            route,
            producer,
            incarnation,
            seq: first + index,
            ..Event::default()
        };
        decode_event(&mut m, &mut event, time)?;
        time = event.time;
        if let Some(p) = &mut p {
            let size = p.uint()?;
            if size > 0 {
                event.payload = Some(Payload::copy(p.take((size - 1) as usize)?));
            }
        }
        events.push(event);
    }
    m.end()?;
    if let Some(p) = p {
        p.end()?;
    }
    Ok(events)
}

fn decode_event(m: &mut Reader, e: &mut Event, previous_time: i64) -> Result<(), BatchError> {
    let has = m.uint()?;
    if has & !HAS_ALL != 0 {
        return Err(BatchError("unknown field"));
    }
    e.time = previous_time.wrapping_add(unzigzag(m.uint()?));
    e.ingest = e.time.wrapping_add(unzigzag(m.uint()?));
    e.sampled = has & SAMPLED != 0;
    if has & HAS_EXTRA != 0 {
        decode_extra(m, e.extra_mut(), has)?;
    }
    if has & HAS_TAINTS != 0 {
        e.taints = m.nonzero()?;
        if taint::normalize(e.taints) != e.taints {
            return Err(BatchError("taints"));
        }
    }
    if has & HAS_TRACE != 0 {
        let mut trace = [0; 16];
        trace.copy_from_slice(m.take(16)?);
        if trace == e.usual_trace() {
            return Err(BatchError("a trace that is the usual one"));
        }
        e.extra_mut().trace = Some(trace);
    }
    Ok(())
}

fn decode_extra(m: &mut Reader, e: &mut Extra, has: u64) -> Result<(), BatchError> {
    if has & HAS_LOGICAL != 0 {
        e.logical = m.nonzero()?;
    }
    if has & HAS_EPOCH != 0 {
        e.epoch = m.nonzero()?;
    }
    if has & HAS_QOS != 0 {
        e.qos = u8::try_from(m.nonzero()?).map_err(|_| BatchError("QoS class"))?;
    }
    if has & HAS_CAUSALITY != 0 {
        e.causality = Some(EventId {
            producer: m.tag()?,
            incarnation: m.tag()?,
            route: m.tag()?,
            seq: m.nonzero()?,
        });
    }
    for (bit, field) in [
        (HAS_CLOCK, &mut e.clock),
        (HAS_KEY, &mut e.key),
        (HAS_CORRELATION, &mut e.correlation),
        (HAS_OPERATOR, &mut e.operator),
        (HAS_REF, &mut e.payload_ref),
    ] {
        if has & bit != 0 {
            *field = Some(m.text()?);
        }
    }
    for (bit, list) in [(HAS_GUARDS, &mut e.guards), (HAS_LABELS, &mut e.labels)] {
        if has & bit != 0 {
            let count = m.nonzero()? as usize;
            if count > TEXTS_MAX {
                return Err(BatchError("too many guards or labels"));
            }
            for _ in 0..count {
                list.push(m.text()?);
            }
        }
    }
    if has & HAS_PARENTS != 0 {
        e.parents = decode_parents(m)?.into();
    }
    Ok(())
}

fn decode_parents(m: &mut Reader) -> Result<Vec<ParentRange>, BatchError> {
    let count = m.nonzero()? as usize;
    if count > PARENT_RANGES_MAX {
        return Err(BatchError("too many parents"));
    }
    let mut parents = Vec::with_capacity(count);
    for _ in 0..count {
        let (producer, incarnation, route) = (m.tag()?, m.tag()?, m.tag()?);
        let first = m.nonzero()?;
        let last = first
            .checked_add(m.uint()?)
            .ok_or(BatchError("parent range"))?;
        parents.push(ParentRange {
            producer,
            incarnation,
            route,
            first,
            last,
        });
    }
    Ok(parents)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// An integer, and how many of the bytes it takes.
fn shortest(mut value: u64) -> ([u8; 10], usize) {
    let (mut bytes, mut len) = ([0; 10], 1);
    while value >= 128 {
        bytes[len - 1] = (value & 127) as u8 | 128;
        value >>= 7;
        len += 1;
    }
    bytes[len - 1] = value as u8;
    (bytes, len)
}

fn put(out: &mut Vec<u8>, value: u64) {
    let (bytes, len) = shortest(value);
    out.extend_from_slice(&bytes[..len]);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, BatchError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => Ok(Self { rest }),
            _ => Err(BatchError("version")),
        }
    }

    fn take(&mut self, size: usize) -> Result<&'a [u8], BatchError> {
        if size > self.rest.len() {
            return Err(BatchError("length past the end"));
        }
        let (head, rest) = self.rest.split_at(size);
        self.rest = rest;
        Ok(head)
    }

    fn tag(&mut self) -> Result<Tag, BatchError> {
        let mut tag = [0; 8];
        tag.copy_from_slice(self.take(8)?);
        Ok(tag)
    }

    fn uint(&mut self) -> Result<u64, BatchError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let part = u64::from(byte & 127);
            // The shortest form only: no zero byte at the end, nothing above 64 bits.
            if (shift > 0 && byte == 0) || (shift == 63 && byte > 1) {
                return Err(BatchError("integer not in its shortest form"));
            }
            value |= part << shift;
            if byte < 128 {
                return Ok(value);
            }
        }
        Err(BatchError("integer too long"))
    }

    fn nonzero(&mut self) -> Result<u64, BatchError> {
        match self.uint()? {
            0 => Err(BatchError("a field present but empty")),
            value => Ok(value),
        }
    }

    fn text(&mut self) -> Result<Arc<str>, BatchError> {
        let size = self.uint()? as usize;
        if size > TEXT_BYTES_MAX {
            return Err(BatchError("text too long"));
        }
        let text =
            std::str::from_utf8(self.take(size)?).map_err(|_| BatchError("text is not UTF-8"))?;
        Ok(text.into())
    }

    fn end(&self) -> Result<(), BatchError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(BatchError("bytes after the end"))
        }
    }
}
