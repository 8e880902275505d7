"""The voter's side of a mesh: the control log, the key tree, grants and the policy epoch.

Runs inside the node that the context names as voter. Everything it decides is an entry of the control log before it is
announced: `grant/<hash>`, `member/<tag>`, and `policy`, the signed record of revocations and key epochs (`Keymaster`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from meshfold.consensus import Elections, RaftLog, SoloLog
from meshfold.core.errors import FrameRejected, GrantDenied, NoQuorum, NotLeader, WiringError
from meshfold.core.registry import Action
from meshfold.mesh.clocks import HybridClock
from meshfold.mesh.node.cosigning import Cosigning
from meshfold.mesh.node.election_desk import ElectionDesk, require_action
from meshfold.mesh.node.keymaster import Keymaster
from meshfold.mesh.node.log_desk import LogDesk
from meshfold.mesh.node.members import Directory
from meshfold.mesh.node.papers import Issuing
from meshfold.mesh.node.party import Party
from meshfold.mesh.node.queries import Asker, Handler, Responder
from meshfold.mesh.node.raft_wire import RaftWire, number_of
from meshfold.mesh.node.shared_keys import SharedKeys
from meshfold.mesh.node.standing import PREFIX
from meshfold.mesh.node.voter_log import VoterLog, open_group
from meshfold.mesh.subjects import GROUP
from meshfold.security import (
    Challenges,
    Grant,
    GrantBook,
    Identity,
    KeyStore,
    KeyTree,
    Link,
    NodeKeys,
    Policy,
    tag_of,
)
from meshfold.security.key_tree import KEYED, path_of

__all__ = ("Control", "LeadersDesk", "Talk", "possession_request")

#: Grants a mesh keeps; one more is refused as `limit`.
GRANTS_MAX = 65_536
#: A voter that stops waits so long for another to lead.
LEAVE_S = 1.0


def _group_document(group: str, found: dict[str, Any]) -> dict[str, Any]:
    held = found["leader"] is not None
    return {
        "group": group,
        "kind": "election",
        "leader": found["leader"],
        "term": found["token"],
        "commit": found["token"],
        "token": f"{group}:{found['token']}" if held else None,
    }


def possession_request(args: dict[str, Any]) -> bytes:
    """The part of a question for keys that its proof of possession covers."""
    return "\n".join([str(args.get("nonce", "")), *map(str, args.get("grants", []))]).encode()


class Talk(NamedTuple):
    """How a voter speaks with the others."""

    voters: tuple[Identity, ...]
    asker: Asker
    responder: Responder
    reject: Callable[[str, str], None]


class LeadersDesk:
    """Registers what only the voter that leads answers: the others say who does."""

    def __init__(self, responder: Responder, keymaster: Keymaster) -> None:
        self._responder = responder
        self._keymaster = keymaster

    def answers(self, command: str, handler: Handler) -> None:
        """Register the handler of a command."""

        async def led(asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
            await self._keymaster.lead()
            return await handler(asker, args)

        self._responder.answers(command, led)


class Control:
    """What a voter answers: keys for grants, the list of grants, issue and revoke."""

    def __init__(
        self,
        log: VoterLog,
        tree: KeyTree,
        keys: NodeKeys,
        identity: Identity,
        book: GrantBook,
        directory: Directory,
        hlc: HybridClock,
        voters: tuple[Identity, ...],
        talk: Talk | None = None,
    ) -> None:
        self.log = log
        self.tree = tree
        self._keys = keys
        self._identity = identity
        self._book = book
        self._directory = directory
        self._hlc = hlc
        self._challenges = Challenges(identity.cluster, keys.node_pub)
        self.keymaster = Keymaster(log, tree, keys, identity, book, directory, hlc)
        may_answer = log.may_answer if isinstance(log, RaftLog) else lambda: True
        self.desk = ElectionDesk(Elections(log, hlc.clock, may_answer=may_answer), book)
        self.log_desk = LogDesk(log, book)
        #: certificates of the issuers, for nodes that do not have the newest
        self.certificates: tuple[bytes, ...] = ()
        #: renews what ends of a member's papers
        self.issuing = Issuing(
            identity, book, directory, hlc, voters, self._standing_marks, talk.asker if talk else None
        )
        self._wire: RaftWire | None = None
        self._cosigning: Cosigning | None = None

    @classmethod
    async def open(
        cls,
        folder: Path,
        keys: NodeKeys,
        identity: Identity,
        book: GrantBook,
        directory: Directory,
        hlc: HybridClock,
        voters: tuple[Identity, ...],
    ) -> Control:
        """Open the control log and the key tree in `folder`, making them on first use.

        :raises StoreDamaged: if the log is damaged below what it acknowledged
        :raises ConfigError: if another process holds it
        """
        log = SoloLog.open(folder / "log", group=GROUP, node=identity.name)
        path = folder / "keys"
        store = KeyStore.load(path) if path.exists() else KeyStore.generate(path)
        tree = KeyTree(identity.cluster, store)
        control = cls(log, tree, keys, identity, book, directory, hlc, voters)
        await control.keymaster.restore(voters)
        return control

    @classmethod
    async def join(
        cls, folder: Path, node_folder: Path, party: Party, keys: NodeKeys, book: GrantBook, talk: Talk
    ) -> Control:
        """Be one of several voters: open this voter's part of the log, and take part.

        Nothing is decided on return: whoever of the voters leads makes sure of log and keys before it does.

        :param node_folder: where the node's keys are
        :raises StoreDamaged: if the log is damaged below what it acknowledged
        :raises ConfigError: if another process holds it, or what this identity voted is lost
        :raises TransportClosed: if the transport was closed
        """
        wire = RaftWire(GROUP, party, talk.voters, reject=talk.reject)
        log = open_group(folder, node_folder, party.identity, talk.voters, wire, party.hlc.clock)
        path = folder / "keys"
        store = KeyStore.load(path) if path.exists() else KeyStore.empty(path)
        tree = KeyTree(party.identity.cluster, store)
        control = cls(log, tree, keys, party.identity, book, party.directory, party.hlc, talk.voters, talk)
        control._wire = wire
        control._cosigning = Cosigning(
            control.keymaster,
            log,
            SharedKeys(store, log),
            party.identity,
            talk.voters,
            talk.asker,
            folder / "signed",
            party.directory.lookup,
        )
        control.keymaster.share(talk.voters, control._cosigning)
        control._cosigning.register(talk.responder)
        talk.responder.answers("papers", control.issuing.answer)
        await wire.listen(log.receive)
        log.start()
        return control

    @property
    def policy(self) -> Policy:
        """What is revoked, and the epoch of that."""
        return self.keymaster.record.policy

    @property
    def leads(self) -> bool:
        """Whether this voter leads, as far as it knows."""
        status = self.log.status()
        return status.leader == status.node

    def status(self) -> dict[str, Any]:
        """The group's line in `status`: group, leader, term, commit, token."""
        status = self.log.status()
        return {
            "group": status.group,
            "leader": status.leader,
            "term": status.term,
            "commit": status.commit,
            "kind": "log",
            "voters": list(status.voters),
            "token": f"{status.group}:{status.term}",
        }

    async def groups(self) -> list[dict[str, Any]]:
        """The log's line, and one for each election, which only the voter that leads knows of."""
        with contextlib.suppress(NotLeader, NoQuorum):
            return [self.status(), *await self.desk.groups()]
        return [self.status()]

    async def group_leader(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `group_leader`: who leads the control log, or an election.

        :raises GrantDenied: if the asker holds no grant
        """
        group = str(args.get("group", ""))
        if group != GROUP:
            return _group_document(group, await self.desk.current(asker, {"name": group}))
        if not self._book.grants_of(asker.tag):
            require_action(self._book, asker, Action.META_READ, "see who leads")
        # A read of the log proves that whoever answers still leads it.
        await self.log.get("policy")
        return self.status()

    async def group_step_down(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `group_step_down`: end the leadership of an election, and say whose it was.

        :raises GrantDenied: if the asker holds no grant with KEY_ADMIN
        :raises WiringError: for the control log itself where it has one voter
        :raises NoQuorum: if no other voter took over in time
        """
        group = str(args.get("group", ""))
        require_action(self._book, asker, Action.KEY_ADMIN, "make a leader step down")
        if group == GROUP and isinstance(self.log, RaftLog):
            before = self.status()
            await self._hand_over(self.log)
            return before
        if group == GROUP:
            raise WiringError(
                f"{GROUP} has one voter, {self._identity.name}: nobody could take over",
                fix="name an election; `meshfold status` lists them",
                item=GROUP,
            )
        return _group_document(group, await self.desk.step_down(asker, {"name": group}))

    async def _hand_over(self, log: RaftLog) -> None:
        """Let another voter lead: the first that takes over, those that are here before those that are not heard.

        They are asked from the one that comes after us on, so that who asks again and again has each of them lead once.
        """
        voters = self.keymaster.voters
        ours = [one.tag for one in voters].index(self._identity.tag)
        others = [*voters[ours + 1 :], *voters[:ours]]
        others.sort(key=lambda one: not self._directory.alive(one.tag))
        for voter in others:
            try:
                await log.transfer(number_of(voter.tag))
                return
            except NoQuorum:
                if voter is others[-1]:
                    raise

    async def leave(self) -> None:
        """Before this voter stops: let another lead at once, instead of after an election timeout."""
        if isinstance(self.log, RaftLog) and self.leads:
            with contextlib.suppress(NotLeader, NoQuorum, TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await self._hand_over(self.log)

    async def admit_by(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `member_admit`: note a node that another voter let in by its token.

        :raises GrantDenied: if the asker is no voter
        """
        if all(voter.tag != asker.tag for voter in self.keymaster.voters):
            raise GrantDenied(
                f"{asker.name} is no voter", principal=asker.name, action="CONSENSUS_MEMBER", route=""
            )
        identity = self._directory.admit(bytes.fromhex(str(args.get("identity", ""))))
        await self.admit(identity, [Grant.parse(bytes.fromhex(raw)) for raw in args.get("grants", [])])
        return {}

    async def challenge(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `challenge`: what a proof of possession to this voter has to be about."""
        return {"challenge": self._challenges.issue(asker.node_pub, self._hlc.now_ms()).hex()}

    def _check_possession(self, asker: Identity, args: dict[str, Any]) -> None:
        """Whoever shows grants proves that it holds the key they are bound to."""
        if asker.tag == self._identity.tag:
            return
        self._challenges.check(
            bytes.fromhex(str(args.get("pop", ""))),
            subject_pub=asker.node_pub,
            verb="keys",
            request=possession_request(args),
            challenge=bytes.fromhex(str(args.get("challenge", ""))),
            incarnation=bytes.fromhex(str(args.get("incarnation", ""))),
            now_ms=self._hlc.now_ms(),
        )

    async def keys_for(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `keys`: check the asker's grants, note the member, wrap the keys its grants entitle it to.

        :raises GrantDenied: if it holds no valid grant: then it gets no key at all
        :raises FrameRejected: with reason `pop` if it does not prove that it holds its key
        """
        grants = [Grant.parse(bytes.fromhex(raw)) for raw in args.get("grants", [])]
        refused, held = "", []
        for grant in grants:
            try:
                self._book.add(grant, self._hlc.now_ms())
            except FrameRejected as error:
                refused = str(error)
                continue
            held.append(grant)
        valid = self._book.grants_of(asker.tag)
        if not valid:
            raise GrantDenied(
                f"{asker.name} holds no valid grant in this mesh" + (f" ({refused})" if refused else ""),
                fix=f"issue one: meshfold grant issue {asker.name} ROUTE --action META_READ",
                principal=asker.name,
                action="",
                route="",
            )
        self._check_possession(asker, args)
        for grant in held:
            await self._note(grant)
        if args.get("wrap"):
            self._directory.take_wrap(asker.tag, bytes.fromhex(args["wrap"]))
            asker = self._directory.lookup(asker.tag) or asker
        valid = await self._with_noted(asker, valid)
        papers = await self.issuing.papers(asker, valid, login=bool(args.get("login")))
        if papers.identity:
            asker = self._directory.admit(papers.identity)
        await self._note_member(asker)
        await self._stand(papers.grants)
        valid = [*valid, *papers.grants]
        return {
            "packet": self.keymaster.packet_for(asker, valid).hex(),
            "policy": self.keymaster.record.encode().hex(),
            "nonce": str(args.get("nonce", "")),
            "grants": [grant.raw.hex() for grant in valid],
            "certificates": [raw.hex() for raw in self.certificates],
            "login": papers.login,
            "identity": papers.identity.hex(),
            "narrow": papers.narrow,
            "voters": [
                (self._directory.lookup(voter.tag) or voter).raw.hex() for voter in self.keymaster.voters
            ],
        }

    async def _with_noted(self, asker: Identity, valid: list[Grant]) -> list[Grant]:
        """The asker's grants, and those that were noted for it while it did not know."""
        for saved in (await self.log.snapshot("grant/")).values():
            grant = Grant.parse(saved.value)
            if grant.tag == asker.tag and all(grant.hash != held.hash for held in valid):
                try:
                    self._book.add(grant, self._hlc.now_ms())
                except FrameRejected:
                    continue
        return self._book.grants_of(asker.tag)

    def _standing_marks(self) -> frozenset[str]:
        return frozenset(key.removeprefix(PREFIX) for key in self.log.state.snapshot(PREFIX))

    async def _stand(self, grants: Iterable[Grant]) -> None:
        for grant in grants:
            self._book.add(grant, self._hlc.now_ms())
            await self._note(grant)
            await self.log.put(f"{PREFIX}{grant.hash.hex()}", b"")

    async def admit(self, identity: Identity, grants: list[Grant]) -> None:
        """Note a node that joined by token."""
        self._directory.admit(identity.raw)
        await self._note_member(identity)
        await self._stand(grants)

    async def _note_member(self, identity: Identity) -> None:
        key = f"member/{identity.tag.hex()}"
        known = await self.log.get(key)
        if known is None or known.value != identity.raw:
            await self.log.put(key, identity.raw)

    async def _note(self, grant: Grant) -> None:
        key = f"grant/{grant.hash.hex()}"
        if await self.log.get(key) is None:
            if len(await self.log.snapshot("grant/")) >= GRANTS_MAX:
                raise FrameRejected("limit", f"more than {GRANTS_MAX} grants")
            await self.log.put(key, grant.raw)

    def _require_admin(self, asker: Identity) -> None:
        require_action(self._book, asker, Action.KEY_ADMIN, "change grants")

    async def grants(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `grants`: every grant in the log, with who holds it and whether it was revoked."""
        found = []
        for key, saved in (await self.log.snapshot("grant/")).items():
            grant = Grant.parse(saved.value)
            holder = self._name_of(grant.subject_pub)
            found.append(
                {
                    "id": key.removeprefix("grant/"),
                    "subject": holder,
                    "capabilities": [
                        {
                            "actions": str(capability.actions).replace("Action.", ""),
                            "pattern": capability.pattern,
                        }
                        for capability in grant.capabilities
                    ],
                    "not_before_ms": grant.not_before_ms,
                    "not_after_ms": grant.not_after_ms,
                    "revoked": self._revoked(grant),
                }
            )
        return {"grants": found}

    async def show(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `grant_show`: one grant link by link.

        :raises WiringError: if not exactly one is meant
        """
        wanted = str(args.get("id", ""))
        names = [key.removeprefix("grant/") for key in await self.log.snapshot("grant/")]
        found = [name for name in names if name.startswith(wanted)]
        saved = await self.log.get(f"grant/{found[0]}") if len(found) == 1 else None
        if saved is None:
            raise WiringError(
                f"{wanted!r} names {len(found)} grants", fix="`meshfold grant ls` lists them", item=wanted
            )
        grant = Grant.parse(saved.value)
        if asker.tag != grant.tag:
            self._require_admin(asker)
        return {
            "id": found[0],
            "revoked": self._revoked(grant),
            "links": [self._link(one) for one in grant.links],
        }

    def _revoked(self, grant: Grant) -> bool:
        revoked = self.policy.revoked
        return any(link.hash in revoked or link.subject_pub in revoked for link in grant.links)

    def _link(self, link: Link) -> dict[str, Any]:
        return {
            "issuer": self._name_of(link.issuer_pub),
            "subject": self._name_of(link.subject_pub),
            "not_before_ms": link.not_before_ms,
            "not_after_ms": link.not_after_ms,
            "policy_epoch": link.policy_epoch,
            "depth_left": link.depth_left,
            "capabilities": [
                {
                    "actions": str(one.actions).replace("Action.", ""),
                    "pattern": one.pattern,
                    "caveats": [
                        f"{caveat.kind.name} {'..'.join(map(str, caveat.values))}" for caveat in one.caveats
                    ],
                }
                for one in link.capabilities
            ],
        }

    async def member(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `member`: the public key of the member of a name; empty if none was ever here."""
        self._require_admin(asker)
        name = str(args.get("name", ""))
        identity = self._directory.by_name(name)
        if identity is None:
            known = [Identity.parse(saved.value) for saved in (await self.log.snapshot("member/")).values()]
            identity = next((one for one in known if one.name == name), None)
        return {"node_pub": identity.node_pub.hex() if identity is not None else ""}

    def _name_of(self, node_pub: bytes) -> str:
        identity = self._directory.lookup(tag_of(node_pub))
        return identity.name if identity is not None else node_pub.hex()[:16]

    async def issue(self, asker: Identity, args: dict[str, Any]) -> tuple[Grant, dict[str, Any]]:
        """Note a grant that the issuer signed; returns it and the answer."""
        self._require_admin(asker)
        grant = Grant.parse(bytes.fromhex(args.get("grant", "")))
        self._book.add(grant, self._hlc.now_ms())
        if args.get("fresh"):
            for path in sorted({path_of(one.pattern) for one in grant.capabilities}):
                await self.keymaster.rotate(path, lead_ms=0)
        await self._note(grant)
        return grant, {
            "id": grant.hash.hex(),
            "policy_epoch": self.policy.epoch,
            "opens": [self._opens(one.pattern) for one in grant.capabilities if one.actions & KEYED],
        }

    def _opens(self, pattern: str) -> dict[str, Any]:
        """What past a grant of this pattern opens: everything sealed since the epoch of its node began."""
        line = self.keymaster.record.epochs.timeline(path_of(pattern))
        return {"pattern": pattern, "since_ms": line[-1][0], "epochs": list(line[-1][1])}

    async def revoke(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `grant_revoke`: raise the policy epoch with the grant's hash in the revoked set."""
        self._require_admin(asker)
        item = str(args.get("id", ""))
        saved = await self.log.get(f"grant/{item}")
        if saved is None:
            raise GrantDenied(
                f"no grant {item[:16]} is known",
                fix="`meshfold grant ls` lists them",
                action="",
                route="",
                principal="",
            )
        record = await self.keymaster.revoke([bytes.fromhex(item)], Grant.parse(saved.value))
        return {"id": item, "policy_epoch": record.policy_epoch}

    async def close(self) -> None:
        """Close the log, and stop speaking with the other voters."""
        if self._cosigning is not None:
            await self._cosigning.close()
        if isinstance(self.log, RaftLog):
            await self.log.close()
        else:
            self.log.close()
        if self._wire is not None:
            await self._wire.close()
