"""`Fence`: what stands before a sink and lets only the newest leader act (CONSENSUS 1.7).

Invariants: the highest token of each election is on disk before it is accepted; a lower one is refused for ever after, also
by other processes and after a restart; an equal one passes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import zlib
from collections.abc import Awaitable, Generator
from pathlib import Path
from typing import IO, Final, Protocol

import msgspec
from meshfold.consensus.token import Token
from meshfold.core.errors import ConfigError, Fenced, QueueFull, StoreDamaged

__all__ = ("Fence", "Sink")

#: Elections one sink can be fenced by.
ELECTIONS_MAX: Final = 1024


class Sink(Protocol):
    """Something that effects go to and that keeps the highest token it has seen."""

    def admit(self, token: Token) -> Awaitable[None] | None:
        """Accept the token, durably if it is higher than every one before.

        :raises Fenced: if a higher one was accepted before
        """
        ...


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    highest: dict[str, int]
    crc: int


def _crc(highest: dict[str, int]) -> int:
    return zlib.crc32(msgspec.json.encode(sorted(highest.items())))


class Fence:
    """The highest token of each election, in a file that processes of one machine may share.

    Call `admit` before an effect, or make the effect inside `hold`, which keeps every other leader out meanwhile.
    """

    def __init__(self, path: Path) -> None:
        """Use `path`; it is made at the first token, beside it a lock file."""
        self._path = path
        self._within = threading.RLock()

    @contextlib.contextmanager
    def _locked(self) -> Generator[dict[str, int]]:
        with self._within:
            try:
                lock: IO[bytes] = self._path.with_suffix(self._path.suffix + ".lock").open("ab")
            except OSError as error:
                raise ConfigError(
                    f"cannot use the fence {self._path}: {error.strerror}",
                    fix="choose a folder you may write",
                    item=str(self._path),
                ) from error
            with lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield self._read()

    def _read(self) -> dict[str, int]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigError(
                f"cannot read the fence {self._path}: {error.strerror}", item=str(self._path)
            ) from error
        try:
            found = msgspec.json.decode(data, type=_File)
        except msgspec.MsgspecError:
            found = None
        if found is None or found.crc != _crc(found.highest):
            raise StoreDamaged(
                f"the fence {self._path} is damaged, so nobody knows which tokens are too old",
                fix="make sure that no former leader runs, then delete it",
                path=str(self._path),
                offset=0,
            )
        return found.highest

    def _write(self, highest: dict[str, int]) -> None:
        fresh = self._path.with_suffix(self._path.suffix + ".new")
        try:
            with fresh.open("wb") as file:
                file.write(msgspec.json.encode(_File(highest, _crc(highest))))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise ConfigError(
                f"cannot write the fence {self._path}: {error.strerror}; the token was not accepted",
                fix="free some space, or choose another folder",
                item=str(self._path),
            ) from error

    @contextlib.contextmanager
    def hold(self, token: Token) -> Generator[None]:
        """Admit the token and keep every other one of this fence waiting until the block ends.

        :raises Fenced: if a higher token of this election was accepted before
        :raises QueueFull: if this would be the first token of one election too many
        :raises StoreDamaged: if the file does not say what was accepted
        :raises ConfigError: if the file cannot be read or written; nothing was accepted
        """
        with self._locked() as highest:
            known = highest.get(token.election, 0)
            if token.number < known:
                raise Fenced(
                    f"{token} is too old: {token.election}:{known} was here",
                    fix="stop acting as leader",
                    name=token.election,
                    token=token.number,
                    highest=known,
                )
            if token.number > known:
                if known == 0 and len(highest) >= ELECTIONS_MAX:
                    raise QueueFull(
                        f"the fence {self._path} knows {ELECTIONS_MAX} elections",
                        capacity=ELECTIONS_MAX,
                        route="",
                    )
                self._write({**highest, token.election: token.number})
            yield

    def admit(self, token: Token) -> None:
        """Accept the token, on disk before this returns. Raises as `hold`."""
        with self.hold(token):
            pass

    def highest(self, election: str) -> Token | None:
        """The highest token accepted so far. Raises as `hold`, but never `Fenced`."""
        with self._locked() as highest:
            number = highest.get(election)
        return Token(election, number) if number is not None else None
