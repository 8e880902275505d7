//! How far a reader has worked a log off: a small file beside it, for a reader that goes on in the next life.
//!
//! It is rewritten in place and made durable only when asked, because it may be behind but never ahead: a record that is
//! told again costs less than a sync for each. A place that is torn, or of another log's writer, counts as none.
//!
//! ```text
//! token 8 | number 8 | crc 4       number: records below it were worked off
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

const NAME: &str = "place";

/// The place of a reader, as it is kept.
pub(crate) struct Place {
    file: File,
    token: u64,
    number: u64,
}

impl Place {
    /// Go on with the place kept in a directory, if a writer before `token` kept it there and it lies in the log.
    pub(crate) fn open(
        directory: &Path,
        token: u64,
        (first, next): (u64, u64),
    ) -> io::Result<Self> {
        let path = directory.join(NAME);
        let kept = fs::read(&path).ok().and_then(|raw| read(&raw));
        let kept = kept
            .filter(|(before, number)| *before < token && (first..=next).contains(number))
            .map(|(_, number)| number);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        if kept.is_none() {
            // Or a later life, whose token is higher, would take it for its own.
            file.set_len(0)?;
            file.sync_all()?;
        }
        let number = kept.unwrap_or(first);
        Ok(Self {
            file,
            token,
            number,
        })
    }

    /// Records below it were worked off.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Keep a place that is further; `durable` waits for the disk.
    pub(crate) fn keep(&mut self, number: u64, durable: bool) -> io::Result<()> {
        if number > self.number {
            let mut raw = [0; 20];
            raw[..8].copy_from_slice(&self.token.to_be_bytes());
            raw[8..16].copy_from_slice(&number.to_be_bytes());
            let sum = crc32c::crc32c(&raw[..16]);
            raw[16..].copy_from_slice(&sum.to_be_bytes());
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&raw)?;
            self.number = number;
        }
        if durable {
            self.file.sync_all()?;
        }
        Ok(())
    }
}

fn read(raw: &[u8]) -> Option<(u64, u64)> {
    let raw: &[u8; 20] = raw.try_into().ok()?;
    let number = |at: usize| Some(u64::from_be_bytes(raw[at..at + 8].try_into().ok()?));
    (crc32c::crc32c(&raw[..16]).to_be_bytes() == raw[16..]).then_some((number(0)?, number(8)?))
}
