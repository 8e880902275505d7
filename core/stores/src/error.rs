//! Why a store refuses: one variant per cause, with the facts a person needs.

use std::io;
use std::path::{Path, PathBuf};

/// What went wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// No room on the disk, or the file may not grow. Nothing of the call was kept; the store goes on.
    Full(PathBuf),
    /// Another writer holds the store.
    Locked(PathBuf),
    /// The system refuses: no permission, no such place, an I/O error.
    Unreadable(PathBuf, String),
    /// An earlier write may or may not be on the disk; the store must be opened again.
    Unsure(PathBuf, String),
    /// Bytes below what was acknowledged are not what was written.
    Damaged(PathBuf, u64, String),
    /// A newer writer exists: ours, highest.
    Fenced(PathBuf, u64, u64),
    /// Something is larger than its limit: what, size, limit.
    TooLarge(&'static str, usize, usize),
    /// A folder holds more files of the store than the limit.
    TooMany(PathBuf, usize),
    /// The log holds another schema: found id, version and name.
    Schema(PathBuf, [u8; 8], u32, String),
    /// The store was closed.
    Closed(PathBuf),
}

impl StoreError {
    /// The error of a failed system call.
    pub fn io(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full(path.into()),
            _ => Self::Unreadable(path.into(), error.to_string()),
        }
    }
}
