"""Who is here: what our heartbeats say of this node, and what follows from those of others.

A heartbeat brings grants, the counter checkpoints of routes (S43), and the end of a life; a node that falls silent has ended
without a word.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from meshfold.core.errors import FrameRejected
from meshfold.core.ports import LogStatus
from meshfold.mesh.records import Heartbeat
from meshfold.mesh.subjects import GROUP
from meshfold.security import Grant, Identity

if TYPE_CHECKING:
    from meshfold.mesh.node.session import Session

__all__ = ("Presence",)

#: Grants that a heartbeat or a question may show; what is beyond is not looked at.
GRANTS_SHOWN_MAX: Final = 64


class Presence:
    """One session's."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def compose(self, counter: int, closing: bool) -> Heartbeat:
        """Our next heartbeat."""
        session = self._session
        return Heartbeat(
            name=session.name,
            identity=session.identity.raw,
            grants=[grant.raw for grant in session.upkeep.grants.values()],
            pid=os.getpid(),
            host=socket.gethostname(),
            started_ms=session.started_ms,
            counter=counter,
            heard=session.directory.heard_incarnations(),
            routes=[bridge.checkpoint() for bridge in session.bridges.outgoing.values()],
            reads=[f"{bridge.form} {address}" for address, bridge in session.bridges.incoming.items()],
            groups=[session.control.status()] if session.control else [],
            start=session.safety.start_record.raw if session.safety.start_record is not None else b"",
            wrap=session.safety.wrap_record,
            closing=closing,
        )

    def heard(self, sender: Identity, incarnation: bytes, heartbeat: Heartbeat) -> None:
        """Take in the heartbeat of another life than this."""
        session = self._session
        sees_us = heartbeat.heard.get(session.identity.tag.hex()) == session.graph.incarnation
        try:
            session.safety.heard(sender, incarnation, heartbeat, sees_us=sees_us)
        except FrameRejected as error:
            session.ledger.reject(error.reason, f"heartbeat of {sender.name}")
            return
        if sender.tag == session.identity.tag and not session.quiet:
            return
        self.shown(sender, heartbeat.grants)
        before, last = session.directory.incarnation(sender.tag), session.directory.last(sender.tag)
        if session.directory.heard(sender.tag, incarnation, heartbeat) and before is not None:
            session.bridges.ended(sender.tag, before, clean=last is not None and last.closing)
        for checkpoint in heartbeat.routes:
            bridge = session.bridges.incoming.get(checkpoint.address)
            if bridge is not None:
                bridge.heard(sender.tag, incarnation, checkpoint, sees_us=sees_us)
        if heartbeat.closing:
            session.bridges.ended(sender.tag, incarnation, clean=True)

    def shown(self, sender: Identity, grants: list[bytes]) -> None:
        """Take in the grants that a node shows, as far as they hold."""
        session = self._session
        for raw in grants[:GRANTS_SHOWN_MAX]:
            try:
                session.book.add(Grant.parse(raw), session.hlc.now_ms())
            except FrameRejected as error:
                session.ledger.reject(error.reason, f"grant of {sender.name}")

    def sweep(self) -> None:
        """Note members that fell silent."""
        session = self._session
        for tag in session.directory.tags():
            heartbeat = session.directory.last(tag)
            incarnation = session.directory.incarnation(tag)
            silent = heartbeat is not None and not heartbeat.closing and not session.directory.alive(tag)
            if silent and incarnation is not None:
                session.bridges.ended(tag, incarnation, clean=False)

    def clones(self) -> list[str]:
        """Nodes of which two copies were seen, as problems."""
        found: list[str] = []
        for tag, why in self._session.opener.starts.fenced.items():
            identity = self._session.directory.lookup(tag)
            name = identity.name if identity is not None else tag.hex()
            found.append(
                f"ALARM: two copies of {name}, both refused: {why}; decide: meshfold node decide {name}"
            )
        return found

    def log_status(self) -> LogStatus:
        """The control log as the heartbeats of its voters tell it; the highest term is the truth of last resort."""
        session = self._session
        lines = [session.control.status()] if session.control else []
        for tag in session.directory.tags():
            heartbeat = session.directory.last(tag)
            if heartbeat is not None and session.directory.alive(tag):
                lines += [line for line in heartbeat.groups if line.get("group") == GROUP]
        best = max(lines, key=lambda line: (line["term"], line["commit"]), default=None)
        voters = tuple(voter.name for voter in session.voters)
        if best is None:
            return LogStatus(GROUP, None, 0, 0, voters, session.name)
        return LogStatus(GROUP, best["leader"], best["term"], best["commit"], voters, session.name)
