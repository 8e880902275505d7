"""Every error Meshfold raises: one family per room, one class per cause.

Each error has a stable `code`, says whether retrying can help (`retryable`), keeps its facts as fields and builds a
message that says what happened, where, and what to do about it. The list is closed; a test makes each one happen.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = (
    "ClockSkew",
    "ConfigError",
    "ConsensusError",
    "CoreError",
    "DecodeError",
    "EncodeError",
    "Fenced",
    "FrameRejected",
    "GrantDenied",
    "GrantExpired",
    "GrantRevoked",
    "KeyMissing",
    "LeaseExpired",
    "MeshError",
    "MeshfoldError",
    "NoQuorum",
    "NotLeader",
    "PayloadDamaged",
    "PayloadGone",
    "QueueFull",
    "SchemaMismatch",
    "SecurityError",
    "StoreDamaged",
    "StoreUnavailable",
    "TaintExceeded",
    "TooLarge",
    "TransportClosed",
    "TransportTimeout",
    "VersionConflict",
    "WiringError",
    "WouldBlock",
)


class MeshfoldError(Exception):
    """The root of all errors.

    :param what: what happened, naming the thing it happened to
    :param fix: what the reader can do about it
    :param fields: the facts, readable as attributes of the same names
    """

    code: ClassVar[str] = "meshfold"
    retryable: ClassVar[bool] = False

    def __init__(self, what: str, *, fix: str = "", **fields: object) -> None:
        super().__init__(f"{what}; {fix}" if fix else what)
        self.what = what
        self.fix = fix
        self.fields = fields

    def __getattr__(self, name: str) -> object:
        fields = self.__dict__.get("fields", {})
        if name in fields:
            return fields[name]
        raise AttributeError(name)


class CoreError(MeshfoldError):
    """The local graph refused or lost something."""

    code = "core"


class SecurityError(MeshfoldError):
    """A grant, a key or a frame does not hold."""

    code = "security"


class ConsensusError(MeshfoldError):
    """The control state cannot be read or changed here and now."""

    code = "consensus"


class MeshError(MeshfoldError):
    """The network, the broker or the configuration is in the way."""

    code = "mesh"


class SchemaMismatch(CoreError):
    """Bytes or a route of one schema met another schema (S1, S5). Fields: `route`, `expected`, `found`."""

    code = "core.schema_mismatch"


class EncodeError(CoreError):
    """A value does not fit its route's schema; nothing was stored and no sequence number used (S3).

    Fields: `route`, `schema`.
    """

    code = "core.encode"


class DecodeError(CoreError):
    """Bytes are not a value of the schema, or not a batch. Fields: `reason` (of REJECT_REASONS), `schema`."""

    code = "core.decode"


class WouldBlock(CoreError):
    """The call would have to wait for credit. Fields: `route`."""

    code = "core.would_block"
    retryable = True


class QueueFull(CoreError):
    """A bounded queue has no room and its overflow rule is to refuse. Fields: `route`, `capacity`."""

    code = "core.queue_full"
    retryable = True


class WiringError(CoreError):
    """A route, edge or operator cannot be made as asked (S38). Fields: `item`."""

    code = "core.wiring"


class TaintExceeded(CoreError):
    """An event is tainted above the declared bound of its route (S29). Fields: `route`, `taints`."""

    code = "core.taint_exceeded"


class PayloadGone(CoreError):
    """The payload was evicted, or was never carried to this reader (S15). Fields: `event`, `route`."""

    code = "core.payload_gone"


class PayloadDamaged(CoreError):
    """An opened payload does not match the digest of what was published (S15). Fields: `route`, `digest`."""

    code = "core.payload_damaged"


class StoreDamaged(CoreError):
    """A durable file is damaged below what was acknowledged. Fields: `path`, `offset`."""

    code = "core.store_damaged"


class StoreUnavailable(CoreError):
    """A durable store cannot be used as asked; nothing of the call was kept unless `because` is `unsure`.

    Fields: `path`, `because` (`full`, `locked`, `unreadable`, `unsure`, `closed`, `files`).
    """

    code = "core.store_unavailable"
    retryable = True


class LeaseExpired(CoreError):
    """A delivery was settled too late: its entry was given to somebody else, or waits again (S13).

    Fields: `event`, `ticket`, `current` (the ticket of who has it now, or None).
    """

    code = "core.lease_expired"


class VersionConflict(CoreError):
    """Somebody else changed it first; nothing of the transaction was kept. Fields: `key`, `expected`, `found`."""

    code = "core.version_conflict"
    retryable = True


class GrantDenied(SecurityError):
    """No grant allows the action. Fields: `principal`, `action`, `route`, `because`."""

    code = "security.grant_denied"


class GrantExpired(SecurityError):
    """The grant that would allow it has expired. Fields: `principal`, `action`, `route`, `not_after_ms`."""

    code = "security.grant_expired"


class GrantRevoked(SecurityError):
    """The grant that would allow it, or one above it, was revoked. Fields: `principal`, `action`, `route`."""

    code = "security.grant_revoked"


class KeyMissing(SecurityError):
    """The key needed to seal or open is not on this node. Fields: `route`, `key_class`, `because`."""

    code = "security.key_missing"
    retryable = True


class FrameRejected(SecurityError):
    """A frame, grant or key packet is refused. Fields: `reason` (of REJECT_REASONS), `detail`."""

    code = "security.frame_rejected"

    def __init__(self, reason: str, detail: str = "", **fields: object) -> None:
        super().__init__(f"refused ({reason})" + (f": {detail}" if detail else ""))
        self.fields = {"reason": reason, "detail": detail, **fields}
        self.reason = reason
        self.detail = detail


class ClockSkew(SecurityError):
    """A peer's clock is too far from ours. Fields: `skew_ms`, `limit_ms`, `peer`."""

    code = "security.clock_skew"
    retryable = True


class NotLeader(ConsensusError):
    """This node does not lead the group; ask the one it names. Fields: `group`, `leader`."""

    code = "consensus.not_leader"
    retryable = True


class Fenced(ConsensusError):
    """A newer holder exists: the token is too old. Fields: `name`, `token`, `highest`."""

    code = "consensus.fenced"


class NoQuorum(ConsensusError):
    """A majority of the voters cannot be reached. Fields: `group`."""

    code = "consensus.no_quorum"
    retryable = True


class TransportClosed(MeshError):
    """The connection to the broker is closed. Fields: `address`, `because`."""

    code = "mesh.transport_closed"
    retryable = True


class TransportTimeout(MeshError):
    """No answer in time. Fields: `subject`, `timeout_s`."""

    code = "mesh.transport_timeout"
    retryable = True


class TooLarge(MeshError):
    """Something is larger than its limit. Fields: `size_bytes`, `limit_bytes`, `item`."""

    code = "mesh.too_large"


class ConfigError(MeshError):
    """Configuration or command-line input cannot be used. Fields: `item`."""

    code = "mesh.config"
