"""The voter's answers about the control log: applications' own keys, for whoever was granted them.

Keys of applications are `app/OWNER/...`. To write one takes OWN, to read one PAYLOAD_OPEN, on the address
`state.internal.OWNER.control.log.state`: a node's own grant covers the keys of its name. What the mesh keeps itself (members,
grants, elections) can be read with KEY_ADMIN, and is changed by its own commands only.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from collections import OrderedDict
from typing import Any, Final

from meshfold.consensus import Command, Op
from meshfold.core import Address
from meshfold.core.errors import FrameRejected, GrantDenied, QueueFull, TooLarge, WiringError
from meshfold.core.ports import Change, Versioned
from meshfold.core.registry import Action
from meshfold.mesh.node.queries import Responder
from meshfold.mesh.node.voter_log import VoterLog
from meshfold.security import GrantBook, Identity

__all__ = ("VALUE_BYTES_MAX", "LogDesk")

APP: Final = "app/"
#: A value that travels: with its envelope it must fit one control frame.
VALUE_BYTES_MAX: Final = 512 * 1024
#: What one answer carries.
PAGE_ITEMS_MAX: Final = 256
PAGE_BYTES_MAX: Final = 512 * 1024
#: Watches whose question is held until something happens; more are answered at once and ask again.
HELD_MAX: Final = 32
HOLD_S_MAX: Final = 1.0
#: Snapshots that are being read page by page; the oldest is dropped for a new one, and its reader begins again.
SNAPSHOTS_MAX: Final = 16


def _bytes(args: dict[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(str(args.get(name, "")), validate=True)
    except binascii.Error:
        raise FrameRejected("decode", f"{name} is not base64") from None


def _number(args: dict[str, Any], name: str) -> int:
    number = args.get(name, 0)
    if not isinstance(number, int) or not 0 <= number < 2**64:
        raise WiringError(f"{name} is no index", item=name)
    return number


class LogDesk:
    """Takes questions about the log of this voter."""

    def __init__(self, log: VoterLog, book: GrantBook) -> None:
        self._log = log
        self._book = book
        self._held = 0
        self._snapshots: OrderedDict[str, tuple[bytes, int, list[tuple[str, Versioned]]]] = OrderedDict()

    def register(self, responder: Responder) -> None:
        """Answer from now on."""
        responder.answers("log_get", self.get)
        responder.answers("log_submit", self.submit)
        responder.answers("log_watch", self.watch)
        responder.answers("log_snapshot", self.snapshot)

    def _require(self, asker: Identity, key: str, action: Action) -> None:
        """Return if the asker may take the action on the key, or on all keys that begin with it.

        :raises GrantDenied: if it may not
        """
        owner, slash, _ = key.removeprefix(APP).partition("/")
        if not key.startswith(APP) or not slash:
            if action == Action.OWN:
                raise WiringError(
                    f"{key[:60]!r} is no key of an application", fix=f"begin it with {APP}OWNER/", item="key"
                )
            admin = any(
                capability.actions & Action.KEY_ADMIN
                for grant in self._book.grants_of(asker.tag)
                for capability in grant.capabilities
            )
            if not admin:
                raise GrantDenied(
                    f"{asker.name} may read keys beginning with {APP}OWNER/, and not {key[:60]!r}",
                    fix="what the mesh itself keeps is read by its operator",
                    principal=asker.name,
                    action="KEY_ADMIN",
                    route=">",
                )
            return
        self._book.require(asker.tag, action, Address("state", "internal", owner, "control", "log", "state"))

    async def get(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer the value of a key, as of now."""
        key = str(args.get("key", ""))
        self._require(asker, key, Action.PAYLOAD_OPEN)
        found = await self._log.get(key)
        if found is None:
            return {"version": 0, "value": ""}
        return {"version": found.version, "value": base64.b64encode(found.value).decode()}

    async def submit(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Commit a change; the asker's id for it makes a retry harmless."""
        key, value, number = str(args.get("key", "")), _bytes(args, "value"), _bytes(args, "id")
        self._require(asker, key, Action.OWN)
        if len(value) > VALUE_BYTES_MAX:
            raise TooLarge(
                f"a value of {len(value)} bytes",
                fix=f"use at most {VALUE_BYTES_MAX}",
                size_bytes=len(value),
                limit_bytes=VALUE_BYTES_MAX,
            )
        if len(number) != 8:
            raise WiringError("the id of a command is 8 bytes", item="id")
        try:
            op = Op[str(args.get("op", ""))]
        except KeyError:
            raise WiringError(f"no operation {args.get('op')!r}", item="op") from None
        command = Command(op, key, value, _number(args, "version"), asker.tag + number)
        return {"index": await self._log.submit(command)}

    async def watch(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer the next changes behind an index, at once if there are some, else when there are or after a while."""
        prefix, after = str(args.get("prefix", "")), _number(args, "after")
        self._require(asker, prefix, Action.PAYLOAD_OPEN)
        found, upto = self._page(prefix, after)
        if not found and self._held < HELD_MAX:
            self._held += 1
            try:
                async with asyncio.timeout(HOLD_S_MAX):
                    # Behind the end nothing grows, and waiting for it would not let go of the loop.
                    while not found and not self._log.state.ended:
                        await self._log.state.grown(upto)
                        found, upto = self._page(prefix, upto)
            except TimeoutError:
                pass
            finally:
                self._held -= 1
        changes = [
            [
                change.index,
                change.key,
                None if change.value is None else base64.b64encode(change.value).decode(),
            ]
            for change in found
        ]
        return {"changes": changes, "upto": upto}

    def _page(self, prefix: str, after: int) -> tuple[list[Change], int]:
        found, upto = self._log.state.changes(prefix, after, PAGE_ITEMS_MAX)
        size = 0
        for at, change in enumerate(found):
            size += len(change.key) + len(change.value or b"")
            if size > PAGE_BYTES_MAX and at > 0:
                return found[:at], found[at - 1].index
        return found, upto

    async def snapshot(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer one page of a snapshot; all pages of one cursor are of one index."""
        prefix, cursor = str(args.get("prefix", "")), str(args.get("cursor", ""))
        self._require(asker, prefix, Action.PAYLOAD_OPEN)
        if cursor:
            known = self._snapshots.pop(cursor, None)
            if known is None or known[0] != asker.tag:
                raise QueueFull(
                    "this snapshot is not kept any more", fix="read it again", capacity=SNAPSHOTS_MAX
                )
            _, index, rest = known
        else:
            # The read proves that this voter still leads; what follows it is of one moment.
            rest = list((await self._log.snapshot(prefix)).items())
            index = self._log.status().commit
        page: list[tuple[str, int, str]] = []
        size = 0
        while rest and len(page) < PAGE_ITEMS_MAX and (not page or size < PAGE_BYTES_MAX):
            key, found = rest[0]
            size += len(key) + len(found.value)
            if page and size > PAGE_BYTES_MAX:
                break
            page.append((key, found.version, base64.b64encode(found.value).decode()))
            del rest[0]
        return {"index": index, "items": page, "cursor": self._keep(asker, index, rest) if rest else ""}

    def _keep(self, asker: Identity, index: int, rest: list[tuple[str, Versioned]]) -> str:
        cursor = secrets.token_hex(8)
        self._snapshots[cursor] = (asker.tag, index, rest)
        if len(self._snapshots) > SNAPSHOTS_MAX:
            self._snapshots.popitem(last=False)
        return cursor
