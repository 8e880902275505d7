//! Keys of parts as bytes that sort as the parts do: numbers numerically, and a prefix before what it begins.
//!
//! An integer is tag 1 and eight bytes, big-endian with the sign bit flipped. A text (2) or bytes (3) part is escaped
//! (`00` as `00 ff`) and ended by `00 01`, so no part can run into the next and none needs a forbidden byte.

/// One part of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Sorts numerically, before text.
    Int(i64),
    /// Sorts by code point, before bytes.
    Text(String),
    /// Sorts by byte.
    Bytes(Vec<u8>),
}

const INT: u8 = 1;
const TEXT: u8 = 2;
const BYTES: u8 = 3;
const SIGN: u64 = 1 << 63;

/// The bytes of a key.
pub fn encode(parts: &[Part]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        match part {
            Part::Int(value) => {
                out.push(INT);
                out.extend_from_slice(&(value.cast_unsigned() ^ SIGN).to_be_bytes());
            }
            Part::Text(text) => put(&mut out, TEXT, text.as_bytes()),
            Part::Bytes(bytes) => put(&mut out, BYTES, bytes),
        }
    }
    out
}

fn put(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    for &byte in bytes {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 1]);
}

/// The parts of a key; None for bytes that `encode` does not make.
pub fn decode(mut bytes: &[u8]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    while let Some((&tag, rest)) = bytes.split_first() {
        if tag == INT {
            let (raw, rest) = rest.split_first_chunk::<8>()?;
            parts.push(Part::Int((u64::from_be_bytes(*raw) ^ SIGN).cast_signed()));
            bytes = rest;
            continue;
        }
        let (raw, rest) = take(rest)?;
        parts.push(match tag {
            TEXT => Part::Text(String::from_utf8(raw).ok()?),
            BYTES => Part::Bytes(raw),
            _ => return None,
        });
        bytes = rest;
    }
    Some(parts)
}

fn take(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut out = Vec::new();
    let mut at = 0;
    loop {
        match (bytes.get(at)?, bytes.get(at + 1)) {
            (0, Some(1)) => return Some((out, &bytes[at + 2..])),
            (0, Some(0xff)) => {
                out.push(0);
                at += 2;
            }
            (0, _) => return None,
            (&byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
}

/// The first key behind all that begin with `prefix`; None: there is no end.
pub fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}
