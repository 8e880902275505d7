"""Writes security/vectors: inputs, the keys to read them, and what they hold or why they are refused.

Run it after a change of the format: `python security/tests/make_vectors.py`. HPKE draws a fresh key for each box, so files
with boxes differ each time; what they expect does not.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from meshfold.core import Address
from meshfold.core.registry import Action, FrameKind
from meshfold.security import (
    Capability,
    Caveat,
    CaveatKind,
    Grant,
    PolicyRecord,
    Raise,
    StartRecord,
    WrapRecord,
    voters_hash,
)
from meshfold.security.epochs import Epochs
from meshfold.security.grant import KeySigner
from meshfold.security.join import JoinToken, new_body, seal_request
from meshfold.security.seal import SIG_DOMAIN, signed_bytes
from parties import CLUSTER, LIFE_MS, NOW_MS, OTHER, SECRET, Mesh, Party

FOLDER = Path(__file__).resolve().parent.parent / "vectors"
Case = dict[str, Any]


def changed(raw: bytes, place: int, *values: int) -> bytes:
    """These bytes at that place; a negative place counts from the end."""
    place %= len(raw)
    return raw[:place] + bytes(values) + raw[place + len(values) :]


def flip(raw: bytes, place: int) -> bytes:
    """One bit of one byte changed."""
    return changed(raw, place, raw[place] ^ 1)


def case(name: str, raw: bytes, expect: Any, **context: Any) -> Case:
    """One case: `expect` is what it holds, or the class of failure as text."""
    told = {"refused": expect} if isinstance(expect, str) else {"holds": expect}
    return {"name": name, "input": raw.hex(), **context, "expect": told}


def node_keys(mesh: Mesh, address: Address) -> list[Case]:
    """The root keys of this mesh, under every root epoch on the way to a route."""
    vectors = {vector[:1] for _, vector in mesh.epochs.timeline(address.tokens)}
    return [
        {"class": one, "path": [], "epochs": list(vector), "key": mesh.tree.key(one, (), vector).hex()}
        for one in ("m", "d")
        for vector in sorted(vectors)
    ]


class Frames:
    """Frames of one sender, whose route was rotated once."""

    def __init__(self) -> None:
        self.mesh = Mesh()
        self.edge = self.mesh.edge
        self.mesh.rotate(SECRET.tokens[:4])
        self.edge.fetch_keys()
        self.edge.keyring.set_epochs(self.mesh.epochs, 1, NOW_MS)
        self.plain = self.holds(b"the metadata", b"the payload")

    def case(
        self, name: str, raw: bytes, expect: Any, form: str = "d", address: Address = SECRET, suite: int = 1
    ) -> Case:
        """One case."""
        return case(
            name,
            raw,
            expect,
            form=form,
            address=address.text,
            suite=suite,
            sender_pub=self.edge.keys.node_pub.hex(),
            sender=self.edge.identity.raw.hex(),
            keys=node_keys(self.mesh, address),
            epochs=[list(vector) for _, vector in self.mesh.epochs.timeline(address.tokens)],
            now_ms=NOW_MS,
        )

    @staticmethod
    def holds(meta: bytes, payload: bytes | None, seq: int = 1, count: int = 1) -> Case:
        """What a frame holds."""
        data = payload.hex() if payload is not None else None
        return {"meta": meta.hex(), "payload": data, "first_seq": seq, "n_events": count}


def frame_cases() -> list[Case]:
    """Event frames in both forms, under both suites, compressed, in a later epoch; and every way to break one."""
    f = Frames()
    frame = f.edge.seal()
    raw = frame.whole()
    long = f.edge.seal(meta=b"m" * 3000, payload=b"p" * 30_000, compress=True)
    many = f.edge.seal(first_seq=2**40, count=4096).whole()
    out = [
        f.case("whole", raw, f.plain),
        f.case("metadata only", frame.meta_only(), f.holds(b"the metadata", None), "m"),
        f.case("another route", f.edge.seal(OTHER).whole(), f.plain, address=OTHER),
        f.case("both sections compressed", long.whole(), f.holds(b"m" * 3000, b"p" * 30_000)),
        f.case("numbers", many, f.holds(b"the metadata", b"the payload", 2**40, 4096)),
        f.case("a byte too many", raw + b"x", "ext"),
        f.case("the frame of another route", raw, "route", address=OTHER),
        f.case("a minute ahead", f.edge.seal(hlc=(NOW_MS + 60_001) << 16).whole(), "clock"),
        f.case("older than thirty seconds", f.edge.seal(hlc=(NOW_MS - 30_001) << 16).whole(), "age"),
        f.case("number 0", f.edge.seal(first_seq=0).whole(), "replay"),
        f.case("another sender", f.mesh.hub.seal().whole(), "member"),
        f.case("altered by its own sender", resigned(f.edge, changed(raw, 110, raw[110] ^ 1)), "tag"),
        f.case("flags altered by its own sender", resigned(f.edge, changed(long.whole(), 3, raw[3])), "tag"),
    ]
    out += [f.case(f"cut at {size}", raw[:size], "short") for size in range(0, 96, 19)]
    out += broken_fields(f, raw)
    out += chunk_cases(f)
    f.edge.keyring.set_epochs(f.mesh.epochs, 2, NOW_MS)
    out.append(f.case("ChaCha20-Poly1305", f.edge.seal().whole(), f.plain, suite=2))
    return out


def chunk_cases(f: Frames) -> list[Case]:
    """Chunks: a whole in one, the first of two, and every way not to be one."""
    whole = (12).to_bytes(4, "big") + b"the metadata" + b"the payload"
    digest = hashlib.sha256(whole).digest()

    def chunk(index: int, count: int, named: bytes, part: bytes, *, last: bool) -> bytes:
        place = struct.pack(">II", index, count) + named
        sealed = f.edge.seal(meta=place, payload=part, kind=FrameKind.CHUNK, last=last, compress=True)
        return sealed.whole()

    beyond = (99).to_bytes(4, "big") + b"short"
    only = chunk(0, 1, digest, whole, last=True)
    found = f.case("a chunk that is the whole", only, f.plain)
    first = f.case(
        "the first of two chunks", chunk(0, 2, digest, bytes(524_288), last=False), {"partial": True}
    )
    refused = (
        ("a chunk beyond the last", chunk(2, 2, digest, whole, last=False)),
        ("too many chunks", chunk(0, 129, digest, bytes(524_288), last=False)),
        ("the last one unsaid", chunk(0, 1, digest, whole, last=False)),
        ("a short chunk in the middle", chunk(0, 2, digest, whole, last=False)),
        ("chunks of another whole", chunk(0, 1, bytes(32), whole, last=True)),
        ("metadata beyond the whole", chunk(0, 1, hashlib.sha256(beyond).digest(), beyond, last=True)),
        ("no place", f.edge.seal(meta=b"no place", kind=FrameKind.CHUNK).whole()),
    )
    sealed = f.edge.seal(meta=bytes(40), payload=b"x", kind=FrameKind.CHUNK)
    return [
        *(found, first, *(f.case(name, raw, "chunk") for name, raw in refused)),
        f.case("a chunk on the metadata subject", sealed.meta_only(), "kind", "m"),
        f.case("an event that says it is the last chunk", f.edge.seal(last=True).whole(), "flags"),
    ]


def broken_fields(f: Frames, raw: bytes) -> list[Case]:
    """Each field of the header and each section changed."""
    fields = (
        ("magic", 0, 0x4E, "magic"),
        ("version 2", 2, 2, "version"),
        ("reserved flag", 3, raw[3] | 0x20, "flags"),
        ("unsigned", 3, raw[3] & ~8, "unsigned"),
        ("suite 9", 4, 9, "suite"),
        ("the other suite", 4, 2, "suite"),
        ("kind 2", 5, 2, "kind"),
        ("a kind that is no event", 5, 12, "kind"),
        ("address tag", 8, raw[8] ^ 1, "route"),
        ("sender tag", 16, raw[16] ^ 1, "member"),
        ("incarnation", 24, raw[24] ^ 1, "sig"),
        ("number", 39, 9, "sig"),
        ("generation", 43, 1, "sig"),
        ("counter", 55, 2, "sig"),
        ("far epoch", 81, 7, "epoch"),
        ("reserved", 95, 1, "ext"),
        ("metadata section", 100, raw[100] ^ 1, "sig"),
        ("payload section", -70, raw[-70] ^ 1, "sig"),
        ("signature", -1, raw[-1] ^ 1, "sig"),
    )
    return [f.case(name, changed(raw, place, value), reason) for name, place, value, reason in fields]


def resigned(party: Party, raw: bytes) -> bytes:
    """The bytes of a sender that lies, signed."""
    import hashlib

    (meta_len,) = struct.unpack_from(">I", raw, 64)
    header, meta, payload = raw[:96], raw[96 : 96 + meta_len], raw[96 + meta_len : -64]
    said = signed_bytes(SECRET.digest, header, meta, hashlib.sha256(payload).digest())
    return header + meta + payload + party.keys.sign(SIG_DOMAIN, said)


def control_cases() -> list[Case]:
    """Boxes to one node, and frames under the members' key."""
    mesh = Mesh()
    edge, hub = mesh.edge, mesh.hub
    members = {str(epoch): key.hex() for epoch, _, key in mesh.tree.store.members()}
    box = edge.sealer.seal_box(
        FrameKind.QUERY, hub.identity, b"question", hlc=NOW_MS << 16, policy_epoch=0, subject="q.hub"
    )
    beat = edge.sealer.seal_members(
        FrameKind.HEARTBEAT, b"beat", hlc=NOW_MS << 16, policy_epoch=0, subject="h.edge"
    )
    common = {
        "sender_pub": edge.keys.node_pub.hex(),
        "sender": edge.identity.raw.hex(),
        "cluster": CLUSTER.hex(),
        "now_ms": NOW_MS,
    }
    wrap = hub.keys.wrap_privates[0].private_bytes_raw().hex()
    boxed = common | {
        "wrap_private": wrap,
        "recipient_tag": hub.keys.tag.hex(),
        "recipient": private_keys(hub),
    }
    told: Any = {"subject": "q.hub", **boxed}
    said: Any = {"subject": "h.edge", "members": members, **common}
    return [
        case("a box", box, {"kind": 5, "body": b"question".hex()}, **told),
        case("a heartbeat", beat, {"kind": 12, "body": b"beat".hex()}, **said),
        case("a box on another subject", box, "sig", **(told | {"subject": "q.other"})),
        case("a box for another node", changed(box, 8, 0, 0), "address", **told),
        case("a box altered", flip(box, 120), "sig", **told),
        case("a box cut", box[:-1], "short", **told),
        case("a box without its signature flag", changed(box, 3, 1), "flags", **told),
        case("a heartbeat on another subject", beat, "sig", **(said | {"subject": "h.hub"})),
        case("a heartbeat altered", flip(beat, 98), "sig", **said),
        case("a heartbeat with epochs below the first", changed(beat, 83, 1), "epoch", **said),
    ]


def private_keys(party: Party) -> str:
    """The three private keys of a test's party, so that our own code can be held to the vectors, too."""
    keys = party.keys
    assert keys._sign is not None and keys._login is not None
    parts = (
        keys._sign.private_bytes_raw(),
        keys.wrap_privates[0].private_bytes_raw(),
        keys._login.private_bytes_raw(),
    )
    return b"".join(parts).hex()


class Chains:
    """Makes links of one authority, a holder, and somebody below."""

    def __init__(self) -> None:
        self.root, self.holder, self.below = (Ed25519PrivateKey.generate() for _ in range(3))
        self.context: Any = {
            "roots": [self.root.public_key().public_bytes_raw().hex()],
            "cluster": CLUSTER.hex(),
            "now_ms": NOW_MS,
        }
        everything = Action.META_READ | Action.PAYLOAD_OPEN | Action.DELEGATE
        self.limited = Capability(
            everything, "read.logical.edge.>", (Caveat(CaveatKind.EVENTS_PER_S, (100,)),)
        )
        self.tight = Capability(Action.META_READ, SECRET.text, (Caveat(CaveatKind.EVENTS_PER_S, (10,)),))
        self.first = self.link(self.root, self.holder)

    def link(
        self,
        signer: Ed25519PrivateKey,
        subject: Ed25519PrivateKey,
        parent: Grant | None = None,
        **changes: Any,
    ) -> Grant:
        """One more link."""
        fields: Any = {
            "cluster": CLUSTER,
            "capabilities": (self.limited,),
            "not_before_ms": NOW_MS - 1000,
            "not_after_ms": NOW_MS + 1000,
            "policy_epoch": 7,
            "depth_left": 3,
        }
        pub = subject.public_key().public_bytes_raw()
        return Grant.issue(KeySigner(signer), subject_pub=pub, parent=parent, **(fields | changes))

    def child(self, **changes: Any) -> bytes:
        """What the holder passes on."""
        fields: Any = {"depth_left": 2, "capabilities": (self.tight,)} | changes
        return self.link(self.holder, self.below, self.first, **fields).raw

    def case(self, name: str, raw: bytes, expect: Any) -> Case:
        """One case."""
        if isinstance(expect, Grant):
            caps = [{"actions": int(one.actions), "pattern": one.pattern} for one in expect.capabilities]
            expect = {"subject": expect.subject_pub.hex(), "links": len(expect.links), "capabilities": caps}
        return case(name, raw, expect, **self.context)


def grant_cases() -> list[Case]:
    """Chains of one to four links, and every rule broken."""
    chains = Chains()
    return [*whole_chains(chains), *broken_links(chains), *broken_chains(chains)]


def whole_chains(t: Chains) -> list[Case]:
    """What holds, and what is one too many or too few."""
    second = t.link(t.holder, t.below, t.first, depth_left=2, capabilities=(t.tight,))
    four = t.link(t.holder, t.holder, t.first, depth_left=2)
    four = t.link(t.holder, t.holder, four, depth_left=1)
    four = t.link(t.holder, t.below, four, depth_left=0)
    late = t.link(t.root, t.holder, not_before_ms=0, not_after_ms=NOW_MS - 5000)
    return [
        t.case("one link", t.first.raw, t.first),
        t.case("two links", second.raw, second),
        t.case("four links", four.raw, four),
        t.case("within the skew", late.raw, late),
        t.case("five links", four.raw + t.first.raw, "depth"),
        t.case("nothing", b"", "short"),
        t.case("signature of the second link", flip(second.raw, -1), "sig"),
        t.case("4,097 bytes", t.first.raw + bytes(4097 - len(t.first.raw)), "size"),
    ]


def broken_links(t: Chains) -> list[Case]:
    """One link that is none, or does not hold."""
    raw = t.first.raw
    return [
        t.case("another root", t.link(t.holder, t.below).raw, "root"),
        t.case("another mesh", t.link(t.root, t.holder, cluster=b"d" * 16).raw, "cluster"),
        t.case("signature", flip(raw, -1), "sig"),
        t.case("flags", changed(raw, 3, 1), "format"),
        t.case("no actions", changed(raw, 156, 0, 0), "format"),
        t.case("unknown action", changed(raw, 156, raw[156] | 0x80), "format"),
        t.case("no capabilities", changed(raw, 155, 0), "size"),
        t.case("33 capabilities", changed(raw, 155, 33), "size"),
        t.case("length of capabilities", changed(raw, 5, raw[5] ^ 1), "ext"),
        t.case("pattern", changed(raw, 159, 0x2A), "pattern"),
        t.case("unknown caveat", changed(raw, raw.index(b"\x01\x04\0\0\0\x64"), 99), "ext"),
        t.case("expired", t.link(t.root, t.holder, not_after_ms=NOW_MS - 5001, not_before_ms=0).raw, "time"),
        t.case(
            "not yet",
            t.link(t.root, t.holder, not_before_ms=NOW_MS + 5001, not_after_ms=2 * NOW_MS).raw,
            "time",
        ),
        t.case("without end", t.link(t.root, t.holder, not_after_ms=2**63).raw, "time"),
        t.case("subject of small order", small_subject(raw, t.root), "key"),
    ]


def broken_chains(t: Chains) -> list[Case]:
    """A second link that takes more than it was given."""
    wide = Capability(Action.META_READ, "read.logical.>", t.limited.caveats)
    more = Capability(Action.META_READ | Action.OWN, SECRET.text, t.limited.caveats)
    loose = Capability(Action.META_READ, SECRET.text, (Caveat(CaveatKind.EVENTS_PER_S, (101,)),))
    bare = Capability(Action.META_READ, SECRET.text)
    powerless = t.link(t.root, t.holder, capabilities=(replace(t.limited, actions=Action.META_READ),))
    return [
        t.case("wider pattern", t.child(capabilities=(wide,)), "attenuation"),
        t.case("more actions", t.child(capabilities=(more,)), "attenuation"),
        t.case("looser caveat", t.child(capabilities=(loose,)), "attenuation"),
        t.case("dropped caveat", t.child(capabilities=(bare,)), "attenuation"),
        t.case("longer than its parent", t.child(not_after_ms=NOW_MS + 1001), "time"),
        t.case("depth", t.child(depth_left=3), "depth"),
        t.case("no right to delegate", t.link(t.holder, t.below, powerless, depth_left=2).raw, "delegate"),
        t.case(
            "signed by another than its holder", t.link(t.below, t.below, t.first, depth_left=2).raw, "depth"
        ),
    ]


def small_subject(raw: bytes, root: Ed25519PrivateKey) -> bytes:
    """A grant to the neutral point, well signed."""
    body = raw[:54] + bytes([1]) + bytes(31) + raw[86:-64]
    return body + root.sign(b"MG1 grant\0" + body)


def identity_cases() -> list[Case]:
    """ID1."""
    mesh = Mesh()
    context: Any = {
        "cluster": CLUSTER.hex(),
        "issuers": [mesh.authority.identity_pub.hex()],
        "now_ms": NOW_MS,
    }
    one = mesh.edge.identity
    raw = one.raw
    holds = {"node_pub": one.node_pub.hex(), "name": "edge", "roles": ["node"]}
    other = Mesh()
    return [
        case("an identity", raw, holds, **context),
        case("signature", flip(raw, -1), "sig", **context),
        case("name", flip(raw, 149), "sig", **context),
        case("magic", changed(raw, 0, 0x4A), "magic", **context),
        case("version", changed(raw, 2, 2), "version", **context),
        case("cut", raw[:-1], "short", **context),
        case("a byte too many", raw + b"x", "format", **context),
        case("another authority", other.edge.identity.raw, "root", **context),
        case("another mesh", flip(raw, 3), "cluster", **context),
        case("expired", raw, "time", **(context | {"now_ms": NOW_MS + LIFE_MS + 5001})),
        case("not yet", raw, "time", **(context | {"now_ms": NOW_MS - LIFE_MS - 5001})),
        case("a node key of small order", changed(raw, 35, 1, *bytes(31)), "key", **context),
        case("a wrapping key of small order", changed(raw, 67, *bytes(32)), "key", **context),
        case("a login key that is not canonical", changed(raw, 99, *[255] * 31, 127), "key", **context),
    ]


def packet_cases() -> list[Case]:
    """Key packets."""
    mesh = Mesh()
    hub = mesh.hub
    mesh.rotate(())
    raw = mesh.packet(hub)
    keys = [[one, "", [1], mesh.tree.key(one, (), (1,)).hex()] for one in ("d", "m")]
    context: Any = {
        "cluster": CLUSTER.hex(),
        "voters": {mesh.voter.keys.tag.hex(): mesh.voter.keys.node_pub.hex()},
        "voter": mesh.voter.identity.raw.hex(),
        "wrap_private": hub.keys.wrap_privates[0].private_bytes_raw().hex(),
        "recipient_tag": hub.keys.tag.hex(),
        "recipient": private_keys(hub),
        "recipient_identity": hub.identity.raw.hex(),
    }
    readdressed = raw[:8] + mesh.edge.keys.tag + raw[16:-64]
    readdressed += mesh.voter.keys.sign(b"MF1 keys", readdressed)
    return [
        case("the root's keys after a rotation", raw, {"members": [0], "keys": keys}, **context),
        case("signature", flip(raw, -1), "sig", **context),
        case("box", flip(raw, 60), "sig", **context),
        case("no voter", flip(raw, 0), "member", **context),
        case("for another node", readdressed, "unwrap", **context),
        case("sealed to another node", mesh.packet(mesh.meta), "unwrap", **context),
        case("cut", raw[:-1], "short", **context),
        case("a byte too many", raw + b"x", "format", **context),
    ]


def policy_cases() -> list[Case]:
    """Policy records of three voters."""
    mesh = Mesh()
    voters = [Party(mesh, f"voter-{number}") for number in range(3)]
    named = voters_hash(one.identity for one in voters)
    epochs = Epochs((Raise(SECRET.tokens[:4], 2, NOW_MS, 5, above=(1, 0, 0, 0)),))
    record = PolicyRecord(
        CLUSTER, named, 9, 5, frozenset({b"r" * 32, b"s" * 32}), epochs, ((b"t" * 8, b"i" * 8),)
    )

    def signed(*signers: Party, of: PolicyRecord = record) -> bytes:
        return replace(of, signatures=tuple(of.sign(one.keys) for one in signers)).encode()

    context: Any = {
        "cluster": CLUSTER.hex(),
        "voters": {one.keys.tag.hex(): one.keys.node_pub.hex() for one in voters},
        "voter_identities": [one.identity.raw.hex() for one in voters],
    }
    raw = signed(*voters[:2])
    holds = {
        "policy_epoch": 5,
        "log_index": 9,
        "revoked": [(b"r" * 32).hex(), (b"s" * 32).hex()],
        "raises": [[".".join(SECRET.tokens[:4]), [1, 0, 0, 0, 2], NOW_MS, 5]],
    }
    return [
        case("signed by two of three", raw, holds, **context),
        case("signed by one of three", signed(voters[0]), "sig", **context),
        case("signed twice by one", signed(voters[0], voters[0]), "sig", **context),
        case("signed by a stranger", signed(voters[0], mesh.edge), "member", **context),
        case(
            "another set of voters",
            signed(*voters[:2], of=replace(record, voters=bytes(32))),
            "member",
            **context,
        ),
        case(
            "another mesh", signed(*voters[:2], of=replace(record, cluster=b"d" * 16)), "cluster", **context
        ),
        case("signature", flip(raw, -1), "sig", **context),
        case("body", flip(raw, 110), "format", **context),
        case("epoch", flip(raw, 63), "sig", **context),
        case("suite", changed(raw, 3, 9), "suite", **context),
        case("magic", changed(raw, 0, 0), "magic", **context),
        case("cut", raw[:-1], "short", **context),
        case("a byte too many", raw + b"x", "format", **context),
    ]


def start_cases() -> list[Case]:
    """Start records."""
    mesh = Mesh()
    record = StartRecord.issue(mesh.edge.keys, CLUSTER, b"life-two", b"life-one", NOW_MS << 16)
    raw = record.raw
    holds = {
        "node_pub": record.node_pub.hex(),
        "incarnation": b"life-two".hex(),
        "predecessor": b"life-one".hex(),
        "hlc": NOW_MS << 16,
    }
    itself = StartRecord.issue(mesh.edge.keys, CLUSTER, b"life-one", b"life-one", 1).raw
    return [
        case("a start", raw, holds, cluster=CLUSTER.hex()),
        case("a life after itself", itself, "incarnation", cluster=CLUSTER.hex()),
        case("signature", flip(raw, -1), "sig", cluster=CLUSTER.hex()),
        case("hlc", flip(raw, 74), "sig", cluster=CLUSTER.hex()),
        case("another mesh", raw, "cluster", cluster=(b"d" * 16).hex()),
        case("cut", raw[:-1], "short", cluster=CLUSTER.hex()),
        case("a byte too many", raw + b"x", "format", cluster=CLUSTER.hex()),
        case("magic", changed(raw, 1, 0), "magic", cluster=CLUSTER.hex()),
        case("version", changed(raw, 2, 0), "version", cluster=CLUSTER.hex()),
    ]


def wrap_cases() -> list[Case]:
    """Wrapping keys."""
    mesh = Mesh()
    raw = WrapRecord.issue(mesh.edge.keys, CLUSTER, 3).raw
    context: Any = {"cluster": CLUSTER.hex(), "node_pub": mesh.edge.keys.node_pub.hex()}
    small = raw[:51] + bytes(32) + raw[83:-64]
    small += mesh.edge.keys.sign(b"ID1 wrap", small)
    other = WrapRecord.issue(mesh.hub.keys, CLUSTER, 3).raw
    return [
        case("a wrapping key", raw, {"wrap_pub": mesh.edge.keys.wrap_pub.hex(), "counter": 3}, **context),
        case("of another node", other, "member", **context),
        case("another mesh", flip(raw, 3), "cluster", **context),
        case("counter", flip(raw, 86), "sig", **context),
        case("small order", small, "key", **context),
        case("cut", raw[:-1], "short", **context),
        case("a byte too many", raw + b"x", "format", **context),
    ]


def enrolment_cases() -> list[Case]:
    """Join requests."""
    mesh = Mesh()
    enrol, secret = X25519PrivateKey.generate(), b"s" * 32
    token = JoinToken(
        "mesh",
        CLUSTER,
        b"a" * 32,
        enrol.public_key().public_bytes_raw(),
        secret,
        "edge",
        ("node",),
        NOW_MS,
        "nats://x",
    )
    keys = mesh.edge.keys
    raw = seal_request(new_body(keys, token), token)
    context: Any = {
        "cluster": CLUSTER.hex(),
        "authority": token.authority.hex(),
        "secret": secret.hex(),
        "enrol_pub": token.enrol_pub.hex(),
        "wrap_private": enrol.private_bytes_raw().hex(),
        "names": ["mesh", "edge", "node"],
        "expires_ms": NOW_MS,
    }
    holds = {
        "node_pub": keys.node_pub.hex(),
        "wrap_pub": keys.wrap_pub.hex(),
        "login_pub": keys.login_pub.hex(),
    }
    stranger = new_body(mesh.hub.keys, token)
    forged = seal_request(stranger[:32] + keys.wrap_pub + stranger[64:], token)
    from msgspec.structs import replace as altered

    guess = seal_request(new_body(keys, token), altered(token, name="hub"))
    return [
        case("a join request", raw, holds, **context),
        case("box", flip(raw, 60), "unwrap", **context),
        case("cut", raw[:-1], "unwrap", **context),
        case("another name in the token", guess, "tag", **context),
        case("keys signed by another", forged, "sig", **context),
    ]


MAKERS = {
    "frames": frame_cases,
    "control": control_cases,
    "grants": grant_cases,
    "identities": identity_cases,
    "key-packets": packet_cases,
    "policy": policy_cases,
    "starts": start_cases,
    "wraps": wrap_cases,
    "enrolment": enrolment_cases,
}


def main() -> None:
    """Write every file."""
    FOLDER.mkdir(exist_ok=True)
    for name, make in MAKERS.items():
        cases = make()
        lines = ",\n".join(json.dumps(one, sort_keys=False) for one in cases)
        (FOLDER / f"{name}.json").write_text(f'{{"format": "{name}", "cases": [\n{lines}\n]}}\n')
        sys.stdout.write(f"{name}: {len(cases)} cases\n")


if __name__ == "__main__":
    main()
