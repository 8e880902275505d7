//! What voters say to each other, and its bytes.
//!
//! ```text
//! kind 1 | from 8 | to 8 | term 8 | fields of the kind, integers big-endian
//! entry: index 8 | term 8 | kind 1 | length 4 | data
//! ```
//! Parsing accepts what encoding writes and nothing else; a peer's bytes can cause a refusal and never a panic.

/// A node, by the number that its 8-byte tag is.
pub type NodeId = u64;

/// Bytes of one entry's data.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;
/// Entries of one message.
pub const ENTRIES_MAX: usize = 4096;
/// Voters and learners of one group.
pub const MEMBERS_MAX: usize = 64;

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A leader's first entry of its term.
    Empty,
    /// A command of the state machine.
    Command,
    /// A change of the members.
    Members,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Place in the log, from 1.
    pub index: u64,
    /// Term of the leader that made it.
    pub term: u64,
    /// What it is for.
    pub kind: EntryKind,
    /// Opaque here, except for `Members`.
    pub data: Vec<u8>,
}

/// Who decides (S36): a majority of `voters`, and of `outgoing` too while a change is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Sorted, without doubles.
    pub voters: Vec<NodeId>,
    /// The voters before, while the change from them is not finished.
    pub outgoing: Vec<NodeId>,
    /// Get all entries and decide nothing.
    pub learners: Vec<NodeId>,
}

/// State of the machine after an entry, in place of all entries up to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Index of the last entry in it.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Who the members were then.
    pub members: Members,
    /// The machine's state, opaque here.
    pub data: Vec<u8>,
}

/// One message. Lost, doubled, late and reordered messages are legal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// The sender's term; for `PreVote`, the term it would begin.
    pub term: u64,
    /// What.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Would you vote for me?
    PreVote {
        /// The end of the sender's log.
        last_index: u64,
        /// Its term.
        last_term: u64,
    },
    /// Answer to `PreVote`; granted ones carry the term that was asked for.
    PreVoteReply {
        /// Whether it would.
        granted: bool,
    },
    /// Vote for me.
    Vote {
        /// The end of the sender's log.
        last_index: u64,
        /// Its term.
        last_term: u64,
        /// The leader asked the sender to take over: to be heard while it is alive.
        transfer: bool,
    },
    /// Answer to `Vote`.
    VoteReply {
        /// Whether the vote is the sender's.
        granted: bool,
    },
    /// Entries from the leader, or none: then it is a heartbeat.
    Append {
        /// The entry before the first one.
        prev_index: u64,
        /// Its term.
        prev_term: u64,
        /// What the leader knows to be committed.
        commit: u64,
        /// Numbers the leader's rounds of heartbeats.
        round: u64,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// Answer to `Append`.
    AppendReply {
        /// Whether the logs agree up to the entries sent.
        ok: bool,
        /// If so, up to where; else a place at or before which they may.
        index: u64,
        /// The round answered.
        round: u64,
    },
    /// A piece of a snapshot.
    Install {
        /// As in [`Snapshot`].
        index: u64,
        /// As in [`Snapshot`].
        term: u64,
        /// As in [`Snapshot`].
        members: Members,
        /// Bytes of the whole state.
        total: u64,
        /// CRC32C of the whole state.
        checksum: u32,
        /// Where this piece begins.
        offset: u64,
        /// The leader's round.
        round: u64,
        /// The piece.
        data: Vec<u8>,
    },
    /// Answer to `Install`: send on from `offset`.
    InstallReply {
        /// The snapshot's.
        index: u64,
        /// Bytes that are here.
        offset: u64,
        /// The round answered.
        round: u64,
    },
    /// Begin an election at once: the leader hands over.
    TimeoutNow,
}

/// Why bytes or a message are refused: one of the reject reasons of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not the bytes of a message.
    Format,
    /// Not from a member.
    Member,
    /// Not to us.
    Address,
    /// A term too far ahead to be one that was reached.
    Term,
    /// Entries out of order, too large, or in conflict with what is committed.
    Entry,
    /// A piece of a snapshot that does not fit.
    Snapshot,
}

impl Refused {
    /// The reason as the registry writes it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Member => "member",
            Self::Address => "address",
            Self::Term => "term",
            Self::Entry => "entry",
            Self::Snapshot => "snapshot",
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Refused> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Refused::Format)?;
        self.0 = rest;
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8, Refused> {
        Ok(self.take(1)?[0])
    }

    fn flag(&mut self) -> Result<bool, Refused> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Refused::Format),
        }
    }

    fn u32(&mut self) -> Result<u32, Refused> {
        let bytes = self.take(4)?.try_into().map_err(|_| Refused::Format)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn u64(&mut self) -> Result<u64, Refused> {
        let bytes = self.take(8)?.try_into().map_err(|_| Refused::Format)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn ids(&mut self) -> Result<Vec<NodeId>, Refused> {
        let count = usize::from(self.u8()?);
        if count > MEMBERS_MAX {
            return Err(Refused::Format);
        }
        let ids = (0..count)
            .map(|_| self.u64())
            .collect::<Result<Vec<_>, _>>()?;
        if ids.windows(2).all(|pair| pair[0] < pair[1]) {
            Ok(ids)
        } else {
            Err(Refused::Format)
        }
    }

    fn members(&mut self) -> Result<Members, Refused> {
        Ok(Members {
            voters: self.ids()?,
            outgoing: self.ids()?,
            learners: self.ids()?,
        })
    }

    fn entry(&mut self) -> Result<Entry, Refused> {
        let (index, term) = (self.u64()?, self.u64()?);
        let kind = match self.u8()? {
            0 => EntryKind::Empty,
            1 => EntryKind::Command,
            2 => EntryKind::Members,
            _ => return Err(Refused::Format),
        };
        let length = self.u32()? as usize;
        if length > ENTRY_BYTES_MAX {
            return Err(Refused::Entry);
        }
        let data = self.take(length)?.to_vec();
        Ok(Entry {
            index,
            term,
            kind,
            data,
        })
    }
}

impl Members {
    /// The data of a `Members` entry.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for ids in [&self.voters, &self.outgoing, &self.learners] {
            out.push(ids.len() as u8);
            out.extend(ids.iter().flat_map(|id| id.to_be_bytes()));
        }
        out
    }

    /// Read it.
    pub fn decode(data: &[u8]) -> Result<Self, Refused> {
        let mut reader = Reader(data);
        let members = reader.members()?;
        if reader.0.is_empty() && !members.voters.is_empty() {
            Ok(members)
        } else {
            Err(Refused::Format)
        }
    }
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.extend(entry.index.to_be_bytes());
    out.extend(entry.term.to_be_bytes());
    out.push(entry.kind as u8);
    out.extend((entry.data.len() as u32).to_be_bytes());
    out.extend(&entry.data);
}

impl Message {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.body.kind()];
        for number in [self.from, self.to, self.term] {
            out.extend(number.to_be_bytes());
        }
        self.body.put(&mut out);
        out
    }

    /// Read a message.
    pub fn decode(data: &[u8]) -> Result<Self, Refused> {
        let mut reader = Reader(data);
        let kind = reader.u8()?;
        let (from, to, term) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let body = Body::take(kind, &mut reader)?;
        if reader.0.is_empty() {
            Ok(Self {
                from,
                to,
                term,
                body,
            })
        } else {
            Err(Refused::Format)
        }
    }
}

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Self::PreVote { .. } => 1,
            Self::PreVoteReply { .. } => 2,
            Self::Vote { .. } => 3,
            Self::VoteReply { .. } => 4,
            Self::Append { .. } => 5,
            Self::AppendReply { .. } => 6,
            Self::Install { .. } => 7,
            Self::InstallReply { .. } => 8,
            Self::TimeoutNow => 9,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        let mut numbers = |numbers: &[u64]| {
            out.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        };
        match self {
            Self::PreVote {
                last_index,
                last_term,
            } => numbers(&[*last_index, *last_term]),
            Self::PreVoteReply { granted } | Self::VoteReply { granted } => {
                out.push(u8::from(*granted));
            }
            Self::Vote {
                last_index,
                last_term,
                transfer,
            } => {
                numbers(&[*last_index, *last_term]);
                out.push(u8::from(*transfer));
            }
            Self::Append {
                prev_index,
                prev_term,
                commit,
                round,
                entries,
            } => {
                numbers(&[*prev_index, *prev_term, *commit, *round]);
                out.extend((entries.len() as u32).to_be_bytes());
                for entry in entries {
                    put_entry(out, entry);
                }
            }
            Self::AppendReply { ok, index, round } => {
                numbers(&[*index, *round]);
                out.push(u8::from(*ok));
            }
            Self::Install {
                index,
                term,
                members,
                total,
                checksum,
                offset,
                round,
                data,
            } => {
                numbers(&[*index, *term, *total, *offset, *round]);
                out.extend(checksum.to_be_bytes());
                out.extend(members.encode());
                out.extend((data.len() as u32).to_be_bytes());
                out.extend(data);
            }
            Self::InstallReply {
                index,
                offset,
                round,
            } => numbers(&[*index, *offset, *round]),
            Self::TimeoutNow => {}
        }
    }

    fn take(kind: u8, reader: &mut Reader<'_>) -> Result<Self, Refused> {
        Ok(match kind {
            1 => Self::PreVote {
                last_index: reader.u64()?,
                last_term: reader.u64()?,
            },
            2 => Self::PreVoteReply {
                granted: reader.flag()?,
            },
            3 => Self::Vote {
                last_index: reader.u64()?,
                last_term: reader.u64()?,
                transfer: reader.flag()?,
            },
            4 => Self::VoteReply {
                granted: reader.flag()?,
            },
            5 => {
                let (prev_index, prev_term) = (reader.u64()?, reader.u64()?);
                let (commit, round) = (reader.u64()?, reader.u64()?);
                let count = reader.u32()? as usize;
                if count > ENTRIES_MAX {
                    return Err(Refused::Entry);
                }
                let entries = (0..count)
                    .map(|_| reader.entry())
                    .collect::<Result<_, _>>()?;
                Self::Append {
                    prev_index,
                    prev_term,
                    commit,
                    round,
                    entries,
                }
            }
            6 => {
                let (index, round) = (reader.u64()?, reader.u64()?);
                Self::AppendReply {
                    ok: reader.flag()?,
                    index,
                    round,
                }
            }
            7 => {
                let (index, term, total) = (reader.u64()?, reader.u64()?, reader.u64()?);
                let (offset, round, checksum) = (reader.u64()?, reader.u64()?, reader.u32()?);
                let members = reader.members()?;
                let length = reader.u32()? as usize;
                let data = reader.take(length)?.to_vec();
                Self::Install {
                    index,
                    term,
                    members,
                    total,
                    checksum,
                    offset,
                    round,
                    data,
                }
            }
            8 => Self::InstallReply {
                index: reader.u64()?,
                offset: reader.u64()?,
                round: reader.u64()?,
            },
            9 => Self::TimeoutNow,
            _ => return Err(Refused::Format),
        })
    }
}
