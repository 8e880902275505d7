"""Asking the voters: the one that leads is found by asking, and remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from meshfold.core.errors import NotLeader, TransportTimeout
from meshfold.mesh.node.queries import Asker, Responder
from meshfold.security import Identity

__all__ = ("Voters",)

#: Redirections followed in one question, before the group is taken for one that has no leader.
REDIRECTS_MAX: Final = 3

#: (voter, args, its challenge) -> args with a proof for that voter
Prove = Callable[[Identity, dict[str, Any], str], dict[str, Any]]


class Voters:
    """The voters as one party to ask. A voter that is this very node is asked without the broker."""

    def __init__(
        self, voters: tuple[Identity, ...], ourselves: Identity, asker: Asker, responder: Responder
    ) -> None:
        self._voters = voters
        self._ourselves = ourselves
        self._asker = asker
        self._responder = responder
        self._turn = 0

    async def ask(
        self, command: str, args: dict[str, Any], timeout_s: float, prove: Prove | None = None
    ) -> dict[str, Any]:
        """Ask the leader, following redirections; the next question goes to another voter if this one does not answer.

        :param prove: makes the question one that proves possession of our key to the voter it goes to
        :raises TransportTimeout: if the voter does not answer in time
        :raises NotLeader: if the voters do not agree on who leads
        :raises MeshfoldError: the error it answered with
        """
        for redirect in range(REDIRECTS_MAX + 1):
            voter = self._voters[self._turn % len(self._voters)]
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
                if redirect == REDIRECTS_MAX:
                    raise
            except TransportTimeout:
                self._turn += 1
                raise
        raise AssertionError("the loop returns or raises")
