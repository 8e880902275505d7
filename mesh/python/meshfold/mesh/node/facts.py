"""What this node adds to the spans of its events: subjects, sealing, who sent and by which grant."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from meshfold.core import Address
from meshfold.core.errors import WiringError
from meshfold.core.registry import Action
from meshfold.mesh.telemetry import Facts
from meshfold.mesh.telemetry.spans import Value

if TYPE_CHECKING:
    from meshfold.mesh.node.session import Session

__all__ = ("facts_of",)

ROUTES_CACHED: Final = 1024
SUITE: Final = "AES-256-GCM"


def facts_of(session: Session) -> Facts:
    """The facts of a session. Called by the thread that exports: it reads and changes nothing."""
    broker = urlsplit(session.context.url.partition(",")[0])

    @lru_cache(ROUTES_CACHED)
    def address_of(text: str) -> Address | None:
        try:
            return Address.parse(text)
        except WiringError:
            return None

    def route(text: str) -> dict[str, Value]:
        address = address_of(text)
        if address is None:
            return {}
        bridge = session.bridges.outgoing.get(address.text) or session.bridges.incoming.get(address.text)
        plain = bridge is not None and bridge.route.secrecy == "none"
        found: dict[str, Value] = {
            "messaging.destination.name": session.subjects.route("d", address),
            "meshfold.crypto.suite": "none" if plain else SUITE,
        }
        if broker.hostname:
            found["server.address"] = broker.hostname
        if broker.port:
            found["server.port"] = broker.port
        return found

    def sender(producer: bytes, text: str) -> dict[str, Value]:
        identity, address = session.directory.lookup(producer), address_of(text)
        if identity is None or address is None:
            return {}
        found: dict[str, Value] = {"meshfold.principal": identity.name}
        decision = session.book.decide(producer, Action.OWN, address)
        if decision.grant:
            found["meshfold.grant.id"] = decision.grant.hex()
        return found

    return Facts(route, sender)
