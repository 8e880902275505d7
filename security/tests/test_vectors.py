"""The vectors, read by our code and by the second decoder: both find what is expected, or refuse for the stated class."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from meshfold.core import Address
from meshfold.core.errors import FrameRejected, KeyMissing
from meshfold.core.ports import Decision
from meshfold.security import (
    Grant,
    Identity,
    Keyring,
    NodeKeys,
    Opener,
    PolicyRecord,
    Raise,
    StartRecord,
    WrapRecord,
)
from meshfold.security.epochs import DEPTH, Epochs
from meshfold.security.join import JoinToken, open_request
from parties import CLUSTER, NOW_MS, StillClock
from second_decoder import DECODERS, Refused

FOLDER = Path(__file__).resolve().parent.parent / "vectors"
CASES = [
    pytest.param(path.stem, case, id=f"{path.stem}: {case['name']}")
    for path in sorted(FOLDER.glob("*.json"))
    for case in json.loads(path.read_text())["cases"]
]
ALL: list[Any] = [param.values for param in CASES]
#: Bits changed at random in every input that holds.
CHANGES = 60


class Everyone:
    """Owns everything: the vectors are about bytes, not about grants."""

    def decide(self, principal: bytes, action: object, address: Address) -> Decision:
        """Yes."""
        return Decision(True, "")


def keys_of(text: str) -> NodeKeys:
    """The three private keys in a case."""
    raw = bytes.fromhex(text)
    return NodeKeys(
        Ed25519PrivateKey.from_private_bytes(raw[:32]),
        X25519PrivateKey.from_private_bytes(raw[32:64]),
        Ed25519PrivateKey.from_private_bytes(raw[64:]),
    )


def opener_of(case: dict[str, Any], keyring: Keyring, keys: NodeKeys) -> Opener:
    """An opener that knows the sender of a case."""
    sender = Identity.parse(bytes.fromhex(case["sender"]))
    clock = StillClock()
    clock.ms = case["now_ms"]
    return Opener(keyring, keys, CLUSTER, {sender.tag: sender}.get, Everyone(), clock)


def our_frame(case: dict[str, Any]) -> dict[str, Any]:
    """An event frame."""
    keys = NodeKeys.generate()
    keyring = Keyring(keys, Identity.parse(bytes.fromhex(case["sender"])))
    address = Address.parse(case["address"])
    epochs = Epochs()
    for vector in case["epochs"][1:]:
        depth = max(place for place in range(DEPTH + 1) if vector[place])
        one = Raise(address.tokens[:depth], vector[depth], NOW_MS, 0, above=tuple(vector[:depth]))
        epochs = epochs.with_raise(one, NOW_MS)
    keyring._epochs, keyring.suite = epochs, case["suite"]
    for held in case["keys"]:
        keyring._slots[held["class"], tuple(held["path"]), tuple(held["epochs"])] = bytes.fromhex(held["key"])
    opened = opener_of(case, keyring, keys).open_events(case["form"], address, bytes.fromhex(case["input"]))
    if opened.partial:
        return {"partial": True}
    return {
        "meta": opened.meta.hex(),
        "payload": opened.payload.hex() if opened.payload is not None else None,
        "first_seq": opened.header.first_seq,
        "n_events": opened.header.n_events,
    }


def our_control(case: dict[str, Any]) -> dict[str, Any]:
    """A box or a members' frame."""
    keys = keys_of(case["recipient"]) if "recipient" in case else NodeKeys.generate()
    keyring = Keyring(keys, Identity.parse(bytes.fromhex(case["sender"])))
    keyring._members = [(int(epoch), 0, bytes.fromhex(key)) for epoch, key in case.get("members", {}).items()]
    opener = opener_of(case, keyring, keys)
    opened = (opener.open_box if "recipient" in case else opener.open_members)(
        bytes.fromhex(case["input"]), case["subject"]
    )
    return {"kind": int(opened.header.kind), "body": opened.body.hex()}


def our_grant(case: dict[str, Any]) -> dict[str, Any]:
    """A chain."""
    grant = Grant.parse(bytes.fromhex(case["input"]))
    roots = frozenset(bytes.fromhex(root) for root in case["roots"])
    grant.verify(cluster=bytes.fromhex(case["cluster"]), roots=roots, now_ms=case["now_ms"])
    caps = [{"actions": int(one.actions), "pattern": one.pattern} for one in grant.capabilities]
    return {"subject": grant.subject_pub.hex(), "links": len(grant.links), "capabilities": caps}


def our_identity(case: dict[str, Any]) -> dict[str, Any]:
    """ID1."""
    one = Identity.parse(bytes.fromhex(case["input"]))
    issuers = frozenset(bytes.fromhex(issuer) for issuer in case["issuers"])
    one.verify(cluster=bytes.fromhex(case["cluster"]), issuers=issuers, now_ms=case["now_ms"])
    return {"node_pub": one.node_pub.hex(), "name": one.name, "roles": list(one.roles)}


def our_packet(case: dict[str, Any]) -> dict[str, Any]:
    """A key packet."""
    voter = Identity.parse(bytes.fromhex(case["voter"]))
    keyring = Keyring(keys_of(case["recipient"]), Identity.parse(bytes.fromhex(case["recipient_identity"])))
    keyring.install(bytes.fromhex(case["input"]), {voter.tag: voter})
    keys = [
        [one, ".".join(path), list(vector), keyring._slots[one, path, vector].hex()]
        for one, path, vector in keyring.held()
    ]
    return {"members": [epoch for epoch, _, _ in keyring._members], "keys": keys}


def our_policy(case: dict[str, Any]) -> dict[str, Any]:
    """PR1."""
    record = PolicyRecord.parse(bytes.fromhex(case["input"]))
    voters = [Identity.parse(bytes.fromhex(raw)) for raw in case["voter_identities"]]
    record.verify(bytes.fromhex(case["cluster"]), {one.tag: one for one in voters})
    assert record.encode().hex() == case["input"]
    return {
        "policy_epoch": record.policy_epoch,
        "log_index": record.log_index,
        "revoked": sorted(item.hex() for item in record.revoked),
        "raises": [
            [".".join(one.path), list(one.vector), one.activate_ms, one.policy_epoch]
            for one in record.epochs.raises
        ],
    }


def our_start(case: dict[str, Any]) -> dict[str, Any]:
    """SR1."""
    one = StartRecord.parse(bytes.fromhex(case["input"]), cluster=bytes.fromhex(case["cluster"]))
    return {
        "node_pub": one.node_pub.hex(),
        "incarnation": one.incarnation.hex(),
        "predecessor": one.predecessor.hex(),
        "hlc": one.hlc,
    }


def our_wrap(case: dict[str, Any]) -> dict[str, Any]:
    """WR1."""
    cluster, node_pub = bytes.fromhex(case["cluster"]), bytes.fromhex(case["node_pub"])
    one = WrapRecord.parse(bytes.fromhex(case["input"]), cluster=cluster, node_pub=node_pub)
    return {"wrap_pub": one.wrap_pub.hex(), "counter": one.counter}


def our_enrolment(case: dict[str, Any]) -> dict[str, Any]:
    """A join request."""
    mesh, name, *roles = case["names"]
    cluster, authority, enrol, secret = (
        bytes.fromhex(case[key]) for key in ("cluster", "authority", "enrol_pub", "secret")
    )
    token = JoinToken(mesh, cluster, authority, enrol, secret, name, tuple(roles), NOW_MS, "nats://x")
    data = bytes.fromhex(case["input"])
    if data[:16] != token.id:
        raise FrameRejected("member", "no such token")
    found = open_request(
        data, token, X25519PrivateKey.from_private_bytes(bytes.fromhex(case["wrap_private"]))
    )
    return {
        "node_pub": found.node_pub.hex(),
        "wrap_pub": found.wrap_pub.hex(),
        "login_pub": found.login_pub.hex(),
    }


OURS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "frames": our_frame,
    "control": our_control,
    "grants": our_grant,
    "identities": our_identity,
    "key-packets": our_packet,
    "policy": our_policy,
    "starts": our_start,
    "wraps": our_wrap,
    "enrolment": our_enrolment,
}


def outcome(decode: Callable[[dict[str, Any]], dict[str, Any]], case: dict[str, Any]) -> dict[str, Any]:
    """What a decoder says, in the words of a case's `expect`."""
    try:
        return {"holds": decode(case)}
    except (FrameRejected, Refused) as error:
        return {"refused": error.reason if isinstance(error, FrameRejected) else str(error)}
    except KeyMissing:
        return {"refused": "epoch"}


@pytest.mark.parametrize(("form", "case"), CASES)
def test_our_code_says_what_the_vector_expects(form: str, case: dict[str, Any]) -> None:
    assert outcome(OURS[form], case) == case["expect"]


@pytest.mark.parametrize(("form", "case"), CASES)
def test_the_second_decoder_says_what_the_vector_expects(form: str, case: dict[str, Any]) -> None:
    found = outcome(DECODERS[form], case)
    assert json.loads(json.dumps(found)) == case["expect"]


@pytest.mark.parametrize("form", sorted(DECODERS))
def test_both_decoders_refuse_the_same_changes(form: str) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    inputs = [case for stem, case in ALL if stem == form and "holds" in case["expect"]]
    assert inputs
    for case in inputs:
        raw = bytes.fromhex(case["input"])
        for _ in range(CHANGES):
            place = rng.randrange(len(raw))
            bit = 1 << rng.randrange(8)
            altered = case | {"input": (raw[:place] + bytes([raw[place] ^ bit]) + raw[place + 1 :]).hex()}
            ours, theirs = outcome(OURS[form], altered), outcome(DECODERS[form], altered)
            where = f"{case['name']}, bit {bit} of byte {place}, seed {seed}: {ours} and {theirs}"
            assert "refused" in ours, where
            assert "refused" in theirs, where


def test_there_are_enough_of_each() -> None:
    assert sorted(DECODERS) == sorted(path.stem for path in FOLDER.glob("*.json"))
    assert len(CASES) >= 120
