"""The control log from any node: `RemoteLog` asks the voters over sealed queries, `NodeLog` is its face for both styles.

Reads are linearizable: the voter that answers proves that it leads. A change carries an id, so asking again after a lost
answer cannot apply it twice.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, Final

from meshfold.consensus import Op
from meshfold.core.errors import (
    NoQuorum,
    NotLeader,
    QueueFull,
    TooLarge,
    TransportClosed,
    TransportTimeout,
)
from meshfold.core.ports import Change, LogStatus, Versioned
from meshfold.mesh.node.log_desk import VALUE_BYTES_MAX
from meshfold.mesh.node.voters import Voters
from meshfold.mesh.reply import Reply

__all__ = ("NodeLog", "RemoteLog")

#: One question, and how long a call tries in all.
ASK_S: Final = 2.0
CALL_S: Final = 10.0
PAUSE_S: Final = 0.05
#: A watch asks again so long after the voters were away.
AWAY_S: Final = 0.25
#: Times a snapshot is begun again whose pages were dropped.
SNAPSHOT_TRIES: Final = 8
#: What passes by itself: a voter that is away, or an election among them.
PASSING: Final = (TransportTimeout, TransportClosed, NotLeader)


class RemoteLog:
    """A control log whose voters are elsewhere. Implements `meshfold.core.ports.ControlLog`."""

    def __init__(self, voters: Voters, status: Callable[[], LogStatus]) -> None:
        self._voters = voters
        self._status = status

    async def _ask(self, command: str, args: dict[str, Any]) -> dict[str, Any]:
        """Ask until there is an answer, for `CALL_S` at most.

        :raises TransportTimeout: if no voter answered
        :raises NotLeader: if the voters have no leader
        :raises MeshfoldError: what the voter answered
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CALL_S
        while True:
            try:
                return await self._voters.ask(command, args, ASK_S)
            except PASSING:
                if loop.time() + PAUSE_S >= deadline:
                    raise
            await asyncio.sleep(PAUSE_S)

    async def get(self, key: str) -> Versioned | None:
        """Return the value as of now, or None.

        :raises GrantDenied: if this node may not read the key
        :raises TransportTimeout: if no voter answers
        """
        found = await self._ask("log_get", {"key": key})
        if found["version"] == 0:
            return None
        return Versioned(base64.b64decode(found["value"]), int(found["version"]))

    async def _submit(self, op: Op, key: str, value: bytes = b"", version: int = 0) -> int | None:
        if len(value) > VALUE_BYTES_MAX:
            raise TooLarge(
                f"a value of {len(value)} bytes",
                fix=f"use at most {VALUE_BYTES_MAX}; the log is for control state",
                size_bytes=len(value),
                limit_bytes=VALUE_BYTES_MAX,
            )
        args = {
            "op": op.name,
            "key": key,
            "value": base64.b64encode(value).decode(),
            "version": version,
            "id": base64.b64encode(secrets.token_bytes(8)).decode(),
        }
        index = (await self._ask("log_submit", args))["index"]
        return None if index is None else int(index)

    async def put(self, key: str, value: bytes) -> int:
        """Write and return the index; committed and fsynced on return.

        After `TransportTimeout` it is unknown whether it was applied; it was not applied twice.

        :raises GrantDenied: if this node may not write the key
        :raises NoQuorum: if it could not be stored
        :raises TooLarge: if the value exceeds 512 KiB, or the state is full; nothing was written
        :raises TransportTimeout: if no voter answers
        :raises WiringError: if the key is none of an application
        """
        index = await self._submit(Op.PUT, key, value)
        assert index is not None
        return index

    async def delete(self, key: str) -> int:
        """Remove a key (no error if it is absent) and return the index. Raises as `put`."""
        index = await self._submit(Op.DELETE, key)
        assert index is not None
        return index

    async def compare_and_set(self, key: str, value: bytes, version: int) -> int | None:
        """Write only if the key's version is `version` (0: absent); the index, or None. Raises as `put`."""
        return await self._submit(Op.COMPARE_AND_SET, key, value, version)

    async def watch(self, prefix: str, *, after: int = 0) -> AsyncIterator[Change]:
        """Yield committed changes of keys beginning with `prefix` and an index above `after`, in order, gap-free.

        It outlasts voters that are away. What is further back than they keep is yielded as the current values first.

        :raises GrantDenied: if this node may not read those keys
        """
        while True:
            try:
                answer = await self._voters.ask("log_watch", {"prefix": prefix, "after": after}, ASK_S)
            except (*PASSING, NoQuorum):
                await asyncio.sleep(AWAY_S)
                continue
            for index, key, value in answer["changes"]:
                yield Change(int(index), str(key), None if value is None else base64.b64decode(value))
            after = max(after, int(answer["upto"]))
            if not answer["changes"]:
                await asyncio.sleep(PAUSE_S)

    async def snapshot(self, prefix: str = "") -> Mapping[str, Versioned]:
        """All keys beginning with `prefix`, consistent at one index.

        :raises GrantDenied: if this node may not read those keys
        :raises TransportTimeout: if no voter answers
        """
        for _ in range(SNAPSHOT_TRIES):
            items: dict[str, Versioned] = {}
            cursor = ""
            try:
                while True:
                    page = await self._ask("log_snapshot", {"prefix": prefix, "cursor": cursor})
                    for key, version, value in page["items"]:
                        items[str(key)] = Versioned(base64.b64decode(value), int(version))
                    cursor = str(page["cursor"])
                    if not cursor:
                        return items
            except QueueFull:
                continue
        raise NoQuorum("the voters change too often to read a snapshot", fix="try again", group="control")

    def status(self) -> LogStatus:
        """What this node heard of the group last; never waits."""
        return self._status()


class NodeLog:
    """The control log as a node's user sees it: every call gives a `Reply`, to await or to take the `result()` of.

    Keys of applications are `app/OWNER/...`: a node may write those of its own name, and of every owner that it was granted.
    """

    def __init__(
        self, log: Callable[[], RemoteLog], run: Callable[[Coroutine[Any, Any, Any]], Reply[Any]]
    ) -> None:
        self._log = log
        self._run = run

    def get(self, key: str) -> Reply[Versioned | None]:
        """The value as of now, or None: linearizable. Raises as `RemoteLog.get`."""
        return self._run(self._log().get(key))

    def put(self, key: str, value: bytes) -> Reply[int]:
        """Write; the result is the entry's index, committed and fsynced. Raises as `RemoteLog.put`."""
        return self._run(self._log().put(key, value))

    def delete(self, key: str) -> Reply[int]:
        """Remove a key. Raises as `RemoteLog.put`."""
        return self._run(self._log().delete(key))

    def compare_and_set(self, key: str, value: bytes, version: int) -> Reply[int | None]:
        """Write only if the key's version is `version` (0: absent); the index, or None. Raises as `RemoteLog.put`."""
        return self._run(self._log().compare_and_set(key, value, version))

    def snapshot(self, prefix: str) -> Reply[Mapping[str, Versioned]]:
        """All keys beginning with `prefix`, consistent at one index. Raises as `RemoteLog.snapshot`."""
        return self._run(self._log().snapshot(prefix))

    def watch(self, prefix: str, *, after: int = 0) -> AsyncIterator[Change]:
        """Committed changes in order, gap-free, for `async for` in the node's event loop. Raises as `RemoteLog.watch`."""
        return self._log().watch(prefix, after=after)

    def status(self) -> LogStatus:
        """What this node heard of the group last; never waits.

        :raises WiringError: if the node is not connected
        """
        return self._log().status()
