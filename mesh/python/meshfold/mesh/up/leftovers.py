"""State that an `up` without a folder of its own left behind because it was killed: swept by the next one."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

__all__ = ("PREFIX", "sweep")

PREFIX: Final = "meshfold-"
#: Younger folders are left alone: their owner may not have taken the lock yet.
AGE_S_MIN: Final = 60.0


def sweep(folder: Path | None = None, *, now_s: float | None = None) -> list[Path]:
    """Remove this user's temporary meshes whose lock nobody holds; returns what was removed.

    :param folder: where they are; None is the system's folder for temporary files
    :param now_s: seconds since 1970
    """
    now_s = time.time() if now_s is None else now_s
    removed: list[Path] = []
    for path in (folder or Path(tempfile.gettempdir())).glob(f"{PREFIX}*"):
        try:
            lock = path / "lock"
            mine = not path.is_symlink() and path.is_dir() and path.stat().st_uid == os.getuid()
            if not mine or now_s - lock.stat().st_mtime < AGE_S_MIN:
                continue
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
        except OSError:
            # In use, not ours to remove, or gone meanwhile.
            continue
        removed.append(path)
    return removed
