//! The bytes of one value: short ones are held in place, longer ones in a buffer that clones share.
//!
//! A float costs no allocation.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes held without an allocation.
pub const INLINE_BYTES: usize = 22;

/// Immutable bytes, cheap to clone.
#[derive(Clone)]
pub struct Payload(Bytes);

#[derive(Clone)]
enum Bytes {
    Inline(u8, [u8; INLINE_BYTES]),
    Shared(Arc<[u8]>),
}

impl Payload {
    /// Copy the bytes.
    pub fn copy(bytes: &[u8]) -> Self {
        if bytes.len() > INLINE_BYTES {
            return Self::from(Arc::<[u8]>::from(bytes));
        }
        let mut data = [0; INLINE_BYTES];
        data[..bytes.len()].copy_from_slice(bytes);
        Self(Bytes::Inline(bytes.len() as u8, data))
    }

    /// The eight bytes of a number.
    pub fn eight(bytes: [u8; 8]) -> Self {
        let mut data = [0; INLINE_BYTES];
        data[..8].copy_from_slice(&bytes);
        Self(Bytes::Inline(8, data))
    }

    /// Whether the bytes are held in place.
    pub fn is_inline(&self) -> bool {
        matches!(self.0, Bytes::Inline(..))
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Inline(len, data) => &data[..usize::from(*len)],
            Bytes::Shared(buffer) => buffer,
        }
    }
}

impl From<Arc<[u8]>> for Payload {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self(Bytes::Shared(bytes))
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self::copy(bytes)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::copy(&bytes)
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(Self::from)
    }
}
