"""The voters' keys in common: what each has to hold, and how it is told from what nobody may use.

The control log notes each key's digest, never the key: `keys/NAME`. The keys themselves go from voter to voter in boxes.

Invariants: a key is noted only when a majority of the voters has it on disk, and used only when it is noted; so whoever leads
next, with a majority behind it, finds every key that was ever used. A key of a noted name enters only if its digest holds.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

from meshfold.core.errors import FrameRejected
from meshfold.core.ports import Versioned
from meshfold.mesh.node.voter_log import VoterLog
from meshfold.security import Epochs, KeyStore

__all__ = ("PREFIX", "SharedKeys", "digest_of")

PREFIX: Final = "keys/"
#: Keys of one question between voters: one box, and not so many writes at once that an election is missed.
PAGE_MAX: Final = 32


def digest_of(name: str, key: bytes) -> bytes:
    """What the log says of a key."""
    return hashlib.sha256(b"MF1 voters' key\0" + name.encode() + b"\0" + key).digest()


def shredded_names(epochs: Epochs) -> frozenset[str]:
    """Names of keys that were erased on purpose: nobody has them any more."""
    return frozenset(
        f"outside/{key_class}/{one.epoch}/{'.'.join(one.path)}"
        for one in epochs.raises
        if one.shredded
        for key_class in "mdx"
    )


class SharedKeys:
    """One voter's key store beside the notes of the log."""

    def __init__(self, store: KeyStore, log: VoterLog) -> None:
        self._store = store
        self._log = log

    @staticmethod
    def read(saved: Mapping[str, Versioned], epochs: Epochs) -> dict[str, bytes]:
        """Name to digest, of the notes in a snapshot; without what was shredded since."""
        gone = shredded_names(epochs)
        found = {key.removeprefix(PREFIX): one.value for key, one in saved.items()}
        return {name: value for name, value in found.items() if name not in gone}

    def applied(self, epochs: Epochs) -> dict[str, bytes]:
        """The notes as far as this voter has applied the log: the newest may be missing."""
        return self.read(self._log.state.snapshot(PREFIX), epochs)

    def held(self) -> dict[str, bytes]:
        """Name to digest of every key here."""
        return {name: digest_of(name, key) for name, key in self._store.stock().items()}

    def missing(self, wanted: Mapping[str, bytes]) -> dict[str, bytes]:
        """What of it is not here, or is another key."""
        held = self.held()
        return {name: value for name, value in wanted.items() if held.get(name) != value}

    def give(self, names: Iterable[str]) -> dict[str, str]:
        """Keys for another voter, as far as they are here."""
        stock = self._store.stock()
        return {name: stock[name].hex() for name in names if name in stock}

    def take(self, wanted: Mapping[str, bytes], given: Mapping[str, str]) -> None:
        """Keep what another voter gave, on disk when this returns.

        :raises FrameRejected: with reason `commit` if a key is not the wanted one; those before it are kept
        """
        for name, text in given.items():
            key = bytes.fromhex(text)
            if wanted.get(name) != digest_of(name, key):
                raise FrameRejected("commit", f"another key than the log notes: {name[:80]}")
            self._store.adopt(name, key)

    async def note(self) -> None:
        """Note in the log what is here, and leave out what is not any more. Raises as the log."""
        noted = await self._log.snapshot(PREFIX)
        held = self.held()
        await asyncio.gather(
            *(
                self._log.put(PREFIX + name, value)
                for name, value in held.items()
                if (known := noted.get(PREFIX + name)) is None or known.value != value
            ),
            *(self._log.delete(key) for key in noted if key.removeprefix(PREFIX) not in held),
        )
