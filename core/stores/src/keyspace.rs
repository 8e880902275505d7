//! A file of keys and values: transactions, compare-and-set by version, ordered scans. redb holds the bytes.
//!
//! Every write is durable when it returns. A value carries its version, which grows with each write of the file and is
//! never given twice, so a compare-and-set cannot be fooled by a value that went and came back.

use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use crate::error::StoreError;
use crate::key::end_of;

const DATA: TableDefinition<&[u8], (u64, &[u8])> = TableDefinition::new("data");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
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
    database: Database,
}

impl Keyspace {
    /// Open or make the file.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let opened = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create(path);
        let database = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::Locked(path.into()),
            other => explain(path, other.into()),
        })?;
        let store = Self {
            path: path.into(),
            database,
        };
        // Reading needs the tables; making them also proves that the file can be written.
        store.run(|transaction| {
            transaction.open_table(DATA)?;
            transaction.open_table(META)?;
            Ok(())
        })?;
        Ok(store)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn run<T>(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let run = || -> Result<T, redb::Error> {
            let transaction = self.database.begin_write()?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|error| explain(&self.path, error))
    }

    /// The value of a key and its version.
    pub fn get(&self, key: &[u8]) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(DATA)?;
            let found = table.get(key)?;
            Ok(found.map(|row| {
                let (version, value) = row.value();
                (version, value.to_vec())
            }))
        };
        read().map_err(|error| explain(&self.path, error))
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
        let read = || -> Result<_, redb::Error> {
            let table = self.database.begin_read()?.open_table(DATA)?;
            let mut rows = Vec::new();
            for row in table.range::<&[u8]>((from, to))?.take(max) {
                let (key, value) = row?;
                let (version, value) = value.value();
                rows.push((key.value().to_vec(), version, value.to_vec()));
            }
            Ok(rows)
        };
        read().map_err(|error| explain(&self.path, error))
    }
}

fn limit(what: &'static str, size: usize, most: usize) -> Result<(), StoreError> {
    if size > most {
        return Err(StoreError::TooLarge(what, size, most));
    }
    Ok(())
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
