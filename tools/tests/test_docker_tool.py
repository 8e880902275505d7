"""tools/docker.sh: it ends what it started and nothing else, and says why there is no engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[1] / "docker.sh"


def run(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Call the tool with a folder of the test's own, and no engine of the machine's."""
    environment = {
        **os.environ,
        "MESHFOLD_TEST_DOCKER_DIR": str(folder),
        "DOCKER_HOST": f"unix://{folder}/none",
    }
    if path is not None:
        environment["PATH"] = path
    return subprocess.run(
        [str(TOOL), *arguments], env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of the tool's."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_stop_leaves_a_process_alone_that_got_the_daemons_number(
    tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    (tmp_path / "pid").write_text(str(bystander.pid))
    assert run(tmp_path, "stop").returncode == 0
    assert bystander.poll() is None
    assert run(tmp_path, "purge").returncode == 0
    assert bystander.poll() is None
    assert not tmp_path.exists()


def test_purge_removes_the_folder_with_what_an_engine_left_mounted_in_it(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    place = tmp_path / "engine" / "exec" / "netns"
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    answer = run(tmp_path / "engine", "purge")
    assert answer.returncode == 0, answer.stderr
    assert not (tmp_path / "engine").exists()
    assert str(place) not in Path("/proc/mounts").read_text()


def test_without_an_engine_it_says_why_and_ends_with_three(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "env", "uname", "cat", "tail", "mkdir", "setsid"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    with tempfile.TemporaryDirectory(
        prefix="mf-"
    ) as short:  # pytest's own folders may be too long for sockets
        answer = run(Path(short) / "engine", "start", path=str(tools))
    assert answer.returncode == 3
    assert answer.stdout == ""
    assert len(answer.stderr.strip().splitlines()) == 1
    assert "no engine answers" in answer.stderr


def test_a_folder_too_long_for_sockets_is_refused_by_name(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root starts an engine")
    answer = run(tmp_path / ("x" * 90), "start")
    assert answer.returncode == 3
    assert "MESHFOLD_TEST_DOCKER_DIR" in answer.stderr


def test_unknown_words_are_answered_with_the_manual(tmp_path: Path) -> None:
    answer = run(tmp_path, "begin")
    assert answer.returncode == 2
    assert "start" in answer.stderr
    assert "purge" in answer.stderr
