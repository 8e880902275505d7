//! One section of a frame under one key: AEAD with the counter as nonce.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Bytes of the tag behind a sealed section.
pub const TAG_BYTES: usize = 16;

/// A subkey of a suite of the mesh. The library wipes it when it is dropped.
pub struct SectionKey(LessSafeKey);

impl SectionKey {
    /// Suite 1 is AES-256-GCM, suite 2 ChaCha20-Poly1305. None for another suite, or a key that has not 32 bytes.
    pub fn new(suite: u8, key: &[u8]) -> Option<Self> {
        let algorithm = match suite {
            1 => &AES_256_GCM,
            2 => &CHACHA20_POLY1305,
            _ => return None,
        };
        let key = UnboundKey::new(algorithm, key).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }

    /// Seal into `out`, which is longer by a tag. A counter is sealed under once: whoever calls counts. False, and what
    /// is in `out` is of no use, where the library refuses or `out` has another length.
    #[must_use]
    pub fn seal(&self, counter: u64, plain: &[u8], bound: &[u8], out: &mut [u8]) -> bool {
        let Some((text, tag)) = out.split_at_mut_checked(plain.len()) else {
            return false;
        };
        tag.len() == TAG_BYTES
            && self
                .0
                .seal_out_of_place_scatter(nonce(counter), Aad::from(bound), plain, text, &[], tag)
                .is_ok()
    }

    /// Open into `out`, which is shorter by a tag. False, and nothing of it is in `out`, where the tag does not hold.
    #[must_use]
    pub fn open(&self, counter: u64, sealed: &[u8], bound: &[u8], out: &mut [u8]) -> bool {
        let Some((text, tag)) = sealed.split_at_checked(out.len()) else {
            return false;
        };
        tag.len() == TAG_BYTES
            && self
                .0
                .open_separate_gather(nonce(counter), Aad::from(bound), text, tag, out)
                .is_ok()
    }
}

impl fmt::Debug for SectionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SectionKey(REDACTED)")
    }
}

/// u32 0 || u64 counter.
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}
