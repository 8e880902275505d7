"""The bridges of a session: which routes this node shares and reads, and when a frame may be sealed for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from meshfold.consensus import Fence
from meshfold.core import Route
from meshfold.core.errors import KeyMissing, MeshfoldError, WiringError
from meshfold.core.policy import FlowPolicy
from meshfold.core.registry import Action
from meshfold.mesh.bridge import IncomingBridge, OutgoingBridge
from meshfold.mesh.node.crediting import bridge_policy, credit_desk, credit_sender
from meshfold.mesh.node.served_writes import ServedWrites
from meshfold.mesh.node.writing import check_request_route

if TYPE_CHECKING:
    from meshfold.mesh.node.session import Session

__all__ = ("Bridges",)

#: One question to the voters that changes keys.
DECLARE_S: Final = 5.0


class Bridges:
    """One session's, by address."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.outgoing: dict[str, OutgoingBridge] = {}
        self.incoming: dict[str, IncomingBridge] = {}
        #: what takes the requests of the request routes among those that are shared
        self.served: dict[str, ServedWrites] = {}

    def share(
        self, route: Route[Any], express: bool, fence: Fence | None, flow: FlowPolicy | None = None
    ) -> OutgoingBridge:
        """Make the outgoing bridge of a route, or return the one there is."""
        session = self._session
        known = self.outgoing.get(route.address)
        if known is not None and known.state != "closed":
            if fence is not None:
                raise WiringError(
                    f"{route.text} is shared already",
                    fix="give the fence at the first share",
                    item=route.text,
                )
            return known
        if route.addr.layer == "ephemeral":
            raise WiringError(
                f"{route.text} is ephemeral, so it is private to its process (S42)",
                fix="promote what others may read to a normal route",
                item=route.text,
            )
        policy = bridge_policy(session, route, flow)
        self.require(Action.OWN, route)
        session.safety.require_fresh()
        if route.secrecy != "none" and not route.shreddable:
            session.keyring.key_for("d", route.addr, session.hlc.now_ms())
        bridge = OutgoingBridge(
            session.graph,
            route,
            loop=session.loop,
            transport=session.transport,
            sealer=session.sealer,
            subjects=session.subjects,
            hlc=session.hlc,
            policy_epoch=lambda: session.policy_epoch,
            meta_wanted=self._meta_wanted,
            may_send=self._may_send,
            prepare=self._declare_shreddable,
            express=express,
            flow=policy,
            credit=credit_desk(session, route, policy),
            writes=self._serve_writes(route, fence),
        )
        self.outgoing[route.address] = bridge
        return bridge

    def _serve_writes(self, route: Route[Any], fence: Fence | None) -> ServedWrites | None:
        session = self._session
        if route.addr.variant != "request":
            if fence is not None:
                check_request_route(route)
            return None
        served = ServedWrites(
            session.party,
            graph=session.graph,
            route=route,
            fence=fence,
            book=session.book,
            budgets=session.budgets,
            reject=session.ledger.reject,
            denied=session.ledger.denied,
        )
        self.served[route.address] = served
        return served

    async def _declare_shreddable(self, route: Route[Any]) -> None:
        """Before a shreddable route is first shared, the voters take it out of the key tree."""
        if route.shreddable and not self._session.keyring.epochs.outside(route.addr.tokens):
            await self._session.ask_voters.decided("key_declare", {"route": route.address}, DECLARE_S)

    def _may_send(self, route: Route[Any], at_ms: int) -> bool:
        """Whether a frame may be sealed now: a policy not too old, and the keys of the epoch in force."""
        session = self._session
        if not session.safety.may_send():
            return False
        if route.secrecy == "none":
            return True
        if route.shreddable and not session.keyring.epochs.outside(route.addr.tokens):
            session.safety.lack()
            return False
        try:
            for key_class in ("m", "d"):
                session.keyring.key_for(key_class, route.addr, at_ms)
        except KeyMissing:
            session.safety.lack()
            return False
        return True

    def _meta_wanted(self, address: str) -> bool:
        session = self._session
        return any(
            f"m {address}" in heartbeat.reads
            for tag in session.directory.tags()
            if session.directory.alive(tag) and (heartbeat := session.directory.last(tag)) is not None
        )

    def read(self, route: Route[Any]) -> IncomingBridge:
        """Make the incoming bridge of a route: whole with PAYLOAD_OPEN, else metadata only."""
        session = self._session
        known = self.incoming.get(route.address)
        if known is not None and known.state not in ("closed", "failed"):
            return known
        form: Literal["d", "m"] = "d"
        self.require(Action.META_READ, route)
        session.safety.require_fresh()
        if not session.book.decide(session.identity.tag, Action.PAYLOAD_OPEN, route.addr).allowed:
            form = "m"
        bridge = IncomingBridge(
            session.graph,
            route,
            loop=session.loop,
            transport=session.transport,
            opener=session.opener,
            subjects=session.subjects,
            hlc=session.hlc,
            form=form,
            reject=session.ledger.reject,
            safety=session.safety,
            send_credit=credit_sender(session, route),
        )
        self.incoming[route.address] = bridge
        return bridge

    def require(self, action: Action, route: Route[Any]) -> None:
        """Go on only if this node may; else it is noted as a refusal.

        :raises GrantDenied: naming action and route
        """
        session = self._session
        try:
            session.book.require(session.identity.tag, action, route.addr)
        except MeshfoldError as error:
            session.ledger.refuse(route.text, action.name or "", str(error))
            raise

    def wake(self) -> None:
        """Keys or policy have changed: what waited for that goes on."""
        for bridge in self.outgoing.values():
            bridge.wake()

    def ended(self, tag: bytes, incarnation: bytes, *, clean: bool) -> None:
        """Note that a producer's life has ended: what it still had sent is known if it said goodbye."""
        for bridge in self.incoming.values():
            bridge.gone(tag, incarnation, clean=clean)

    async def close(self) -> None:
        """Flush and end all; one that cannot be flushed is a problem."""
        for bridge in (*self.outgoing.values(), *self.incoming.values()):
            try:
                await bridge.close()
            except (MeshfoldError, KeyMissing) as error:
                self._session.ledger.problems.append(f"closing {bridge.route.text}: {error}")
