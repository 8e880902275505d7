//! Every closed list the engine needs.
//!
//! Generated from core/registry.toml by tools/registry.py: change that file instead.

/// Names of all taints; a taint's bit is its position here.
pub const TAINTS: [&str; 35] = [
    "TIME_PERFECT",
    "TIME_ESTIMATED",
    "TIME_REPAIRED",
    "TIME_PROCESSING",
    "TIME_UNKNOWN",
    "ORDER_STRICT",
    "ORDER_KEYED",
    "ORDER_RESEQUENCED",
    "ORDER_POSSIBLY_OUT_OF_ORDER",
    "DELIVERY_COMPLETE",
    "DELIVERY_SAMPLED",
    "DELIVERY_COALESCED",
    "DELIVERY_DROPPED",
    "DELIVERY_DUPLICATED",
    "DET_DETERMINISTIC",
    "DET_SEEDED_ENTROPY",
    "DET_PROCESSING_CLOCK",
    "DET_EXTERNAL_LOOKUP",
    "DET_NONREPLAYABLE",
    "SCHED_READY",
    "SCHED_GATED",
    "SCHED_EXPIRED",
    "TRUST_VERIFIED",
    "TRUST_UNVERIFIED",
    "TRUST_PLAINTEXT",
    "TRUST_MIXED_SOURCES",
    "TRUST_TAMPER_SUSPECT",
    "COHERENCE_STABLE",
    "COHERENCE_WRITE_PENDING",
    "COHERENCE_ECHO_UNMATCHED",
    "COHERENCE_STALE_REPORTED",
    "COHERENCE_CONFLICT",
    "COHERENCE_DRIFT",
    "LINEAGE_COMPLETE",
    "LINEAGE_TRUNCATED",
];

/// The bit of `TIME_PERFECT`.
pub const TIME_PERFECT: u64 = 1 << 0;
/// The bit of `TIME_ESTIMATED`.
pub const TIME_ESTIMATED: u64 = 1 << 1;
/// The bit of `TIME_REPAIRED`.
pub const TIME_REPAIRED: u64 = 1 << 2;
/// The bit of `TIME_PROCESSING`.
pub const TIME_PROCESSING: u64 = 1 << 3;
/// The bit of `TIME_UNKNOWN`.
pub const TIME_UNKNOWN: u64 = 1 << 4;
/// The bit of `ORDER_STRICT`.
pub const ORDER_STRICT: u64 = 1 << 5;
/// The bit of `ORDER_KEYED`.
pub const ORDER_KEYED: u64 = 1 << 6;
/// The bit of `ORDER_RESEQUENCED`.
pub const ORDER_RESEQUENCED: u64 = 1 << 7;
/// The bit of `ORDER_POSSIBLY_OUT_OF_ORDER`.
pub const ORDER_POSSIBLY_OUT_OF_ORDER: u64 = 1 << 8;
/// The bit of `DELIVERY_COMPLETE`.
pub const DELIVERY_COMPLETE: u64 = 1 << 9;
/// The bit of `DELIVERY_SAMPLED`.
pub const DELIVERY_SAMPLED: u64 = 1 << 10;
/// The bit of `DELIVERY_COALESCED`.
pub const DELIVERY_COALESCED: u64 = 1 << 11;
/// The bit of `DELIVERY_DROPPED`.
pub const DELIVERY_DROPPED: u64 = 1 << 12;
/// The bit of `DELIVERY_DUPLICATED`.
pub const DELIVERY_DUPLICATED: u64 = 1 << 13;
/// The bit of `DET_DETERMINISTIC`.
pub const DET_DETERMINISTIC: u64 = 1 << 14;
/// The bit of `DET_SEEDED_ENTROPY`.
pub const DET_SEEDED_ENTROPY: u64 = 1 << 15;
/// The bit of `DET_PROCESSING_CLOCK`.
pub const DET_PROCESSING_CLOCK: u64 = 1 << 16;
/// The bit of `DET_EXTERNAL_LOOKUP`.
pub const DET_EXTERNAL_LOOKUP: u64 = 1 << 17;
/// The bit of `DET_NONREPLAYABLE`.
pub const DET_NONREPLAYABLE: u64 = 1 << 18;
/// The bit of `SCHED_READY`.
pub const SCHED_READY: u64 = 1 << 19;
/// The bit of `SCHED_GATED`.
pub const SCHED_GATED: u64 = 1 << 20;
/// The bit of `SCHED_EXPIRED`.
pub const SCHED_EXPIRED: u64 = 1 << 21;
/// The bit of `TRUST_VERIFIED`.
pub const TRUST_VERIFIED: u64 = 1 << 22;
/// The bit of `TRUST_UNVERIFIED`.
pub const TRUST_UNVERIFIED: u64 = 1 << 23;
/// The bit of `TRUST_PLAINTEXT`.
pub const TRUST_PLAINTEXT: u64 = 1 << 24;
/// The bit of `TRUST_MIXED_SOURCES`.
pub const TRUST_MIXED_SOURCES: u64 = 1 << 25;
/// The bit of `TRUST_TAMPER_SUSPECT`.
pub const TRUST_TAMPER_SUSPECT: u64 = 1 << 26;
/// The bit of `COHERENCE_STABLE`.
pub const COHERENCE_STABLE: u64 = 1 << 27;
/// The bit of `COHERENCE_WRITE_PENDING`.
pub const COHERENCE_WRITE_PENDING: u64 = 1 << 28;
/// The bit of `COHERENCE_ECHO_UNMATCHED`.
pub const COHERENCE_ECHO_UNMATCHED: u64 = 1 << 29;
/// The bit of `COHERENCE_STALE_REPORTED`.
pub const COHERENCE_STALE_REPORTED: u64 = 1 << 30;
/// The bit of `COHERENCE_CONFLICT`.
pub const COHERENCE_CONFLICT: u64 = 1 << 31;
/// The bit of `COHERENCE_DRIFT`.
pub const COHERENCE_DRIFT: u64 = 1 << 32;
/// The bit of `LINEAGE_COMPLETE`.
pub const LINEAGE_COMPLETE: u64 = 1 << 33;
/// The bit of `LINEAGE_TRUNCATED`.
pub const LINEAGE_TRUNCATED: u64 = 1 << 34;

/// For each domain, its perfect value and all its values as bits, in the registry's order (S28).
pub const TAINT_DOMAINS: [(u64, u64); 8] = [
    (TIME_PERFECT, TIME_PERFECT | TIME_ESTIMATED | TIME_REPAIRED | TIME_PROCESSING | TIME_UNKNOWN),
    (ORDER_STRICT, ORDER_STRICT | ORDER_KEYED | ORDER_RESEQUENCED | ORDER_POSSIBLY_OUT_OF_ORDER),
    (DELIVERY_COMPLETE, DELIVERY_COMPLETE | DELIVERY_SAMPLED | DELIVERY_COALESCED | DELIVERY_DROPPED | DELIVERY_DUPLICATED),
    (DET_DETERMINISTIC, DET_DETERMINISTIC | DET_SEEDED_ENTROPY | DET_PROCESSING_CLOCK | DET_EXTERNAL_LOOKUP | DET_NONREPLAYABLE),
    (SCHED_READY, SCHED_READY | SCHED_GATED | SCHED_EXPIRED),
    (TRUST_VERIFIED, TRUST_VERIFIED | TRUST_UNVERIFIED | TRUST_PLAINTEXT | TRUST_MIXED_SOURCES | TRUST_TAMPER_SUSPECT),
    (COHERENCE_STABLE, COHERENCE_STABLE | COHERENCE_WRITE_PENDING | COHERENCE_ECHO_UNMATCHED | COHERENCE_STALE_REPORTED | COHERENCE_CONFLICT | COHERENCE_DRIFT),
    (LINEAGE_COMPLETE, LINEAGE_COMPLETE | LINEAGE_TRUNCATED),
];

/// Why an accepted event is not delivered on an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// `overflow_oldest`
    OverflowOldest = 0,
    /// `overflow_newest`
    OverflowNewest = 1,
    /// `coalesced`
    Coalesced = 2,
    /// `sampled`
    Sampled = 3,
    /// `deadline`
    Deadline = 4,
    /// `link_loss`
    LinkLoss = 5,
    /// `late`
    Late = 6,
    /// `expired`
    Expired = 7,
    /// `epoch_unknown`
    EpochUnknown = 8,
    /// `closed`
    Closed = 9,
    /// `site_expired`
    SiteExpired = 10,
}

/// Names of all drop reasons; a reason's number is its position here.
pub const DROP_REASONS: [&str; 11] = [
    "overflow_oldest",
    "overflow_newest",
    "coalesced",
    "sampled",
    "deadline",
    "link_loss",
    "late",
    "expired",
    "epoch_unknown",
    "closed",
    "site_expired",
];
