"""Grants as NATS permissions: the outer fence (SECURITY: mapping). Allow lists only, never a deny.

The table of actions is the rule; each row says what the broker lets an action publish and subscribe. What the broker
lets through still has to pass the inner fence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meshfold.core.registry import Action
from meshfold.mesh.broker import Permissions
from meshfold.mesh.subjects import GROUP, Subjects
from meshfold.security import Grant, Identity

__all__ = ("permissions",)

#: action -> (classes published under our own site, classes subscribed from any site)
_TABLE: dict[Action, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Action.OWN: (("m", "d", "x"), ("w", "c")),
    Action.META_READ: (("c",), ("m",)),
    Action.PAYLOAD_OPEN: (("c",), ("d",)),
    Action.WRITE_REQUEST: (("w",), ()),
    Action.DEBUG_READ: ((), ("x",)),
}


def permissions(
    identity: Identity, grants: Iterable[Grant], subjects: Subjects, voters: Sequence[bytes] = ()
) -> Permissions:
    """Return what the broker shall allow this node: its own inbox and key subject, and what its grants name."""
    publish: set[str] = set()
    subscribe = {
        f"{subjects.inbox(identity.tag)}.>",
        subjects.node("k", identity.tag),
        subjects.node("q", identity.tag),
        subjects.every("p"),
    }
    capabilities = [capability for grant in grants for capability in grant.capabilities]
    for capability in capabilities:
        for action, (sends, hears) in _TABLE.items():
            if capability.actions & action:
                publish |= {
                    subjects.pattern(frame_class, capability.pattern, own_site=True) for frame_class in sends
                }
                subscribe |= {
                    subjects.pattern(frame_class, capability.pattern, own_site=False) for frame_class in hears
                }
    tags = [Identity.parse(voter).tag for voter in voters]
    if identity.tag in tags:
        # A voter that holds the issuer lets new nodes in; every voter sends keys and tells the policy.
        subscribe.add(subjects.every("e"))
        publish |= {subjects.every("k"), subjects.node("p", identity.tag)}
        others = [tag for tag in tags if tag != identity.tag]
        if others:
            subscribe.add(subjects.raft(GROUP, identity.tag))
            publish |= {subjects.raft(GROUP, tag) for tag in others}
    if capabilities:
        publish |= {subjects.node("h", identity.tag), subjects.every("q")}
        subscribe.add(subjects.every("h"))
    else:
        # Without a grant a node may ask the voters, and nobody else.
        publish |= {subjects.node("q", tag) for tag in tags}
    # A voter answers the others before it has any grant: without its signature nobody gets one.
    answers = bool(capabilities) or len(tags) > 1 and identity.tag in tags
    return Permissions(pub=tuple(sorted(publish)), sub=tuple(sorted(subscribe)), allow_responses=answers)
