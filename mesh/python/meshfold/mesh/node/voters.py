"""Asking the voters: the one that leads is found by asking, and remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from meshfold.core.errors import NoQuorum, NotLeader, TransportClosed, TransportTimeout
from meshfold.mesh.node.queries import Asker, Responder
from meshfold.mesh.subjects import GROUP
from meshfold.security import Identity

__all__ = ("Voters",)

#: Redirections followed in one question, before the group is taken for one that has no leader.
REDIRECTS_MAX: Final = 3

#: How long a decision may take: an election among the voters goes by meanwhile.
DECIDE_S: Final = 10.0
PAUSE_S: Final = 0.05
#: What passes by itself: a voter that is away, or an election among them.
PASSING: Final = (TransportTimeout, TransportClosed, NotLeader, NoQuorum)

#: (voter, args, its challenge) -> args with a proof for that voter
Prove = Callable[[Identity, dict[str, Any], str], dict[str, Any]]


class Voters:
    """The voters as one party to ask. A voter that is this very node is asked without the broker.

    :param silent: whether a voter was here, and is not heard any more: it is asked last
    """

    def __init__(
        self,
        voters: tuple[Identity, ...],
        ourselves: Identity,
        asker: Asker,
        responder: Responder,
        silent: Callable[[bytes], bool],
    ) -> None:
        self._silent = silent
        self._voters = voters
        self._ourselves = ourselves
        self._asker = asker
        self._responder = responder
        self._turn = 0

    def _next(self) -> Identity:
        """Whose turn it is, of those that are not silent if there are any."""
        count = len(self._voters)
        for turn in range(self._turn, self._turn + count):
            if not self._silent(self._voters[turn % count].tag):
                self._turn = turn
                break
        return self._voters[self._turn % count]

    async def ask(
        self, command: str, args: dict[str, Any], timeout_s: float, prove: Prove | None = None
    ) -> dict[str, Any]:
        """Ask the leader, following redirections; the next question goes to another voter if this one does not answer.

        :param prove: makes the question one that proves possession of our key to the voter it goes to
        :raises TransportTimeout: if the voter does not answer in time
        :raises NotLeader: if the voters do not agree on who leads
        :raises NoQuorum: if the one that was asked has no majority
        :raises MeshfoldError: the error it answered with
        """
        redirects = max(REDIRECTS_MAX, len(self._voters))
        for redirect in range(redirects + 1):
            voter = self._next()
            try:
                if voter.tag == self._ourselves.tag:
                    return await self._responder.answer_self(command, args)
                asked = args
                if prove is not None:
                    open_one = await self._asker.ask(voter, "challenge", {}, timeout_s)
                    asked = prove(voter, args, str(open_one["challenge"]))
                return await self._asker.ask(voter, command, asked, timeout_s)
            except NotLeader:
                self._turn += 1
                if redirect == redirects:
                    raise
            except (TransportTimeout, NoQuorum):
                # What became of the question is not known: whether to ask it again is the caller's to say.
                self._turn += 1
                raise
        raise AssertionError("the loop returns or raises")

    async def decided(
        self, command: str, args: dict[str, Any], timeout_s: float, prove: Prove | None = None
    ) -> dict[str, Any]:
        """Ask until the voters have decided, over an election among them: for `DECIDE_S`, and each of them once at least.

        The voters may take the command twice where an answer is lost. One voter is asked once, as by `ask`.

        :raises NoQuorum: if no majority of several voters decided it in time
        :raises MeshfoldError: as `ask`
        """
        if len(self._voters) == 1:
            return await self.ask(command, args, timeout_s, prove)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DECIDE_S
        tries = 0
        while True:
            try:
                return await self.ask(command, args, timeout_s, prove)
            except PASSING as error:
                tries += 1
                if loop.time() >= deadline and tries >= len(self._voters):
                    raise NoQuorum(
                        f"no majority of the {len(self._voters)} voters answers `{command}`: {error.what}",
                        fix="start the voters that are away: `meshfold status` names them",
                        group=GROUP,
                    ) from None
            await asyncio.sleep(PAUSE_S)
