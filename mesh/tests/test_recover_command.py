"""A control log that is damaged: the commands say where, what that costs, and go on when told to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from meshfold.consensus import RaftLog, SoloLog
from meshfold.core import SystemClock
from meshfold.core.errors import StoreDamaged


def meshfold(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command."""
    command = (sys.executable, "-m", "meshfold.mesh", *words)
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)


async def test_hf3_a_damaged_log_names_the_command_that_gives_up_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "voter" / "log"
    log = SoloLog.open(folder, node="hub")
    await log.put("kept", b"1")
    length = (folder / "log.0").stat().st_size
    highest = await log.put("lost", b"2")
    log.close()
    damaged = bytearray((folder / "log.0").read_bytes())
    damaged[length + 10] ^= 1
    (folder / "log.0").write_bytes(bytes(damaged))
    with pytest.raises(StoreDamaged, match=f"meshfold recover {folder} --recover-to {length}"):
        SoloLog.open(folder, node="hub")

    # Not with another number by mistake: what is damaged before it stays damage.
    refused = meshfold("recover", str(tmp_path), "--recover-to", str(length + 20))
    assert refused.returncode == 2, refused.stdout
    done = meshfold("recover", str(tmp_path), "--recover-to", str(length), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["keys"], found["commit"] >= highest) == (1, True)
    log = SoloLog.open(folder, node="hub")
    assert list(await log.snapshot()) == ["kept"]
    assert await log.put("next", b"3") > highest
    log.close()


def test_a_folder_without_a_log_and_one_in_use_are_refused_in_one_line(tmp_path: Path) -> None:
    refused = meshfold("recover", str(tmp_path), "--recover-to", "0")
    assert refused.returncode == 2
    assert "no control log" in refused.stderr and len(refused.stderr.splitlines()) == 1
    log = SoloLog.open(tmp_path, node="hub")
    refused = meshfold("recover", str(tmp_path), "--recover-to", "0")
    log.close()
    assert refused.returncode == 2
    assert "open in another process" in refused.stderr


async def test_the_log_of_one_of_several_voters_is_given_up_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "voter" / "00112233" / "raft"
    log = open_alone(folder)
    log.start()
    await log.put("kept", b"1")
    await log.close()
    (entries,) = folder.glob("log.*")
    data = bytearray(entries.read_bytes())
    data[len(data) // 2] ^= 1
    entries.write_bytes(bytes(data))
    with pytest.raises(StoreDamaged, match="leave this voter out") as caught:
        open_alone(folder)
    assert "--recover-to" not in str(caught.value)
    for name in (tmp_path, folder):
        refused = meshfold("recover", str(name), "--recover-to", "0")
        assert refused.returncode == 2 and "one of several voters" in refused.stderr
    assert entries.read_bytes() == bytes(data)


def open_alone(folder: Path) -> RaftLog:
    """A group whose only voter is here."""

    class Nowhere:
        def send(self, to: int, data: bytes) -> None:
            """Lose it."""

    return RaftLog.open(folder, node=1, names=str, founders=(1,), wire=Nowhere(), clock=SystemClock(), seed=1)
