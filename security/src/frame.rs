//! Event frames (MF1, kinds 1 and 7) laid out in one buffer, and how far the subkeys of their route have been used.
//!
//! Invariants: each sealed section takes a counter of its own, which is counted before anything is sealed under it; a
//! generation that is used up is never gone back to.

use std::fmt;

use crate::section::{SectionKey, TAG_BYTES};
use crate::sign::{SigningKey, sha256};

/// Bytes before the sections.
pub const HEADER_BYTES: usize = 96;
/// Bytes behind them.
pub const SIGNATURE_BYTES: usize = 64;
const DOMAIN: &[u8] = b"MF1 sig\0";
const ENC: u8 = 1;
const SIG: u8 = 8;

/// What one subkey seals before the next generation: frames, bytes, and time by the stamps of the frames.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Frames, at most 2^63.
    pub frames: u64,
    /// Bytes of both sections.
    pub bytes: u64,
    /// Milliseconds since the first.
    pub ms: u64,
}

/// The keys of a route as of some epochs: what its frames are sealed under while they are in force.
#[derive(Debug)]
pub struct Seat {
    /// Of the keyring it was made from.
    pub revision: u64,
    /// Of the subkeys.
    pub generation: u32,
    /// When the epochs are in force, by the stamps of frames.
    pub ms: (u64, u64),
    /// The epochs in the header.
    pub vector: [u8; 14],
    /// The suite in the header.
    pub suite: u8,
    /// Of the metadata and of the payload: key, and what it binds before and behind the header.
    pub sections: [(SectionKey, Vec<u8>, Vec<u8>); 2],
}

/// What a frame says.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Of the frame.
    pub flags: u8,
    /// Suite of a frame that is not sealed.
    pub suite: u8,
    /// 1, or 7 for a chunk.
    pub kind: u8,
    /// Number of events.
    pub count: u16,
    /// Of the first event.
    pub first_seq: u64,
    /// The one its sender knows.
    pub policy_epoch: u32,
    /// Its stamp.
    pub hlc: u64,
    /// Of its values.
    pub schema_id: [u8; 8],
    /// Metadata, as it goes under the seal.
    pub meta: &'a [u8],
    /// Payload, as it goes under the seal.
    pub payload: &'a [u8],
}

impl Event<'_> {
    fn sealed(&self) -> bool {
        self.flags & ENC != 0
    }

    /// Bytes by which each of its sections grows.
    pub fn tag_bytes(&self) -> usize {
        if self.sealed() { TAG_BYTES } else { 0 }
    }

    /// Bytes of its frame.
    pub fn frame_bytes(&self) -> usize {
        let signature = if self.flags & SIG != 0 {
            SIGNATURE_BYTES
        } else {
            0
        };
        HEADER_BYTES + self.meta.len() + self.payload.len() + 2 * self.tag_bytes() + signature
    }
}

/// Why a frame was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The seat is not that of now: make one of this generation, and try again. No counter was used.
    Seat(u32),
    /// A section is beyond what lengths can say, or the library refused.
    Refused,
}

/// How far the subkeys of one route have been used by one life of its sender, and what it seals under now.
pub struct RouteSeal {
    digest: [u8; 32],
    sender_tag: [u8; 8],
    incarnation: [u8; 8],
    limits: Limits,
    generation: u32,
    frames: u64,
    bytes: u64,
    began_ms: u64,
    seat: Option<Seat>,
}

impl RouteSeal {
    /// Of the route of a digest, in the life of a sender.
    pub fn new(
        digest: [u8; 32],
        sender_tag: [u8; 8],
        incarnation: [u8; 8],
        limits: Limits,
    ) -> Self {
        Self {
            digest,
            sender_tag,
            incarnation,
            limits,
            generation: 0,
            frames: 0,
            bytes: 0,
            began_ms: 0,
            seat: None,
        }
    }

    /// Generation and next counter: what a reader after an unclean stop has to know.
    pub fn standing(&self) -> (u32, u64) {
        (self.generation, 2 * self.frames)
    }

    /// Seal under these keys from now on.
    pub fn take_seat(&mut self, seat: Seat) {
        self.seat = Some(seat);
    }

    /// Forget the keys; what was used stays used.
    pub fn erase(&mut self) {
        self.seat = None;
    }

    /// The generation that a frame of so many bytes would take.
    fn next_generation(&self, bytes: u64, at_ms: u64) -> u32 {
        let full = self.frames > 0
            && (self.frames >= self.limits.frames
                || self.bytes + bytes > self.limits.bytes
                || at_ms.saturating_sub(self.began_ms) > self.limits.ms);
        self.generation + u32::from(full)
    }

    /// Write the frame of an event into `out`, which has `frame_bytes`; `signer` signs it where its flags say so.
    ///
    /// `revision` is the keyring's: a seat of another one is not taken.
    pub fn write(
        &mut self,
        event: &Event<'_>,
        revision: u64,
        signer: &SigningKey,
        out: &mut [u8],
    ) -> Result<(), FrameError> {
        let at_ms = event.hlc >> 16;
        let bytes = (event.meta.len() + event.payload.len()) as u64;
        let generation = self.ready(event, revision)?;
        let tags = event.tag_bytes();
        let lengths = [event.meta, event.payload].map(|part| u32::try_from(part.len() + tags));
        let [Ok(meta_len), Ok(payload_len)] = lengths else {
            return Err(FrameError::Refused);
        };
        if out.len() != event.frame_bytes() {
            return Err(FrameError::Refused);
        }
        // Counted first: whatever becomes of the frame, nothing else is sealed under its counters.
        if generation != self.generation || self.frames == 0 {
            (self.generation, self.frames, self.bytes) = (generation, 0, 0);
            self.began_ms = at_ms;
        }
        let counter = 2 * self.frames;
        self.frames += 1;
        self.bytes += bytes;
        let header = self.header(event, counter, meta_len, payload_len);
        let (head, rest) = out.split_at_mut(HEADER_BYTES);
        head.copy_from_slice(&header);
        let (meta, rest) = rest.split_at_mut(meta_len as usize);
        let (payload, signature) = rest.split_at_mut(payload_len as usize);
        self.sections(event, counter, &header, meta, payload)?;
        if event.flags & SIG != 0 {
            let said = signed_bytes(&self.digest, &header, meta, payload);
            signature.copy_from_slice(&signer.sign(&said));
        }
        Ok(())
    }

    /// The generation of the next frame, where its keys are here.
    pub fn ready(&self, event: &Event<'_>, revision: u64) -> Result<u32, FrameError> {
        let at_ms = event.hlc >> 16;
        let bytes = (event.meta.len() + event.payload.len()) as u64;
        let generation = self.next_generation(bytes, at_ms);
        let here = self.seat.as_ref().is_some_and(|seat| {
            seat.revision == revision
                && seat.generation == generation
                && (seat.ms.0..seat.ms.1).contains(&at_ms)
        });
        if event.sealed() && !here {
            return Err(FrameError::Seat(generation));
        }
        Ok(generation)
    }

    fn sections(
        &self,
        event: &Event<'_>,
        counter: u64,
        header: &[u8],
        meta: &mut [u8],
        payload: &mut [u8],
    ) -> Result<(), FrameError> {
        let Some(seat) = self.seat.as_ref().filter(|_| event.sealed()) else {
            meta.copy_from_slice(event.meta);
            payload.copy_from_slice(event.payload);
            return Ok(());
        };
        let mut bound = Vec::with_capacity(2 * HEADER_BYTES + 16);
        let parts = [(event.meta, meta), (event.payload, payload)];
        for ((at, (plain, out)), (key, before, behind)) in (0..).zip(parts).zip(&seat.sections) {
            bound.clear();
            bound.extend_from_slice(before);
            bound.extend_from_slice(header);
            bound.extend_from_slice(behind);
            if !key.seal(counter + at, plain, &bound, out) {
                return Err(FrameError::Refused);
            }
        }
        Ok(())
    }

    /// The 96 bytes in their order.
    fn header(
        &self,
        event: &Event<'_>,
        counter: u64,
        meta_len: u32,
        payload_len: u32,
    ) -> [u8; HEADER_BYTES] {
        let seat = self.seat.as_ref().filter(|_| event.sealed());
        let suite = seat.map_or(event.suite, |seat| seat.suite);
        let vector = seat.map_or([0; 14], |seat| seat.vector);
        let mut out = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            out[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        put(b"MF");
        put(&[1, event.flags, suite, event.kind]);
        put(&event.count.to_be_bytes());
        put(&self.digest[..8]);
        put(&self.sender_tag);
        put(&self.incarnation);
        put(&event.first_seq.to_be_bytes());
        put(&self.generation.to_be_bytes());
        put(&event.policy_epoch.to_be_bytes());
        put(&counter.to_be_bytes());
        put(&event.hlc.to_be_bytes());
        put(&meta_len.to_be_bytes());
        put(&payload_len.to_be_bytes());
        put(&event.schema_id);
        put(&vector);
        out
    }
}

impl fmt::Debug for RouteSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RouteSeal({} frames, REDACTED)", self.frames)
    }
}

/// What a signature covers; with the payload's digest in place of the payload, so that both forms verify.
fn signed_bytes(digest: &[u8; 32], header: &[u8], meta: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(DOMAIN.len() + 64 + HEADER_BYTES + meta.len());
    for part in [DOMAIN, digest, header, meta] {
        out.extend_from_slice(part);
    }
    if !payload.is_empty() {
        out.extend_from_slice(&sha256(payload));
    }
    out
}
