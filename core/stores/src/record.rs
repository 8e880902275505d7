//! One record of the event log.
//!
//! ```text
//! magic 4 "MFR1" | length 4 | index 8 | token 8 | schema id 8 | schema version 4 | place 4 | head crc 4 | body crc 4 | body
//! body: route 8 | producer 8 | incarnation 8 | metadata length 4 | metadata section | payload section      (MB1, one event)
//! ```
//! Integers are big-endian, checksums CRC32C. `place` is the record's place in its append: all records of one append are
//! acknowledged together, so a hole among them that nothing later follows is a torn append, not damage.

use std::sync::Arc;

use meshfold_core::batch;
use meshfold_core::event::{Event, Tag};

/// Bytes before the body.
pub const HEAD_BYTES: usize = 48;
/// Bytes of one body: a value of the largest size with its envelope.
pub const BODY_BYTES_MAX: usize = 65 * 1024 * 1024;
pub(crate) const MAGIC: [u8; 4] = *b"MFR1";

/// A record's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the body.
    pub length: usize,
    /// Number in the log, from 1.
    pub index: u64,
    /// The writer's fencing token.
    pub token: u64,
    /// Identity of the schema.
    pub schema: [u8; 8],
    /// Version of the schema.
    pub version: u32,
    /// Place in its append.
    pub place: u32,
    body_crc: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

impl Head {
    /// Read a head; None for bytes that are none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..HEAD_BYTES)?;
        let length = u32_at(head, 4) as usize;
        if head[..4] != MAGIC
            || length > BODY_BYTES_MAX
            || u32_at(head, 40) != crc32c::crc32c(&head[..40])
        {
            return None;
        }
        Some(Self {
            length,
            index: u64_at(head, 8),
            token: u64_at(head, 16),
            schema: head[24..32].try_into().unwrap_or_default(),
            version: u32_at(head, 32),
            place: u32_at(head, 36),
            body_crc: u32_at(head, 44),
        })
    }

    /// Whether a body is the one that was written.
    pub fn matches(&self, body: &[u8]) -> bool {
        body.len() == self.length && crc32c::crc32c(body) == self.body_crc
    }
}

/// The bytes of one event.
pub fn body(event: &Arc<Event>) -> Vec<u8> {
    let (meta, payload) = batch::encode(std::slice::from_ref(event));
    let mut body = Vec::with_capacity(28 + meta.len() + payload.len());
    for tag in [event.route, event.producer, event.incarnation] {
        body.extend_from_slice(&tag);
    }
    body.extend_from_slice(&(meta.len() as u32).to_be_bytes());
    body.extend_from_slice(&meta);
    body.extend_from_slice(&payload);
    body
}

/// Append a record to `out`.
pub fn encode(
    out: &mut Vec<u8>,
    event: &Arc<Event>,
    (index, token, place): (u64, u64, u32),
    (schema, version): ([u8; 8], u32),
) {
    let body = body(event);
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&(body.len() as u32).to_be_bytes());
    head.extend_from_slice(&index.to_be_bytes());
    head.extend_from_slice(&token.to_be_bytes());
    head.extend_from_slice(&schema);
    head.extend_from_slice(&version.to_be_bytes());
    head.extend_from_slice(&place.to_be_bytes());
    head.extend_from_slice(&crc32c::crc32c(&head).to_be_bytes());
    head.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(&body);
}

/// The event of a body; None for bytes that are none.
pub fn decode(body: &[u8]) -> Option<Event> {
    let tag = |at: usize| -> Option<Tag> { body.get(at..at + 8)?.try_into().ok() };
    let (route, producer, incarnation) = (tag(0)?, tag(8)?, tag(16)?);
    let meta_end = 28 + u32_at(body.get(..28)?, 24) as usize;
    let meta = body.get(28..meta_end)?;
    let mut events =
        batch::decode(meta, Some(&body[meta_end..]), route, producer, incarnation).ok()?;
    match events.len() {
        1 => events.pop(),
        _ => None,
    }
}
