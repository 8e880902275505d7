"""The holder's side of an election in an event loop: campaign until granted, then keep the lease alive until it ends.

The wire is a port (`Electorate`), the clock is a port. Every question may be lost, late or doubled: claims make campaigns
idempotent, tokens make everything else so.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from meshfold.consensus.holding import Holding
from meshfold.consensus.lease_table import Busy, Leadership
from meshfold.consensus.timing import LeaseTiming
from meshfold.consensus.token import Token
from meshfold.core.errors import Fenced, MeshfoldError, NoQuorum, NotLeader, TransportClosed, TransportTimeout
from meshfold.core.jobs import end_jobs
from meshfold.core.ports import Clock

__all__ = ("Candidate", "Electorate", "Granted", "Lease")

#: Wait after a campaign that nobody answered.
UNANSWERED_S: Final = 0.1
#: What a campaign outlasts: the voters are away for the moment.
PASSING: Final = (TransportTimeout, TransportClosed, NoQuorum, NotLeader)


@dataclass(frozen=True, slots=True)
class Granted:
    """A campaign that won: the token, and the times that the voter applies."""

    token: Token
    timing: LeaseTiming


class Electorate(Protocol):
    """The voters, as a candidate asks them. Each call asks once and raises `TransportTimeout` where no answer came."""

    async def campaign(self, name: str, claim: str) -> Granted | Busy:
        """Ask for the lease."""
        ...

    async def keep_alive(self, token: Token, timeout_s: float) -> None:
        """Renew it.

        :raises Fenced: if it is over
        """
        ...

    async def resign(self, token: Token) -> bool:
        """Give it back; whether it was held."""
        ...

    async def current(self, name: str) -> Leadership | None:
        """Who leads."""
        ...


class Lease:
    """The right to lead an election for now. `valid` may be asked from any thread."""

    def __init__(
        self, token: Token, holding: Holding, timing: LeaseTiming, electorate: Electorate, clock: Clock
    ) -> None:
        self._token = token
        self._holding = holding
        self._timing = timing
        self._electorate = electorate
        self._clock = clock
        self._ended = asyncio.Event()
        self._lost = False
        self._watchers: list[Callable[[], None]] = []
        self._asked: set[asyncio.Task[None]] = set()
        self._job = asyncio.get_running_loop().create_task(self._run())

    @property
    def token(self) -> Token:
        """What to carry on every effect; sinks refuse it once a higher one was seen."""
        return self._token

    @property
    def valid(self) -> bool:
        """Whether this node may still act as leader, as far as it can know: sinks know better (`Fence`)."""
        return self._holding.valid(self._clock.now()[1])

    @property
    def remaining_s(self) -> float:
        """Seconds until it ends if no further keep-alive is answered."""
        now_ns = self._clock.now()[1]
        return (self._holding.end_ns - now_ns) / 1e9 if self._holding.valid(now_ns) else 0.0

    def check(self) -> None:
        """Return if the lease is valid.

        :raises NotLeader: if it is over
        """
        if not self.valid:
            raise NotLeader(
                f"the lease {self._token} is over",
                fix="stop acting as leader; campaign again",
                group=self._token.election,
                leader=None,
            )

    async def ended(self) -> None:
        """Wait until the lease is over, for whatever reason."""
        await self._ended.wait()

    @property
    def lost(self) -> bool:
        """Whether it ended otherwise than by `resign`."""
        return self._lost or not (self._ended.is_set() or self.valid)

    def on_loss(self, call: Callable[[], None]) -> None:
        """Call once in the event loop when the lease is lost, but not when it is given back; at once if it was."""
        if self.lost:
            call()
        else:
            self._watchers.append(call)

    async def _run(self) -> None:
        pause_s = self._timing.keep_alive_ms / 1000
        while self.valid:
            if len(self._asked) < self._timing.lease_ms // self._timing.keep_alive_ms:
                task = asyncio.get_running_loop().create_task(self._keep_alive())
                self._asked.add(task)
                task.add_done_callback(self._asked.discard)
            await asyncio.sleep(min(pause_s, self.remaining_s))
        self._lose()

    async def _keep_alive(self) -> None:
        sent_ns = self._clock.now()[1]
        try:
            await self._electorate.keep_alive(self._token, self._timing.lease_ms / 1000)
        except Fenced:
            self._lose()
        except MeshfoldError:
            return  # unanswered: the next one may be, and otherwise the lease runs out
        else:
            self._holding.answered(sent_ns, self._clock.now()[1])

    def _lose(self) -> None:
        self._holding.give_up()
        if not self._ended.is_set():
            self._lost = True
            self._ended.set()
            for call in self._watchers:
                call()

    async def resign(self) -> None:
        """Give the lease back, so that others need not wait for its end. Idempotent; never raises for a voter that is away."""
        held = self.valid
        self._lost = self.lost
        self._holding.give_up()
        self._ended.set()
        await end_jobs((self._job, *self._asked))
        if held:
            with contextlib.suppress(MeshfoldError):
                await self._electorate.resign(self._token)


class Candidate:
    """Campaigns for one election."""

    def __init__(self, name: str, electorate: Electorate, clock: Clock) -> None:
        self._name = name
        self._electorate = electorate
        self._clock = clock

    async def campaign(self) -> Lease:
        """Wait until this node leads. Cancel to stop; a grant on its way then runs out by itself.

        :raises GrantDenied: if this node may not campaign
        :raises QueueFull: if there are too many elections
        """
        claim = secrets.token_hex(8)
        while True:
            sent_ns = self._clock.now()[1]
            try:
                found = await self._electorate.campaign(self._name, claim)
            except PASSING:
                await asyncio.sleep(UNANSWERED_S)
                continue
            if isinstance(found, Busy):
                await asyncio.sleep(found.retry_ms / 1000)
                continue
            now_ns = self._clock.now()[1]
            holding = Holding(sent_ns=sent_ns, held_ns=found.timing.held_ns, now_ns=now_ns)
            if holding.valid(now_ns):
                return Lease(found.token, holding, found.timing, self._electorate, self._clock)
            # The answer took longer than the lease: ask again under the same claim, which keeps the token.
