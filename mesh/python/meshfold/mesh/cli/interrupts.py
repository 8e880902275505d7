"""Ctrl-C before a command has begun anything."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ("nothing_begun",)


@contextmanager
def nothing_begun() -> Generator[None]:
    """Around imports: Ctrl-C ends the process at once, since there is nothing to undo.

    As an exception it would be lost now and then: Python swallows what is raised in the callbacks of its import locks. A
    process that was started with Ctrl-C ignored, as shells do for `&`, goes on ignoring it.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
