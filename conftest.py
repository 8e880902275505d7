"""Every test of the repository is watched for secrets in what it prints (security/tests/leak_watch.py)."""

from __future__ import annotations

from leak_watch import pytest_runtest_makereport

__all__ = ("pytest_runtest_makereport",)
