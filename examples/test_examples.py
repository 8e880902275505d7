"""Runs the examples as their reader would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from meshfold.mesh.local import LocalMesh

HERE = Path(__file__).parent
RUN_S = 60


def test_two_files_share_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHFOLD_CONTEXTS", str(tmp_path / "contexts"))
    with LocalMesh(tmp_path / "state") as mesh, mesh.node("hub"):
        share = subprocess.Popen([sys.executable, str(HERE / "02_two_files/share.py")], env=os.environ.copy())
        try:
            read = subprocess.run(
                [sys.executable, str(HERE / "02_two_files/read.py")],
                capture_output=True,
                text=True,
                timeout=RUN_S,
                check=False,
            )
        finally:
            share.terminate()
            share.wait(RUN_S)
    assert read.returncode == 0, read.stderr
    values = [float(line.split()[0]) for line in read.stdout.splitlines()]
    assert len(values) == 5
    assert all(870.0 <= value < 880.0 for value in values)
