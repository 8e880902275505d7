"""One connected life of a node: everything between connect and close, in the node's event loop.

`Node` is what users hold; this is what it runs. Order of start: connect, listen for questions, (voter: open the control
log), fetch keys from a voter, heartbeats. Order of close: bridges flushed, last heartbeat, transport drained, log closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import Counter, deque
from typing import Any, Literal

from meshfold.consensus import Fence
from meshfold.core import Address, Graph, Route, SystemClock
from meshfold.core.errors import (
    ConfigError,
    FrameRejected,
    GrantDenied,
    KeyMissing,
    MeshfoldError,
    TransportTimeout,
    WiringError,
)
from meshfold.core.jobs import end_jobs
from meshfold.core.ports import Decision, LogStatus, TransportEvent
from meshfold.core.registry import Action
from meshfold.mesh.bridge import IncomingBridge, OutgoingBridge
from meshfold.mesh.clocks import HybridClock
from meshfold.mesh.context import Context
from meshfold.mesh.enrolment import AuthorityFolder, Enrolment
from meshfold.mesh.enrolment.doorkeeper import Doorkeeper
from meshfold.mesh.enrolment.local import OPERATOR
from meshfold.mesh.node.audit import AuditFile
from meshfold.mesh.node.control import GROUP, Control, possession_request
from meshfold.mesh.node.election import MeshElectorate
from meshfold.mesh.node.facts import facts_of
from meshfold.mesh.node.heartbeats import Heartbeats
from meshfold.mesh.node.key_desk import KeyDesk
from meshfold.mesh.node.login_revoker import LoginRevoker
from meshfold.mesh.node.members import HEARTBEAT_S, Directory
from meshfold.mesh.node.membership import Membership
from meshfold.mesh.node.party import Party
from meshfold.mesh.node.queries import Asker, Responder
from meshfold.mesh.node.remote_log import RemoteLog
from meshfold.mesh.node.safety import Safety
from meshfold.mesh.node.served_writes import ServedWrites
from meshfold.mesh.node.standing import Standing
from meshfold.mesh.node.voters import Voters
from meshfold.mesh.node.writing import Writer, check_request_route
from meshfold.mesh.records import Heartbeat
from meshfold.mesh.subjects import Subjects
from meshfold.mesh.telemetry import Recorder, TelemetrySettings
from meshfold.mesh.transport import Login, NatsTransport
from meshfold.security import (
    Budgets,
    Grant,
    GrantBook,
    Identity,
    Keyring,
    Opener,
    PolicyRecord,
    Sealer,
    prove_possession,
)

__all__ = ("Session",)

#: How long a starting node waits for a voter to answer, and how long for one question.
KEYS_WAIT_S = 20.0
KEYS_ASK_S = 1.0
#: A node asks its voter for new keys, grants and logins so often, and at once when told of a change.
UPKEEP_S = 600.0
#: A node without any grant asks so often whether one came.
GRANTLESS_S = 5.0
#: One question to the voters that changes keys.
DECLARE_S = 5.0
#: Questions that come many times a second: they are noted only where they are refused.
UNREMARKABLE = frozenset(("election_keep", "challenge", "log_watch"))
PROBLEMS_MAX = 64
#: Grants that a heartbeat or a question may show; what is beyond is not looked at.
GRANTS_SHOWN_MAX = 64
#: Refusals kept for `refusals` and the live view.
REFUSALS_MAX = 256


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
        self.rejected: Counter[str] = Counter()
        self.denials = 0
        self.refusals: deque[dict[str, Any]] = deque(maxlen=REFUSALS_MAX)
        self.outgoing: dict[str, OutgoingBridge] = {}
        self.incoming: dict[str, IncomingBridge] = {}
        self.problems: deque[str] = deque(maxlen=PROBLEMS_MAX)
        self.control: Control | None = None
        self.doorkeeper: Doorkeeper | None = None
        self.login_revoker: LoginRevoker | None = None
        self.trust = enrolment.trust
        self.grants = {grant.hash: grant for grant in enrolment.grants}
        self.key_desk: KeyDesk | None = None
        self._wake = asyncio.Event()
        #: whether the next refresh logs in anew at the broker
        self._renew = False
        self._upkeep_job: asyncio.Task[None] | None = None
        self.started_ms = self.hlc.now_ms()
        self._build(enrolment, graph.incarnation)
        self.recorder = Recorder(graph, telemetry, node=name, mesh=context.mesh, facts=facts_of(self))

    def _build(self, enrolment: Enrolment, incarnation: bytes) -> None:
        clock = self.hlc.clock
        cluster = self.context.cluster
        self.directory = Directory(
            cluster, lambda: self.trust.issuers(self.hlc.now_ms()), self.hlc.now_ms, lambda: clock.now()[1]
        )
        self.voters = tuple(self.directory.admit(raw) for raw in enrolment.voters)
        self.directory.admit(enrolment.identity.raw)
        roots = frozenset({self.trust.grant_root})
        self.audit = AuditFile(enrolment.keys, self.hlc)
        self.budgets = Budgets()
        self.book = GrantBook(
            cluster, roots, clock=clock, directory=self.directory.lookup, decided=self._audit_decision
        )
        for grant in enrolment.grants:
            try:
                self.book.add(grant, self.hlc.now_ms())
            except FrameRejected as error:
                self.problems.append(f"grant {grant.hash.hex()[:12]} does not hold: {error}")
        self.keyring = Keyring(enrolment.keys, enrolment.identity)
        self.sealer = Sealer(enrolment.keys, cluster, incarnation, self.keyring)
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
            reject=self.reject,
            changed=self._take_policy,
            lacking=self._wake.set,
            problem=self.problems.append,
            audit=self.audit,
        )
        self.opener = Opener(
            self.keyring,
            enrolment.keys,
            cluster,
            self.directory.lookup,
            self.book,
            clock,
            self.safety.keeper,
        )
        self._build_talk(incarnation)

    def _build_talk(self, incarnation: bytes) -> None:
        """The parts that speak with other nodes."""
        self.party = Party(
            self.enrolment.identity,
            self.transport,
            self.sealer,
            self.opener,
            self.directory,
            self.subjects,
            self.hlc,
            policy_epoch=lambda: self.policy_epoch,
            grants=lambda: [grant.raw for grant in self.grants.values()],
            show=self._shown,
        )
        self._served: dict[str, ServedWrites] = {}
        self.asker = Asker(self.party)
        self.writer = Writer(self.party, book=self.book, require=self._require, served=self._served)
        self.responder = Responder(
            self.party, reject=self.reject, denied=self._denied, audited=self.audit_question
        )
        self.ask_voters = Voters(self.voters, self.identity, self.asker, self.responder)
        self.electorate = MeshElectorate(self.ask_voters)
        self.control_log = RemoteLog(self.ask_voters, self._log_status)
        self.heartbeats = Heartbeats(
            self.party,
            incarnation=incarnation,
            compose=self._compose,
            heard=self._heard,
            reject=self.reject,
        )

    def _login(self, enrolment: Enrolment) -> Login:
        own = self.context.login or enrolment.store.login(self.subjects, self.hlc.now_ms)
        return own.over(self.context.tls) if self.context.tls is not None else own

    @property
    def identity(self) -> Identity:
        """This node's newest."""
        return self.party.identity

    @property
    def is_voter(self) -> bool:
        """Whether the context names this identity as voter."""
        return any(voter.tag == self.identity.tag for voter in self.voters)

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
        if self.is_voter and not self.quiet:
            await self._open_control()
        if not self.quiet:
            # A node of the same name may run elsewhere: what is asked of it is not ours to answer.
            await self.responder.start()
        if self.grants:
            if await self._fetch_keys():
                await self.transport.renew()
            await self._appear()
        else:
            await self._refresh(renew=False)
        await self.safety.listen()
        if self.key_desk is not None:
            self.key_desk.start()
        self._upkeep_job = self.loop.create_task(self._upkeep())
        if self.control is not None and self.context.authority_dir is not None:
            await self._open_door(AuthorityFolder.open(self.context.authority_dir), self.control)

    async def _appear(self) -> None:
        await (self.heartbeats.listen() if self.quiet else self.heartbeats.start())

    async def _open_control(self) -> None:
        """The voter's part: the control log, and the questions only a voter answers."""
        folder = self.context.state_dir / "voter"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.control = await Control.open(
            folder,
            self.enrolment.keys,
            self.identity,
            self.book,
            self.directory,
            self.hlc,
            self.voters,
        )
        self.key_desk = KeyDesk(self.control, self)
        self.control.mint = lambda identity, grants: self.enrolment.store.mint(
            identity, grants, self.subjects, self.hlc.now_ms()
        )
        self.control.certificates = self.trust.certificates
        self.responder.answers("challenge", self.control.challenge)
        self.responder.answers("keys", self.control.keys_for)
        self.responder.answers("grants", self.control.grants)
        self.responder.answers("grant_show", self.control.show)
        self.responder.answers("member", self.control.member)
        self.responder.answers("grant_issue", self._issue)
        self.responder.answers("grant_revoke", self.control.revoke)
        self.key_desk.register(self.responder)
        Membership(self.control, self).register(self.responder)
        self.responder.answers("group_leader", self.control.group_leader)
        self.responder.answers("group_step_down", self.control.group_step_down)
        self.control.desk.register(self.responder)
        self.control.log_desk.register(self.responder)

    async def _open_door(self, authority: AuthorityFolder, control: Control) -> None:
        """Let in whoever brings a join token: this voter's folder holds the issuer."""
        standing = control.standing = Standing(authority, self.context.state_dir / "nodes")
        control.renew = lambda identity: standing.identity(
            identity, self.subjects, self.context.voters, self.hlc.now_ms()
        )
        self.login_revoker = LoginRevoker(authority, control, self)
        jobs: set[asyncio.Task[None]] = set()

        def admitted(identity: Identity, grants: list[Grant]) -> None:
            job = self.loop.create_task(control.admit(identity, grants))
            jobs.add(job)
            job.add_done_callback(done)

        def done(job: asyncio.Task[None]) -> None:
            jobs.discard(job)
            if not job.cancelled() and job.exception() is not None:
                # The node brings its papers along when it asks for keys, and is noted then.
                self.problems.append(f"a node that joined was not noted: {job.exception()}")

        self.doorkeeper = Doorkeeper(
            authority,
            self.transport,
            self.subjects,
            self.hlc,
            url=self.context.url,
            voters=self.context.voters,
            reject=self.reject,
            admitted=admitted,
        )
        await self.doorkeeper.start()

    async def _ask_keys(self) -> dict[str, Any]:
        nonce = os.urandom(16).hex()
        args: dict[str, Any] = {
            "grants": [grant.raw.hex() for grant in self.grants.values()],
            "login": True,
            "nonce": nonce,
            "wrap": self.safety.wrap_record.hex(),
        }
        if self.control is not None:
            return await self.control.keys_for(self.identity, args)
        document = await self.ask_voters.ask("keys", args, KEYS_ASK_S, self._proof)
        if document.get("nonce") != nonce:
            raise FrameRejected("replay", "the answer to another question")
        return document

    def _proof(self, voter: Identity, args: dict[str, Any], challenge: str) -> dict[str, Any]:
        """The question with a proof that this node holds the key of the grants it shows, made for one voter."""
        proof = prove_possession(
            self.enrolment.keys,
            cluster=self.context.cluster,
            verifier_pub=voter.node_pub,
            verb="keys",
            request=possession_request(args),
            challenge=bytes.fromhex(challenge),
            incarnation=self.graph.incarnation,
        )
        more = {"challenge": challenge, "pop": proof.hex(), "incarnation": self.graph.incarnation.hex()}
        return args | more

    async def _fetch_keys(self) -> bool:
        """Whether the broker's login changed by what was granted since this node was last here."""
        deadline = self.loop.time() + KEYS_WAIT_S
        while True:
            try:
                return self._install(await self._ask_keys())
            except TransportTimeout:
                if self.loop.time() > deadline:
                    raise TransportTimeout(
                        f"no voter answered {self.name} within {KEYS_WAIT_S:.0f} s",
                        fix="is the hub running? `meshfold status` shows who is here",
                        timeout_s=KEYS_WAIT_S,
                    ) from None
                await asyncio.sleep(0.1)

    def _install(self, document: dict[str, Any]) -> bool:
        """Take in a voter's answer: keys, policy, grants, issuers, login. Whether the broker's login changed by it."""
        self.safety.take(bytes.fromhex(document["policy"]), fresh=True)
        self.safety.install(bytes.fromhex(document["packet"]))
        now_ms = self.hlc.now_ms()
        self._renew_identities(document)
        grants = [Grant.parse(bytes.fromhex(raw)) for raw in document["grants"]]
        fresh = [
            grant for grant in grants if grant.tag == self.identity.tag and grant.hash not in self.grants
        ]
        for grant in fresh:
            self.book.add(grant, now_ms)
            self.grants[grant.hash] = grant
        self.trust = self.trust.with_certificates(map(bytes.fromhex, document["certificates"]), now_ms)
        return self.enrolment.store.keep(fresh, self.trust, document["login"])

    def _renew_identities(self, document: dict[str, Any]) -> None:
        """Take in a newer identity of this node, and of the voters: the same keys with a new time.

        :raises FrameRejected: if one does not hold, or is another's
        """
        raw = bytes.fromhex(str(document.get("identity", "")))
        if raw:
            identity = self.directory.admit(raw)
            if identity.node_pub != self.identity.node_pub:
                raise FrameRejected("member", "another node's identity")
            self.enrolment.store.keep_identity(identity, str(document.get("narrow", "")))
            self.party.identity = identity
        told = tuple(bytes.fromhex(str(one)) for one in document.get("voters", ()))
        known = {voter.node_pub for voter in self.voters}
        if told and told != self.enrolment.voters:
            if {self.directory.admit(one).node_pub for one in told} != known:
                raise FrameRejected("member", "other voters")
            self.enrolment.store.keep_voters(told)

    async def _upkeep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), UPKEEP_S if self.grants else GRANTLESS_S)
            self._wake.clear()
            renew, self._renew = self._renew, False
            await self._refresh(renew=renew)

    async def _refresh(self, *, renew: bool) -> None:
        """Ask the voter for what is new, and log in anew at the broker if that may do more or less now."""
        had = bool(self.grants)
        try:
            changed = self._install(await self._ask_keys())
            if changed or renew:
                await self.transport.renew()
            if self.grants and not self.heartbeats.running:
                await self._appear()
        except MeshfoldError as error:
            # A node without a grant is told so at each question; it goes on to ask.
            if had:
                self.problems.append(f"keys and grants not refreshed: {error}")
            if renew:
                # Its last grant may be gone: the broker shall allow no more than what is left.
                with contextlib.suppress(MeshfoldError):
                    await self.transport.renew()

    async def on_granted(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `granted`: a voter has something new for this node."""
        self._require_voter(asker)
        self._renew = True
        self._wake.set()
        return {}

    async def on_shredded(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `shredded`: whether an epoch is erased here, as its voters asked."""
        self._require_voter(asker)
        return {"done": self.safety.has_shredded(str(args.get("name", "")))}

    def _require_voter(self, asker: Identity) -> None:
        if all(voter.tag != asker.tag for voter in self.voters):
            raise GrantDenied(
                f"{asker.name} is no voter", principal=asker.name, action="CONSENSUS_MEMBER", route=""
            )

    async def _issue(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        assert self.control is not None
        grant, answer = await self.control.issue(asker, args)
        holder = self.directory.lookup(grant.tag)
        if holder is not None and holder.tag == self.identity.tag:
            self._renew = True
            self._wake.set()
        elif holder is not None and self.directory.alive(grant.tag):
            with contextlib.suppress(MeshfoldError):
                await self.asker.ask(holder, "granted", {}, KEYS_ASK_S)
        return answer

    @property
    def policy_epoch(self) -> int:
        """The epoch of the policy this node holds."""
        return self.safety.keeper.record.policy_epoch

    def _take_policy(self, record: PolicyRecord) -> None:
        if record.policy_epoch >= self.book.policy.epoch:
            self.book.set_policy(record.policy)
        gone = [
            grant_hash
            for grant_hash, grant in self.grants.items()
            if any(link.hash in record.revoked for link in grant.links)
        ]
        for grant_hash in gone:
            del self.grants[grant_hash]
        if gone:
            self.keyring.forget_past()
            self.enrolment.store.forget(gone)
            self._renew = True
            self._wake.set()
        if self.login_revoker is not None:
            self.login_revoker.note(record)
        self.wake_bridges()

    def wake_bridges(self) -> None:
        """Keys or policy have changed: what waited for that goes on."""
        for bridge in self.outgoing.values():
            bridge.wake()

    def clones(self) -> list[str]:
        """Nodes of which two copies were seen, as problems."""
        found: list[str] = []
        for tag, why in self.opener.starts.fenced.items():
            identity = self.directory.lookup(tag)
            name = identity.name if identity is not None else tag.hex()
            found.append(
                f"ALARM: two copies of {name}, both refused: {why}; decide: meshfold node decide {name}"
            )
        return found

    def _keeps_memory(self) -> bool:
        """Whether this life is one of the node's own, and not one of the operator's many short ones."""
        if self.quiet or self.identity.name != OPERATOR:
            return not self.quiet
        try:
            self.enrolment.store.memory.hold()
        except ConfigError:
            return False
        return True

    def _log_status(self) -> LogStatus:
        """The control log as the heartbeats of its voters tell it; the highest term is the truth of last resort."""
        lines = [self.control.status()] if self.control else []
        for tag in self.directory.tags():
            heartbeat = self.directory.last(tag)
            if heartbeat is not None and self.directory.alive(tag):
                lines += [line for line in heartbeat.groups if line.get("group") == GROUP]
        best = max(lines, key=lambda line: (line["term"], line["commit"]), default=None)
        voters = tuple(voter.name for voter in self.voters)
        if best is None:
            return LogStatus(GROUP, None, 0, 0, voters, self.name)
        return LogStatus(GROUP, best["leader"], best["term"], best["commit"], voters, self.name)

    def share(self, route: Route[Any], express: bool, fence: Fence | None) -> OutgoingBridge:
        """Make the outgoing bridge of a route, or return the one there is."""
        known = self.outgoing.get(route.address)
        if known is not None and known.state != "closed":
            if fence is not None:
                raise WiringError(
                    f"{route.text} is shared already",
                    fix="give the fence at the first share",
                    item=route.text,
                )
            return known
        if route.addr.layer == "ephemeral":
            raise WiringError(
                f"{route.text} is ephemeral, so it is private to its process (S42)",
                fix="promote what others may read to a normal route",
                item=route.text,
            )
        self._require(Action.OWN, route)
        self.safety.require_fresh()
        if route.secrecy != "none" and not route.shreddable:
            self.keyring.key_for("d", route.addr, self.hlc.now_ms())
        bridge = OutgoingBridge(
            self.graph,
            route,
            loop=self.loop,
            transport=self.transport,
            sealer=self.sealer,
            subjects=self.subjects,
            hlc=self.hlc,
            policy_epoch=lambda: self.policy_epoch,
            meta_wanted=self._meta_wanted,
            may_send=self._may_send,
            prepare=self._declare_shreddable,
            express=express,
            writes=self._serve_writes(route, fence),
        )
        self.outgoing[route.address] = bridge
        return bridge

    def _serve_writes(self, route: Route[Any], fence: Fence | None) -> ServedWrites | None:
        if route.addr.variant != "request":
            if fence is not None:
                check_request_route(route)
            return None
        served = ServedWrites(
            self.party,
            graph=self.graph,
            route=route,
            fence=fence,
            book=self.book,
            budgets=self.budgets,
            reject=self.reject,
            denied=self._denied,
        )
        self._served[route.address] = served
        return served

    def read(self, route: Route[Any]) -> IncomingBridge:
        """Make the incoming bridge of a route: whole with PAYLOAD_OPEN, else metadata only."""
        known = self.incoming.get(route.address)
        if known is not None and known.state not in ("closed", "failed"):
            return known
        form: Literal["d", "m"] = "d"
        self._require(Action.META_READ, route)
        self.safety.require_fresh()
        if not self.book.decide(self.identity.tag, Action.PAYLOAD_OPEN, route.addr).allowed:
            form = "m"
        bridge = IncomingBridge(
            self.graph,
            route,
            loop=self.loop,
            transport=self.transport,
            opener=self.opener,
            subjects=self.subjects,
            hlc=self.hlc,
            form=form,
            reject=self.reject,
            safety=self.safety,
        )
        self.incoming[route.address] = bridge
        return bridge

    async def _declare_shreddable(self, route: Route[Any]) -> None:
        """Before a shreddable route is first shared, the voters take it out of the key tree."""
        if route.shreddable and not self.keyring.epochs.outside(route.addr.tokens):
            await self.ask_voters.ask("key_declare", {"route": route.address}, DECLARE_S)

    def _may_send(self, route: Route[Any], at_ms: int) -> bool:
        """Whether a frame may be sealed now: a policy not too old, and the keys of the epoch in force."""
        if not self.safety.may_send():
            return False
        if route.secrecy == "none":
            return True
        if route.shreddable and not self.keyring.epochs.outside(route.addr.tokens):
            self.safety.lack()
            return False
        try:
            for key_class in ("m", "d"):
                self.keyring.key_for(key_class, route.addr, at_ms)
        except KeyMissing:
            self.safety.lack()
            return False
        return True

    def _require(self, action: Action, route: Route[Any]) -> None:
        try:
            self.book.require(self.identity.tag, action, route.addr)
        except MeshfoldError as error:
            self.refuse(route.text, action.name or "", str(error))
            raise

    def _name_of(self, tag: bytes) -> str:
        identity = self.directory.lookup(tag)
        return identity.name if identity is not None else tag.hex()

    def _audit_decision(self, principal: bytes, action: Action, address: Address, decision: Decision) -> None:
        self.audit.note(
            self._name_of(principal),
            action.name or str(int(action)),
            address.short,
            decision.allowed,
            decision.because,
            decision.grant.hex(),
        )

    def audit_question(self, asker: Identity, command: str, error: MeshfoldError | None) -> None:
        """Note that a node asked this one something, and whether it was answered."""
        if error is None and command in UNREMARKABLE:
            return
        self.audit.note(
            asker.name, f"ask {command}", "", error is None, "" if error is None else str(error)[:200]
        )

    def refuse(self, route: str, action: str, error: str) -> None:
        """Note a refusal of this node for `refusals`."""
        self.refusals.append({"node": self.name, "route": route, "action": action, "error": error})
        self.denials += 1
        self.recorder.denied(action, route, self.name)

    def _denied(self, error: GrantDenied) -> None:
        """Note that this node refused somebody's question."""
        self.denials += 1
        facts = {name: str(error.fields.get(name, "")) for name in ("action", "route", "principal")}
        self.recorder.denied(**facts)

    def reject(self, reason: str, where: str) -> None:
        """Count a refused frame: it is no event (S43)."""
        self.rejected[reason] += 1
        self.audit.note("", "frame", where, False, reason)
        self.recorder.rejected(reason, where)

    def _on_event(self, event: TransportEvent) -> None:
        if event.kind == "permission":
            self.refuse("", "broker", event.detail)
        elif event.kind in ("malformed", "handler_error"):
            self.rejected["header" if event.kind == "malformed" else "format"] += 1
        elif event.kind == "connected":
            if self.transport.narrow:
                # The login ended or was revoked while it was away: fetch the one it may have now.
                self._renew = True
                self._wake.set()
            if self.login_revoker is not None:
                self.login_revoker.server_back()

    def _meta_wanted(self, address: str) -> bool:
        return any(
            f"m {address}" in heartbeat.reads
            for tag in self.directory.tags()
            if self.directory.alive(tag) and (heartbeat := self.directory.last(tag)) is not None
        )

    def _compose(self, counter: int, closing: bool) -> Heartbeat:
        return Heartbeat(
            name=self.name,
            identity=self.identity.raw,
            grants=[grant.raw for grant in self.grants.values()],
            pid=os.getpid(),
            host=socket.gethostname(),
            started_ms=self.started_ms,
            counter=counter,
            heard=self.directory.heard_incarnations(),
            routes=[bridge.checkpoint() for bridge in self.outgoing.values()],
            reads=[f"{bridge.form} {address}" for address, bridge in self.incoming.items()],
            groups=[self.control.status()] if self.control else [],
            start=self.safety.start_record.raw if self.safety.start_record is not None else b"",
            wrap=self.safety.wrap_record,
            closing=closing,
        )

    def _shown(self, sender: Identity, grants: list[bytes]) -> None:
        """Take in the grants that a node shows, as far as they hold."""
        for raw in grants[:GRANTS_SHOWN_MAX]:
            try:
                self.book.add(Grant.parse(raw), self.hlc.now_ms())
            except FrameRejected as error:
                self.reject(error.reason, f"grant of {sender.name}")

    def _heard(self, sender: Identity, incarnation: bytes, heartbeat: Heartbeat) -> None:
        sees_us = heartbeat.heard.get(self.identity.tag.hex()) == self.graph.incarnation
        try:
            self.safety.heard(sender, incarnation, heartbeat, sees_us=sees_us)
        except FrameRejected as error:
            self.reject(error.reason, f"heartbeat of {sender.name}")
            return
        if sender.tag == self.identity.tag and not self.quiet:
            return
        self._shown(sender, heartbeat.grants)
        before, last = self.directory.incarnation(sender.tag), self.directory.last(sender.tag)
        if self.directory.heard(sender.tag, incarnation, heartbeat) and before is not None:
            self._ended(sender.tag, before, clean=last is not None and last.closing)
        for checkpoint in heartbeat.routes:
            bridge = self.incoming.get(checkpoint.address)
            if bridge is not None:
                bridge.heard(sender.tag, incarnation, checkpoint, sees_us=sees_us)
        if heartbeat.closing:
            self._ended(sender.tag, incarnation, clean=True)

    def _ended(self, tag: bytes, incarnation: bytes, *, clean: bool) -> None:
        for bridge in self.incoming.values():
            bridge.gone(tag, incarnation, clean=clean)

    def sweep(self) -> None:
        """Note members that fell silent."""
        for tag in self.directory.tags():
            heartbeat = self.directory.last(tag)
            incarnation = self.directory.incarnation(tag)
            silent = heartbeat is not None and not heartbeat.closing and not self.directory.alive(tag)
            if silent and incarnation is not None:
                self._ended(tag, incarnation, clean=False)

    async def settle(self) -> None:
        """Wait two heartbeats, so that what peers sent last is counted."""
        await asyncio.sleep(2 * HEARTBEAT_S)

    async def close(self) -> None:
        """Drain and stop. Idempotent."""
        for bridge in (*self.outgoing.values(), *self.incoming.values()):
            try:
                await bridge.close()
            except (MeshfoldError, KeyMissing) as error:
                self.problems.append(f"closing {bridge.route.text}: {error}")
        if self._upkeep_job is not None:
            await end_jobs((self._upkeep_job,))
        if self.doorkeeper is not None:
            await self.doorkeeper.close()
        if self.login_revoker is not None:
            await self.login_revoker.close()
        if self.key_desk is not None:
            await self.key_desk.close()
        if self.transport.connected:
            await self.heartbeats.close()
        await self.responder.close()
        await self.transport.close()
        await self.safety.close()
        if self.control is not None:
            self.control.close()
        await asyncio.to_thread(self.recorder.close)
