"""Private keys of a node and strict checks of public keys.

Three keys, three uses: `sign` is the node's identity, `wrap` receives sealed keys, `login` answers the broker's nonce -
the broker chooses that nonce, so the key that signs it must sign nothing else.
"""

from __future__ import annotations

import hashlib
import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from meshfold._native import SigningKey, VerifyingKey
from meshfold.core.errors import ConfigError, FrameRejected
from meshfold.security.fork import Guarded

__all__ = (
    "NodeKeys",
    "check_ed25519_public",
    "check_random_source",
    "check_x25519_public",
    "destroy",
    "load_secret",
    "save_secret",
    "sync_folder",
    "tag_of",
    "verify",
)

_P: Final = 2**255 - 19
#: y-coordinates of the eight points of small order on edwards25519 (RFC 8032 curve), and their non-canonical twins.
_SMALL_ORDER_Y: Final = frozenset(
    (
        0,
        1,
        _P - 1,
        int.from_bytes(
            bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
        ),
        int.from_bytes(
            bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"
        ),
    )
)
#: u-coordinates of small order on curve25519 (RFC 7748 section 6.1 asks to refuse an all-zero result).
_SMALL_ORDER_U: Final = frozenset(
    (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _P - 1,
    )
)
SECRET_BYTES: Final = 32


def tag_of(node_pub: bytes) -> bytes:
    """The 8 bytes that stand for a node on the wire: the first of SHA-256 of its signing key."""
    return hashlib.sha256(node_pub).digest()[:8]


def check_ed25519_public(raw: bytes) -> None:
    """Refuse keys for which one signature fits many messages, and second encodings of a key.

    :raises FrameRejected: with reason `key`
    """
    if len(raw) != 32:
        raise FrameRejected("key", "an Ed25519 key has 32 bytes")
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if y >= _P:
        raise FrameRejected("key", "not the canonical encoding")
    if y in _SMALL_ORDER_Y:
        raise FrameRejected("key", "a point of small order")


def check_x25519_public(raw: bytes) -> None:
    """Refuse keys that force the shared secret.

    :raises FrameRejected: with reason `key`
    """
    if len(raw) != 32:
        raise FrameRejected("key", "an X25519 key has 32 bytes")
    u = int.from_bytes(raw, "little")
    if u >= _P or u in _SMALL_ORDER_U:
        raise FrameRejected("key", "a point of small order or not canonical")


@lru_cache(maxsize=4096)
def _public(pub: bytes) -> VerifyingKey:
    """A checked public key; members sign many frames with one."""
    check_ed25519_public(pub)
    return VerifyingKey(pub)


def verify(pub: bytes, domain: bytes, data: bytes, signature: bytes) -> None:
    """Check a signature over `domain || NUL || data`.

    :raises FrameRejected: with reason `sig`, or `key` for an unusable key
    """
    if not _public(pub).holds(signature, domain + b"\0" + data):
        raise FrameRejected("sig", domain.decode())


def save_secret(path: Path, raw: bytes) -> None:
    """Write 32 secret bytes to a new file of mode 0600."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def load_secret(path: Path) -> bytes:
    """Read 32 secret bytes from a private regular file.

    :raises ConfigError: if it is missing, a link, readable by others, or not 32 bytes
    """
    try:
        # Without waiting: a pipe in its place would hold the start for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"cannot read the key file {path}: {error.strerror}", item=str(path)) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ConfigError(f"the key file {path} is no regular file", item=str(path))
        if mode & 0o077:
            raise ConfigError(
                f"the key file {path} is readable by others", fix=f"chmod 600 {path}", item=str(path)
            )
        raw = os.read(descriptor, SECRET_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(raw) != SECRET_BYTES:
        raise ConfigError(f"the key file {path} does not hold {SECRET_BYTES} bytes", item=str(path))
    return raw


def destroy(path: Path) -> None:
    """Overwrite a small secret file in place, then remove it; nothing happens if there is none."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    with os.fdopen(descriptor, "r+b") as file:
        file.write(os.urandom(os.fstat(file.fileno()).st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def sync_folder(folder: Path) -> None:
    """Make durable which files a folder holds."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_random_source() -> None:
    """Refuse a source of randomness that is broken in the ways that have happened: constant, or repeating.

    :raises ConfigError: naming it
    """
    first, second = os.urandom(SECRET_BYTES), os.urandom(SECRET_BYTES)
    if first == second or len(set(first)) < 4 or len(set(second)) < 4:
        raise ConfigError(
            "the random source of this machine repeats itself",
            fix="no key is made here until it is mended",
            item="random",
        )


class NodeKeys(Guarded):
    """The three private keys of a node. Prints as REDACTED; a forked child finds them erased."""

    def __init__(
        self,
        sign: Ed25519PrivateKey,
        wrap: X25519PrivateKey,
        login: Ed25519PrivateKey,
        directory: Path | None = None,
    ) -> None:
        super().__init__()
        self._sign: Ed25519PrivateKey | None = sign
        self._wraps: tuple[X25519PrivateKey, ...] = (wrap,)
        self._signer: SigningKey | None = SigningKey(sign.private_bytes_raw())
        self._login: Ed25519PrivateKey | None = login
        self._directory = directory
        self.node_pub = sign.public_key().public_bytes_raw()
        self.wrap_pub = wrap.public_key().public_bytes_raw()
        self.login_pub = login.public_key().public_bytes_raw()
        self.tag = tag_of(self.node_pub)

    @classmethod
    def generate(cls) -> NodeKeys:
        """Draw fresh keys.

        :raises ConfigError: if the random source gives the same bytes twice, or nothing but zeros
        """
        check_random_source()
        return cls(Ed25519PrivateKey.generate(), X25519PrivateKey.generate(), Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, directory: Path) -> NodeKeys:
        """Read the keys that `save` wrote.

        :raises ConfigError: if a file is missing, a link, readable by others, or not a key
        """
        return cls(
            Ed25519PrivateKey.from_private_bytes(load_secret(directory / "sign.key")),
            X25519PrivateKey.from_private_bytes(load_secret(directory / "wrap.key")),
            Ed25519PrivateKey.from_private_bytes(load_secret(directory / "login.key")),
            directory,
        )

    def save(self, directory: Path) -> None:
        """Write the keys, each to a new file of mode 0600."""
        assert self._sign is not None
        assert self._login is not None
        save_secret(directory / "sign.key", self._sign.private_bytes_raw())
        save_secret(directory / "wrap.key", self._wraps[0].private_bytes_raw())
        save_secret(directory / "login.key", self._login.private_bytes_raw())
        self._directory = directory

    @property
    def wrap_privates(self) -> tuple[X25519PrivateKey, ...]:
        """The keys that open what was sealed to this node: the newest, and in memory alone the one before it."""
        self.check_fork()
        return self._wraps

    def rotate_wrap(self) -> None:
        """Draw a new wrapping key; the file of the old one is overwritten, so no packet on disk opens any more."""
        self.check_fork()
        fresh = X25519PrivateKey.generate()
        if self._directory is not None:
            path = self._directory / "wrap.key"
            coming = path.with_name("wrap.key.new")
            coming.unlink(missing_ok=True)
            save_secret(coming, fresh.private_bytes_raw())
            destroy(path)
            coming.rename(path)
        self._wraps = (fresh, *self._wraps[:1])
        self.wrap_pub = fresh.public_key().public_bytes_raw()

    def drop_old_wrap(self) -> None:
        """Forget the wrapping key before the newest: what was in flight when it was replaced has arrived."""
        self._wraps = self._wraps[:1]

    def sign(self, domain: bytes, data: bytes) -> bytes:
        """Sign `domain || NUL || data`: nothing undomained is ever signed by the identity.

        :raises KeyMissing: in a forked child
        """
        return self.frame_signer.sign(domain + b"\0" + data)

    @property
    def frame_signer(self) -> SigningKey:
        """What signs frames as they are sealed; it puts their domain before what it signs.

        :raises KeyMissing: in a forked child
        """
        self.check_fork()
        assert self._signer is not None
        return self._signer

    def login_sign(self, nonce: bytes) -> bytes:
        """Sign a broker's nonce.

        :raises KeyMissing: in a forked child
        """
        self.check_fork()
        assert self._login is not None
        return self._login.sign(nonce)

    def erase(self) -> None:
        """Forget the private keys."""
        self._sign = self._signer = self._login = None
        self._wraps = ()

    def __repr__(self) -> str:
        return "NodeKeys(REDACTED)"
