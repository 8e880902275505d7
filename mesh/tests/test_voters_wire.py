"""What stands between the voters and everyone else: the server's permissions, and frames that are none of a voter's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from meshfold.core.errors import GrantDenied
from meshfold.core.ports import Message
from meshfold.core.registry import FrameKind
from meshfold.mesh import Node
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node.raft_wire import RaftWire, number_of
from meshfold.mesh.subjects import GROUP
from meshfold.mesh.transport import NatsTransport
from test_mesh_attacks import wide_open
from voting import NAMES, Voters, until


class Attack:
    """A voter that is attacked, one that is copied, a member that is no voter, and a client that may write everywhere."""

    def __init__(
        self, voters: Voters, victim: str, voter: Node, member: Node, hostile: NatsTransport
    ) -> None:
        self.voters, self.victim, self.voter, self.member, self.hostile = (
            voters,
            victim,
            voter,
            member,
            hostile,
        )
        session = voters.nodes[victim].session
        self.rejected = session.ledger.rejected
        self.told = session.identity
        self.subject = session.subjects.raft(GROUP, session.identity.tag)

    def seal(
        self, by: Node, kind: FrameKind = FrameKind.CONSENSUS, body: bytes = b"", subject: str = ""
    ) -> bytes:
        """A frame for the victim."""
        return by.session.party.seal(kind, self.told, body, subject or self.subject)

    async def refused(self, frame: bytes, reason: str) -> None:
        """The victim counts it for that reason, and the group goes on."""
        before = self.rejected[reason]
        await self.hostile.publish(self.subject, frame)
        await until(lambda: self.rejected[reason] > before)


@pytest.fixture
async def attack(three: LocalMesh) -> AsyncIterator[Attack]:
    """Everyone in place."""
    voters = Voters(three)
    await voters.start(*NAMES)
    hostile = wide_open(three)
    await hostile.connect()
    leader = await voters.leader()
    victim = next(name for name in NAMES if name != leader)
    async with three.node("edge") as edge:
        yield Attack(voters, victim, voters.nodes[leader], edge, hostile)
    await hostile.close()
    await voters.stop(*list(voters.nodes))


async def test_frames_that_are_no_voters_are_refused_and_counted(attack: Attack) -> None:
    control = attack.voters.control(attack.victim)
    session = attack.voters.nodes[attack.victim].session
    elsewhere = session.subjects.raft("other", attack.told.tag)
    third = next(
        node
        for name, node in attack.voters.nodes.items()
        if node is not attack.voter and name != attack.victim
    )
    await attack.refused(b"", "short")
    await attack.refused(attack.seal(attack.member), "member")
    await attack.refused(attack.seal(attack.voter, FrameKind.QUERY), "kind")
    # Of another group, or to another voter: what it is bound to does not hold here.
    await attack.refused(attack.seal(attack.voter, subject=elsewhere), "sig")
    await attack.refused(
        attack.voter.session.party.seal(FrameKind.CONSENSUS, third.session.identity, b"", attack.subject),
        "address",
    )
    # A voter's frame whose message is none, or names another sender or recipient.
    await attack.refused(attack.seal(attack.voter, body=b"no message"), "format")
    await attack.refused(attack.seal(attack.voter, body=message(number_of(attack.told.tag), 7)), "address")
    await attack.refused(
        attack.seal(
            attack.voter, body=message(number_of(third.session.identity.tag), number_of(attack.told.tag))
        ),
        "address",
    )
    flipped = bytearray(attack.seal(attack.voter))
    flipped[-1] ^= 1
    await attack.refused(bytes(flipped), "sig")
    assert control.log.status().leader == attack.voter.name or await attack.voters.leader()


def message(sender: int, to: int, term: int = 1) -> bytes:
    """A refused pre-vote, as the voters encode it: kind, from, to, term, granted."""
    return bytes([2]) + b"".join(number.to_bytes(8, "big") for number in (sender, to, term)) + b"\0"


async def test_a_repeated_frame_is_refused(attack: Attack) -> None:
    heard: list[bytes] = []

    def keep(found: Message) -> None:
        heard.append(found.data)

    listening = await attack.hostile.subscribe(attack.subject, keep)
    await until(lambda: len(heard) > 2)
    await listening.close()
    before = attack.rejected["replay"]
    for frame in heard[:3]:
        await attack.hostile.publish(attack.subject, frame)
    await until(lambda: attack.rejected["replay"] >= before + 3)


async def test_what_the_voters_say_is_sealed(attack: Attack) -> None:
    heard: list[bytes] = []

    def keep(found: Message) -> None:
        heard.append(found.data)

    await attack.hostile.subscribe(attack.voter.session.subjects.every("r"), keep)
    canary = b"canary-7d10c2"
    await attack.voters.control(attack.voter.name).log.put("app/edge/x", canary)
    await until(lambda: len(heard) > 20)
    assert all(canary not in frame and b"app/edge/x" not in frame for frame in heard)


async def test_the_server_lets_only_voters_speak_there_and_only_the_voter_listen(attack: Attack) -> None:
    subjects = attack.member.session.subjects
    for node in (attack.member, attack.voter):
        for subject in (attack.subject, subjects.every("r"), f"{subjects.root}.r.*.*"):
            with pytest.raises(GrantDenied):
                await node.session.transport.subscribe(subject, lambda found: None)
    before = dict(attack.rejected)
    refusals = attack.member.session.ledger.refusals
    count = len(refusals)
    await attack.member.session.transport.publish(attack.subject, attack.seal(attack.member))
    await attack.member.session.transport.barrier()
    await until(lambda: len(refusals) > count)
    assert attack.rejected["member"] == before.get("member", 0)
    assert refusals[-1]["action"] == "broker"


async def test_what_waits_to_be_sent_is_bounded_and_the_oldest_goes(attack: Attack) -> None:
    party = attack.voter.session.party
    wire = RaftWire(GROUP, party, attack.voter.session.voters, reject=lambda reason, where: None)
    for number in range(300):
        wire.send(number_of(attack.told.tag), bytes([number % 256]))
    wire.send(12345, b"")
    assert wire.lost == {"overflow_oldest": 44, "member": 1}
