"""`Elections`: leases over a control log, on the node that leads it.

A thousand elections cost one log: grants and resignations are its entries (`election/<name>`), keep-alives stay in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from meshfold.consensus.lease_table import Busy, Holder, Leadership, LeaseTable, Wanted
from meshfold.consensus.timing import LAN, LeaseTiming
from meshfold.consensus.token import Token, check_name
from meshfold.core.errors import NoQuorum, NotLeader, QueueFull, StoreDamaged
from meshfold.core.ports import Clock, ControlLog

__all__ = ("PREFIX", "Elections")

PREFIX: Final = "election/"
#: Elections with a holder at a time; one more is refused until a lease runs out.
ELECTIONS_MAX: Final = 1024


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The grant in the log."""

    id: str
    name: str
    claim: str


class Elections:
    """Grants, renews and frees leases while this node leads the voters.

    :param may_answer: whether a majority of the voters was heard so lately that no other leader can have granted anything
    """

    def __init__(
        self,
        log: ControlLog,
        clock: Clock,
        *,
        timing: LeaseTiming = LAN,
        may_answer: Callable[[], bool] = lambda: True,
    ) -> None:
        self._log = log
        self._clock = clock
        self._timing = timing
        self._may_answer = may_answer
        self._term = log.status().term
        self._table = LeaseTable(timing, self._now_ns())

    @property
    def timing(self) -> LeaseTiming:
        """What holders are told."""
        return self._timing

    def _now_ns(self) -> int:
        return self._clock.now()[1]

    def _lead(self) -> LeaseTable:
        """The table of this leadership; a new term begins with what the log says and nothing else."""
        status = self._log.status()
        if status.leader not in (None, status.node):
            raise NotLeader(
                f"{status.node} does not lead {status.group}",
                fix=f"ask {status.leader}",
                group=status.group,
                leader=status.leader,
            )
        if status.leader is None or not self._may_answer():
            raise NoQuorum(
                f"group {status.group} has no leader that a majority follows",
                fix="try again shortly",
                group=status.group,
            )
        if status.term != self._term:
            self._term, self._table = status.term, LeaseTable(self._timing, self._now_ns())
        return self._table

    async def _known(self, name: str) -> tuple[LeaseTable, int]:
        """The table with what the log says of the name, and the log's version of it."""
        check_name(name)
        self._lead()
        saved = await self._log.get(PREFIX + name)
        table = self._lead()
        if saved is not None and not table.knows(name):
            try:
                record = msgspec.json.decode(saved.value, type=_Record)
            except msgspec.MsgspecError as error:
                raise StoreDamaged(f"the control log's entry {PREFIX + name} is no grant: {error}") from None
            table.inherit(name, Holder(record.id, record.name, record.claim), saved.version)
        return table, saved.version if saved is not None else 0

    async def campaign(self, name: str, asker: Holder) -> Token | Busy:
        """Grant the lease if it is free; the grant is committed on return, and the token is its index.

        :raises NotLeader: if another node leads the voters
        :raises NoQuorum: if the grant could not be committed
        :raises QueueFull: if there are too many elections
        :raises WiringError: if the name cannot be one
        """
        table, version = await self._known(name)
        found = table.campaign(name, asker, self._now_ns())
        if not isinstance(found, Wanted):
            return found
        record = msgspec.json.encode(_Record(asker.id, asker.name, asker.claim))
        try:
            if version == 0:
                await self._make_room(table)
            index = await self._log.compare_and_set(PREFIX + name, record, version)
            still_leads = self._lead() is table
        except BaseException:
            table.forget(name)
            raise
        if index is None or not still_leads:
            table.forget(name)
            return Busy("", self._timing.keep_alive_ms)
        return table.granted(name, index, self._now_ns())

    async def _make_room(self, table: LeaseTable) -> None:
        known = await self._log.snapshot(PREFIX)
        if len(known) < ELECTIONS_MAX:
            return
        idle = [name for name in table.idle(self._now_ns()) if PREFIX + name in known]
        if not idle:
            raise QueueFull(
                f"{len(known)} elections have a holder",
                fix="resign one",
                capacity=ELECTIONS_MAX,
                route="",
            )
        table.forget(idle[0])
        await self._log.delete(PREFIX + idle[0])

    async def keep_alive(self, name: str, holder_id: str, number: int) -> None:
        """Renew the lease for the holder of that token. Nothing is written.

        :raises Fenced: if it is over
        :raises NotLeader: if another node leads the voters
        :raises NoQuorum: if no majority follows this one
        """
        table = self._lead()
        if not table.knows(name):
            table, _ = await self._known(name)
        table.keep_alive(name, holder_id, number, self._now_ns())

    async def resign(self, name: str, holder_id: str, number: int) -> bool:
        """Free the lease for others at once; whether it was held by that token. Raises as `campaign`."""
        table, _ = await self._known(name)
        if not table.resigned(name, holder_id, number):
            return False
        await self._log.delete(PREFIX + name)
        return True

    async def step_down(self, name: str) -> Leadership | None:
        """End the leadership of whoever holds it and let others go first; who that was. Raises as `campaign`."""
        table, _ = await self._known(name)
        return table.step_down(name, self._now_ns())

    async def current(self, name: str) -> Leadership | None:
        """Who leads the election now, or None. Raises as `campaign`."""
        table, _ = await self._known(name)
        return table.current(name, self._now_ns())

    async def all(self) -> list[Leadership]:
        """Every election that has a leader now, by name. Raises as `campaign`."""
        names = [key.removeprefix(PREFIX) for key in await self._log.snapshot(PREFIX)]
        found = [await self.current(name) for name in names]
        return [leadership for leadership in found if leadership is not None]
