"""One connected life of a node: everything between connect and close, in the node's event loop.

`Node` is what users hold; this is what it runs. Here the parts are made and joined; what they do is theirs:

upkeep      keys, policy, grants, identity and login, as the voters give them
presence    what heartbeats say of this node and of others
bridges     the routes that are shared and read
duties      what only a voter runs
ledger      what was refused, and what is wrong

Order of start: connect, (voter: open the control log), listen for questions, fetch keys from a voter, heartbeats.
Order of close: bridges flushed, last heartbeat, transport drained, log closed.
"""

from __future__ import annotations

import asyncio

from meshfold.core import Graph, SystemClock
from meshfold.core.errors import ConfigError, FrameRejected
from meshfold.core.ports import TransportEvent
from meshfold.mesh.clocks import HybridClock
from meshfold.mesh.context import Context
from meshfold.mesh.enrolment import Enrolment
from meshfold.mesh.enrolment.local import OPERATOR
from meshfold.mesh.node.audit import AuditFile
from meshfold.mesh.node.bridges import Bridges
from meshfold.mesh.node.control import Control
from meshfold.mesh.node.duties import VoterDuties
from meshfold.mesh.node.election import MeshElectorate
from meshfold.mesh.node.facts import facts_of
from meshfold.mesh.node.heartbeats import Heartbeats
from meshfold.mesh.node.ledger import Ledger
from meshfold.mesh.node.members import Directory
from meshfold.mesh.node.party import Party
from meshfold.mesh.node.presence import Presence
from meshfold.mesh.node.queries import Asker, Responder
from meshfold.mesh.node.remote_log import RemoteLog
from meshfold.mesh.node.safety import Safety
from meshfold.mesh.node.upkeep import Upkeep
from meshfold.mesh.node.voters import Voters
from meshfold.mesh.node.writing import Writer
from meshfold.mesh.subjects import Subjects
from meshfold.mesh.telemetry import Recorder, TelemetrySettings
from meshfold.mesh.transport import Login, NatsTransport
from meshfold.security import Budgets, GrantBook, Identity, Keyring, Opener, Sealer

__all__ = ("Session",)


class Session:
    """The running parts of a node and how they are joined."""

    def __init__(
        self,
        name: str,
        context: Context,
        enrolment: Enrolment,
        graph: Graph,
        telemetry: TelemetrySettings,
        *,
        quiet: bool = False,
    ) -> None:
        self.name = name
        #: whether it only asks and reads: it sends no heartbeats, so nobody counts it as a member
        self.quiet = quiet
        self.context = context
        self.graph = graph
        self.enrolment = enrolment
        self.loop = asyncio.get_running_loop()
        self.subjects = Subjects(context.cluster, context.site)
        self.hlc = HybridClock(SystemClock())
        self.started_ms = self.hlc.now_ms()
        self.upkeep = Upkeep(self, enrolment)
        self.presence = Presence(self)
        self.bridges = Bridges(self)
        self.duties = VoterDuties(self)
        self.audit = AuditFile(enrolment.keys, self.hlc)
        self.recorder = Recorder(graph, telemetry, node=name, mesh=context.mesh, facts=facts_of(self))
        self._build_trust(enrolment)
        self._build_sealing(enrolment)
        self._build_talk(enrolment.identity)

    def _build_trust(self, enrolment: Enrolment) -> None:
        """Whom this node knows, and what it lets them do."""
        clock = self.hlc.clock
        cluster = self.context.cluster
        self.directory = Directory(
            cluster,
            lambda: self.upkeep.trust.issuers(self.hlc.now_ms()),
            self.hlc.now_ms,
            lambda: clock.now()[1],
        )
        self.voters = tuple(self.directory.admit(raw) for raw in enrolment.voters)
        self.directory.admit(enrolment.identity.raw)
        self.ledger = Ledger(self.name, self.directory, self.audit, self.recorder)
        self.budgets = Budgets()
        self.book = GrantBook(
            cluster,
            frozenset({enrolment.trust.grant_root}),
            clock=clock,
            directory=self.directory.lookup,
            decided=self.ledger.decided,
        )
        for grant in enrolment.grants:
            try:
                self.book.add(grant, self.hlc.now_ms())
            except FrameRejected as error:
                self.ledger.problems.append(f"grant {grant.hash.hex()[:12]} does not hold: {error}")

    def _build_sealing(self, enrolment: Enrolment) -> None:
        """The connection, and what seals and opens on it."""
        cluster = self.context.cluster
        self.keyring = Keyring(enrolment.keys, enrolment.identity)
        self.sealer = Sealer(enrolment.keys, cluster, self.graph.incarnation, self.keyring)
        self.transport = NatsTransport(
            self.context.url,
            name=self.name,
            login=self._login(enrolment),
            inbox_prefix=self.subjects.inbox(enrolment.identity.tag),
        )
        self.transport.on_event(self._on_event)
        self.safety = Safety(
            enrolment.identity,
            enrolment.keys,
            self.keyring,
            self.directory,
            self.transport,
            self.subjects,
            self.hlc,
            voters=self.voters,
            memory=enrolment.store.memory,
            reject=self.ledger.reject,
            changed=self.upkeep.take_policy,
            lacking=self.upkeep.ask_soon,
            problem=self.ledger.problems.append,
            audit=self.audit,
        )
        self.opener = Opener(
            self.keyring,
            enrolment.keys,
            cluster,
            self.directory.lookup,
            self.book,
            self.hlc.clock,
            self.safety.keeper,
        )

    def _build_talk(self, identity: Identity) -> None:
        """The parts that speak with other nodes, all as one party."""
        self.party = Party(
            identity,
            self.transport,
            self.sealer,
            self.opener,
            self.directory,
            self.subjects,
            self.hlc,
            policy_epoch=lambda: self.policy_epoch,
            grants=lambda: [grant.raw for grant in self.upkeep.grants.values()],
            show=self.presence.shown,
            wrap=lambda: self.safety.wrap_record,
        )
        self.asker = Asker(self.party)
        self.writer = Writer(
            self.party, book=self.book, require=self.bridges.require, served=self.bridges.served
        )
        self.responder = Responder(
            self.party, reject=self.ledger.reject, denied=self.ledger.denied, audited=self.ledger.asked
        )
        self.ask_voters = Voters(self.voters, identity, self.asker, self.responder, self.directory.silent)
        self.electorate = MeshElectorate(self.ask_voters)
        self.control_log = RemoteLog(self.ask_voters, self.presence.log_status)
        self.heartbeats = Heartbeats(
            self.party,
            incarnation=self.graph.incarnation,
            compose=self.presence.compose,
            heard=self.presence.heard,
            reject=self.ledger.reject,
        )

    def _login(self, enrolment: Enrolment) -> Login:
        own = self.context.login or enrolment.store.login(self.subjects, self.hlc.now_ms)
        return own.over(self.context.tls) if self.context.tls is not None else own

    @property
    def identity(self) -> Identity:
        """This node's newest."""
        return self.party.identity

    @property
    def control(self) -> Control | None:
        """The control log and its keeper, where this node is a voter."""
        return self.duties.control

    @property
    def policy_epoch(self) -> int:
        """The epoch of the policy this node holds."""
        return self.safety.keeper.record.policy_epoch

    async def start(self) -> None:
        """Connect and take part.

        :raises TransportClosed: if the broker cannot be reached
        :raises TransportTimeout: if no voter answers
        :raises MeshfoldError: as the parts raise
        """
        keep = self._keeps_memory()
        self.safety.begin(self.opener, self.graph.incarnation, keep=keep)
        if keep:
            self.audit.open(self.enrolment.store.memory.folder)
            self.audit.note(self.name, "start", "", True, f"life {self.graph.incarnation.hex()}")
        self.recorder.start()
        await self.transport.connect()
        await self.duties.open()
        if not self.quiet:
            # A node of the same name may run elsewhere: what is asked of it is not ours to answer.
            await self.responder.start()
        await self.upkeep.begin()
        await self.safety.listen()
        self.upkeep.start()
        await self.duties.start()

    def _keeps_memory(self) -> bool:
        """Whether this life is one of the node's own, and not one of the operator's many short ones."""
        if self.quiet or self.identity.name != OPERATOR:
            return not self.quiet
        try:
            self.enrolment.store.memory.hold()
        except ConfigError:
            return False
        return True

    def _on_event(self, event: TransportEvent) -> None:
        if event.kind == "permission":
            self.ledger.refuse("", "broker", event.detail)
        elif event.kind in ("malformed", "handler_error"):
            self.ledger.rejected["header" if event.kind == "malformed" else "format"] += 1
        elif event.kind == "connected":
            if self.transport.narrow:
                # The login ended or was revoked while it was away: fetch the one it may have now.
                self.upkeep.log_in_anew()
            self.duties.server_back()

    async def close(self) -> None:
        """Drain and stop. Idempotent."""
        await self.bridges.close()
        await self.upkeep.close()
        await self.duties.stop()
        if self.transport.connected:
            await self.heartbeats.close()
        await self.responder.close()
        await self.transport.close()
        await self.safety.close()
        await self.duties.close()
        await asyncio.to_thread(self.recorder.close)
