"""Ctrl-C while a command only imports what it needs."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

#: Python swallows what a callback raises, as those of its import locks do.
SCRIPT = """
import os, signal, sys, weakref
from meshfold.mesh.cli.interrupts import nothing_begun

class Held: ...
held = Held()
ref = weakref.ref(held, lambda ref: os.kill(os.getpid(), signal.SIGINT) or [None for _ in range(9)])
if sys.argv[1] == "ignored":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
if sys.argv[1] == "outside":
    del held
else:
    with nothing_begun():
        del held
print("went on", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


@pytest.mark.parametrize(
    ("where", "code", "said"),
    [
        ("inside", -signal.SIGINT, ""),
        ("ignored", 0, "went on False"),
        # What is guarded against is really lost otherwise.
        ("outside", 0, "went on True"),
    ],
)
def test_an_interrupt_that_python_would_swallow_ends_the_process(where: str, code: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, where], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == code, done.stderr
    assert done.stdout.strip() == said
