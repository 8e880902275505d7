//! One writer at a time: an operating-system lock that dies with its holder, and a fencing token for holders that do not.
//!
//! The lock refuses a second writer. Who must write although the first hangs takes over: the token in the file grows, is
//! durable before anything is written under it, and the old writer finds it grown before it acknowledges anything more.
//!
//! ```text
//! token 8 | floor 8 | crc 4        floor: records below this number were acknowledged, as of the last orderly close
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// A held lease; the lock goes when it is dropped.
pub(crate) struct Lease {
    directory: PathBuf,
    path: PathBuf,
    _lock: Option<File>,
    pub(crate) token: u64,
    /// Records below this number were acknowledged: if they are gone, that is damage.
    pub(crate) floor: u64,
    /// Whether the one before may still be alive.
    pub(crate) took_over: bool,
}

impl Lease {
    /// Take the lease of a directory. `take_over` goes on although another holder lives.
    pub(crate) fn take(directory: &Path, take_over: bool) -> Result<Self, StoreError> {
        let lock_path = directory.join("lock");
        let io = |error: &std::io::Error| StoreError::io(&lock_path, error);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(|error| io(&error))?;
        let held = match lock.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) if take_over => false,
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(lock_path)),
            Err(TryLockError::Error(error)) => return Err(io(&error)),
        };
        let path = directory.join("token");
        let (before, floor) = match read(&path)? {
            Some(kept) => kept,
            // It was durable before the first file was: without it nobody knows what was acknowledged, nor who is fenced.
            None if begun(directory).map_err(|error| StoreError::io(directory, &error))? => {
                let what = "the writer's token is gone";
                return Err(StoreError::Damaged(path, 0, what.into()));
            }
            None => (0, 1),
        };
        let token = before + 1;
        write(directory, &path, token, floor)?;
        Ok(Self {
            directory: directory.into(),
            path,
            _lock: held.then_some(lock),
            token,
            floor,
            took_over: !held,
        })
    }

    /// Give it back, having acknowledged all records below `floor`.
    pub(crate) fn give_back(self, floor: u64) -> Result<(), StoreError> {
        self.check()?;
        write(&self.directory, &self.path, self.token, floor)
    }

    /// Refuse if a newer writer exists.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match read(&self.path)? {
            Some((token, _)) if token == self.token => Ok(()),
            Some((token, _)) => Err(StoreError::Fenced(self.path.clone(), self.token, token)),
            None => Err(StoreError::Unreadable(
                self.path.clone(),
                "the writer's token is gone".into(),
            )),
        }
    }
}

/// Whether a writer has begun a file here.
fn begun(directory: &Path) -> std::io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        if entry?.path().extension().is_some_and(|end| end == "log") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read(path: &Path) -> Result<Option<(u64, u64)>, StoreError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io(path, &error)),
    };
    let mut raw = [0; 20];
    file.read_exact(&mut raw)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                StoreError::Damaged(path.into(), 0, "the writer's token is cut".into())
            }
            _ => StoreError::io(path, &error),
        })?;
    let number = |at: usize| u64::from_be_bytes(raw[at..at + 8].try_into().unwrap_or_default());
    if crc32c::crc32c(&raw[..16]).to_be_bytes() != raw[16..] {
        let what = "the writer's token does not match its checksum";
        return Err(StoreError::Damaged(path.into(), 0, what.into()));
    }
    Ok(Some((number(0), number(8))))
}

/// Replace the token: a reader finds the old one or the new one, never a part.
fn write(directory: &Path, path: &Path, token: u64, floor: u64) -> Result<(), StoreError> {
    let fresh = directory.join(format!("token.{token}.new"));
    let put = || -> std::io::Result<()> {
        let mut bytes = Vec::from(token.to_be_bytes());
        bytes.extend_from_slice(&floor.to_be_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        let mut file = File::create(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        sync_directory(directory)
    };
    put().map_err(|error| StoreError::io(path, &error))
}

/// Make names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}
