"""`Election`: what users of a node hold to lead, and to know who leads, in both styles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, Final

from meshfold.consensus import (
    Busy,
    Candidate,
    Granted,
    Leadership,
    Leading,
    Lease,
    LeaseTiming,
    Sink,
    Token,
    check_name,
)
from meshfold.core.errors import NoQuorum, NotLeader, TransportClosed, TransportTimeout, WiringError
from meshfold.core.ports import Clock
from meshfold.mesh.node.voters import Voters
from meshfold.mesh.reply import Reply

__all__ = ("Election", "MeshElectorate")

#: One question to the voters.
ASK_S: Final = 1.0
#: How often an observer asks.
OBSERVE_S: Final = 0.25


class MeshElectorate:
    """The voters of a mesh, asked over sealed queries."""

    def __init__(self, voters: Voters) -> None:
        self._voters = voters

    async def campaign(self, name: str, claim: str) -> Granted | Busy:
        """Ask for the lease once."""
        answer = await self._voters.ask("election_campaign", {"name": name, "claim": claim}, ASK_S)
        if "token" not in answer:
            return Busy(str(answer["leader"]), int(answer["retry_ms"]))
        timing = LeaseTiming(answer["lease_ms"], answer["keep_alive_ms"], answer["election_ms"])
        return Granted(Token(name, int(answer["token"])), timing)

    async def keep_alive(self, token: Token, timeout_s: float) -> None:
        """Renew it once."""
        args = {"name": token.election, "token": token.number}
        await self._voters.ask("election_keep", args, timeout_s)

    async def resign(self, token: Token) -> bool:
        """Give it back."""
        args = {"name": token.election, "token": token.number}
        return bool((await self._voters.ask("election_resign", args, ASK_S))["held"])

    async def current(self, name: str) -> Leadership | None:
        """Who leads."""
        found = await self._voters.ask("election_current", {"name": name}, ASK_S)
        if found["leader"] is None:
            return None
        return Leadership(Token(name, int(found["token"])), str(found["leader"]), str(found["leader_id"]))


class Election:
    """One election of the mesh, by name. At most one node leads it at a time, as far as clocks and fences go.

    A lease says that this node may act; only a fence at the sink (`meshfold.consensus.Fence`) makes a former leader
    harmless. So carry `lease.token` on every effect.
    """

    def __init__(
        self,
        name: str,
        electorate: Callable[[], MeshElectorate],
        clock: Clock,
        run: Callable[[Coroutine[Any, Any, Any]], Reply[Any]],
    ) -> None:
        self._name = check_name(name)
        self._electorate = electorate
        self._clock = clock
        self._run = run
        self._lease: Lease | None = None

    @property
    def name(self) -> str:
        """The election's name."""
        return self._name

    def _candidate(self) -> Candidate:
        return Candidate(self._name, self._electorate(), self._clock)

    def lead(self, *, barrier: Iterable[Sink] = ()) -> Leading:
        """Lead for the time of a block: `async with election.lead() as lease`, or `with`.

        Waits until this node leads and writes the token to the sinks of `barrier` before the block runs, so that a former
        leader is shut out before the first effect. The lease is given back at the end. If it is lost before, an `async`
        block is cancelled at once; a plain one goes on and should ask `lease.valid`.

        :param barrier: sinks that must have accepted the token first, such as a `Fence`
        :raises NotLeader: from the block, if the lease was lost before its end
        :raises Fenced: if a sink has seen a higher token
        :raises GrantDenied: if this node holds no grant with OWN
        """
        return Leading(self._candidate, barrier, self._run)

    def campaign(self) -> Reply[Lease]:
        """Wait until this node leads; the lease is kept alive until `resign`, or until it is lost.

        :raises WiringError: if this object holds a valid lease already
        :raises GrantDenied: if this node holds no grant with OWN
        """
        return self._run(self._campaign())

    async def _campaign(self) -> Lease:
        if self._lease is not None and self._lease.valid:
            raise WiringError(
                f"{self._name} is led by this node already", fix="resign first", item=self._name
            )
        self._lease = await self._candidate().campaign()
        return self._lease

    def resign(self) -> Reply[bool]:
        """Give back the lease that `campaign` won, so that others need not wait for its end; whether it was still held."""
        return self._run(self._resign())

    async def _resign(self) -> bool:
        lease, self._lease = self._lease, None
        if lease is None:
            return False
        await lease.resign()
        return not lease.lost

    def leader(self) -> Reply[Leadership | None]:
        """Who leads now; linearizable.

        :raises TransportTimeout: if no voter answers
        :raises NoQuorum: if no majority of the voters follows a leader
        """
        return self._run(self._electorate().current(self._name))

    async def observe(self) -> AsyncIterator[Leadership | None]:
        """Yield who leads, now and after every change; None while nobody does, or nobody can tell.

        For `async for` in the node's event loop. Changes that follow within a quarter of a second may be seen as one.
        """
        last: Leadership | None = None
        first = True
        while True:
            try:
                found = await self._electorate().current(self._name)
            except (TransportTimeout, TransportClosed, NoQuorum, NotLeader):
                found = None
            if first or found != last:
                first, last = False, found
                yield found
            await asyncio.sleep(OBSERVE_S)
