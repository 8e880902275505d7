//! Maps keyed by the small numbers the engine gives out itself, which need no hashing worth the name.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map from an id to something.
pub type IdMap<T> = HashMap<u32, T, BuildHasherDefault<IdHasher>>;

/// Spreads consecutive numbers (Fibonacci hashing). Keys are never chosen by an outsider.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
