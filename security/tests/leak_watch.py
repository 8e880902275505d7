"""Watches what the tests of a folder print: a private key in captured output, a log or a failure's text fails the test.

A conftest imports the hook; from then on every key that is made or read is remembered, and every report is searched.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator
from typing import Any, Final

import pytest
from meshfold.security import KeyStore, NodeKeys
from meshfold.security.join import JoinToken

__all__ = ("WATCHED", "leaked", "pytest_runtest_makereport")

WATCHED_MAX: Final = 4096
WATCHED: Final[set[bytes]] = set()


def _remember(secrets: list[bytes]) -> None:
    if len(WATCHED) < WATCHED_MAX:
        WATCHED.update(secrets)


def _watch_keys() -> None:
    original: Callable[..., None] = NodeKeys.__init__

    def watched(self: NodeKeys, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        assert self._sign is not None and self._login is not None
        _remember([one.private_bytes_raw() for one in (self._sign, self._login)])
        _remember([one.private_bytes_raw() for one in self._wraps])

    NodeKeys.__init__ = watched  # type: ignore[method-assign]


def _watch_store() -> None:
    original = KeyStore.root

    def watched(self: KeyStore, key_class: str, epoch: int) -> bytes:
        key = original(self, key_class, epoch)
        _remember([key])
        return key

    KeyStore.root = watched  # type: ignore[method-assign]


def _watch_members() -> None:
    original = KeyStore.members

    def watched(self: KeyStore) -> list[tuple[int, int, bytes]]:
        found = original(self)
        _remember([key for _, _, key in found])
        return found

    KeyStore.members = watched  # type: ignore[method-assign]


def _watch_tokens() -> None:
    original = JoinToken.encode

    def watched(self: JoinToken) -> str:
        _remember([self.secret])
        return original(self)

    JoinToken.encode = watched  # type: ignore[method-assign]


_watch_keys()
_watch_store()
_watch_members()
_watch_tokens()


def _forms(secret: bytes) -> tuple[str, ...]:
    """How a secret would look in what is printed."""
    plain = base64.b64encode(secret).decode().rstrip("=")
    return secret.hex(), plain, plain.replace("+", "-").replace("/", "_"), repr(secret)[2:-1]


def leaked(text: str) -> bool:
    """Whether a watched secret stands in the text."""
    return bool(text) and any(form in text for one in WATCHED for form in _forms(one))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that printed a secret."""
    report = yield
    said = "".join(content for _, content in report.sections)
    if leaked(said) or (report.failed and leaked(report.longreprtext)):
        report.outcome = "failed"
        report.sections = []
        report.longrepr = f"{item.nodeid} printed a private key"
    return report
