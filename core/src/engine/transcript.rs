//! A hash over everything that happened: the same inputs give the same one, whatever the host's threads did.

use std::sync::Arc;

use super::Engine;
use crate::batch;
use crate::event::{Event, mix};

/// The running hash: two lanes over the encoded envelopes and payloads of all events in the order they were stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    lanes: [u64; 2],
    events: u64,
}

impl Transcript {
    fn absorb(&mut self, event: &Arc<Event>) {
        self.events += 1;
        let (meta, payload) = batch::encode(std::slice::from_ref(event));
        for tag in [event.producer, event.incarnation, event.route] {
            self.word(u64::from_be_bytes(tag));
        }
        for bytes in [&meta, &payload] {
            self.word(bytes.len() as u64);
            for chunk in bytes.chunks(8) {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                self.word(u64::from_be_bytes(word));
            }
        }
    }

    fn word(&mut self, word: u64) {
        self.lanes = [
            mix(self.lanes[0] ^ word),
            mix(self.lanes[1].rotate_left(23) ^ word),
        ];
    }

    /// (hash, events).
    pub fn state(&self) -> ([u8; 16], u64) {
        let mut hash = [0; 16];
        hash[..8].copy_from_slice(&self.lanes[0].to_be_bytes());
        hash[8..].copy_from_slice(&self.lanes[1].to_be_bytes());
        (hash, self.events)
    }
}

impl Engine {
    /// Keep a transcript from now on; without one it costs nothing.
    pub fn keep_transcript(&mut self) {
        self.transcript.get_or_insert_with(Transcript::default);
    }

    /// The transcript, if one is kept.
    pub fn transcript(&self) -> Option<Transcript> {
        self.transcript
    }

    pub(super) fn note(&mut self, event: &Arc<Event>) {
        if let Some(transcript) = &mut self.transcript {
            transcript.absorb(event);
        }
    }
}
