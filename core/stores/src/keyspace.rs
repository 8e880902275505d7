//! A file of keys and values: transactions, compare-and-set by version, ordered scans. redb holds the bytes.
//!
//! Every write is durable when it returns. A value carries its version, which grows with each write of the file and is
//! never given twice, so a compare-and-set cannot be fooled by a value that went and came back.
//!
//! Opening checks every page against its checksum, for redb trusts what it reads later: damage may make it give up in the
//! middle of a call. What gives up all the same is caught, told as damage, and the file is not touched again.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use crate::error::StoreError;
use crate::key::end_of;

const DATA: TableDefinition<&[u8], (u64, &[u8])> = TableDefinition::new("data");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// In `META`: damage was found, and what was acknowledged is not all there.
const DAMAGED: &str = "damaged";
/// Bytes of one encoded key.
pub const KEY_BYTES_MAX: usize = 4096;
/// Bytes of one value.
pub const VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Memory the store may use to keep pages.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// A row: key, version, value.
pub type Row = (Vec<u8>, u64, Vec<u8>);

/// One change of a transaction.
#[derive(Clone, Debug)]
pub enum Change {
    /// Set the value of a key; with a version only if the key has it (0: absent).
    Put(Vec<u8>, Vec<u8>, Option<u64>),
    /// Remove a key; with a version only if the key has it.
    Delete(Vec<u8>, Option<u64>),
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// All of it; the version that its values have.
    Done(u64),
    /// Nothing of it: this key had this version (0: absent).
    Conflict(Vec<u8>, u64),
}

/// An open file. One process may have it open.
pub struct Keyspace {
    path: PathBuf,
    /// None while it is dropped.
    database: Option<Database>,
    /// redb gave up: its state in memory is not known.
    broken: AtomicBool,
}

impl Drop for Keyspace {
    fn drop(&mut self) {
        let database = self.database.take();
        // Closing a damaged file may give up as well; there is nobody left to tell.
        let _ = quietly(|| drop(database));
    }
}

thread_local! {
    /// What is caught here is told by an error, and not by a text on the screen as well.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}
static HOOK: Once = Once::new();

/// Run what may give up, without a text on the screen.
fn quietly<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |why| {
            if !QUIET.get() {
                before(why);
            }
        }));
    });
    let outer = QUIET.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(outer);
    done
}

/// Damage that made redb give up, as an error.
fn caught<T>(path: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    quietly(work).unwrap_or_else(|why| {
        let text = why.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| why.downcast_ref::<String>().cloned());
        let text = text.unwrap_or_else(|| "its pages contradict each other".into());
        Err(StoreError::Damaged(path.into(), 0, text))
    })
}

impl Keyspace {
    /// Open or make the file.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        caught(path, || Self::opened(path))
    }

    fn opened(path: &Path) -> Result<Self, StoreError> {
        let opened = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create(path);
        let mut database = opened.map_err(|error| refuse(path, error))?;
        let whole = database.check_integrity();
        let whole = whole.map_err(|error| refuse(path, error))?;
        let store = Self {
            path: path.into(),
            database: Some(database),
            broken: AtomicBool::new(false),
        };
        // Reading needs the tables; making them also proves that the file can be written.
        let lost = store.run(|transaction| {
            transaction.open_table(DATA)?;
            let mut meta = transaction.open_table(META)?;
            if !whole {
                // redb went back to an older state: what was acknowledged after it is gone, and that is never forgotten.
                meta.insert(DAMAGED, 1)?;
            }
            Ok(meta.get(DAMAGED)?.is_some())
        })?;
        if lost {
            let why = "acknowledged writes are gone: begin anew or take a backup";
            return Err(StoreError::Damaged(path.into(), 0, why.into()));
        }
        Ok(store)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Work with the file, unless it was found damaged before.
    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = self.database.as_ref();
        let database = database.ok_or_else(|| StoreError::Closed(self.path.clone()))?;
        if self.broken.load(Ordering::Relaxed) {
            let why = "it was found damaged before";
            return Err(StoreError::Damaged(self.path.clone(), 0, why.into()));
        }
        let done = caught(&self.path, || {
            work(database).map_err(|error| explain(&self.path, error))
        });
        if matches!(done, Err(StoreError::Damaged(..))) {
            self.broken.store(true, Ordering::Relaxed);
        }
        done
    }

    fn run<T>(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            let done = quietly(|| work(&transaction));
            match done {
                Ok(result) => {
                    let result = result?;
                    transaction.commit().map_err(|error| unsure(error.into()))?;
                    Ok(result)
                }
                Err(why) => {
                    // Ending it would run into the same damage, in the middle of giving up.
                    std::mem::forget(transaction);
                    resume_unwind(why)
                }
            }
        })
    }

    /// The value of a key and its version.
    pub fn get(&self, key: &[u8]) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(DATA)?;
            let found = table.get(key)?;
            Ok(found.map(|row| {
                let (version, value) = row.value();
                (version, value.to_vec())
            }))
        })
    }

    /// Apply all changes in one durable transaction, or none of them.
    pub fn apply(&self, changes: &[Change]) -> Result<Applied, StoreError> {
        for change in changes {
            let (key, size) = match change {
                Change::Put(key, value, _) => (key, value.len()),
                Change::Delete(key, _) => (key, 0),
            };
            limit("key", key.len(), KEY_BYTES_MAX)?;
            limit("value", size, VALUE_BYTES_MAX)?;
        }
        let mut conflict = None;
        let done = self.run(|transaction| {
            let mut data = transaction.open_table(DATA)?;
            let mut meta = transaction.open_table(META)?;
            let version = meta.get("version")?.map_or(0, |row| row.value()) + 1;
            for change in changes {
                let (key, expected) = match change {
                    Change::Put(key, _, expected) | Change::Delete(key, expected) => {
                        (key, expected)
                    }
                };
                let found = data.get(key.as_slice())?.map_or(0, |row| row.value().0);
                if expected.is_some_and(|expected| expected != found) {
                    conflict = Some((key.clone(), found));
                    break;
                }
                match change {
                    Change::Put(key, value, _) => {
                        data.insert(key.as_slice(), (version, value.as_slice()))?;
                    }
                    Change::Delete(key, _) => {
                        data.remove(key.as_slice())?;
                    }
                }
            }
            if conflict.is_some() {
                // The only way not to commit from in here; it is caught just below.
                return Err(redb::Error::PreviousIo);
            }
            meta.insert("version", version)?;
            Ok(version)
        });
        match conflict {
            Some((key, found)) => Ok(Applied::Conflict(key, found)),
            None => done.map(Applied::Done),
        }
    }

    /// Up to `max` rows whose key begins with `prefix` and is behind `after`, in order, of one moment.
    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<Row>, StoreError> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let end = end_of(prefix);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        if after.is_some_and(|after| end.as_deref().is_some_and(|end| after >= end)) {
            return Ok(Vec::new());
        }
        self.with(|database| {
            let table = database.begin_read()?.open_table(DATA)?;
            let mut rows = Vec::new();
            for row in table.range::<&[u8]>((from, to))?.take(max) {
                let (key, value) = row?;
                let (version, value) = value.value();
                rows.push((key.value().to_vec(), version, value.to_vec()));
            }
            Ok(rows)
        })
    }
}

fn limit(what: &'static str, size: usize, most: usize) -> Result<(), StoreError> {
    if size > most {
        return Err(StoreError::TooLarge(what, size, most));
    }
    Ok(())
}

fn refuse(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked(path.into()),
        other => explain(path, other.into()),
    }
}

/// A commit that failed for want of room left nothing; of any other nobody can say what is on the disk.
fn unsure(error: redb::Error) -> redb::Error {
    match error {
        redb::Error::Io(io)
            if !matches!(StoreError::io(Path::new(""), &io), StoreError::Full(_)) =>
        {
            redb::Error::PreviousIo
        }
        other => other,
    }
}

fn explain(path: &Path, error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(error) => match error.kind() {
            // redb says so of a file that is shorter than, or no, database.
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
                StoreError::Damaged(path.into(), 0, error.to_string())
            }
            _ => StoreError::io(path, &error),
        },
        redb::Error::PreviousIo => {
            StoreError::Unsure(path.into(), "an earlier write failed".into())
        }
        redb::Error::Corrupted(what) => StoreError::Damaged(path.into(), 0, what),
        other => StoreError::Unreadable(path.into(), other.to_string()),
    }
}
