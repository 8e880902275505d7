"""Old keys for grants with REPLAY_READ: which epochs of which nodes of the tree a range of policy epochs opens.

A key epoch counts by the policy epoch it began under. A node's key leads to everything below it, so an old epoch of a node
is given only where no epoch that began below it lies outside the range; where one does, the raised nodes below stand for
themselves. The payloads' keys come with PAYLOAD_OPEN only, the metadata's with META_READ only, and none without a range.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from meshfold.core.errors import FrameRejected
from meshfold.core.registry import Action
from meshfold.security.capability import Capability, pattern_covers
from meshfold.security.caveat import CaveatKind
from meshfold.security.epochs import Raise, Vector
from meshfold.security.grant import Grant

__all__ = ("PastSlot", "past_slots")

#: Old keys in one packet; a grant of more is narrowed to a pattern or a range.
PAST_MAX: Final = 1_024
_CLASSES: Final = {Action.META_READ: "m", Action.PAYLOAD_OPEN: "d", Action.DEBUG_READ: "x"}
Path = tuple[str, ...]


class PastSlot(NamedTuple):
    """A key to deliver: of a class, at a node of the tree, in an epoch of it."""

    key_class: str
    path: Path
    vector: Vector


class _Term(NamedTuple):
    """An epoch of a node, and the policy epoch it began under."""

    vector: Vector
    policy_epoch: int


def _path(pattern: str) -> Path:
    return tuple(token for token in pattern.split(".") if token != ">")


def _terms(raises: Sequence[Raise], path: Path) -> list[_Term]:
    """Every epoch a node ever had, oldest first."""
    own = [one for one in raises if one.shreddable and one.path == path]
    if own:
        return [_Term(one.vector, one.policy_epoch) for one in own]
    size = len(path) + 1
    terms = [_Term((0,) * size, 0)]
    terms += [
        _Term((one.vector + (0,) * size)[:size], one.policy_epoch)
        for one in raises
        if not one.shreddable and path[: len(one.path)] == one.path
    ]
    return terms


def _whole(raises: Sequence[Raise], path: Path, vector: Vector, last: int) -> bool:
    """Whether no epoch that began below a node during one of its own lies beyond the range."""
    return all(
        one.policy_epoch <= last
        for one in raises
        if not one.shreddable
        and len(one.path) > len(path)
        and one.path[: len(path)] == path
        and one.vector[: len(vector)] == vector
    )


def _nodes(raises: Sequence[Raise], path: Path) -> list[Path]:
    """The node of a grant and every node below it that was ever raised, from above."""
    below = {one.path for one in raises if len(one.path) > len(path) and one.path[: len(path)] == path}
    return [path, *sorted(below, key=len)]


def _classes(capability: Capability, capabilities: Iterable[Capability]) -> list[str]:
    """Classes whose keys its holder may have where the capability replays."""
    held = Action(0)
    for one in capabilities:
        if pattern_covers(one.pattern, capability.pattern):
            held |= one.actions
    return [key_class for action, key_class in _CLASSES.items() if held & action]


def past_slots(grants: Iterable[Grant], raises: Sequence[Raise]) -> list[PastSlot]:
    """Which keys of past and present epochs the replay capabilities of these grants open.

    :param raises: every raise there ever was, in its order
    :raises FrameRejected: with reason `limit` if they are too many for one packet
    """
    capabilities = [one for grant in grants for one in grant.capabilities]
    found: dict[PastSlot, None] = {}
    for capability in capabilities:
        spans = [one.values for one in capability.caveats if one.kind is CaveatKind.EPOCHS]
        if not capability.actions & Action.REPLAY_READ or not spans:
            continue
        first, last = max(span[0] for span in spans), min(span[1] for span in spans)
        given: set[tuple[Path, Vector]] = set()
        for path in _nodes(raises, _path(capability.pattern)):
            for term in _terms(raises, path):
                if not first <= term.policy_epoch <= last or not _whole(raises, path, term.vector, last):
                    continue
                above = ((path[:depth], term.vector[: depth + 1]) for depth in range(len(path)))
                if any(one in given for one in above):
                    continue
                given.add((path, term.vector))
                for key_class in _classes(capability, capabilities):
                    found[PastSlot(key_class, path, term.vector)] = None
    if len(found) > PAST_MAX:
        raise FrameRejected(
            "limit", f"{len(found)} old keys for one grantee; narrow the pattern or the range"
        )
    return list(found)
