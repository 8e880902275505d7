"""What a node's bridges need for credit over the wire, put together of its session's parts (S7, S8)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from meshfold.core import Address, Route
from meshfold.core.errors import WiringError
from meshfold.core.policy import FlowPolicy, builtin_policy, resolve
from meshfold.core.registry import Action, FrameKind
from meshfold.mesh.bridge.credit_desk import CreditDesk
from meshfold.mesh.records import Credit, encode

if TYPE_CHECKING:
    from meshfold.mesh.node.session import Session

__all__ = ("bridge_policy", "credit_desk", "credit_sender")

#: What holds for a bridge where nobody said anything: what waits for the mesh never holds a publisher up.
DEFAULT: Final = FlowPolicy("propagate", None, "none", "queued", "drop_oldest")


def bridge_policy(session: Session, route: Route[Any], flow: FlowPolicy | None) -> FlowPolicy:
    """The policy of an outgoing bridge: what `share` was told, the route's, the graph's, the bridge's own (S8).

    :raises WiringError: for one that a bridge cannot keep
    """
    default, sources, _ = session.graph.configured_flow()
    policy = resolve([flow, sources.get(route), default, DEFAULT, builtin_policy(route)])
    if policy.overflow in ("deadline_drop", "spill_to_store"):
        raise WiringError(
            f"a bridge has neither a deadline nor a folder: {policy.overflow}",
            fix="share what a mailbox with that rule delivers",
            item=route.text,
        )
    return policy


def credit_desk(session: Session, route: Route[Any], policy: FlowPolicy) -> CreditDesk | None:
    """Where far readers tell their credit; None where the policy does not let them hold the route up."""
    if policy.backpressure != "propagate":
        return None

    def may_read(tag: bytes, address: Address) -> bool:
        actions = (Action.META_READ, Action.PAYLOAD_OPEN)
        return any(session.book.decide(tag, action, address).allowed for action in actions)

    return CreditDesk(
        route.addr,
        me=(session.identity.tag, session.graph.incarnation),
        transport=session.transport,
        opener=session.opener,
        subjects=session.subjects,
        may_read=may_read,
        reject=session.ledger.reject,
    )


def credit_sender(session: Session, route: Route[Any]) -> Callable[[Credit], Awaitable[None]]:
    """What sends words of credit for a route, sealed under the members' key."""
    subject = session.subjects.route("c", route.addr)

    async def send(credit: Credit) -> None:
        frame = session.sealer.seal_members(
            FrameKind.CREDIT,
            encode(credit),
            hlc=session.hlc.stamp(),
            policy_epoch=session.policy_epoch,
            subject=subject,
        )
        await session.transport.publish(subject, frame)

    return send
