"""Hostile key files and nonces: rows HK9 and HK11."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hostile import VARIANTS
from meshfold.core.errors import ConfigError, FrameRejected
from meshfold.security import NodeKeys, verify
from meshfold.security.keys import load_secret
from parties import Mesh


def a_link(path: Path, target: str = "real") -> None:
    """The real file elsewhere."""
    path.rename(path.with_name("real"))
    path.symlink_to(path.with_name(target))


def another_kind(path: Path, make: Callable[[Path], None]) -> None:
    """Something else under its name."""
    path.unlink()
    make(path)


SPOILS: dict[str, Callable[[Path], object]] = {
    "readable by others": lambda path: path.chmod(0o644),
    "readable by its group": lambda path: path.chmod(0o640),
    "a link": a_link,
    "a link to nothing": lambda path: a_link(path, "gone"),
    "a directory": lambda path: another_kind(path, lambda place: place.mkdir()),
    "a pipe": lambda path: another_kind(path, lambda place: os.mkfifo(place, 0o600)),
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "one byte short": lambda path: path.write_bytes(b"x" * 31),
    "with the end of a line": lambda path: path.write_bytes(b"x" * 32 + b"\r\n"),
    "hex": lambda path: path.write_text("ab" * 32),
    "ten megabytes": lambda path: path.write_bytes(bytes(10 * 1024 * 1024)),
}


@pytest.mark.parametrize("name", ["sign.key", "wrap.key", "login.key"])
@pytest.mark.parametrize("how", list(SPOILS))
def test_hk11_a_key_file_that_is_not_a_private_file_of_32_bytes_is_refused(
    tmp_path: Path, name: str, how: str
) -> None:
    keys = NodeKeys.generate()
    keys.save(tmp_path)
    SPOILS[how](tmp_path / name)
    with pytest.raises(ConfigError) as caught:
        NodeKeys.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_hk11_the_words_of_the_refusal_hold_no_byte_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sign.key"
    path.write_bytes(b"not-a-key-but-somebody's-password")
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        load_secret(path)
    assert "password" not in str(caught.value)


def test_hk09_a_broker_that_chooses_its_nonce_gets_no_signature_of_the_identity() -> None:
    """The login key signs what the broker chooses, and is taken for nothing else."""
    mesh = Mesh()
    keys, rng = mesh.edge.keys, random.Random(9)
    wanted = [mesh.hub.grant.raw[:-64], mesh.hub.identity.raw[:-64], mesh.edge.seal().whole()[:-64]]
    for number in range(VARIANTS):
        domain = rng.choice((b"MF1 sig", b"MG1 grant", b"ID1 identity", b"MF1 start", b"MG1 pop"))
        nonce = domain + b"\0" + wanted[number % len(wanted)]
        signature = keys.login_sign(nonce)
        Ed25519PublicKey.from_public_bytes(keys.login_pub).verify(signature, nonce)
        with pytest.raises(InvalidSignature):
            Ed25519PublicKey.from_public_bytes(keys.node_pub).verify(signature, nonce)
        with pytest.raises(FrameRejected):
            verify(keys.node_pub, domain, wanted[number % len(wanted)], signature)
    assert len({keys.node_pub, keys.login_pub, keys.wrap_pub}) == 3
