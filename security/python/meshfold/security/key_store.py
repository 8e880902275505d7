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
from meshfold.core import Address
from meshfold.core.errors import FrameRejected, KeyMissing, WiringError
from meshfold.security.fork import Guarded
from meshfold.security.keys import check_random_source, destroy, load_secret, save_secret, sync_folder

__all__ = ("CLASSES", "KeyStore")

#: m metadata, d payload, x debug
CLASSES: Final = ("m", "d", "x")
MEMBERS_KEPT: Final = 2
EPOCH_MAX: Final = 65_535
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
    def empty(cls, folder: Path) -> KeyStore:
        """A store in a new folder whose keys come from other voters."""
        folder.mkdir(mode=0o700, parents=True)
        return cls(folder)

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
        """Draw the roots of a new epoch, those that are not here yet; nothing derives them from the old ones."""
        for key_class in CLASSES:
            if (key_class, epoch) not in self._roots:
                self._keep_root(key_class, epoch, os.urandom(32))

    def _keep_root(self, key_class: str, epoch: int, key: bytes) -> None:
        if self._folder is not None:
            path = self._folder / f"root-{key_class}-{epoch}.key"
            destroy(path)
            save_secret(path, key)
        self._roots[key_class, epoch] = key

    def has_root(self, epoch: int) -> bool:
        """Whether the roots of an epoch are here."""
        return all((key_class, epoch) in self._roots for key_class in CLASSES)

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
        self._keep_members(epoch, activate_ms, os.urandom(32))

    def _keep_members(self, epoch: int, activate_ms: int, key: bytes) -> None:
        if self._folder is not None:
            path = self._folder / f"members-{epoch}-{activate_ms}.key"
            destroy(path)
            save_secret(path, key)
        others = [one for one in self._members if one[0] != epoch]
        kept = sorted([*others, (epoch, activate_ms, key)])[-MEMBERS_KEPT:]
        for old_epoch, old_ms, _ in (*self._members, (epoch, activate_ms, key)):
            gone = all((old_epoch, old_ms) != one[:2] for one in kept)
            if gone and self._folder is not None:
                destroy(self._folder / f"members-{old_epoch}-{old_ms}.key")
        self._members = kept

    def members(self) -> list[tuple[int, int, bytes]]:
        """(epoch, from ms, key), oldest first."""
        return list(self._members)

    @staticmethod
    def _name(key_class: str, tokens: tuple[str, ...], epoch: int) -> str:
        digest = hashlib.sha256("\n".join((key_class, *tokens)).encode()).hexdigest()[:32]
        return f"outside-{digest}-{epoch}"

    def draw_outside(self, tokens: tuple[str, ...], epoch: int) -> None:
        """Draw the keys of a shreddable route's epoch, those that are not here yet."""
        for key_class in CLASSES:
            if not self.holds_outside(key_class, tokens, epoch):
                self._keep_outside(key_class, tokens, epoch, os.urandom(32))

    def _keep_outside(self, key_class: str, tokens: tuple[str, ...], epoch: int, key: bytes) -> None:
        if self._folder is not None:
            stem = self._name(key_class, tokens, epoch)
            file_key, nonce = os.urandom(32), os.urandom(12)
            destroy(self._folder / f"{stem}.key")
            _write(self._folder / f"{stem}.name", "\n".join((key_class, str(epoch), *tokens)).encode())
            sealed = ChaCha20Poly1305(file_key).encrypt(nonce, key, stem.encode())
            _write(self._folder / f"{stem}.box", nonce + sealed)
            save_secret(self._folder / f"{stem}.key", file_key)
        self._outside[key_class, tokens, epoch] = key

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

    def stock(self) -> dict[str, bytes]:
        """Every key by its name, which is the same at all voters: `root/CLASS/EPOCH`, `members/EPOCH/FROM`,
        `outside/CLASS/EPOCH/ADDRESS`."""
        self.check_fork()
        found = {f"root/{key_class}/{epoch}": key for (key_class, epoch), key in self._roots.items()}
        found |= {f"members/{epoch}/{from_ms}": key for epoch, from_ms, key in self._members}
        for (key_class, tokens, epoch), key in self._outside.items():
            found[f"outside/{key_class}/{epoch}/{'.'.join(tokens)}"] = key
        return found

    def adopt(self, name: str, key: bytes) -> None:
        """Keep a key that another voter drew, in place of one of the same name; on disk when it returns.

        :raises FrameRejected: with reason `format` if that is no name, or no key
        """
        kind, *rest = name.split("/")
        try:
            if len(key) != 32:
                raise ValueError(f"{len(key)} bytes")
            if kind == "members" and len(rest) == 2:
                self._keep_members(_number(rest[0], EPOCH_MAX), _number(rest[1], 2**63), key)
            elif kind == "root" and len(rest) == 2 and rest[0] in CLASSES:
                self._keep_root(rest[0], _number(rest[1], EPOCH_MAX), key)
            elif kind == "outside" and len(rest) == 3 and rest[0] in CLASSES:
                address = Address.parse(rest[2])
                if address.text != rest[2]:
                    raise ValueError("another address than it says")
                self._keep_outside(rest[0], address.tokens, _number(rest[1], EPOCH_MAX), key)
            else:
                raise ValueError("of no kind")
        except (ValueError, WiringError) as error:
            raise FrameRejected("format", f"a key named {name[:80]!r}: {error}") from None
        if self._folder is not None:
            sync_folder(self._folder)

    def erase(self) -> None:
        """Forget every key in memory."""
        self._roots.clear()
        self._members.clear()
        self._outside.clear()

    def __repr__(self) -> str:
        return "KeyStore(REDACTED)"


def _number(text: str, most: int) -> int:
    """A number in its one form.

    :raises ValueError: if it is none, or too large
    """
    if not text.isdecimal() or str(int(text)) != text or int(text) > most:
        raise ValueError(f"{text[:24]!r} is no number of a key")
    return int(text)


def _write(path: Path, data: bytes) -> None:
    """Write a file that is on disk when this returns."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
