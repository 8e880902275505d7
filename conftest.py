"""Every test of the repository is watched for secrets in what it prints (security/tests/leak_watch.py)."""

from __future__ import annotations

import signal

from leak_watch import pytest_runtest_makereport

__all__ = ("pytest_runtest_makereport",)

# A shell that starts us in its background lets Ctrl-C be ignored, and with us every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
