//! The entries behind the snapshot, in memory.

use crate::message::{Entry, EntryKind, Members, Snapshot};

/// A log whose beginning may be a snapshot. Index 0 with term 0 stands before everything.
#[derive(Debug)]
pub(crate) struct Log {
    base: Snapshot,
    entries: Vec<Entry>,
    /// Every change of members in `entries`, in order.
    changes: Vec<(u64, Members)>,
}

impl Log {
    pub(crate) fn new(base: Snapshot, entries: Vec<Entry>) -> Self {
        let mut log = Self {
            base,
            entries: Vec::new(),
            changes: Vec::new(),
        };
        for entry in entries {
            log.push(entry);
        }
        log
    }

    pub(crate) fn base(&self) -> &Snapshot {
        &self.base
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.base.index + self.entries.len() as u64
    }

    pub(crate) fn last_term(&self) -> u64 {
        self.entries
            .last()
            .map_or(self.base.term, |entry| entry.term)
    }

    /// The term of an entry; None where it is compacted away or not there.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        let at = index.checked_sub(self.base.index + 1)?;
        self.entries
            .get(usize::try_from(at).ok()?)
            .map(|entry| entry.term)
    }

    /// Entries from `first` on, at most `bytes` of data, but at least one if there is one.
    pub(crate) fn slice(&self, first: u64, last: u64, bytes: usize) -> &[Entry] {
        let Some(begin) = first.checked_sub(self.base.index + 1) else {
            return &[];
        };
        let begin = (begin as usize).min(self.entries.len());
        let end =
            ((last.saturating_sub(self.base.index)) as usize).clamp(begin, self.entries.len());
        let mut size = 0;
        let mut count = 0;
        for entry in &self.entries[begin..end] {
            size += entry.data.len();
            if count > 0 && (size > bytes || count >= crate::message::ENTRIES_MAX) {
                break;
            }
            count += 1;
        }
        &self.entries[begin..begin + count]
    }

    /// All entries behind `index`.
    pub(crate) fn behind(&self, index: u64) -> &[Entry] {
        let begin = index.saturating_sub(self.base.index) as usize;
        &self.entries[begin.min(self.entries.len())..]
    }

    /// The members that count: the newest change in the log, committed or not.
    pub(crate) fn members(&self) -> &Members {
        self.changes
            .last()
            .map_or(&self.base.members, |change| &change.1)
    }

    /// The index of the newest change; 0 if it is in the snapshot.
    pub(crate) fn members_index(&self) -> u64 {
        self.changes.last().map_or(0, |change| change.0)
    }

    /// The members as of an index.
    pub(crate) fn members_at(&self, index: u64) -> Members {
        let found = self.changes.iter().rev().find(|change| change.0 <= index);
        found.map_or_else(|| self.base.members.clone(), |change| change.1.clone())
    }

    /// The members of every change behind an index.
    pub(crate) fn changes_behind(&self, index: u64) -> impl Iterator<Item = &Members> {
        let behind = self.changes.iter().filter(move |change| change.0 > index);
        behind.map(|change| &change.1)
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        if entry.kind == EntryKind::Members
            && let Ok(members) = Members::decode(&entry.data)
        {
            self.changes.push((entry.index, members));
        }
        self.entries.push(entry);
    }

    pub(crate) fn truncate_from(&mut self, index: u64) {
        let keep = index.saturating_sub(self.base.index + 1) as usize;
        self.entries.truncate(keep);
        self.changes.retain(|change| change.0 < index);
    }

    /// Let a snapshot of our own state stand for the entries up to `index`.
    pub(crate) fn compact(&mut self, index: u64, data: Vec<u8>) {
        let Some(term) = self.term(index) else {
            return;
        };
        let members = self.members_at(index);
        self.entries.drain(..(index - self.base.index) as usize);
        self.changes.retain(|change| change.0 > index);
        self.base = Snapshot {
            index,
            term,
            members,
            data,
        };
    }

    /// Become a snapshot of somebody else; entries behind it stay if they follow it.
    pub(crate) fn restore(&mut self, snapshot: Snapshot) {
        if self.term(snapshot.index) == Some(snapshot.term) {
            self.entries
                .drain(..(snapshot.index - self.base.index) as usize);
            self.changes.retain(|change| change.0 > snapshot.index);
        } else {
            self.entries.clear();
            self.changes.clear();
        }
        self.base = snapshot;
    }
}
