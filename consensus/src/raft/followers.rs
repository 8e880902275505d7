//! The follower's side of replication.

use super::{PIECE_BYTES_MAX, Raft, Role, SNAPSHOT_BYTES_MAX};
use crate::checksum;
use crate::message::{Body, ENTRY_BYTES_MAX, Entry, EntryKind, Members, NodeId, Refused, Snapshot};

impl Raft {
    /// Whether entries follow each other and contradict nothing that is committed.
    pub(super) fn check_entries(
        &self,
        term: u64,
        prev_index: u64,
        prev_term: u64,
        entries: &[Entry],
    ) -> Result<(), Refused> {
        let (mut index, mut last_term) = (prev_index, prev_term);
        for entry in entries {
            let follows = index.checked_add(1) == Some(entry.index);
            let whole = entry.data.len() <= ENTRY_BYTES_MAX
                && (entry.kind != EntryKind::Members || Members::decode(&entry.data).is_ok());
            if !follows || !whole || entry.term < last_term || entry.term > term {
                return Err(Refused::Entry);
            }
            (index, last_term) = (entry.index, entry.term);
            let ours = self.log.term(entry.index);
            if entry.index <= self.commit && ours.is_some_and(|ours| ours != entry.term) {
                return Err(Refused::Entry);
            }
        }
        Ok(())
    }

    /// A message that only the leader of this term sends.
    pub(super) fn on_leader(&mut self, from: NodeId, body: Body) -> Result<(), Refused> {
        if self.role == Role::Leader || self.leader.is_some_and(|leader| leader != from) {
            // Two leaders in one term: a broken peer. Nothing of it is believed.
            return Err(Refused::Member);
        }
        if self.role != Role::Follower {
            self.follow(self.term, Some(from));
        }
        self.leader = Some(from);
        self.elapsed = 0;
        match body {
            Body::Append {
                prev_index,
                prev_term,
                commit,
                round,
                entries,
            } => {
                self.on_append(from, prev_index, prev_term, commit, round, entries);
                Ok(())
            }
            Body::Install {
                index,
                term,
                members,
                total,
                checksum,
                offset,
                round,
                data,
            } => {
                let head = Snapshot {
                    index,
                    term,
                    members,
                    data: Vec::new(),
                };
                let reply = self.on_install(head, total, checksum, offset, &data)?;
                self.send(
                    from,
                    Body::InstallReply {
                        index,
                        offset: reply,
                        round,
                    },
                );
                Ok(())
            }
            _ => Err(Refused::Format),
        }
    }

    fn on_append(
        &mut self,
        from: NodeId,
        prev_index: u64,
        prev_term: u64,
        commit: u64,
        round: u64,
        entries: Vec<Entry>,
    ) {
        let base = self.log.base().index;
        // What a snapshot stands for was committed, so it agrees.
        let agrees = prev_index < base || self.log.term(prev_index) == Some(prev_term);
        if !agrees {
            let index = self.hint(prev_index);
            self.send(
                from,
                Body::AppendReply {
                    ok: false,
                    index,
                    round,
                },
            );
            return;
        }
        let last = prev_index + entries.len() as u64;
        for entry in entries {
            if entry.index <= base {
                continue;
            }
            match self.log.term(entry.index) {
                Some(ours) if ours == entry.term => {}
                Some(_) => {
                    self.take_back(entry.index);
                    self.take_over(entry);
                }
                None => self.take_over(entry),
            }
        }
        // Only what this message proved to be the leader's may count as committed (HC6).
        self.commit = self.commit.max(commit.min(last));
        self.send(
            from,
            Body::AppendReply {
                ok: true,
                index: last,
                round,
            },
        );
    }

    fn take_over(&mut self, entry: Entry) {
        self.log.push(entry.clone());
        self.out.entries.push(entry);
    }

    fn take_back(&mut self, index: u64) {
        self.log.truncate_from(index);
        self.out.entries.retain(|entry| entry.index < index);
        self.stable = self.stable.min(index - 1);
    }

    /// A place at or before which the logs may agree: before the term that does not.
    fn hint(&self, prev_index: u64) -> u64 {
        if prev_index > self.log.last_index() {
            return self.log.last_index();
        }
        let differs = self.log.term(prev_index);
        let mut index = prev_index.saturating_sub(1);
        while index > self.commit && self.log.term(index) == differs {
            index -= 1;
        }
        index
    }

    /// Take in a piece; returns how many bytes are here.
    fn on_install(
        &mut self,
        head: Snapshot,
        total: u64,
        whole: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<u64, Refused> {
        if head.index <= self.commit {
            // Old news: we have all that is in it.
            return Ok(total);
        }
        let fits = total <= SNAPSHOT_BYTES_MAX
            && data.len() <= PIECE_BYTES_MAX
            && offset
                .checked_add(data.len() as u64)
                .is_some_and(|end| end <= total)
            && !head.members.voters.is_empty();
        if !fits {
            return Err(Refused::Snapshot);
        }
        let same = |known: &Snapshot| {
            (known.index, known.term, &known.members) == (head.index, head.term, &head.members)
        };
        let mut known = match self.arriving.take() {
            Some(known) if same(&known) => known,
            _ => head,
        };
        if offset == known.data.len() as u64 {
            known.data.extend_from_slice(data);
        }
        let here = known.data.len() as u64;
        if here < total {
            self.arriving = Some(known);
            return Ok(here);
        }
        if here > total || checksum(&known.data) != whole {
            // Begin again: a piece of another snapshot is in it.
            return Ok(0);
        }
        self.restore(known);
        Ok(total)
    }

    fn restore(&mut self, snapshot: Snapshot) {
        let index = snapshot.index;
        self.out.entries.clear();
        self.log.restore(snapshot.clone());
        // Entries that stay behind it are written anew with it, so that the driver has one rule.
        self.out.entries = self.log.behind(index).to_vec();
        self.stable = index;
        self.commit = index;
        self.applied = index;
        self.out.snapshot = Some(snapshot);
    }

    /// For tests of agreement: the members as of the snapshot.
    pub fn base_members(&self) -> &Members {
        &self.log.base().members
    }
}
