"""Every closed list of Meshfold.

Generated from core/registry.toml by tools/registry.py: change that file instead.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag, StrEnum
from typing import Final, Literal

__all__ = (
    "ABSORBING_TAINTS",
    "Action",
    "CONTRACTS",
    "Contract",
    "DROP_REASONS",
    "DropReason",
    "ExitCode",
    "FRAME_CLASSES",
    "FrameKind",
    "LAYERS",
    "OVERFLOW_POLICIES",
    "Overflow",
    "PERFECT_TAINTS",
    "PLANES",
    "RECEIPTS",
    "REJECT_REASONS",
    "TAINT_DOMAINS",
    "TIME_KINDS",
    "Taint",
    "VARIANTS",
    "VARIANT_PLANES",
)


class Action(IntFlag):
    """What a grant allows, as bits."""

    META_READ = 1
    PAYLOAD_OPEN = 2
    WRITE_REQUEST = 4
    REPLAY_READ = 8
    DEBUG_READ = 16
    VALIDATE = 32
    KEY_ADMIN = 64
    CONSENSUS_MEMBER = 128
    DELEGATE = 256
    OWN = 512


class ExitCode(IntEnum):
    """What a command says by its exit code."""

    HOLDS = 0
    DOES_NOT_HOLD = 1
    UNUSABLE_INPUT = 2
    REFUSED = 3


class FrameKind(IntEnum):
    """The kinds of frames on the wire."""

    EVENT = 1
    WRITE = 3
    DEBUG = 4
    QUERY = 5
    ANSWER = 6
    CHUNK = 7
    CREDIT = 8
    ACK = 9
    KEY_PACKET = 10
    POLICY = 11
    HEARTBEAT = 12
    CONSENSUS = 13
    ENROL = 14


class Taint(StrEnum):
    """Everything that can be less than perfect about an event."""

    TIME_PERFECT = "TIME_PERFECT"
    TIME_ESTIMATED = "TIME_ESTIMATED"
    TIME_REPAIRED = "TIME_REPAIRED"
    TIME_PROCESSING = "TIME_PROCESSING"
    TIME_UNKNOWN = "TIME_UNKNOWN"
    ORDER_STRICT = "ORDER_STRICT"
    ORDER_KEYED = "ORDER_KEYED"
    ORDER_RESEQUENCED = "ORDER_RESEQUENCED"
    ORDER_POSSIBLY_OUT_OF_ORDER = "ORDER_POSSIBLY_OUT_OF_ORDER"
    DELIVERY_COMPLETE = "DELIVERY_COMPLETE"
    DELIVERY_SAMPLED = "DELIVERY_SAMPLED"
    DELIVERY_COALESCED = "DELIVERY_COALESCED"
    DELIVERY_DROPPED = "DELIVERY_DROPPED"
    DELIVERY_DUPLICATED = "DELIVERY_DUPLICATED"
    DET_DETERMINISTIC = "DET_DETERMINISTIC"
    DET_SEEDED_ENTROPY = "DET_SEEDED_ENTROPY"
    DET_PROCESSING_CLOCK = "DET_PROCESSING_CLOCK"
    DET_EXTERNAL_LOOKUP = "DET_EXTERNAL_LOOKUP"
    DET_NONREPLAYABLE = "DET_NONREPLAYABLE"
    SCHED_READY = "SCHED_READY"
    SCHED_GATED = "SCHED_GATED"
    SCHED_EXPIRED = "SCHED_EXPIRED"
    TRUST_VERIFIED = "TRUST_VERIFIED"
    TRUST_UNVERIFIED = "TRUST_UNVERIFIED"
    TRUST_PLAINTEXT = "TRUST_PLAINTEXT"
    TRUST_MIXED_SOURCES = "TRUST_MIXED_SOURCES"
    TRUST_TAMPER_SUSPECT = "TRUST_TAMPER_SUSPECT"
    COHERENCE_STABLE = "COHERENCE_STABLE"
    COHERENCE_WRITE_PENDING = "COHERENCE_WRITE_PENDING"
    COHERENCE_ECHO_UNMATCHED = "COHERENCE_ECHO_UNMATCHED"
    COHERENCE_STALE_REPORTED = "COHERENCE_STALE_REPORTED"
    COHERENCE_CONFLICT = "COHERENCE_CONFLICT"
    COHERENCE_DRIFT = "COHERENCE_DRIFT"
    LINEAGE_COMPLETE = "LINEAGE_COMPLETE"
    LINEAGE_TRUNCATED = "LINEAGE_TRUNCATED"


DropReason = Literal[
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
]

Overflow = Literal[
    "drop_oldest",
    "drop_newest",
    "coalesce_latest",
    "reject",
]

Contract = Literal[
    "at_most_once",
    "at_least_once",
    "effectively_once",
    "latest",
]

PLANES: Final = (
    "read",
    "write",
    "state",
    "query",
    "debug",
)
LAYERS: Final = (
    "raw",
    "logical",
    "bulk",
    "internal",
    "shadow",
    "ephemeral",
)
TIME_KINDS: Final = (
    "device",
    "ingest",
    "logical",
    "processing",
    "epoch",
    "expiry",
)
CONTRACTS: Final = (
    "at_most_once",
    "at_least_once",
    "effectively_once",
    "latest",
)
RECEIPTS: Final = (
    "queued",
    "durable",
    "stored",
    "replicated",
)
OVERFLOW_POLICIES: Final = (
    "drop_oldest",
    "drop_newest",
    "coalesce_latest",
    "reject",
)
DROP_REASONS: Final = (
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
)
REJECT_REASONS: Final = (
    "short",
    "magic",
    "version",
    "flags",
    "suite",
    "kind",
    "ext",
    "size",
    "route",
    "epoch",
    "policy",
    "unsigned",
    "sig",
    "tag",
    "commit",
    "unwrap",
    "replay",
    "gap",
    "age",
    "incarnation",
    "clock",
    "inflate",
    "batch",
    "chunk",
    "header",
    "limit",
    "root",
    "attenuation",
    "time",
    "depth",
    "delegate",
    "cluster",
    "pop",
    "revoked",
    "format",
    "pattern",
    "key",
    "grant",
    "role",
    "fence",
    "member",
    "address",
    "term",
    "entry",
    "snapshot",
    "conf",
    "relay",
    "schema",
    "decode",
    "type",
    "compat",
    "owner",
    "graph",
)
VARIANTS: Final = (
    "meta",
    "payload",
    "request",
    "desired",
    "reported",
    "effective",
    "ack",
    "event",
    "state",
    "query_request",
    "query_response",
    "debug",
)
VARIANT_PLANES: Final[dict[str, tuple[str, ...]]] = {
    "meta": ("read", "state",),
    "payload": ("read", "state",),
    "request": ("write",),
    "desired": ("write",),
    "reported": ("write",),
    "effective": ("write",),
    "ack": ("write",),
    "event": ("read", "state",),
    "state": ("state",),
    "query_request": ("query",),
    "query_response": ("query",),
    "debug": ("debug",),
}
#: Frame kind -> class token of its subject ("" where that is the asker's inbox).
FRAME_CLASSES: Final[dict[FrameKind, str]] = {
    FrameKind.EVENT: "d",
    FrameKind.WRITE: "w",
    FrameKind.DEBUG: "x",
    FrameKind.QUERY: "q",
    FrameKind.ANSWER: "",
    FrameKind.CHUNK: "",
    FrameKind.CREDIT: "c",
    FrameKind.ACK: "c",
    FrameKind.KEY_PACKET: "k",
    FrameKind.POLICY: "p",
    FrameKind.HEARTBEAT: "h",
    FrameKind.CONSENSUS: "r",
    FrameKind.ENROL: "e",
}
#: Domain -> its values, the perfect one first (S28).
TAINT_DOMAINS: Final[dict[str, tuple[Taint, ...]]] = {
    "time": (
        Taint.TIME_PERFECT,
        Taint.TIME_ESTIMATED,
        Taint.TIME_REPAIRED,
        Taint.TIME_PROCESSING,
        Taint.TIME_UNKNOWN,
    ),
    "order": (
        Taint.ORDER_STRICT,
        Taint.ORDER_KEYED,
        Taint.ORDER_RESEQUENCED,
        Taint.ORDER_POSSIBLY_OUT_OF_ORDER,
    ),
    "delivery": (
        Taint.DELIVERY_COMPLETE,
        Taint.DELIVERY_SAMPLED,
        Taint.DELIVERY_COALESCED,
        Taint.DELIVERY_DROPPED,
        Taint.DELIVERY_DUPLICATED,
    ),
    "determinism": (
        Taint.DET_DETERMINISTIC,
        Taint.DET_SEEDED_ENTROPY,
        Taint.DET_PROCESSING_CLOCK,
        Taint.DET_EXTERNAL_LOOKUP,
        Taint.DET_NONREPLAYABLE,
    ),
    "scheduling": (
        Taint.SCHED_READY,
        Taint.SCHED_GATED,
        Taint.SCHED_EXPIRED,
    ),
    "trust": (
        Taint.TRUST_VERIFIED,
        Taint.TRUST_UNVERIFIED,
        Taint.TRUST_PLAINTEXT,
        Taint.TRUST_MIXED_SOURCES,
        Taint.TRUST_TAMPER_SUSPECT,
    ),
    "coherence": (
        Taint.COHERENCE_STABLE,
        Taint.COHERENCE_WRITE_PENDING,
        Taint.COHERENCE_ECHO_UNMATCHED,
        Taint.COHERENCE_STALE_REPORTED,
        Taint.COHERENCE_CONFLICT,
        Taint.COHERENCE_DRIFT,
    ),
    "lineage": (
        Taint.LINEAGE_COMPLETE,
        Taint.LINEAGE_TRUNCATED,
    ),
}
PERFECT_TAINTS: Final = frozenset(values[0] for values in TAINT_DOMAINS.values())
ABSORBING_TAINTS: Final = frozenset((Taint.DET_NONREPLAYABLE, Taint.TRUST_TAMPER_SUSPECT))
