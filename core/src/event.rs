//! One event: an immutable envelope with its payload.
//!
//! What every event has stands in `Event`; what most have not, in an `Extra` that is there only where it says something.
//! An event is made for every publish, so its size is what a publish costs.

use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::payload::Payload;

/// Eight bytes that name a producer, an incarnation or a route.
pub type Tag = [u8; 8];

/// Parents are kept as at most this many ranges; more is `LINEAGE_TRUNCATED` (S30).
pub const PARENT_RANGES_MAX: usize = 64;

/// A run of consecutive events of one route and incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentRange {
    /// Who made them.
    pub producer: Tag,
    /// In which life.
    pub incarnation: Tag,
    /// On which route.
    pub route: Tag,
    /// First sequence number.
    pub first: u64,
    /// Last sequence number, not below `first`.
    pub last: u64,
}

/// An event id in its parts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct EventId {
    /// Who made it.
    pub producer: Tag,
    /// In which life.
    pub incarnation: Tag,
    /// On which route.
    pub route: Tag,
    /// Its number there, from 1 (S2).
    pub seq: u64,
}

/// The envelope and payload of one event. The fields of `Extra` read as if they stood here.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Event {
    /// Tag of the route's address.
    pub route: Tag,
    /// The graph that made it.
    pub producer: Tag,
    /// The life of the producer in which it was made.
    pub incarnation: Tag,
    /// Number on the route in that incarnation, from 1 (S2).
    pub seq: u64,
    /// Number given by the graph that relayed it to here, 0 where it was made here (S2).
    pub seq_link: u64,
    /// Device time, ns.
    pub time: i64,
    /// When this graph took it in, ns.
    pub ingest: i64,
    /// Taint bits (registry).
    pub taints: u64,
    /// Whether the root of the trace decided to record it.
    pub sampled: bool,
    /// The encoded value; None where only metadata travelled.
    pub payload: Option<Payload>,
    /// Everything else; None: all of it is as usual.
    pub extra: Option<Arc<Extra>>,
}

/// Envelope fields that most events leave as they are.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Extra {
    /// Logical time.
    pub logical: u64,
    /// Control epoch.
    pub epoch: u64,
    /// Quality-of-service class.
    pub qos: u8,
    /// W3C trace id; None: the usual one.
    pub trace: Option<[u8; 16]>,
    /// The event that began this chain of cause and effect; None: this one.
    pub causality: Option<EventId>,
    /// Clock domain of `time`; None: the system clock.
    pub clock: Option<Arc<str>>,
    /// Partition key.
    pub key: Option<Arc<str>>,
    /// What request or job it belongs to.
    pub correlation: Option<Arc<str>>,
    /// The operator that made it; None: a direct publish.
    pub operator: Option<Arc<str>>,
    /// Reference to a payload kept elsewhere.
    pub payload_ref: Option<Arc<str>>,
    /// Guards that had to hold.
    pub guards: Vec<Arc<str>>,
    /// Security labels.
    pub labels: Vec<Arc<str>>,
    /// Causes, as ranges.
    pub parents: Parents,
}

static USUAL: Extra = Extra {
    logical: 0,
    epoch: 0,
    qos: 0,
    trace: None,
    causality: None,
    clock: None,
    key: None,
    correlation: None,
    operator: None,
    payload_ref: None,
    guards: Vec::new(),
    labels: Vec::new(),
    parents: Parents::None,
};

/// Causes as ranges. One is held in place, for what an operator makes of one event has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Parents {
    /// None.
    #[default]
    None,
    /// One range.
    One([ParentRange; 1]),
    /// Several.
    Many(Box<[ParentRange]>),
}

impl Deref for Parents {
    type Target = [ParentRange];

    fn deref(&self) -> &[ParentRange] {
        match self {
            Self::None => &[],
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

impl From<Vec<ParentRange>> for Parents {
    fn from(ranges: Vec<ParentRange>) -> Self {
        match ranges[..] {
            [] => Self::None,
            [one] => Self::One([one]),
            _ => Self::Many(ranges.into()),
        }
    }
}

/// Trace id of an event that begins a trace: spread over 128 bits from its id, so that it need not travel.
///
/// Two lanes of the splitmix64 finaliser over the four words of the id. Ids are unique, so traces are; secrecy is not
/// asked of them.
pub fn root_trace(id: &EventId) -> [u8; 16] {
    let words = [id.producer, id.incarnation, id.route].map(u64::from_be_bytes);
    let mut trace = [0; 16];
    for (half, start) in trace.chunks_exact_mut(8).zip([TRACE_LANE_1, TRACE_LANE_2]) {
        let lane = words
            .into_iter()
            .chain([id.seq])
            .fold(start, |lane, word| mix(lane ^ word));
        half.copy_from_slice(&lane.to_be_bytes());
    }
    trace
}

const TRACE_LANE_1: u64 = 0x9e37_79b9_7f4a_7c15;
const TRACE_LANE_2: u64 = 0x3c6e_f372_fe94_f82a;

/// splitmix64: one step of the generator and its finaliser.
pub(crate) fn mix(lane: u64) -> u64 {
    let z = lane.wrapping_add(TRACE_LANE_1);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Deref for Event {
    type Target = Extra;

    fn deref(&self) -> &Extra {
        self.extra.as_deref().unwrap_or(&USUAL)
    }
}

impl Extra {
    /// For an event: None where it says nothing.
    pub fn held(self) -> Option<Arc<Self>> {
        (self != USUAL).then(|| Arc::new(self))
    }
}

impl Event {
    /// What it says beyond the usual, to be changed.
    pub fn extra_mut(&mut self) -> &mut Extra {
        Arc::make_mut(self.extra.get_or_insert_default())
    }

    /// W3C trace id.
    pub fn trace(&self) -> [u8; 16] {
        self.trace.unwrap_or_else(|| self.usual_trace())
    }

    /// The trace this event is in unless it says otherwise: that of the event which began its chain (S30).
    pub fn usual_trace(&self) -> [u8; 16] {
        root_trace(&self.causality.unwrap_or_else(|| self.id()))
    }

    /// The event's id.
    pub fn id(&self) -> EventId {
        EventId {
            producer: self.producer,
            incarnation: self.incarnation,
            route: self.route,
            seq: self.seq,
        }
    }
}

impl EventId {
    /// The range of this one event.
    pub fn range(self) -> ParentRange {
        ParentRange {
            producer: self.producer,
            incarnation: self.incarnation,
            route: self.route,
            first: self.seq,
            last: self.seq,
        }
    }
}

/// Add one parent, extending a range where it continues; false where the limit was hit.
pub fn add_parent(parents: &mut Vec<ParentRange>, id: EventId) -> bool {
    add_range(parents, id.range())
}

/// Add a range of parents, extending one where it continues; false where the limit was hit.
pub fn add_range(parents: &mut Vec<ParentRange>, new: ParentRange) -> bool {
    // From the end: what is added mostly continues what was added last.
    for range in parents.iter_mut().rev() {
        let same = range.producer == new.producer
            && range.incarnation == new.incarnation
            && range.route == new.route;
        if same
            && new.first <= range.last.saturating_add(1)
            && range.first <= new.last.saturating_add(1)
        {
            range.first = range.first.min(new.first);
            range.last = range.last.max(new.last);
            return true;
        }
    }
    if parents.len() >= PARENT_RANGES_MAX {
        return false;
    }
    parents.push(new);
    true
}
