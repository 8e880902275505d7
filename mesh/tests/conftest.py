"""A whole mesh for a test: a real server, real files, nodes in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from meshfold.mesh.local import LocalMesh
from voting import NAMES


@pytest.fixture
def mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalMesh]:
    """A running mesh without nodes; contexts stay in the test's folder."""
    monkeypatch.setenv("MESHFOLD_CONTEXTS", str(tmp_path / "contexts"))
    with LocalMesh(tmp_path / "state") as running:
        yield running


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalMesh]:
    """A running mesh of three voters, none of which runs yet."""
    monkeypatch.setenv("MESHFOLD_CONTEXTS", str(tmp_path / "contexts"))
    with LocalMesh(tmp_path / "state", voters=NAMES) as running:
        yield running
