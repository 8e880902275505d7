"""Asking another node to write: the owner of a request route is found, asked in a sealed box, and its answer returned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from meshfold.consensus import Token
from meshfold.core import Event, Route
from meshfold.core.errors import ConfigError, TooLarge, TransportTimeout, WiringError
from meshfold.core.registry import Action, FrameKind
from meshfold.mesh.node.members import HEARTBEAT_S
from meshfold.mesh.node.party import Party
from meshfold.mesh.node.served_writes import ServedWrites
from meshfold.mesh.records import TIME_NS_MAX, TIME_NS_MIN, Write, encode
from meshfold.security import GrantBook, Identity
from msgspec import structs

__all__ = ("WriteAnswer", "Writer", "check_request_route")

#: A request travels as one message, its value written as text.
VALUE_BYTES_MAX: Final = 512 * 1024
#: Of the writer's patience, how much the owner may use up: the rest is for the way.
OWNER_SHARE: Final = 0.8

State = Literal["taken", "acknowledged", "refused", "reported"]


@dataclass(frozen=True, slots=True)
class WriteAnswer:
    """What became of a write request.

    `state` is the first word about it: `acknowledged` or `refused` by the device, `reported` - the device said what it does
    because of it - or `taken`: it is an event at its owner, and nobody spoke for a device in time.
    """

    #: id of the event that the request became; `Node.why` knows its causes
    write: str
    #: name of the node that took it
    owner: str
    state: State


def check_request_route(r: Route[Any]) -> None:
    """Refuse a route on which nothing can be asked for.

    :raises WiringError: if it is no request route
    """
    if r.addr.variant != "request":
        raise WiringError(
            f"{r.text} takes no write requests",
            fix='make it with plane="write", variant="request", as `WriteBinding.logical` does',
            item=r.text,
        )


class Writer:
    """Sends write requests."""

    def __init__(
        self,
        party: Party,
        *,
        book: GrantBook,
        require: Callable[[Action, Route[Any]], None],
        served: Mapping[str, ServedWrites],
    ) -> None:
        self._party = party
        self._book = book
        self._require = require
        self._served = served

    async def request(
        self,
        r: Route[Any],
        value: Any,
        *,
        timeout_s: float,
        node: str | None,
        token: Token | None,
        key: str | None,
        time: int | None,
        correlation: str | None,
        parents: Iterable[Event[Any] | str],
    ) -> WriteAnswer:
        """Ask the owner of `r`. See `Node.request`."""
        check_request_route(r)
        if time is not None and not TIME_NS_MIN <= time <= TIME_NS_MAX:
            raise WiringError(f"the time {time} ns has more than 64 bits", item="time")
        data = r.encode_value(value)
        if len(data) > VALUE_BYTES_MAX:
            raise TooLarge(
                f"a request of {len(data)} bytes, above {VALUE_BYTES_MAX}",
                fix="publish it on a route, and ask by its event's id",
                size_bytes=len(data),
                limit_bytes=VALUE_BYTES_MAX,
                item=r.text,
            )
        write = Write(
            schema=r.schema.id,
            value=data,
            wait_s=timeout_s * OWNER_SHARE,
            grants=self._party.grants(),
            key=key,
            time=time,
            correlation=correlation,
            parents=[parent if isinstance(parent, str) else parent.id for parent in parents],
            token="" if token is None else str(token),
        )
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        party, served = self._party, self._served.get(r.address)
        if served is not None and not served.closed and node in (None, party.identity.name):
            return _read(await served.take(party.identity, write), party.identity)
        self._require(Action.WRITE_REQUEST, r)
        owner = await self._owner(r, node, end)
        subject = party.subjects.route("w", r.addr)
        # Finding the owner took of the time, too.
        left_s = max(0.0, end - loop.time())
        body = encode(structs.replace(write, wait_s=left_s * OWNER_SHARE))
        return _read(await party.ask(FrameKind.WRITE, owner, body, subject, left_s), owner)

    async def _owner(self, r: Route[Any], node: str | None, end: float) -> Identity:
        """The one node alive that shares the route and may."""
        while True:
            found = [owner for owner in self._owners(r) if node in (None, owner.name)]
            if len(found) == 1:
                return found[0]
            if found:
                raise ConfigError(
                    f"{', '.join(sorted(owner.name for owner in found))} all answer for {r.text}",
                    fix="say which: node=",
                    item=r.text,
                )
            if asyncio.get_running_loop().time() > end:
                raise TransportTimeout(
                    f"nobody here shares {r.text}{'' if node is None else f' as {node}'}; nothing was asked",
                    fix="its owner shares it: node.share(route); `meshfold route ls` lists what is shared",
                    subject=r.text,
                )
            await asyncio.sleep(HEARTBEAT_S / 10)

    def _owners(self, r: Route[Any]) -> list[Identity]:
        owners = []
        for tag in self._party.directory.tags():
            heartbeat, identity = self._party.directory.last(tag), self._party.directory.lookup(tag)
            if heartbeat is None or identity is None or not self._party.directory.alive(tag):
                continue
            shared = any(checkpoint.address == r.address for checkpoint in heartbeat.routes)
            if shared and self._book.decide(tag, Action.OWN, r.addr).allowed:
                owners.append(identity)
        return owners


def _read(document: dict[str, Any], owner: Identity) -> WriteAnswer:
    return WriteAnswer(str(document["write"]), owner.name, document["state"])
