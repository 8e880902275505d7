"""How several voters sign one policy record, and hold the same keys: the questions between them, and their answers.

The voter that leads asks; the others make sure that they hold every key, that the record follows what their own log says,
and sign. They ask back for keys that they lack. Only voters ask and are answered.

Invariants: a voter signs only for the one that leads as it sees it, only what follows its own log, only when it holds the keys
that the record names, and at most one record of a rank, over restarts too. What a majority has not signed is no policy.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from meshfold.core.errors import FrameRejected, GrantDenied, KeyMissing, MeshfoldError, NoQuorum, NotLeader
from meshfold.core.jobs import end_jobs
from meshfold.mesh.enrolment.authority_folder import write_private
from meshfold.mesh.node.queries import Asker, Responder
from meshfold.mesh.node.raft_wire import number_of
from meshfold.mesh.node.shared_keys import PAGE_MAX, SharedKeys
from meshfold.mesh.subjects import GROUP
from meshfold.security import Identity, PolicyRecord

if TYPE_CHECKING:
    from meshfold.consensus import RaftLog
    from meshfold.mesh.node.keymaster import Keymaster

__all__ = ("Cosigning", "Rank")

#: One question to another voter; it may ask back for keys meanwhile.
ASK_S: Final = 3.0
#: How far another voter may say that it has signed already: one that says more would use up the epochs of the mesh.
AHEAD_MAX: Final = 64
#: Keys one question may name.
NAMES_MAX: Final = 8192
Rank = tuple[int, int]
_SIGNED: Final = struct.Struct(">IQ32s")


class Cosigning:
    """One voter's part in what a majority decides.

    :param signed: file that remembers the rank this voter signed last
    """

    def __init__(
        self,
        keymaster: Keymaster,
        log: RaftLog,
        shared: SharedKeys,
        ourselves: Identity,
        voters: Sequence[Identity],
        asker: Asker,
        signed: Path,
        lookup: Callable[[bytes], Identity | None],
    ) -> None:
        self._keymaster = keymaster
        self._log = log
        self._shared = shared
        self._ourselves = ourselves
        self._voters = {one.tag: one for one in voters}
        self._asker = asker
        self._signed_file = signed
        self._lookup = lookup
        self._signed: tuple[Rank, bytes] = ((0, 0), bytes(32))
        if signed.exists():
            epoch, index, head = _SIGNED.unpack(signed.read_bytes())
            self._signed = (epoch, index), head
        self._late: set[asyncio.Task[Any]] = set()

    def register(self, responder: Responder) -> None:
        """Answer the other voters from now on."""
        responder.answers("policy_sign", self.answer_sign)
        responder.answers("voter_keys", self.answer_keys)

    def _others(self) -> list[Identity]:
        found = [self._lookup(tag) or one for tag, one in self._voters.items()]
        return [one for one in found if one.tag != self._ourselves.tag]

    def _require_voter(self, asker: Identity) -> None:
        if asker.tag not in self._voters:
            raise GrantDenied(
                f"{asker.name} is no voter", principal=asker.name, action="CONSENSUS_MEMBER", route=""
            )

    # -- asking --

    async def collect(self, record: PolicyRecord) -> tuple[PolicyRecord | None, Rank]:
        """The record with the signatures of a majority; or None, and the rank that others have signed already.

        :raises NoQuorum: if no majority signs it
        """
        noted = self._shared.applied(record.epochs)
        fresh = {name: value for name, value in self._shared.held().items() if noted.get(name) != value}
        args = {
            "record": record.encode().hex(),
            "keys": {name: value.hex() for name, value in fresh.items()},
        }
        own = self._sign(record)
        if own is None:
            return None, self._signed[0]
        signatures, refusals, floor = [own], list[str](), (0, 0)
        pending = {asyncio.create_task(self._ask_signature(one, record, args)) for one in self._others()}
        while pending and 2 * len(signatures) <= len(self._voters):
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                found = task.result()
                if isinstance(found, str):
                    refusals.append(found)
                elif isinstance(found[0], bytes):
                    signatures.append(found)
                else:
                    floor = max(floor, found)
        # Those that are slower go on: they take in the keys, and their signatures are not needed.
        for task in pending:
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        if 2 * len(signatures) > len(self._voters):
            return replace(record, signatures=tuple(signatures)), floor
        if floor >= record.rank:
            return None, floor
        raise NoQuorum(
            f"{len(signatures)} of {len(self._voters)} voters signed the policy, no majority: "
            + "; ".join(sorted(refusals)),
            fix="start the voters that are away: `meshfold status` names them",
            group=GROUP,
        )

    async def _ask_signature(self, voter: Identity, record: PolicyRecord, args: dict[str, Any]) -> Any:
        """(tag, signature); or the rank it has signed already; or as text why there is none."""
        try:
            answer = await self._asker.ask(voter, "policy_sign", args, ASK_S)
            if "signed" in answer:
                epoch, index = map(int, answer["signed"])
                ahead = epoch - record.policy_epoch, index - record.log_index
                return (epoch, index) if max(ahead) <= AHEAD_MAX else f"{voter.name} is too far ahead"
            signature = bytes.fromhex(str(answer["signature"]))
            record.check_signature(voter, signature)
            return voter.tag, signature
        except (MeshfoldError, ValueError, TypeError, KeyError) as error:
            return f"{voter.name}: {error}"

    async def fetch(self, wanted: Mapping[str, bytes]) -> None:
        """Take keys from the other voters until none of `wanted` is missing.

        :raises NoQuorum: if the voters that answer do not have them all
        """
        for voter in self._others():
            missing = self._shared.missing(wanted)
            if not missing:
                return
            try:
                await self._pull(voter, missing)
            except MeshfoldError:
                continue
        missing = self._shared.missing(wanted)
        if missing:
            raise NoQuorum(
                f"{self._ourselves.name} leads, and lacks {len(missing)} keys that the voters which answer do not have",
                fix="start the voters that are away: a majority of all has every key",
                group=GROUP,
            )

    async def _pull(self, voter: Identity, missing: Mapping[str, bytes]) -> None:
        names = sorted(missing)
        for start in range(0, len(names), PAGE_MAX):
            page = {"names": names[start : start + PAGE_MAX]}
            answer = await self._asker.ask(voter, "voter_keys", page, ASK_S)
            given = answer.get("keys")
            if not isinstance(given, dict):
                raise FrameRejected("format", "no keys")
            try:
                self._shared.take(missing, {str(name): str(key) for name, key in given.items()})
            except ValueError as error:
                raise FrameRejected("format", str(error)) from None

    # -- answering --

    async def answer_keys(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `voter_keys`: the keys of those names, as far as they are here; for voters alone.

        :raises GrantDenied: if the asker is none
        """
        self._require_voter(asker)
        names = args.get("names")
        if not isinstance(names, list) or len(names) > PAGE_MAX:
            raise FrameRejected("limit", "names of keys")
        return {"keys": self._shared.give(map(str, names))}

    async def answer_sign(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `policy_sign`: our signature, or the rank that we have signed already.

        :raises GrantDenied: if the asker is no voter
        :raises NotLeader: if it does not lead, as far as this voter knows
        :raises FrameRejected: if the record does not follow our log, or its keys are not to be had
        """
        self._require_voter(asker)
        if self._log.leader != number_of(asker.tag):
            raise NotLeader(f"{asker.name} does not lead {GROUP}", group=GROUP, leader=None)
        try:
            record = PolicyRecord.parse(bytes.fromhex(str(args.get("record", ""))))
            keys = {str(name): bytes.fromhex(str(value)) for name, value in dict(args["keys"]).items()}
        except (ValueError, TypeError, KeyError) as error:
            raise FrameRejected("format", f"no record to sign: {error}") from None
        if len(keys) > NAMES_MAX:
            raise FrameRejected("limit", "names of keys")
        known = self._keymaster.applied()
        await self._keymaster.check_follows(known, record)
        await self._hold(asker, known, keys)
        self._check_commitments(known, record)
        signed = self._sign(record)
        if signed is None:
            return {"signed": list(self._signed[0])}
        return {"signature": signed[1].hex()}

    async def _hold(self, leader: Identity, known: PolicyRecord, keys: Mapping[str, bytes]) -> None:
        """Have the keys that the leader drew since, and those that our log notes, of a time when we were away."""
        noted = self._shared.applied(known.epochs)
        for name, value in keys.items():
            if noted.get(name, value) != value:
                raise FrameRejected("commit", f"another key than our log notes: {name[:80]}")
        missing = self._shared.missing({**noted, **keys})
        if missing:
            await self._pull(leader, missing)
        if self._shared.missing(keys):
            raise FrameRejected("key", "the voter that leads did not give its keys")

    def _check_commitments(self, known: PolicyRecord, record: PolicyRecord) -> None:
        """Every raise that is new to us commits to keys that we hold."""
        before = set(known.epochs.raises)
        tree = self._keymaster.tree
        for one in record.epochs.raises:
            if one in before or one.shredded:
                continue
            try:
                commit = tree.outside_commitments if one.shreddable else tree.commitments
                held = commit(one.path, one.vector)
            except KeyMissing:
                raise FrameRejected("key", f"no key of {'.'.join(one.path) or '>'}") from None
            if held != one.kc:
                raise FrameRejected("commit", f"another key of {'.'.join(one.path) or '>'}")

    def _sign(self, record: PolicyRecord) -> tuple[bytes, bytes] | None:
        """Our signature, remembered on disk before it is given; None if we have signed that rank or a higher one."""
        rank, head = self._signed
        digest = record.head_digest()
        if record.rank <= rank and digest != head:
            return None
        if record.rank > rank:
            write_private(self._signed_file, _SIGNED.pack(*record.rank, digest))
            self._signed = record.rank, digest
        return self._keymaster.sign(record)

    async def close(self) -> None:
        """Ask nobody any more."""
        await end_jobs(self._late)
