//! Elections: who asks, who grants.

use super::{Raft, Role};
use crate::message::{Body, EntryKind, NodeId};
use crate::raft::progress::Progress;

impl Raft {
    /// Whether a leader was heard within the smallest election timeout.
    pub(super) fn hears_leader(&self) -> bool {
        match self.role {
            // A leader hears itself, as long as the quorum check lets it lead.
            Role::Leader => true,
            _ => self.leader.is_some() && self.elapsed < self.settings.election_ticks,
        }
    }

    /// Whether this node may campaign: as a voter, also by members that a later change replaced, as long as it does not
    /// know that change to be committed: it may be the only one whose log holds it (thesis 4.2.2).
    pub(super) fn electable(&self) -> bool {
        let id = self.settings.id;
        self.log.members_at(self.commit).votes(id)
            || self
                .log
                .changes_behind(self.commit)
                .any(|members| members.votes(id))
    }

    /// Ask whether an election would be won, without beginning a term (thesis 9.6).
    pub(super) fn pre_campaign(&mut self) {
        self.role = Role::PreCandidate;
        self.leader = None;
        self.votes.clear();
        self.votes.insert(self.settings.id, true);
        if self.log.members().quorum(|id| id == self.settings.id) {
            self.campaign(false);
            return;
        }
        let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
        for to in self.peers_that_vote() {
            self.send(
                to,
                Body::PreVote {
                    last_index,
                    last_term,
                },
            );
            // Of the term that it would begin.
            if let Some(sent) = self.out.messages.last_mut() {
                sent.term = self.term + 1;
            }
        }
    }

    /// Begin a term and ask for votes.
    pub(super) fn campaign(&mut self, transfer: bool) {
        self.role = Role::Candidate;
        self.leader = None;
        self.term += 1;
        self.vote = self.settings.id;
        self.reset_timer();
        self.votes.clear();
        self.votes.insert(self.settings.id, true);
        if self.log.members().quorum(|id| id == self.settings.id) {
            self.lead();
            return;
        }
        let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
        for to in self.peers_that_vote() {
            self.send(
                to,
                Body::Vote {
                    last_index,
                    last_term,
                    transfer,
                },
            );
        }
    }

    fn peers_that_vote(&self) -> Vec<NodeId> {
        let members = self.log.members();
        let all = members.all().into_iter();
        all.filter(|id| *id != self.settings.id && members.votes(*id))
            .collect()
    }

    fn up_to_date(&self, last_index: u64, last_term: u64) -> bool {
        (last_term, last_index) >= (self.log.last_term(), self.log.last_index())
    }

    pub(super) fn on_pre_vote(&mut self, from: NodeId, term: u64, last_index: u64, last_term: u64) {
        // That we hear no leader was asked when the message came in.
        let granted = term > self.term && self.up_to_date(last_index, last_term);
        self.send(from, Body::PreVoteReply { granted });
        if granted && let Some(sent) = self.out.messages.last_mut() {
            sent.term = term;
        }
    }

    /// One vote a term, for the first whose log holds everything that ours does.
    pub(super) fn on_vote(&mut self, from: NodeId, last_index: u64, last_term: u64) {
        let free = self.vote == from || (self.vote == 0 && self.leader.is_none());
        let granted = free && self.up_to_date(last_index, last_term);
        if granted {
            self.vote = from;
            self.reset_timer();
        }
        self.send(from, Body::VoteReply { granted });
    }

    pub(super) fn on_vote_reply(&mut self, from: NodeId, granted: bool, asked: Role) {
        if self.role != asked {
            return;
        }
        self.votes.entry(from).or_insert(granted);
        let votes = &self.votes;
        if self
            .log
            .members()
            .quorum(|id| votes.get(&id) == Some(&true))
        {
            if asked == Role::PreCandidate {
                self.campaign(false);
            } else {
                self.lead();
            }
        } else if self.log.members().lost(|id| votes.get(&id) == Some(&false)) {
            self.follow(self.term, None);
        }
    }

    /// Only the leader of this term may hand over.
    pub(super) fn on_timeout_now(&mut self, from: NodeId) {
        if self.leader == Some(from) && self.electable() {
            self.campaign(true);
        }
    }

    pub(super) fn lead(&mut self) {
        self.role = Role::Leader;
        self.leader = Some(self.settings.id);
        self.votes.clear();
        self.elapsed = 0;
        self.quorum_round = 0;
        self.progress.clear();
        let next = self.log.last_index() + 1;
        for id in self.log.members().all() {
            self.progress.insert(
                id,
                Progress {
                    next,
                    active: true,
                    ..Progress::default()
                },
            );
        }
        let stable = self.stable.min(self.log.last_index());
        if let Some(own) = self.progress.get_mut(&self.settings.id) {
            own.matched = stable;
        }
        self.append_own(EntryKind::Empty, Vec::new());
        self.broadcast();
    }
}
