//! One file of the event log: its head, and reading it record by record.
//!
//! ```text
//! magic 8 "MFLOG001" | first index 8 | token 8 | schema id 8 | schema version 4 | name length 4 | name | crc 4
//! ```
//! A bad record is torn, and may be cut, only where no acknowledged record can stand at or behind it: the file ends
//! within it, or its bytes never reached the disk (a zeroed sector), and what follows, if anything, is of its own append.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::record::{HEAD_BYTES, Head, MAGIC};

pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"MFLOG001";
pub(crate) const NAME_BYTES_MAX: usize = 256;
/// A sparse index has one entry for about this many bytes.
const INDEX_BYTES: u64 = 64 * 1024;
/// What a lost write leaves behind.
const SECTOR: usize = 512;

/// What the log holds: id, version, name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaMark {
    /// Identity.
    pub id: [u8; 8],
    /// Version.
    pub version: u32,
    /// What people call it.
    pub name: String,
}

/// A file of the log.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) first: u64,
    pub(crate) token: u64,
    pub(crate) data_at: u64,
    /// (index, offset), sparse; filled by scanning and appending.
    pub(crate) marks: Vec<(u64, u64)>,
}

/// Where a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The index the next record would have.
    pub(crate) next: u64,
    /// Where whole records end.
    pub(crate) offset: u64,
    /// Bytes behind that.
    pub(crate) torn: u64,
}

pub(crate) fn file_name(first: u64, token: u64) -> String {
    format!("{first:020}-{token:010}.log")
}

pub(crate) fn head(first: u64, token: u64, schema: &SchemaMark) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&SEGMENT_MAGIC);
    out.extend_from_slice(&first.to_be_bytes());
    out.extend_from_slice(&token.to_be_bytes());
    out.extend_from_slice(&schema.id);
    out.extend_from_slice(&schema.version.to_be_bytes());
    out.extend_from_slice(&(schema.name.len() as u32).to_be_bytes());
    out.extend_from_slice(schema.name.as_bytes());
    let sum = crc32c::crc32c(&out);
    out.extend_from_slice(&sum.to_be_bytes());
    out
}

/// Read a segment's head. None: the file ends within it, so its making was never finished and it holds no record.
pub(crate) fn open(path: &Path) -> Result<Option<(Segment, SchemaMark)>, StoreError> {
    let io = |error: std::io::Error| StoreError::io(path, &error);
    let mut file = File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    Read::by_ref(&mut file)
        .take(40 + NAME_BYTES_MAX as u64 + 4)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    let damaged = |what: &str| StoreError::Damaged(path.into(), 0, what.into());
    if bytes.len() < 44 {
        return Ok(None);
    }
    if bytes[..8] != SEGMENT_MAGIC {
        return Err(damaged("not an event log"));
    }
    let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    let small = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
    let end = 40 + small(36) as usize;
    if end > 40 + NAME_BYTES_MAX || bytes.len() < end + 4 {
        return Err(damaged("the head of the file is cut or wrong"));
    }
    if small(end) != crc32c::crc32c(&bytes[..end]) {
        return Err(damaged("the head of the file does not match its checksum"));
    }
    let name = String::from_utf8(bytes[40..end].to_vec())
        .map_err(|_| damaged("the schema's name is no text"))?;
    let schema = SchemaMark {
        id: bytes[24..32].try_into().unwrap_or_default(),
        version: small(32),
        name,
    };
    let segment = Segment {
        path: path.into(),
        first: number(8),
        token: number(16),
        data_at: end as u64 + 4,
        marks: Vec::new(),
    };
    Ok(Some((segment, schema)))
}

impl Segment {
    /// Note where a record is, if it is time for a mark.
    pub(crate) fn mark(&mut self, index: u64, offset: u64) {
        let due = self
            .marks
            .last()
            .is_none_or(|(_, last)| offset >= last + INDEX_BYTES);
        if due {
            self.marks.push((index, offset));
        }
    }

    /// The nearest known place at or before a record.
    pub(crate) fn seek(&self, index: u64) -> (u64, u64) {
        let after = self.marks.partition_point(|(known, _)| *known <= index);
        match after {
            0 => (self.first, self.data_at),
            _ => self.marks[after - 1],
        }
    }

    /// Read whole records from (index, offset) on; `each` gets head, body and offset, and false from it ends the walk.
    /// Err where a bad record is damage; the end otherwise.
    pub(crate) fn walk(
        &self,
        from: (u64, u64),
        before: u64,
        mut each: impl FnMut(&Head, &[u8], u64) -> bool,
    ) -> Result<End, StoreError> {
        let io = |error: std::io::Error| StoreError::io(&self.path, &error);
        let mut file = File::open(&self.path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let (mut index, mut offset) = from;
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        let mut reader = std::io::BufReader::with_capacity(256 * 1024, file);
        let mut body = Vec::new();
        while index < before && offset < size {
            let mut raw = [0; HEAD_BYTES];
            let whole = size - offset >= HEAD_BYTES as u64;
            let head = if whole {
                reader.read_exact(&mut raw).map_err(io)?;
                Head::parse(&raw).filter(|head| head.index == index)
            } else {
                None
            };
            let fits = head.filter(|h| size - offset >= (HEAD_BYTES + h.length) as u64);
            let Some(found) = fits else {
                return self.judge(index, offset, size);
            };
            body.resize(found.length, 0);
            reader.read_exact(&mut body).map_err(io)?;
            if !found.matches(&body) {
                return self.judge(index, offset, size);
            }
            if !each(&found, &body, offset) {
                break;
            }
            index += 1;
            offset += (HEAD_BYTES + found.length) as u64;
        }
        Ok(End {
            next: index,
            offset,
            torn: 0,
        })
    }

    /// Say whether the bad record at `offset` is a torn tail.
    fn judge(&self, index: u64, offset: u64, size: u64) -> Result<End, StoreError> {
        let io = |error: std::io::Error| StoreError::io(&self.path, &error);
        let mut file = File::open(&self.path).map_err(io)?;
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        let mut rest = Vec::new();
        file.take(size - offset)
            .read_to_end(&mut rest)
            .map_err(io)?;
        if later_append(&rest, index) {
            let what = format!("record {index} does not match its checksum and later ones follow");
            return Err(StoreError::Damaged(self.path.clone(), offset, what));
        }
        let ends_within = match Head::parse(&rest) {
            Some(head) if head.index == index => rest.len() < HEAD_BYTES + head.length,
            _ => rest.len() < HEAD_BYTES && MAGIC.starts_with(&rest[..rest.len().min(4)]),
        };
        if !ends_within && !has_zero_sector(&rest, offset) {
            let what = format!("record {index} does not match its checksum");
            return Err(StoreError::Damaged(self.path.clone(), offset, what));
        }
        Ok(End {
            next: index,
            offset,
            torn: size - offset,
        })
    }
}

/// Whether a whole record of a later append than the one that holds `index` follows.
fn later_append(rest: &[u8], index: u64) -> bool {
    let mut at = 1;
    while at + HEAD_BYTES <= rest.len() {
        let Some(step) = rest[at..].iter().position(|&byte| byte == MAGIC[0]) else {
            return false;
        };
        at += step;
        if let Some(head) = Head::parse(&rest[at..]) {
            let begun = head.index.saturating_sub(u64::from(head.place));
            let body = rest.get(at + HEAD_BYTES..at + HEAD_BYTES + head.length);
            if begun > index && body.is_some_and(|body| head.matches(body)) {
                return true;
            }
        }
        at += 1;
    }
    false
}

/// Whether a sector of the file, or what there is of the last one, is all zero: it was never written.
fn has_zero_sector(rest: &[u8], offset: u64) -> bool {
    let lead = (SECTOR as u64 - offset % SECTOR as u64) as usize % SECTOR;
    let zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
    let (first, others) = rest.split_at(lead.min(rest.len()));
    (!first.is_empty() && zero(first))
        || others
            .chunks(SECTOR)
            .any(|sector| !sector.is_empty() && zero(sector))
}
