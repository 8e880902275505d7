"""State folders: which path may be one, and the lock that keeps a second process out."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from meshfold.core.errors import ConfigError

__all__ = ("FolderLock", "state_folder")

#: One of these makes a folder that holds files a folder of ours.
OURS: Final = frozenset(
    {"lock", "context.json", "authority", "member.json", "join.body", "identity", "root.key"}
)
#: What a fresh file system may hold.
IGNORED: Final = frozenset({"lost+found"})


def state_folder(path: Path, option: str = "--dir") -> Path:
    """Return the path as an absolute one, if it can hold state: nothing there yet, empty, or state of ours.

    :raises ConfigError: if it is something else, cannot be read, or holds what the shell should have replaced
    """
    text = str(path)
    if text.startswith("~") or "$" in text or "\0" in text:
        raise ConfigError(
            f"{option} {text!r} cannot be a folder's name here: nothing replaces ~ and $ any more",
            fix="write the path out",
            item=option,
        )
    found = Path(os.path.abspath(path))
    try:
        names = {entry.name for entry in os.scandir(found)} - IGNORED
    except FileNotFoundError:
        return found
    except OSError as error:
        raise ConfigError(
            f"cannot use the state directory {path}: {error.strerror}",
            fix="choose a folder you may write, or leave --dir out",
            item=option,
        ) from error
    if names and not names & OURS:
        raise ConfigError(
            f"{path} holds files that are not Meshfold's, such as {min(names)}",
            fix="choose a folder that is empty or new",
            item=option,
        )
    return found


class FolderLock:
    """Held while a process runs on a folder; it goes with the process, however that ends."""

    def __init__(
        self,
        folder: Path,
        what: str,
        *,
        name: str = "lock",
        fix: str = "stop that one, or choose another folder with --dir",
    ) -> None:
        """`what` else may hold it, the `name` of the file that is locked, and what to do where another does."""
        self._folder = folder
        self._what = what
        self._name = name
        self._fix = fix
        self._file: IO[bytes] | None = None

    def acquire(self) -> Self:
        """Take the lock, making the folder if needed. Idempotent.

        :raises ConfigError: if the folder cannot be used, or another process holds it
        """
        if self._file is not None:
            return self
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = (self._folder / self._name).open("ab")
        except OSError as error:
            raise ConfigError(
                f"cannot use the state directory {self._folder}: {error.strerror}",
                fix="choose a folder you may write, or leave --dir out",
                item=str(self._folder),
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise ConfigError(
                f"the state directory {self._folder} is in use by another {self._what}",
                fix=self._fix,
                item=str(self._folder),
            ) from None
        self._file = file
        return self

    def release(self) -> None:
        """Give it back. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
