//! Raft (Ongaro's thesis) with pre-votes, quorum checks, index reads, leadership transfer, learners, joint consensus and
//! snapshots.
//!
//! Rules: a node votes once per term, durably (S36); nothing that [`Ready`] says is sent before its entries and hard state
//! are durable; a leader counts its own entries only when told they are ([`Raft::persisted`]); only entries of its own term
//! are committed by counting; what is committed is never taken back, whoever asks for it.

mod elections;
mod followers;
mod leaders;
mod log;
mod members;
mod progress;
mod ready;

use std::collections::{BTreeMap, BTreeSet};

use crate::message::{Body, Entry, EntryKind, Members, Message, NodeId, Refused, Snapshot};
use log::Log;
use progress::Progress;
pub use ready::{HardState, Ready};

/// A term this far ahead of ours was never reached: it is an attack on the counter.
pub const TERM_JUMP_MAX: u64 = 1 << 20;
/// Data of the entries in one message.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
/// One piece of a snapshot.
pub const PIECE_BYTES_MAX: usize = 512 * 1024;
/// State that a snapshot may have.
pub const SNAPSHOT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Entries that may be proposed and not yet committed.
pub const UNCOMMITTED_MAX: u64 = 4096;
/// Reads that wait for a round of heartbeats.
pub const READS_MAX: usize = 4096;

/// What a node is in its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows the leader, if it knows one.
    Follower,
    /// Asks whether an election would be won; its term has not begun.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Why a call cannot be served here and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Another node leads, or none that we know.
    NotLeader(Option<NodeId>),
    /// The leader is handing over, has not committed an entry of its term yet, or has too much under way.
    Busy,
    /// A change of members cannot be made: one is under way, or it makes no sense.
    Members,
}

/// Times in ticks, sizes and the seed.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// This node.
    pub id: NodeId,
    /// An election begins after this many ticks without a leader, and up to twice as many.
    pub election_ticks: u32,
    /// A leader sends heartbeats every so many ticks.
    pub heartbeat_ticks: u32,
    /// Decides the election timeouts.
    pub seed: u64,
}

/// One node's part of a group.
#[derive(Debug)]
pub struct Raft {
    settings: Settings,
    random: u64,
    /// Nodes that may speak although the log does not name them yet: those allowed to be members.
    allowed: BTreeSet<NodeId>,
    term: u64,
    vote: NodeId,
    role: Role,
    leader: Option<NodeId>,
    log: Log,
    commit: u64,
    applied: u64,
    /// The last entry that the driver said is durable.
    stable: u64,
    elapsed: u32,
    timeout: u32,
    votes: BTreeMap<NodeId, bool>,
    progress: BTreeMap<NodeId, Progress>,
    /// The leader's rounds of heartbeats, and the last that a quorum answered.
    round: u64,
    quorum_round: u64,
    /// Reads that wait: (context, index, round).
    reads: Vec<(u64, u64, u64)>,
    transferee: Option<NodeId>,
    /// A snapshot that is arriving.
    arriving: Option<Snapshot>,
    out: Ready,
    hard: HardState,
}

impl Raft {
    /// Take up where a node stopped: its hard state, its snapshot, the entries behind it, and what was applied already.
    ///
    /// Founders begin with a snapshot of index and term 1 that names them, so that whoever joins later gets it and knows
    /// them; a node that joins begins with one of index 0 and no members.
    pub fn new(
        settings: Settings,
        hard: HardState,
        snapshot: Snapshot,
        entries: Vec<Entry>,
    ) -> Self {
        let applied = snapshot.index;
        let log = Log::new(snapshot, entries);
        let mut raft = Self {
            random: settings.seed ^ settings.id.rotate_left(32),
            settings,
            allowed: BTreeSet::new(),
            term: hard.term.max(log.last_term()),
            vote: if log.last_term() > hard.term {
                0
            } else {
                hard.vote
            },
            role: Role::Follower,
            leader: None,
            commit: applied,
            applied,
            stable: log.last_index(),
            log,
            elapsed: 0,
            timeout: 0,
            votes: BTreeMap::new(),
            progress: BTreeMap::new(),
            round: 0,
            quorum_round: 0,
            reads: Vec::new(),
            transferee: None,
            arriving: None,
            out: Ready::default(),
            hard,
        };
        raft.reset_timer();
        // A group of one needs to wait for nobody.
        if raft.log.members().voters == [settings.id] && !raft.log.members().joint() {
            raft.campaign(false);
        }
        raft
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.settings.id
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// What this node is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The leader, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// The last entry that is committed.
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// The last entry of the log.
    pub fn last_index(&self) -> u64 {
        self.log.last_index()
    }

    /// The term of an entry; None where it is compacted away or not there.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        self.log.term(index)
    }

    /// Index of the snapshot that the log begins with.
    pub fn base_index(&self) -> u64 {
        self.log.base().index
    }

    /// The members that count now.
    pub fn members(&self) -> &Members {
        self.log.members()
    }

    /// The leader's current round of heartbeats.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// The last round that a quorum answered: who led when it was sent led then.
    pub fn quorum_round(&self) -> u64 {
        self.quorum_round
    }

    /// Let these nodes speak, whether or not the log names them: a new leader may be one that we have not heard of.
    pub fn allow(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        self.allowed = nodes.into_iter().collect();
    }

    fn heard_of(&self, id: NodeId) -> bool {
        self.allowed.contains(&id)
            || self.log.members().all().contains(&id)
            || self.log.base().members.all().contains(&id)
    }

    fn next_random(&mut self) -> u64 {
        // SplitMix64: small, and good enough to part the timeouts of a few nodes.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn reset_timer(&mut self) {
        self.elapsed = 0;
        let spread = u64::from(self.settings.election_ticks);
        self.timeout = self.settings.election_ticks + (self.next_random() % spread) as u32;
    }

    fn send(&mut self, to: NodeId, body: Body) {
        let message = Message {
            from: self.settings.id,
            to,
            term: self.term,
            body,
        };
        self.out.messages.push(message);
    }

    /// Let one tick pass.
    pub fn tick(&mut self) {
        self.elapsed += 1;
        if self.role == Role::Leader {
            self.tick_leader();
        } else if self.elapsed >= self.timeout {
            self.reset_timer();
            if self.electable() {
                self.pre_campaign();
            } else {
                // Nobody to be loyal to any more: who asks for our vote is heard.
                self.leader = None;
            }
        }
    }

    /// More time passed than ticks say (the process stood still): lead no more before anything else is handled.
    pub fn stalled(&mut self) {
        if self.role == Role::Leader && self.log.members().voters.len() > 1 {
            self.follow(self.term, None);
        }
        self.reset_timer();
    }

    /// Take in one message.
    ///
    /// A refused one has changed neither log nor vote.
    pub fn step(&mut self, message: Message) -> Result<(), Refused> {
        if message.to != self.settings.id || message.from == self.settings.id {
            return Err(Refused::Address);
        }
        if !self.heard_of(message.from) {
            return Err(Refused::Member);
        }
        if message.term > self.term.saturating_add(TERM_JUMP_MAX) {
            return Err(Refused::Term);
        }
        // A deposed leader may well contradict what was committed since; it is told so below.
        if let Body::Append {
            prev_index,
            prev_term,
            entries,
            ..
        } = &message.body
            && message.term >= self.term
        {
            self.check_entries(message.term, *prev_index, *prev_term, entries)?;
        }
        if !self.enter_term(&message) {
            return Ok(());
        }
        let (from, term) = (message.from, message.term);
        match message.body {
            Body::PreVote {
                last_index,
                last_term,
            } => {
                self.on_pre_vote(from, term, last_index, last_term);
            }
            Body::Vote {
                last_index,
                last_term,
                ..
            } => self.on_vote(from, last_index, last_term),
            Body::PreVoteReply { granted } => {
                // A promise for another term than the one that we would begin is an old one.
                if !granted || term == self.term + 1 {
                    self.on_vote_reply(from, granted, Role::PreCandidate);
                }
            }
            Body::VoteReply { granted } => self.on_vote_reply(from, granted, Role::Candidate),
            Body::TimeoutNow => self.on_timeout_now(from),
            Body::Append { .. } | Body::Install { .. } => {
                return self.on_leader(from, message.body);
            }
            Body::AppendReply { ok, index, round } => self.on_append_reply(from, ok, index, round),
            Body::InstallReply {
                index,
                offset,
                round,
            } => {
                self.on_install_reply(from, index, offset, round);
            }
        }
        Ok(())
    }

    /// Whether the message is of our term now; older ones are answered so that their sender learns of ours, or ignored.
    fn enter_term(&mut self, message: &Message) -> bool {
        if message.term > self.term {
            let asks = matches!(message.body, Body::PreVote { .. } | Body::Vote { .. });
            let transfer = matches!(message.body, Body::Vote { transfer: true, .. });
            // The quorum check's other half: who hears a leader lends no ear to those who do not.
            if asks && !transfer && self.hears_leader() {
                return false;
            }
            match &message.body {
                // The term of a PreVote has not begun, nor that of its promise.
                Body::PreVote { .. } | Body::PreVoteReply { granted: true } => {}
                Body::Append { .. } | Body::Install { .. } => {
                    self.follow(message.term, Some(message.from));
                }
                _ => self.follow(message.term, None),
            }
            return true;
        }
        if message.term < self.term {
            match &message.body {
                // A leader that was deposed without noticing steps down when it hears of our term.
                Body::Append { .. } | Body::Install { .. } => {
                    self.send(
                        message.from,
                        Body::AppendReply {
                            ok: false,
                            index: 0,
                            round: 0,
                        },
                    );
                }
                Body::PreVote { .. } => {
                    self.send(message.from, Body::PreVoteReply { granted: false });
                }
                _ => {}
            }
            return false;
        }
        true
    }

    fn follow(&mut self, term: u64, leader: Option<NodeId>) {
        if term > self.term {
            self.term = term;
            self.vote = 0;
        }
        self.role = Role::Follower;
        self.leader = leader;
        self.votes.clear();
        self.progress.clear();
        self.out
            .reads_lost
            .extend(self.reads.drain(..).map(|read| read.0));
        self.transferee = None;
        self.reset_timer();
    }

    fn append_own(&mut self, kind: EntryKind, data: Vec<u8>) -> u64 {
        let index = self.log.last_index() + 1;
        let entry = Entry {
            index,
            term: self.term,
            kind,
            data,
        };
        self.log.push(entry.clone());
        self.out.entries.push(entry);
        index
    }

    /// The driver has made entries durable up to `index`, the last of `term`.
    pub fn persisted(&mut self, index: u64, term: u64) {
        if self.log.term(index) != Some(term) {
            return;
        }
        self.stable = self.stable.max(index);
        let id = self.settings.id;
        if self.role == Role::Leader
            && let Some(own) = self.progress.get_mut(&id)
        {
            own.matched = own.matched.max(index);
            self.advance_commit();
        }
    }

    /// The driver has a snapshot of the machine's state at `index`, which must be applied: entries up to it are dropped.
    pub fn compact(&mut self, index: u64, data: Vec<u8>) {
        if index > self.log.base().index && index <= self.applied {
            self.log.compact(index, data);
        }
    }

    /// What is to be done now: persist entries and hard state, send messages, apply what is committed, in that order.
    pub fn ready(&mut self) -> Ready {
        let mut ready = std::mem::take(&mut self.out);
        let hard = HardState {
            term: self.term,
            vote: self.vote,
        };
        if hard != self.hard {
            self.hard = hard;
            ready.hard_state = Some(hard);
        }
        if self.commit > self.applied {
            ready.committed = self
                .log
                .slice(self.applied + 1, self.commit, usize::MAX)
                .to_vec();
            self.applied = self
                .applied
                .max(ready.committed.last().map_or(0, |last| last.index));
        }
        ready
    }
}
