"""What is fuzzed: each target takes bytes and may refuse them, and nothing else. tools/fuzz.py runs them.

A target returns a word for how it refused, which guides the fuzzer to inputs that get further; an input that is accepted must
be the honest one, or mean the same when it is written again. Anything else that is raised is a find.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zstandard
from meshfold.core.errors import FrameRejected, KeyMissing
from meshfold.core.registry import Action, FrameKind
from meshfold.security import Capability, Grant, PolicyRecord, StartRecord, voters_hash
from meshfold.security.capability import check_pattern
from meshfold.security.compress import SECTION_BYTES_MAX, unpack
from parties import CLUSTER, NOW_MS, SECRET, Mesh

__all__ = ("TARGETS", "Target", "Violation")


class Violation(AssertionError):
    """A target did what it must not."""


@dataclass(frozen=True)
class Target:
    """One thing to fuzz: honest inputs to begin with, and what to do with an input."""

    name: str
    seeds: tuple[bytes, ...]
    run: Callable[[bytes], str]


def _words(detail: str) -> str:
    """What a refusal says, without the input's own numbers and names: those would make each input a way of its own."""
    return re.sub(r"[0-9][0-9a-f]*|\[.*|\(.*|'.*", "#", detail)[:32]


def _refusal(work: Callable[[], Any]) -> str:
    try:
        work()
    except FrameRejected as error:
        named = error.reason in ("pattern", "attenuation") and error.detail.find(".") >= 0
        return f"{error.reason}:{'' if named else _words(error.detail)}"
    except KeyMissing:
        return "key"
    return ""


def _frame() -> Target:
    mesh = Mesh()
    # A reader that has taken none of them, so that an honest frame could be accepted once at each try.
    seeds = [
        mesh.edge.seal().whole(),
        mesh.edge.seal(meta=b"m" * 2000, payload=b"p" * 2000, compress=True).whole(),
    ]
    honest = set(seeds)

    def run(data: bytes) -> str:
        opener, words = mesh.hub.opener, []
        for form in ("d", "m"):
            state = opener.fingerprint()
            found = _refusal(lambda form=form: opener.open_events(form, SECRET, data))  # type: ignore[misc]
            if not found and data not in honest:
                raise Violation(f"accepted in form {form}")
            if found and opener.fingerprint() != state:
                raise Violation("a refused frame changed the reader")
            words.append(found)
        opener.replay._windows.clear()
        return " ".join(words)

    box = mesh.edge.sealer.seal_box(
        FrameKind.QUERY, mesh.hub.identity, b"q", hlc=NOW_MS << 16, policy_epoch=0, subject="q"
    )
    return Target("frame", (*seeds, box), run)


def _grant() -> Target:
    mesh = Mesh()
    chain = mesh.grant(mesh.hub, Capability(Action.META_READ | Action.DELEGATE, "read.>"), depth_left=2)
    below = chain.attenuate(
        mesh.hub.keys,
        mesh.meta.keys.node_pub,
        (Capability(Action.META_READ, SECRET.text),),
        not_after_ms=NOW_MS + 1000,
        now_ms=NOW_MS,
    )
    seeds = (chain.raw, below.raw, mesh.edge.grant.raw)
    fields: Any = {"cluster": CLUSTER, "roots": mesh.roots, "now_ms": NOW_MS}

    def run(data: bytes) -> str:
        found = _refusal(lambda: Grant.parse(data).verify(**fields))
        if not found and data not in seeds:
            raise Violation("a grant nobody signed holds")
        return found

    return Target("grant", seeds, run)


def _key_packet() -> Target:
    mesh = Mesh()
    seeds = (mesh.packet(mesh.hub), mesh.packet(mesh.meta))
    voters = mesh.voters

    def run(data: bytes) -> str:
        held = mesh.hub.keyring.held()
        found = _refusal(lambda: mesh.hub.keyring.install(data, voters))
        if not found and data not in seeds:
            raise Violation("a packet no voter made was installed")
        if found and mesh.hub.keyring.held() != held:
            raise Violation("a refused packet changed the keyring")
        return found

    return Target("key packet", seeds, run)


def _character(one: str) -> str:
    """What kind of character it is, in one letter."""
    if one in ".>*_-":
        return one
    if one.isascii():
        return "a" if one.islower() else "A" if one.isupper() else "0" if one.isdigit() else "!"
    return "s" if "\ud800" <= one <= "\udfff" else "u"


def _pattern() -> Target:
    seeds = tuple(
        one.encode() for one in ("read.logical.edge.>", SECRET.text, ">", "write.raw.a_5f.b.c.request")
    )

    def run(data: bytes) -> str:
        text = data.decode("utf-8", "surrogateescape")
        found = _refusal(lambda: check_pattern(text))
        if found.startswith("pattern:"):
            kinds = sorted({_character(one) for one in text})
            return f"pattern:{min(text.count('.'), 8)}:{''.join(kinds)}"
        if not found:
            tokens = text.removesuffix(">").rstrip(".").split(".") if text != ">" else []
            if any(set(token) - set("abcdefghijklmnopqrstuvwxyz0123456789-_") for token in tokens):
                raise Violation(f"accepted {text!r}")
            if len(tokens) > 6 or (not text.endswith(">") and len(tokens) != 6):
                raise Violation(f"accepted {text!r}")
        return found

    return Target("route pattern", seeds, run)


def _zstd() -> Target:
    plain = (b"x" * 5000, b'{"value": 1.25}' * 300, b"")
    seeds = tuple(zstandard.ZstdCompressor().compress(one) for one in plain)

    def run(data: bytes) -> str:
        try:
            out = unpack(data)
        except FrameRejected as error:
            return _words(error.detail)
        if len(out) > SECTION_BYTES_MAX:
            raise Violation(f"{len(out)} bytes came out")
        if zstandard.ZstdDecompressor().decompress(data, max_output_size=SECTION_BYTES_MAX) != out:
            raise Violation("another decompressor finds something else")
        return ""

    return Target("zstd guard", seeds, run)


def _records() -> Target:
    mesh = Mesh()
    voter = mesh.voter
    record = PolicyRecord(CLUSTER, voters_hash([voter.identity]), 3, 2, frozenset({b"r" * 32}), mesh.epochs)
    signed = PolicyRecord(
        CLUSTER, record.voters, 3, 2, record.revoked, mesh.epochs, signatures=(record.sign(voter.keys),)
    ).encode()
    start = StartRecord.issue(mesh.edge.keys, CLUSTER, b"life-two", b"life-one", NOW_MS << 16).raw
    seeds = (signed, start)

    def policy(data: bytes) -> None:
        found = PolicyRecord.parse(data)
        found.verify(CLUSTER, mesh.voters)
        if found.encode() != data:
            raise Violation("a policy has two encodings")

    def run(data: bytes) -> str:
        if data[:2] == b"SR":
            found = _refusal(lambda: StartRecord.parse(data, cluster=CLUSTER))
        else:
            found = _refusal(lambda: policy(data))
        if not found and data not in seeds:
            raise Violation("a record nobody signed holds")
        return found

    return Target("policy and start records", seeds, run)


#: Built when asked for: each makes keys of its own.
TARGETS: dict[str, Callable[[], Target]] = {
    "frame": _frame,
    "grant": _grant,
    "key-packet": _key_packet,
    "pattern": _pattern,
    "zstd": _zstd,
    "records": _records,
}
