"""Signals and second starts (HOSTILE rows HL7 and HL9): a clean stop, no partial state, nothing left behind."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from machines import RUN_S, Machine, wait_for
from meshfold.mesh.up.leftovers import sweep


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine without a mesh; its temporary files are in its own folder."""
    (tmp_path / "tmp").mkdir()
    made = Machine(tmp_path / "machine", environ={"TMPDIR": str(tmp_path / "tmp")})
    yield made
    made.stop()


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Its living children, and theirs."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them runs."""
    _, alive = psutil.wait_procs(processes, timeout=20)
    return all(one.status() == psutil.STATUS_ZOMBIE for one in alive)


@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM,),
        (signal.SIGTERM, signal.SIGINT),
        # What a terminal sends that is closed.
        (signal.SIGHUP,),
    ],
)
def test_hl9_a_second_signal_while_it_drains_changes_nothing(
    machine: Machine, signals: tuple[int, ...]
) -> None:
    up = machine.start_meshfold("up", "--json")
    wait_for(lambda: len(machine.delivered("hub")) >= 12, machine.logs)
    children = descendants(up)
    assert len(children) >= 4
    for number in signals:
        up.send_signal(number)
    out, _ = up.communicate(timeout=RUN_S)
    assert up.returncode == 0, machine.logs()
    assert json.loads(out)["unexplained"] == 0
    assert gone(children)
    assert "Traceback" not in machine.logs()
    assert list((machine.folder.parent / "tmp").iterdir()) == [], "temporary state was left behind"


def test_hl9_a_node_that_is_told_to_stop_while_it_starts_leaves_no_partial_state(machine: Machine) -> None:
    machine.ask("init", "--dir", "mesh", "--key-file", "k", "--nats", "nats://127.0.0.1:1")
    for _ in range(3):
        run = machine.start_meshfold("node", "run", "--dir", "mesh")
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=RUN_S)
    # Nothing was broken by it: the same folder says the same again.
    answer = machine.meshfold("node", "run", "--dir", "mesh")
    assert answer.returncode == 1, answer.stderr
    assert "127.0.0.1:1" in answer.stderr


def test_hl7_a_second_mesh_on_one_state_directory_is_refused_and_the_first_goes_on(machine: Machine) -> None:
    up = machine.start_meshfold("up", "--json", "--dir", "state")
    wait_for(lambda: len(machine.delivered("hub")) >= 12, machine.logs)
    second = machine.meshfold("up", "--dir", "state", "--for", "1s")
    assert second.returncode == 2
    assert "is in use by another mesh" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
    before = machine.delivered("hub")["edge/host/cpu"]["delivered"]
    wait_for(lambda: machine.delivered("hub")["edge/host/cpu"]["delivered"] > before, machine.logs)
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=RUN_S)
    assert up.returncode == 0


def test_state_that_a_killed_up_left_is_swept_by_the_next_one_and_what_runs_is_not(
    machine: Machine, tmp_path: Path
) -> None:
    up = machine.start_meshfold("up", "--json")
    wait_for(lambda: len(machine.delivered("hub")) >= 12, machine.logs)
    (state,) = (tmp_path / "tmp").glob("meshfold-*")
    later_s = (state / "lock").stat().st_mtime + 120
    assert sweep(tmp_path / "tmp", now_s=later_s) == [], "it runs: its lock is held"
    children = descendants(up)
    up.kill()
    up.communicate()
    assert gone(children)
    assert sweep(tmp_path / "tmp", now_s=later_s - 119) == [], "too young: its owner may be starting"
    assert sweep(tmp_path / "tmp", now_s=later_s) == [state]
    assert not state.exists()
    # And a command says that there is none, instead of waiting for one that is dead.
    assert machine.meshfold("status").returncode == 2


def test_another_file_or_link_of_that_name_is_never_swept(tmp_path: Path) -> None:
    (tmp_path / "meshfold-file").write_text("x")
    (tmp_path / "meshfold-plain").mkdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "lock").write_text("")
    (tmp_path / "meshfold-link").symlink_to(tmp_path / "kept")
    assert sweep(tmp_path, now_s=2**40) == []
    assert len(list(tmp_path.iterdir())) == 4


def test_on_a_terminal_the_view_is_drawn_and_ctrl_c_ends_it(machine: Machine) -> None:
    """As a user sees it: a real terminal, a real Ctrl-C from it to the whole foreground group."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(machine.folder)
        os.environ.update(machine._environment(), COLUMNS="150", LINES="50", TERM="xterm")
        os.execv(sys.executable, [sys.executable, "-m", "meshfold.mesh", "up"])
    screen = bytearray()

    def drawn() -> bool:
        screen.extend(os.read(terminal, 65_536))
        text = screen.decode(errors="replace")
        return all(
            word in text for word in ("edge/host/cpu", "p99 ms", "leader", "term 1", "refused", "latest")
        )

    wait_for(drawn, lambda: screen.decode(errors="replace")[-2000:])
    os.write(terminal, b"\x03")
    try:
        while chunk := os.read(terminal, 65_536):
            screen.extend(chunk)
    except OSError:
        # The terminal is closed when its last process ends.
        pass
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, screen.decode(errors="replace")[-2000:]
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.decode(errors="replace"))
    assert "0 unexplained" in text
    assert "Traceback" not in text
