"""Secrets at rest, sealed under a passphrase or a key file.

magic 'SK' | version 1 | kind 1 (1 passphrase, 2 key file) | salt 16 | nonce 12 | ChaCha20-Poly1305 of the secret

The head is bound as associated data. A passphrase goes through scrypt (RFC 7914) with N = 2^17, r = 8, p = 1: 128 MiB and
about a third of a second for each guess. A key file holds 32 random bytes and goes through HKDF-SHA256.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from meshfold.core.errors import ConfigError

__all__ = ("PASSPHRASE_BYTES_MIN", "seal_secret", "unseal_secret")

PASSPHRASE: Final = 1
KEY_FILE: Final = 2
HEAD_BYTES: Final = 4 + 16
NONCE_BYTES: Final = 12
KEY_FILE_BYTES: Final = 32
PASSPHRASE_BYTES_MIN: Final = 12
SCRYPT_N: Final = 2**17


def _key(kind: int, salt: bytes, lock: bytes) -> bytes:
    if kind == KEY_FILE:
        return HKDF(SHA256(), 32, salt, b"MF1 sealed secret").derive(lock)
    return Scrypt(salt=salt, length=32, n=SCRYPT_N, r=8, p=1).derive(lock)


def seal_secret(secret: bytes, *, passphrase: bytes | None = None, key: bytes | None = None) -> bytes:
    """Seal under exactly one of a passphrase or the 32 bytes of a key file.

    :raises ConfigError: if neither or both are given, or the one given is too weak
    """
    kind, lock = _lock(passphrase, key)
    head = b"SK" + bytes([1, kind]) + os.urandom(16)
    nonce = os.urandom(NONCE_BYTES)
    return head + nonce + ChaCha20Poly1305(_key(kind, head[4:], lock)).encrypt(nonce, secret, head)


def unseal_secret(sealed: bytes, *, passphrase: bytes | None = None, key: bytes | None = None) -> bytes:
    """Open what `seal_secret` made.

    :raises ConfigError: if it is none, was sealed under the other kind, or the passphrase or key is wrong
    """
    if len(sealed) < HEAD_BYTES + NONCE_BYTES or sealed[:3] != b"SK\x01":
        raise ConfigError("this is no sealed secret", item="sealed")
    kind, lock = _lock(passphrase, key)
    if sealed[3] != kind:
        needed = "a passphrase" if sealed[3] == PASSPHRASE else "a key file"
        raise ConfigError(f"the secret is sealed under {needed}", item="sealed")
    head, nonce = sealed[:HEAD_BYTES], sealed[HEAD_BYTES : HEAD_BYTES + NONCE_BYTES]
    try:
        return ChaCha20Poly1305(_key(kind, head[4:], lock)).decrypt(
            nonce, sealed[HEAD_BYTES + NONCE_BYTES :], head
        )
    except InvalidTag:
        raise ConfigError("wrong passphrase or key, or the sealed file was altered", item="sealed") from None


def _lock(passphrase: bytes | None, key: bytes | None) -> tuple[int, bytes]:
    if (passphrase is None) == (key is None):
        raise ConfigError("give a passphrase or a key file, and not both", item="passphrase")
    if key is not None:
        if len(key) != KEY_FILE_BYTES:
            raise ConfigError(f"a key file holds {KEY_FILE_BYTES} bytes", item="key file")
        return KEY_FILE, key
    assert passphrase is not None
    if len(passphrase) < PASSPHRASE_BYTES_MIN:
        raise ConfigError(
            f"the passphrase is shorter than {PASSPHRASE_BYTES_MIN} bytes",
            fix="use a longer one",
            item="passphrase",
        )
    return PASSPHRASE, passphrase
