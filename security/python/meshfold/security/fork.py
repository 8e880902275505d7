"""What a fork does to secrets: in the child they are erased, and whatever would use them says so.

Two processes with one subkey and one counter would seal under one nonce twice, so a child must never seal; nor does it
need what its parent may open. A node is opened after the fork.
"""

from __future__ import annotations

import os
import weakref
from abc import ABC, abstractmethod
from typing import Final

from meshfold.core.errors import KeyMissing

__all__ = ("Guarded",)

_LIVE: Final[weakref.WeakSet[Guarded]] = weakref.WeakSet()


class Guarded(ABC):
    """Holds secrets of one process. A child finds them erased; `check_fork` also holds where no hook ran."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        _LIVE.add(self)

    def check_fork(self) -> None:
        """Return in the process that made this.

        :raises KeyMissing: in a child of it, naming the fork
        """
        if os.getpid() != self._pid:
            raise KeyMissing(
                "keys do not survive a fork: sealing in a child would use nonces twice",
                fix="open the node after the fork, or start processes with the spawn method",
                because="fork",
            )

    @abstractmethod
    def erase(self) -> None:
        """Forget the secrets."""


def _in_child() -> None:
    for one in list(_LIVE):
        one.erase()


os.register_at_fork(after_in_child=_in_child)
