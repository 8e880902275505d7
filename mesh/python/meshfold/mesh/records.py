"""What nodes tell each other outside data frames: heartbeats, queries, answers, as JSON inside sealed frames.

Unknown fields are refused: both ends of a mesh speak one version, and what is not understood is not acted on.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

import msgspec
from meshfold.core.errors import FrameRejected, MeshfoldError

__all__ = ("Answer", "Checkpoint", "Credit", "Heartbeat", "Query", "Write", "decode", "encode")

T = TypeVar("T", bound=msgspec.Struct)

#: A time of an event is 64 bits with a sign.
TIME_NS_MIN: Final = -(2**63)
TIME_NS_MAX: Final = 2**63 - 1
#: Body of the largest control frame: below the broker's message limit with room for header and seal.
CONTROL_BYTES_MAX = 900 * 1024


class Checkpoint(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where a shared route stands at its producer (S43): counters of the edge route -> wire."""

    address: str
    schema: dict[str, Any]
    secrecy: str
    #: events ever published on the route by this incarnation
    published: int
    #: first sequence number offered to the wire, 0 while there is none
    first_seq: int
    offered: int
    #: last sequence number handed to the transport, 0 while there is none
    sent_seq: int
    pending: int
    dropped: dict[str, int]
    #: where the sealer stands: a reader after an unclean stop takes nothing below it
    generation: int = 0
    frame_ctr: int = 0


class Heartbeat(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A node's sign of life: who it is, what it may do, what it shares and how far each route got."""

    name: str
    identity: bytes
    grants: list[bytes]
    pid: int
    host: str
    started_ms: int
    counter: int
    #: incarnations this node has heard, by hex tag: a reader knows by its own that its producer sees it
    heard: dict[str, bytes]
    routes: list[Checkpoint]
    reads: list[str]
    groups: list[dict[str, Any]] = []
    #: this life's start record (SR1); empty for one that is not on a disk
    start: bytes = b""
    #: the newest wrapping key's record (WR1), if it was ever replaced
    wrap: bytes = b""
    #: True on the last heartbeat of a clean stop: the counters are final
    closing: bool = False


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Credit(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a reader takes of one life of a producer: events and bytes on top of those up to number `at` (S7).

    `events` None: it holds nobody up any more.
    """

    producer: bytes
    incarnation: bytes
    at: _Count
    events: _Count | None
    payload_bytes: _Count | None = None


class Query(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A command for one node, with the asker's grants: it may be one that sends no heartbeats."""

    command: str
    args: dict[str, Any] = {}
    grants: list[bytes] = []


class Write(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A value for a request route of one node, with the writer's grants and the envelope of the event it shall become."""

    schema: bytes
    value: bytes
    #: how long the owner may wait for a word of the device
    wait_s: float
    grants: list[bytes] = []
    key: str | None = None
    #: ns, as the engine takes it
    time: Annotated[int, msgspec.Meta(ge=TIME_NS_MIN, le=TIME_NS_MAX)] | None = None
    correlation: str | None = None
    parents: list[str] = []
    #: `election:number` of the writer's leadership; empty: it claims none
    token: str = ""


class Answer(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Its answer: a document, or the code and text of the error that refused it, and a rejection's reason."""

    document: dict[str, Any] = {}
    error: str = ""
    message: str = ""
    reason: str = ""

    @classmethod
    def refusing(cls, error: MeshfoldError) -> Answer:
        """The answer that says an error."""
        if isinstance(error, FrameRejected):
            return cls(error=error.code, message=error.detail, reason=error.reason)
        return cls(error=error.code, message=str(error))


def encode(record: msgspec.Struct) -> bytes:
    """Return the record as bytes."""
    return msgspec.json.encode(record)


def decode(data: bytes, kind: type[T]) -> T:
    """Read a record.

    :raises FrameRejected: with reason `decode` if the bytes are not one, or too many
    """
    if len(data) > CONTROL_BYTES_MAX:
        raise FrameRejected("size", f"control record of {len(data)} bytes")
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise FrameRejected("decode", str(error)) from None
