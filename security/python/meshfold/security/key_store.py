"""A voter's secret keys: roots of the tree by epoch, members' keys, and keys of shreddable routes. Prints as REDACTED.

On disk each key stands in a file of its own, mode 0600. A shreddable key stands sealed under a file key beside it, so that
overwriting 32 bytes makes it unreadable; copies of the disk made before are out of scope (docs/security.md).
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from meshfold.core.errors import KeyMissing
from meshfold.security.fork import Guarded
from meshfold.security.keys import check_random_source, destroy, load_secret, save_secret

__all__ = ("CLASSES", "KeyStore")

#: m metadata, d payload, x debug
CLASSES: Final = ("m", "d", "x")
MEMBERS_KEPT: Final = 2
OutsideSlot = tuple[str, tuple[str, ...], int]


class KeyStore(Guarded):
    """Holds them; with a folder, on disk too."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self._folder = folder
        self._roots: dict[tuple[str, int], bytes] = {}
        self._members: list[tuple[int, int, bytes]] = []
        self._outside: dict[OutsideSlot, bytes] = {}

    @classmethod
    def generate(cls, folder: Path | None = None) -> KeyStore:
        """Draw the first roots and members' key, in a new folder if one is given."""
        check_random_source()
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True)
        store = cls(folder)
        store.draw_roots(0)
        store.draw_members(0, 0)
        return store

    @classmethod
    def load(cls, folder: Path) -> KeyStore:
        """Read what an earlier life wrote.

        :raises ConfigError: if a file is readable by others, or not a key
        """
        store = cls(folder)
        for path in sorted(folder.glob("root-*.key")):
            _, key_class, epoch = path.stem.split("-")
            store._roots[key_class, int(epoch)] = load_secret(path)
        for path in sorted(folder.glob("members-*.key")):
            _, epoch, activate_ms = path.stem.split("-")
            store._members.append((int(epoch), int(activate_ms), load_secret(path)))
        store._members.sort()
        for path in sorted(folder.glob("outside-*.box")):
            store._load_outside(path)
        return store

    def _load_outside(self, path: Path) -> None:
        key_class, epoch, *tokens = path.with_suffix(".name").read_text().split("\n")
        file_key = path.with_suffix(".key")
        if file_key.exists():
            raw = path.read_bytes()
            key = ChaCha20Poly1305(load_secret(file_key)).decrypt(raw[:12], raw[12:], path.stem.encode())
            self._outside[key_class, tuple(tokens), int(epoch)] = key

    def draw_roots(self, epoch: int) -> None:
        """Draw the roots of a new epoch; nothing derives them from the old ones."""
        for key_class in CLASSES:
            key = self._roots[key_class, epoch] = os.urandom(32)
            if self._folder is not None:
                save_secret(self._folder / f"root-{key_class}-{epoch}.key", key)

    def has_root(self, epoch: int) -> bool:
        """Whether the roots of an epoch are here."""
        return ("m", epoch) in self._roots

    def root(self, key_class: str, epoch: int) -> bytes:
        """The root of a class.

        :raises KeyMissing: if that epoch's is not here
        """
        self.check_fork()
        key = self._roots.get((key_class, epoch))
        if key is None:
            raise KeyMissing(f"no root of epoch {epoch}", key_class=key_class)
        return key

    def draw_members(self, epoch: int, activate_ms: int) -> None:
        """Draw a members' key; the one before stays for the overlap, older ones go."""
        key = os.urandom(32)
        self._members.append((epoch, activate_ms, key))
        if self._folder is not None:
            save_secret(self._folder / f"members-{epoch}-{activate_ms}.key", key)
        for old_epoch, old_ms, _ in self._members[:-MEMBERS_KEPT]:
            if self._folder is not None:
                destroy(self._folder / f"members-{old_epoch}-{old_ms}.key")
        del self._members[:-MEMBERS_KEPT]

    def members(self) -> list[tuple[int, int, bytes]]:
        """(epoch, from ms, key), oldest first."""
        return list(self._members)

    @staticmethod
    def _name(key_class: str, tokens: tuple[str, ...], epoch: int) -> str:
        digest = hashlib.sha256("\n".join((key_class, *tokens)).encode()).hexdigest()[:32]
        return f"outside-{digest}-{epoch}"

    def draw_outside(self, tokens: tuple[str, ...], epoch: int) -> None:
        """Draw the keys of a shreddable route's epoch."""
        for key_class in CLASSES:
            key = self._outside[key_class, tokens, epoch] = os.urandom(32)
            if self._folder is None:
                continue
            stem = self._name(key_class, tokens, epoch)
            file_key, nonce = os.urandom(32), os.urandom(12)
            save_secret(self._folder / f"{stem}.key", file_key)
            (self._folder / f"{stem}.name").write_text("\n".join((key_class, str(epoch), *tokens)))
            sealed = ChaCha20Poly1305(file_key).encrypt(nonce, key, stem.encode())
            (self._folder / f"{stem}.box").write_bytes(nonce + sealed)

    def holds_outside(self, key_class: str, tokens: tuple[str, ...], epoch: int) -> bool:
        """Whether the key was drawn here and not shredded."""
        return (key_class, tokens, epoch) in self._outside

    def outside(self, key_class: str, tokens: tuple[str, ...], epoch: int) -> bytes:
        """A shreddable route's key.

        :raises KeyMissing: if it was shredded
        """
        self.check_fork()
        key = self._outside.get((key_class, tokens, epoch))
        if key is None:
            raise KeyMissing(f"epoch {epoch} of {'/'.join(tokens[2:5])} was shredded", key_class=key_class)
        return key

    def shred(self, tokens: tuple[str, ...], epoch: int) -> bool:
        """Make a shreddable route's epoch unreadable here; False if it was so already."""
        gone = False
        for key_class in CLASSES:
            gone |= self._outside.pop((key_class, tokens, epoch), None) is not None
            if self._folder is not None:
                stem = self._name(key_class, tokens, epoch)
                for suffix in (".key", ".box", ".name"):
                    destroy(self._folder / f"{stem}{suffix}")
        return gone

    def erase(self) -> None:
        """Forget every key in memory."""
        self._roots.clear()
        self._members.clear()
        self._outside.clear()

    def __repr__(self) -> str:
        return "KeyStore(REDACTED)"
