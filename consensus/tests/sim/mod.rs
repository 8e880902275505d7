//! A group of nodes with simulated disks and a simulated network, all from one seed, and the rules that hold after every step.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test uses a part, and a panic is its way to fail"
)]

use std::collections::{BTreeMap, BTreeSet};

use meshfold_consensus::checksum;
use meshfold_consensus::message::{Entry, EntryKind, Members, Message, NodeId, Snapshot};
use meshfold_consensus::raft::{HardState, Raft, Role, Settings};

mod random;
use random::Random;

/// Nodes there are; the first `founders` begin as voters.
pub const NODES: u64 = 7;

/// What survives a crash.
#[derive(Clone, Default)]
pub struct Disk {
    pub hard: HardState,
    pub snapshot: Option<Snapshot>,
    pub entries: Vec<Entry>,
}

impl Disk {
    fn base(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.index)
    }

    fn term(&self, index: u64) -> Option<u64> {
        match &self.snapshot {
            Some(snapshot) if index == snapshot.index => return Some(snapshot.term),
            _ => {}
        }
        let at = index.checked_sub(self.base() + 1)?;
        self.entries.get(at as usize).map(|entry| entry.term)
    }
}

/// The machine: a chain of checksums over everything applied, so that two are equal only if their histories are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub applied: u64,
    pub chain: u32,
}

impl Machine {
    fn apply(&mut self, entry: &Entry) {
        assert_eq!(
            entry.index,
            self.applied + 1,
            "an entry is skipped or applied twice"
        );
        let mut bytes = self.chain.to_be_bytes().to_vec();
        bytes.extend(entry.term.to_be_bytes());
        bytes.extend(&entry.data);
        self.chain = checksum(&bytes);
        self.applied = entry.index;
    }

    fn dump(&self, padding: usize) -> Vec<u8> {
        let mut data = self.applied.to_be_bytes().to_vec();
        data.extend(self.chain.to_be_bytes());
        data.resize(12 + padding, 7);
        data
    }

    fn load(data: &[u8]) -> Self {
        Self {
            applied: u64::from_be_bytes(data[..8].try_into().unwrap()),
            chain: u32::from_be_bytes(data[8..12].try_into().unwrap()),
        }
    }
}

pub struct Node {
    pub raft: Option<Raft>,
    pub disk: Disk,
    pub machine: Machine,
}

/// Everything, and what was seen so far.
pub struct World {
    pub seed: u64,
    pub random: Random,
    pub nodes: BTreeMap<NodeId, Node>,
    pub network: Vec<Message>,
    /// (from, to) pairs that nothing passes.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub founders: u64,
    lives: u64,
    leaders: BTreeMap<u64, NodeId>,
    votes: BTreeMap<(u64, NodeId), NodeId>,
    terms: BTreeMap<NodeId, u64>,
    /// What was applied anywhere: index -> (term, checksum of the data, chain).
    applied: BTreeMap<u64, (u64, u32, u32)>,
    /// Commit indexes that a client may have been told of.
    pub acknowledged: u64,
    reads: BTreeMap<u64, (u64, NodeId)>,
    next_read: u64,
    pub proposed: u64,
    pub counts: BTreeMap<&'static str, u64>,
    pub snapshot_padding: usize,
}

impl World {
    pub fn new(seed: u64, founders: u64) -> Self {
        let mut world = Self {
            seed,
            random: Random(seed),
            nodes: BTreeMap::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            founders,
            lives: 0,
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            terms: BTreeMap::new(),
            applied: BTreeMap::from([(1, (1, 0, 0))]),
            acknowledged: 0,
            reads: BTreeMap::new(),
            next_read: 0,
            proposed: 0,
            counts: BTreeMap::new(),
            snapshot_padding: 0,
        };
        for id in 1..=NODES {
            let node = Node {
                raft: None,
                disk: Disk::default(),
                machine: Machine::default(),
            };
            world.nodes.insert(id, node);
            world.start(id);
        }
        world
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// What founders begin with: entry 1, so that whoever joins later gets it as a snapshot and knows the founders.
    fn founding(&self) -> Snapshot {
        let voters = (1..=self.founders).collect();
        let members = Members {
            voters,
            ..Members::default()
        };
        let machine = Machine {
            applied: 1,
            chain: 0,
        };
        Snapshot {
            index: 1,
            term: 1,
            members,
            data: machine.dump(0),
        }
    }

    /// Begin a life of a node from its disk.
    pub fn start(&mut self, id: NodeId) {
        self.lives += 1;
        let settings = Settings {
            id,
            election_ticks: 10,
            heartbeat_ticks: 1,
            seed: self.seed.wrapping_mul(31).wrapping_add(self.lives),
        };
        let founders = self.founders;
        let nothing = Snapshot {
            index: 0,
            term: 0,
            members: Members::default(),
            data: Machine::default().dump(0),
        };
        let founding = if id <= self.founders {
            self.founding()
        } else {
            nothing
        };
        let node = self.nodes.get_mut(&id).unwrap();
        if node.disk.snapshot.is_none() && id <= founders {
            node.disk.snapshot = Some(founding.clone());
        }
        let snapshot = node.disk.snapshot.clone().unwrap_or(founding);
        node.machine = Machine::load(&snapshot.data);
        let mut raft = Raft::new(
            settings,
            node.disk.hard,
            snapshot,
            node.disk.entries.clone(),
        );
        raft.allow(1..=NODES);
        node.raft = Some(raft);
        self.work(id, true);
    }

    /// Kill a node: what its disk has stays.
    pub fn crash(&mut self, id: NodeId) {
        if self.nodes.get_mut(&id).unwrap().raft.take().is_some() {
            self.count("crashes");
            self.reads.retain(|_, read| read.1 != id);
        }
    }

    pub fn raft(&mut self, id: NodeId) -> Option<&mut Raft> {
        self.nodes.get_mut(&id).unwrap().raft.as_mut()
    }

    pub fn leader(&self) -> Option<NodeId> {
        let leading = self.nodes.iter().filter_map(|(id, node)| {
            let raft = node.raft.as_ref()?;
            (raft.role() == Role::Leader).then_some((raft.term(), *id))
        });
        leading.max().map(|found| found.1)
    }

    /// Do what a node wants done; with `whole` false it may die on the way, having written a part.
    pub fn work(&mut self, id: NodeId, whole: bool) {
        loop {
            let Some(raft) = self.raft(id) else { return };
            let ready = raft.ready();
            if ready.is_empty() {
                break;
            }
            if !whole && self.random.below(60) == 0 {
                self.count("died before writing");
                self.crash(id);
                return;
            }
            let last = ready.last_entry();
            self.write(id, &ready);
            if !whole && self.random.below(60) == 0 {
                self.count("died before sending");
                self.crash(id);
                return;
            }
            for message in ready.messages {
                // What is said has bytes that read back the same.
                assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message));
                self.network.push(message);
            }
            if let Some(snapshot) = &ready.snapshot {
                let machine = Machine::load(&snapshot.data);
                self.check_chain(id, snapshot.term, &machine);
                self.nodes.get_mut(&id).unwrap().machine = machine;
                self.count("snapshots installed");
            }
            self.apply(id, &ready.committed);
            for (context, index) in ready.reads {
                self.count("reads");
                if let Some((floor, _)) = self.reads.remove(&context) {
                    assert!(
                        index >= floor,
                        "seed {}: a read at {index} misses {floor}",
                        self.seed
                    );
                }
            }
            for context in ready.reads_lost {
                self.reads.remove(&context);
            }
            if let Some((index, term)) = last
                && let Some(raft) = self.raft(id)
            {
                raft.persisted(index, term);
            }
        }
        self.check(id);
    }

    fn write(&mut self, id: NodeId, ready: &meshfold_consensus::raft::Ready) {
        let disk = &mut self.nodes.get_mut(&id).unwrap().disk;
        if let Some(snapshot) = &ready.snapshot {
            disk.entries.clear();
            disk.snapshot = Some(snapshot.clone());
        }
        if let Some(first) = ready.entries.first() {
            let base = disk.base();
            disk.entries.truncate((first.index - base - 1) as usize);
            assert_eq!(
                disk.entries.len() as u64 + base + 1,
                first.index,
                "a hole on disk"
            );
            disk.entries.extend(ready.entries.iter().cloned());
        }
        if let Some(hard) = ready.hard_state {
            disk.hard = hard;
            if hard.vote != 0 {
                let voted = *self.votes.entry((hard.term, id)).or_insert(hard.vote);
                assert_eq!(
                    voted, hard.vote,
                    "seed {}: {id} votes twice in {}",
                    self.seed, hard.term
                );
            }
            let before = self.terms.insert(id, hard.term).unwrap_or(0);
            assert!(
                before <= hard.term,
                "seed {}: the term of {id} falls",
                self.seed
            );
        }
    }

    /// State Machine Safety, and Committed Immutable.
    fn check_chain(&mut self, id: NodeId, term: u64, machine: &Machine) {
        let known = self.applied.get(&machine.applied);
        assert!(
            known.is_some_and(|known| known.0 == term && known.2 == machine.chain),
            "seed {}: {id} has another state at {} than others had",
            self.seed,
            machine.applied
        );
    }

    fn apply(&mut self, id: NodeId, committed: &[Entry]) {
        for entry in committed {
            let node = self.nodes.get_mut(&id).unwrap();
            node.machine.apply(entry);
            let (chain, sum) = (node.machine.chain, checksum(&entry.data));
            if entry.kind == EntryKind::Members {
                self.count("member changes");
            }
            if !self.applied.contains_key(&entry.index) {
                self.check_quorum_has(id, entry);
                self.applied.insert(entry.index, (entry.term, sum, chain));
            }
            let known = self.applied[&entry.index];
            assert_eq!(
                known,
                (entry.term, sum, chain),
                "seed {}: {id} applies another entry {}",
                self.seed,
                entry.index
            );
        }
        // A leader answers its clients when it has applied.
        let node = &self.nodes[&id];
        if node
            .raft
            .as_ref()
            .is_some_and(|raft| raft.role() == Role::Leader)
        {
            self.acknowledged = self.acknowledged.max(node.machine.applied);
        }
    }

    /// Committed On Quorum: whoever applies first, a majority has it on disk.
    fn check_quorum_has(&self, id: NodeId, entry: &Entry) {
        let raft = self.nodes[&id].raft.as_ref().unwrap();
        let has = |node: NodeId| {
            let disk = &self.nodes[&node].disk;
            disk.base() >= entry.index || disk.term(entry.index) == Some(entry.term)
        };
        // By the members that count now, or by those before the change that this very entry finishes.
        assert!(
            raft.members().quorum(has)
                || entry.kind == EntryKind::Members
                || raft.role() != Role::Leader,
            "seed {}: entry {} is committed without a majority",
            self.seed,
            entry.index
        );
    }

    /// Election Safety and Leader Completeness.
    fn check(&mut self, id: NodeId) {
        let Some(raft) = self.nodes[&id].raft.as_ref() else {
            return;
        };
        assert!(
            raft.commit() <= raft.last_index(),
            "seed {}: commit behind the end",
            self.seed
        );
        if raft.role() != Role::Leader {
            return;
        }
        let leads = *self.leaders.entry(raft.term()).or_insert(id);
        assert_eq!(
            leads,
            id,
            "seed {}: two leaders in term {}",
            self.seed,
            raft.term()
        );
        for (index, known) in self.applied.range(raft.base_index() + 1..) {
            if known.0 < raft.term() {
                assert_eq!(
                    raft.term_of(*index),
                    Some(known.0),
                    "seed {}: leader {id} of term {} lacks the committed {index}",
                    self.seed,
                    raft.term()
                );
            }
        }
    }

    /// Log Matching: two disks with the same term at an index are the same up to it.
    pub fn check_logs(&self) {
        for (one, left) in &self.nodes {
            for (other, right) in self.nodes.range(one + 1..) {
                let (left, right) = (&left.disk, &right.disk);
                let first = left.base().max(right.base()) + 1;
                let end = (left.base() + left.entries.len() as u64)
                    .min(right.base() + right.entries.len() as u64);
                let mut agree = false;
                for index in (first..=end).rev() {
                    let (mine, its) = (
                        &left.entries[(index - left.base() - 1) as usize],
                        &right.entries[(index - right.base() - 1) as usize],
                    );
                    agree = agree || mine.term == its.term;
                    assert!(
                        !agree || mine == its,
                        "seed {}: {one} and {other} differ at {index}",
                        self.seed
                    );
                }
            }
        }
    }

    /// One line a node, for a person to read.
    pub fn describe(&self) -> String {
        let line = |(id, node): (&NodeId, &Node)| match &node.raft {
            None => format!("{id}: down"),
            Some(raft) => format!(
                "{id}: {:?} term {} leader {:?} log {}..{} commit {} {:?}",
                raft.role(),
                raft.term(),
                raft.leader(),
                raft.base_index(),
                raft.last_index(),
                raft.commit(),
                raft.members()
            ),
        };
        self.nodes.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    pub fn propose(&mut self, id: NodeId) -> Option<u64> {
        self.proposed += 1;
        let data = self.proposed.to_be_bytes().to_vec();
        let index = self.raft(id)?.propose(data).ok()?;
        self.count("proposals");
        Some(index)
    }

    pub fn read(&mut self, id: NodeId) {
        self.next_read += 1;
        let (context, floor) = (self.next_read, self.acknowledged);
        if self
            .raft(id)
            .is_some_and(|raft| raft.read_index(context).is_ok())
        {
            self.reads.insert(context, (floor, id));
        }
    }

    pub fn compact(&mut self, id: NodeId) {
        let padding = self.snapshot_padding;
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(raft) = node.raft.as_mut() else {
            return;
        };
        let index = node.machine.applied;
        if index <= raft.base_index() {
            return;
        }
        raft.compact(index, node.machine.dump(padding));
        let Some(term) = node.disk.term(index) else {
            panic!("applied what is not on disk")
        };
        let base = node.disk.base();
        node.disk.entries.drain(..(index - base) as usize);
        let members = raft.base_members().clone();
        let data = node.machine.dump(padding);
        node.disk.snapshot = Some(Snapshot {
            index,
            term,
            members,
            data,
        });
        self.count("compactions");
    }

    /// Take the message at a place out of the network and deliver it, unless the link is cut.
    pub fn deliver(&mut self, at: usize, whole: bool) {
        let message = self.network.swap_remove(at);
        self.hand_over(&message, whole);
    }

    fn hand_over(&mut self, message: &Message, whole: bool) {
        if self.cut.contains(&(message.from, message.to)) {
            return;
        }
        let (seed, to) = (self.seed, message.to);
        if let Some(raft) = self.raft(to) {
            let done = raft.step(message.clone());
            assert!(
                done.is_ok(),
                "seed {seed}: {to} refuses {message:?}: {done:?}"
            );
            self.work(to, whole);
        }
    }

    /// Deliver what is under way now, in order.
    pub fn deliver_all(&mut self) {
        for message in std::mem::take(&mut self.network) {
            self.hand_over(&message, true);
        }
    }

    /// Everything works: time passes alike for all and messages arrive in order.
    pub fn fair_round(&mut self) {
        for id in 1..=NODES {
            if let Some(raft) = self.raft(id) {
                raft.tick();
                self.work(id, true);
            }
        }
        for _ in 0..3 {
            self.deliver_all();
        }
    }
}
