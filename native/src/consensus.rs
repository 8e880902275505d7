//! Raft for Python: bytes and plain values, never a lock held for long.

use meshfold_consensus::message::{Entry, EntryKind, Members, Message, Refused, Snapshot};
use meshfold_consensus::raft::{HardState, Raft as Core, Role, Settings};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// CRC32C of some bytes.
#[pyfunction]
pub(crate) fn crc32c(data: &[u8]) -> u32 {
    meshfold_consensus::checksum(data)
}

/// (index, term, kind, data)
type Row<'a> = (u64, u64, u8, Bound<'a, PyBytes>);
/// (index, term, members, data)
type State<'a> = (u64, u64, Bound<'a, PyBytes>, Bound<'a, PyBytes>);

/// What is to be done, in the order of the fields.
#[pyclass(frozen, module = "meshfold._native")]
pub(crate) struct RaftReady {
    inner: meshfold_consensus::raft::Ready,
}

/// One node's part of a Raft group.
#[pyclass(module = "meshfold._native")]
pub(crate) struct Raft {
    inner: Core,
}

fn kind(number: u8) -> PyResult<EntryKind> {
    match number {
        0 => Ok(EntryKind::Empty),
        1 => Ok(EntryKind::Command),
        2 => Ok(EntryKind::Members),
        other => Err(PyValueError::new_err(format!("no kind of entry: {other}"))),
    }
}

fn row<'py>(py: Python<'py>, entry: &Entry) -> Row<'py> {
    (
        entry.index,
        entry.term,
        entry.kind as u8,
        PyBytes::new(py, &entry.data),
    )
}

fn members(data: &[u8]) -> PyResult<Members> {
    Members::decode(data).map_err(|why| PyValueError::new_err(why.reason()))
}

/// The members that a group begins with, as the bytes that `Raft` takes.
#[pyfunction]
pub(crate) fn raft_members(py: Python<'_>, mut voters: Vec<u64>) -> Bound<'_, PyBytes> {
    voters.sort_unstable();
    voters.dedup();
    let members = Members {
        voters,
        ..Members::default()
    };
    PyBytes::new(py, &members.encode())
}

#[pymethods]
impl RaftReady {
    /// (term, vote) to make durable, if they changed.
    #[getter]
    fn hard_state(&self) -> Option<(u64, u64)> {
        self.inner.hard_state.map(|hard| (hard.term, hard.vote))
    }

    /// A snapshot that takes the place of everything.
    #[getter]
    fn snapshot<'py>(&self, py: Python<'py>) -> Option<State<'py>> {
        self.inner.snapshot.as_ref().map(|found| {
            (
                found.index,
                found.term,
                PyBytes::new(py, &found.members.encode()),
                PyBytes::new(py, &found.data),
            )
        })
    }

    /// Entries to make durable, in place of those from the first one's index on.
    #[getter]
    fn entries<'py>(&self, py: Python<'py>) -> Vec<Row<'py>> {
        let entries = self.inner.entries.iter();
        entries.map(|entry| row(py, entry)).collect()
    }

    /// (to, bytes) to send after that.
    #[getter]
    fn messages<'py>(&self, py: Python<'py>) -> Vec<(u64, Bound<'py, PyBytes>)> {
        let messages = self.inner.messages.iter();
        messages
            .map(|message| (message.to, PyBytes::new(py, &message.encode())))
            .collect()
    }

    /// Entries to apply after that.
    #[getter]
    fn committed<'py>(&self, py: Python<'py>) -> Vec<Row<'py>> {
        let committed = self.inner.committed.iter();
        committed.map(|entry| row(py, entry)).collect()
    }

    /// (context, index) of reads that may be served once that index is applied.
    #[getter]
    fn reads(&self) -> Vec<(u64, u64)> {
        self.inner.reads.clone()
    }

    /// Contexts of reads that will not be served.
    #[getter]
    fn reads_lost(&self) -> Vec<u64> {
        self.inner.reads_lost.clone()
    }
}

#[pymethods]
impl Raft {
    /// Take up where a node stopped.
    #[new]
    #[pyo3(signature = (*, id, election_ticks, heartbeat_ticks, seed, hard_state, snapshot, entries))]
    fn new(
        id: u64,
        election_ticks: u32,
        heartbeat_ticks: u32,
        seed: u64,
        hard_state: (u64, u64),
        snapshot: Option<(u64, u64, Vec<u8>, Vec<u8>)>,
        entries: Vec<(u64, u64, u8, Vec<u8>)>,
    ) -> PyResult<Self> {
        if id == 0 || heartbeat_ticks == 0 || election_ticks <= heartbeat_ticks {
            return Err(PyValueError::new_err(
                "an id above 0, and an election longer than a heartbeat",
            ));
        }
        let base = match snapshot {
            None => Snapshot {
                index: 0,
                term: 0,
                members: Members::default(),
                data: Vec::new(),
            },
            Some((index, term, who, data)) => Snapshot {
                index,
                term,
                members: members(&who)?,
                data,
            },
        };
        let mut log = Vec::with_capacity(entries.len());
        for (next, (index, term, number, data)) in (base.index + 1..).zip(entries) {
            if index != next {
                return Err(PyValueError::new_err(format!("entry {index}, not {next}")));
            }
            log.push(Entry {
                index,
                term,
                kind: kind(number)?,
                data,
            });
        }
        let settings = Settings {
            id,
            election_ticks,
            heartbeat_ticks,
            seed,
        };
        let hard = HardState {
            term: hard_state.0,
            vote: hard_state.1,
        };
        Ok(Self {
            inner: Core::new(settings, hard, base, log),
        })
    }

    /// Let these nodes speak, whether or not the log names them.
    fn allow(&mut self, nodes: Vec<u64>) {
        self.inner.allow(nodes);
    }

    /// Let one tick pass.
    fn tick(&mut self) {
        self.inner.tick();
    }

    /// More time passed than ticks say.
    fn stalled(&mut self) {
        self.inner.stalled();
    }

    /// Take in the bytes of a message from an authenticated sender; the reason if it is refused.
    fn step(&mut self, data: &[u8], sender: u64) -> Option<&'static str> {
        let message = match Message::decode(data) {
            Ok(message) if message.from == sender => message,
            Ok(_) => return Some("address"),
            Err(why) => return Some(why.reason()),
        };
        self.inner.step(message).err().map(Refused::reason)
    }

    /// Propose a command; its index, or None if this node does not lead or takes none now.
    fn propose(&mut self, data: Vec<u8>) -> Option<u64> {
        self.inner.propose(data).ok()
    }

    /// Ask for a linearizable read; False if this node does not lead or cannot know yet what is committed.
    fn read_index(&mut self, context: u64) -> bool {
        self.inner.read_index(context).is_ok()
    }

    /// Hand the leadership to a voter; False if this node does not lead or that one is no other voter.
    fn transfer(&mut self, to: u64) -> bool {
        self.inner.transfer(to).is_ok()
    }

    /// Change the members; the index of the change, or None if it cannot be made now.
    fn change_members(&mut self, voters: Vec<u64>, learners: Vec<u64>) -> Option<u64> {
        self.inner.change_members(voters, learners).ok()
    }

    /// Entries are durable up to this one.
    fn persisted(&mut self, index: u64, term: u64) {
        self.inner.persisted(index, term);
    }

    /// A snapshot of the state at an applied index stands for the entries up to it.
    fn compact(&mut self, index: u64, data: Vec<u8>) {
        self.inner.compact(index, data);
    }

    /// What is to be done now; None if nothing is.
    fn ready(&mut self) -> Option<RaftReady> {
        let inner = self.inner.ready();
        (!inner.is_empty()).then_some(RaftReady { inner })
    }

    #[getter]
    fn id(&self) -> u64 {
        self.inner.id()
    }

    #[getter]
    fn term(&self) -> u64 {
        self.inner.term()
    }

    /// `follower`, `pre_candidate`, `candidate` or `leader`.
    #[getter]
    fn role(&self) -> &'static str {
        match self.inner.role() {
            Role::Follower => "follower",
            Role::PreCandidate => "pre_candidate",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
        }
    }

    #[getter]
    fn leader(&self) -> Option<u64> {
        self.inner.leader()
    }

    #[getter]
    fn commit(&self) -> u64 {
        self.inner.commit()
    }

    #[getter]
    fn last_index(&self) -> u64 {
        self.inner.last_index()
    }

    #[getter]
    fn round(&self) -> u64 {
        self.inner.round()
    }

    #[getter]
    fn quorum_round(&self) -> u64 {
        self.inner.quorum_round()
    }

    /// (voters, outgoing voters, learners)
    #[getter]
    fn members(&self) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
        let members = self.inner.members();
        (
            members.voters.clone(),
            members.outgoing.clone(),
            members.learners.clone(),
        )
    }

    /// The members as of the snapshot, as bytes.
    #[getter]
    fn base_members<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.base_members().encode())
    }
}
