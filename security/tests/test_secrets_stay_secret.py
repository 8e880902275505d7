"""Secrets print as REDACTED: in reprs, in errors, in logs, and in tracebacks that show every local variable."""

from __future__ import annotations

import base64
import io
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from meshfold.core.errors import MeshfoldError
from meshfold.security import (
    Authority,
    Issuer,
    KeyStore,
    KeyTree,
    NodeKeys,
    seal_secret,
    unseal_secret,
)
from meshfold.security.join import JoinToken
from parties import CLUSTER, LIFE_MS, NOW_MS, OTHER, SECRET, Mesh


def forms(secret: bytes) -> Iterator[str]:
    """How a secret could appear in text."""
    yield secret.hex()
    yield base64.b64encode(secret).decode().rstrip("=")
    yield base64.urlsafe_b64encode(secret).decode().rstrip("=")
    yield repr(secret)[2:-1]
    yield str(int.from_bytes(secret, "big"))


def secrets_of(mesh: Mesh) -> list[bytes]:
    """Every secret of a mesh."""
    found = [mesh.authority.secret()[:32], mesh.authority.secret()[32:]]
    for party in (mesh.edge, mesh.hub, mesh.meta, mesh.voter):
        keys = party.keys
        assert keys._sign is not None and keys._login is not None
        found += [keys._sign.private_bytes_raw(), keys._login.private_bytes_raw()]
        found += [private.private_bytes_raw() for private in keys.wrap_privates]
        found += party.keyring._slots.values()
        found += [key for _, _, key in party.keyring._members]
    found += mesh.tree.store._roots.values()
    return found


def clean(text: str, secrets: list[bytes]) -> None:
    """None of them is in the text."""
    for number, secret in enumerate(secrets):
        for form in forms(secret):
            assert form not in text, f"secret {number} as {form[:6]}... in {text[:200]!r}"


def test_no_secret_is_in_a_repr_an_error_or_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mesh = Mesh()
    mesh.edge.seal()
    secrets = secrets_of(mesh)
    issuer = Issuer.generate(mesh.authority, not_before_ms=NOW_MS - LIFE_MS, not_after_ms=NOW_MS + LIFE_MS)
    token = JoinToken(
        "m",
        CLUSTER,
        b"a" * 32,
        X25519PrivateKey.generate().public_key().public_bytes_raw(),
        b"\x7f\x01" * 16,
        "n",
        (),
        1,
        "nats://x",
    )
    secrets.append(token.secret)
    store = KeyStore.generate(tmp_path / "keys")
    store.draw_outside(OTHER.tokens, 1)
    secrets += [*store._roots.values(), *store._outside.values()]
    held: list[Any] = [mesh.authority, issuer, mesh.tree, mesh.edge.keys, mesh.edge.keyring, mesh.edge.sealer]
    held += [store, token, KeyTree(CLUSTER, store), mesh.hub.grant, mesh.hub.identity, mesh.edge.seal(OTHER)]
    for one in held:
        clean(repr(one), secrets)
        clean(str(one), secrets)
    sealed = seal_secret(mesh.authority.secret(), key=b"k" * 32)
    failures: list[Callable[[], Any]] = [
        lambda: mesh.meta.opener.open_events("d", SECRET, mesh.edge.seal().whole()),
        lambda: mesh.hub.opener.open_events("d", OTHER, mesh.edge.seal().whole()),
        lambda: mesh.hub.keyring.install(mesh.packet(mesh.edge), mesh.voters),
        lambda: mesh.tree.store.root("m", 99),
        lambda: unseal_secret(sealed, key=b"l" * 32),
        lambda: NodeKeys.load(tmp_path),
        lambda: JoinToken.decode(token.encode()[:-9]),
        lambda: store.outside("m", SECRET.tokens, 1),
    ]
    log = logging.getLogger("meshfold.test")
    with caplog.at_level(logging.DEBUG):
        for work in failures:
            try:
                work()
            except MeshfoldError as error:
                shown = traceback.TracebackException.from_exception(error, capture_locals=True)
                # This test holds them all to look for them; what it called is another matter.
                frames = [frame for frame in shown.stack if not frame.filename.endswith(Path(__file__).name)]
                clean(" ".join(f"{frame.locals}" for frame in frames), secrets)
                clean("".join(traceback.format_exception(error)), secrets)
                clean(str(error) + repr(error) + repr(error.fields), secrets)
                log.error("it failed", exc_info=error)
            else:
                raise AssertionError("it worked")
    out = io.StringIO()
    out.write(caplog.text)
    clean(out.getvalue(), secrets)


def test_authorities_and_keys_print_as_redacted() -> None:
    for one in (
        Authority.generate(CLUSTER),
        KeyStore.generate(),
        KeyTree.generate(CLUSTER),
        NodeKeys.generate(),
    ):
        assert "REDACTED" in repr(one)


def test_the_watch_over_printed_output_sees_a_leak() -> None:
    from leak_watch import WATCHED, leaked

    keys = NodeKeys.generate()
    assert keys._sign is not None
    raw = keys._sign.private_bytes_raw()
    assert raw in WATCHED
    assert leaked(f"key {raw.hex()} printed")
    assert leaked(base64.b64encode(raw).decode())
    assert leaked(f"{raw!r}")
    assert leaked(base64.urlsafe_b64encode(raw).decode())
    assert not leaked(repr(keys))
    ((_, _, members),) = KeyStore.generate().members()
    assert leaked(members.hex())
