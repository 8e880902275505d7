//! The leader's side of replication: sending, counting, reading, handing over, changing the members.

use super::{
    BATCH_BYTES_MAX, PIECE_BYTES_MAX, READS_MAX, Raft, Role, UNCOMMITTED_MAX, Unavailable,
};
use crate::checksum;
use crate::message::{Body, EntryKind, MEMBERS_MAX, Members, NodeId};
use crate::raft::progress::Progress;

/// Entries that may be on their way to one follower.
const AHEAD_MAX: u64 = 1024;

impl Raft {
    fn require_leader(&self) -> Result<(), Unavailable> {
        if self.role == Role::Leader {
            Ok(())
        } else {
            Err(Unavailable::NotLeader(self.leader))
        }
    }

    /// Propose a command; returns the index that it gets if it is committed in this term.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<u64, Unavailable> {
        self.require_leader()?;
        if self.transferee.is_some() || self.log.last_index() - self.commit >= UNCOMMITTED_MAX {
            return Err(Unavailable::Busy);
        }
        let index = self.append_own(EntryKind::Command, data);
        self.send_entries();
        Ok(index)
    }

    /// Ask for a linearizable read: `Ready::reads` will name an index that must be applied first (thesis 6.4).
    pub fn read_index(&mut self, context: u64) -> Result<(), Unavailable> {
        self.require_leader()?;
        // A leader knows what is committed only once an entry of its own term is.
        if self.log.term(self.commit) != Some(self.term) || self.reads.len() >= READS_MAX {
            return Err(Unavailable::Busy);
        }
        if self.log.members().quorum(|id| id == self.settings.id) {
            self.out.reads.push((context, self.commit));
            return Ok(());
        }
        // The first read begins a round; those that come while it is on its way share the next one.
        let first = self.reads.is_empty();
        self.reads.push((context, self.commit, self.round + 1));
        if first {
            self.broadcast();
        }
        Ok(())
    }

    /// Hand the leadership to a voter; it is tried for one election timeout.
    pub fn transfer(&mut self, to: NodeId) -> Result<(), Unavailable> {
        self.require_leader()?;
        if to == self.settings.id || !self.log.members().voters.contains(&to) {
            return Err(Unavailable::Members);
        }
        self.transferee = Some(to);
        self.elapsed = 0;
        self.push_transfer(to);
        self.send_to(to);
        Ok(())
    }

    fn push_transfer(&mut self, to: NodeId) {
        let up_to_date = self
            .progress
            .get(&to)
            .is_some_and(|there| there.matched == self.log.last_index());
        if self.transferee == Some(to) && up_to_date {
            self.send(to, Body::TimeoutNow);
        }
    }

    /// Change the members: by joint consensus, finished by the leader when both majorities have it.
    pub fn change_members(
        &mut self,
        mut voters: Vec<NodeId>,
        mut learners: Vec<NodeId>,
    ) -> Result<u64, Unavailable> {
        self.require_leader()?;
        let (voters_given, learners_given) = (voters.len(), learners.len());
        voters.sort_unstable();
        voters.dedup();
        learners.sort_unstable();
        learners.dedup();
        let now = self.log.members();
        let sensible = !voters.is_empty()
            && voters.len() == voters_given
            && learners.len() == learners_given
            && voters.iter().all(|id| *id != 0 && !learners.contains(id))
            && voters.len() + learners.len() + now.voters.len() <= MEMBERS_MAX
            && self.log.members_index() <= self.commit
            && !now.joint();
        if !sensible {
            return Err(Unavailable::Members);
        }
        if self.transferee.is_some() || self.log.term(self.commit) != Some(self.term) {
            return Err(Unavailable::Busy);
        }
        // Where the voters stay the same there is no second majority to ask.
        let outgoing = if now.voters == voters {
            Vec::new()
        } else {
            now.voters.clone()
        };
        Ok(self.append_members(&Members {
            voters,
            outgoing,
            learners,
        }))
    }

    fn append_members(&mut self, members: &Members) -> u64 {
        let index = self.append_own(EntryKind::Members, members.encode());
        let next = self.log.last_index();
        for id in members.all() {
            self.progress.entry(id).or_insert(Progress {
                next,
                active: true,
                ..Progress::default()
            });
        }
        self.send_entries();
        index
    }

    pub(super) fn tick_leader(&mut self) {
        if self.elapsed >= self.settings.election_ticks {
            self.elapsed = 0;
            self.transferee = None;
            let progress = &self.progress;
            let id = self.settings.id;
            let active =
                |peer: NodeId| peer == id || progress.get(&peer).is_some_and(|there| there.active);
            // A leader that a majority does not answer is none (S36).
            if !self.log.members().quorum(active) {
                self.follow(self.term, None);
                return;
            }
            for there in self.progress.values_mut() {
                there.active = false;
            }
        }
        if self.elapsed.is_multiple_of(self.settings.heartbeat_ticks) {
            self.broadcast();
        }
    }

    /// Begin a round: something to everyone, entries where there are some.
    pub(super) fn broadcast(&mut self) {
        self.round += 1;
        if self.log.members().quorum(|id| id == self.settings.id) {
            self.quorum_round = self.round;
        }
        for id in self.others() {
            if let Some(there) = self.progress.get_mut(&id) {
                there.waiting = false;
            }
            self.send_to(id);
        }
    }

    /// Entries to those that can take them; no heartbeat to others.
    fn send_entries(&mut self) {
        for id in self.others() {
            let there = self.progress[&id];
            if there.streaming && there.next <= self.log.last_index() {
                self.send_to(id);
            }
        }
    }

    fn others(&self) -> Vec<NodeId> {
        self.progress
            .keys()
            .copied()
            .filter(|id| *id != self.settings.id)
            .collect()
    }

    fn send_to(&mut self, id: NodeId) {
        let Some(there) = self.progress.get(&id).copied() else {
            return;
        };
        if there.waiting {
            return;
        }
        let prev_index = there.next - 1;
        let Some(prev_term) = self.log.term(prev_index) else {
            self.send_piece(id, there.installing.unwrap_or(0));
            return;
        };
        let ahead = there.next.saturating_sub(there.matched + 1);
        let last = if ahead > AHEAD_MAX {
            prev_index
        } else {
            self.log.last_index()
        };
        let entries = self.log.slice(there.next, last, BATCH_BYTES_MAX).to_vec();
        if let Some(there) = self.progress.get_mut(&id) {
            if there.streaming {
                there.next += entries.len() as u64;
            } else {
                there.waiting = true;
            }
        }
        let (commit, round) = (self.commit, self.round);
        self.send(
            id,
            Body::Append {
                prev_index,
                prev_term,
                commit,
                round,
                entries,
            },
        );
    }

    fn send_piece(&mut self, id: NodeId, offset: u64) {
        let base = self.log.base();
        let total = base.data.len();
        let begin = (offset as usize).min(total);
        let end = (begin + PIECE_BYTES_MAX).min(total);
        let piece = Body::Install {
            index: base.index,
            term: base.term,
            members: base.members.clone(),
            total: total as u64,
            checksum: checksum(&base.data),
            offset: begin as u64,
            round: self.round,
            data: base.data[begin..end].to_vec(),
        };
        if let Some(there) = self.progress.get_mut(&id) {
            there.waiting = true;
            there.streaming = false;
            there.installing = Some(begin as u64);
        }
        self.send(id, piece);
    }

    fn heard(&mut self, from: NodeId, round: u64) -> bool {
        if self.role != Role::Leader {
            return false;
        }
        let Some(there) = self.progress.get_mut(&from) else {
            return false;
        };
        there.active = true;
        there.round = there.round.max(round.min(self.round));
        let (progress, id, now) = (&self.progress, self.settings.id, self.round);
        let reached = self.log.members().reached(|peer| {
            if peer == id {
                now
            } else {
                progress.get(&peer).map_or(0, |there| there.round)
            }
        });
        self.quorum_round = self.quorum_round.max(reached);
        let served = self.quorum_round;
        let reads = std::mem::take(&mut self.reads);
        for read in reads {
            if read.2 <= served {
                self.out.reads.push((read.0, read.1));
            } else {
                self.reads.push(read);
            }
        }
        true
    }

    pub(super) fn on_append_reply(&mut self, from: NodeId, ok: bool, index: u64, round: u64) {
        if !self.heard(from, round) {
            return;
        }
        let last = self.log.last_index();
        let Some(there) = self.progress.get_mut(&from) else {
            return;
        };
        there.waiting = false;
        if ok && index <= last {
            let further = index > there.matched;
            there.matched = there.matched.max(index);
            there.next = there.next.max(index + 1);
            there.installing = None;
            there.streaming = true;
            if further {
                self.advance_commit();
            }
            self.push_transfer(from);
            if self
                .progress
                .get(&from)
                .is_some_and(|there| there.next <= last)
            {
                self.send_to(from);
            }
        } else if !ok {
            there.streaming = false;
            there.next = (index.min(last) + 1)
                .max(there.matched + 1)
                .min(there.next.max(1));
            self.send_to(from);
        }
    }

    pub(super) fn on_install_reply(&mut self, from: NodeId, index: u64, offset: u64, round: u64) {
        if !self.heard(from, round) {
            return;
        }
        let (base, total) = (self.log.base().index, self.log.base().data.len() as u64);
        let Some(there) = self.progress.get_mut(&from) else {
            return;
        };
        there.waiting = false;
        if index != base {
            // Of a snapshot that we have replaced: begin with the newer one.
            there.installing = None;
        } else if offset >= total {
            there.installing = None;
            there.matched = there.matched.max(index);
            there.next = there.next.max(index + 1);
            self.advance_commit();
        } else {
            there.installing = Some(offset);
        }
        self.send_to(from);
    }

    pub(super) fn advance_commit(&mut self) {
        let progress = &self.progress;
        let reached = self
            .log
            .members()
            .reached(|id| progress.get(&id).map_or(0, |there| there.matched));
        // Figure 8 of the Raft paper: an older term's entry is committed by one of ours behind it, never by counting.
        if reached <= self.commit || self.log.term(reached) != Some(self.term) {
            return;
        }
        self.commit = reached;
        self.tell_commit();
        self.finish_change();
    }

    /// Let followers know what is committed without waiting for the next heartbeat.
    fn tell_commit(&mut self) {
        for id in self.others() {
            if self.progress[&id].streaming {
                self.send_to(id);
            }
        }
    }

    /// The second half of a change of members, and the end of a leadership that it ends.
    fn finish_change(&mut self) {
        if self.log.members_index() > self.commit {
            return;
        }
        let members = self.log.members().clone();
        if members.joint() {
            let finished = Members {
                outgoing: Vec::new(),
                ..members
            };
            self.append_members(&finished);
        } else if !members.voters.contains(&self.settings.id) {
            self.follow(self.term, None);
        } else {
            let all = members.all();
            self.progress.retain(|id, _| all.contains(id));
        }
    }
}
