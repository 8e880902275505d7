"""Three voters on three machines, by the commands alone: made, carried, killed, and back again."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machines import Machine, Server, wait_for

NAMES = ("hub-1", "hub-2", "hub-3")


class Voters:
    """A machine each, and the server between them."""

    def __init__(self, folder: Path) -> None:
        self.machines = {name: Machine(folder / name) for name in NAMES}
        self.home = self.machines["hub-1"]
        options = [part for name in NAMES for part in ("--voter", name)]
        made = self.home.ask("init", "--dir", "node", "--mesh", "plant", "--key-file", "root.key", *options)
        for path in map(Path, made["carry"]):
            shutil.move(path, self.machines[path.name].folder / "node")
        conf = (self.home.folder / "node" / "nats-server.conf").read_text().splitlines()
        self.server = Server(
            folder / "server", "\n".join(one for one in conf if not one.startswith("listen"))
        )
        self.running: dict[str, Any] = {}
        for machine in self.machines.values():
            machine.environ["NATS_URL"] = self.server.url

    def logs(self) -> str:
        """What all of them said."""
        return "".join(machine.logs() for machine in self.machines.values())

    def start(self, *names: str) -> None:
        """Start some; return when one leads all that run."""
        for name in names:
            options = ["--name", name] if name == "hub-1" else []
            self.running[name] = self.machines[name].start_meshfold("node", "run", "--dir", "node", *options)
        wait_for(self.settled, self.logs)

    def kill(self, name: str) -> None:
        """Kill one, as a machine that loses power."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def status(self) -> dict[str, Any]:
        """As an operator asks; empty where nobody answers."""
        answer = self.home.meshfold("status", "--context", "node/context.json", "--json")
        return dict(json.loads(answer.stdout)) if answer.returncode == 0 else {}

    def control(self) -> dict[str, Any]:
        """The log's line in `status`."""
        rows = self.status().get("groups", [])
        return next((dict(row) for row in rows if row["group"] == "control"), {})

    def settled(self) -> bool:
        """Whether everyone who runs is seen, and one of them leads."""
        found = self.status()
        here = {node["name"] for node in found.get("nodes", [])}
        return set(self.running) <= here and self.control().get("leader") in self.running

    def stop(self) -> None:
        """End everything."""
        for machine in self.machines.values():
            machine.stop()
        self.server.kill()


@pytest.fixture
def voters(tmp_path: Path) -> Iterator[Voters]:
    """All three, running."""
    made = Voters(tmp_path)
    try:
        made.start(*NAMES)
        yield made
    finally:
        made.stop()


def test_a_mesh_outlives_the_machine_of_any_one_voter_and_waits_for_a_majority(voters: Voters) -> None:
    before = voters.control()
    assert sorted(before["voters"]) == list(NAMES)
    doctor = {
        row["name"]: row for row in voters.home.ask("doctor", "--context", "node/context.json")["checks"]
    }
    assert doctor["voters"]["ok"] and before["leader"] in doctor["voters"]["detail"]
    assert "the server's permissions follow the grants" in doctor["fences"]["detail"]

    voters.kill(before["leader"])
    wait_for(voters.settled, voters.logs)
    after = voters.control()
    assert after["leader"] != before["leader"] and after["term"] > before["term"]
    rotated = voters.home.ask("key", "rotate", ">", "--context", "node/context.json")
    assert rotated["epoch"] == 1
    wait_for(lambda: f"voter {before['leader']} does not answer" in voters.status()["problems"], voters.logs)

    voters.kill(after["leader"])
    refused = voters.home.meshfold("key", "rotate", ">", "--context", "node/context.json")
    assert refused.returncode == 1
    assert "start the voters that are away" in refused.stderr

    voters.start(before["leader"])
    assert voters.home.ask("key", "rotate", ">", "--context", "node/context.json")["epoch"] == 2
    voters.start(after["leader"])
    assert not [one for one in voters.status()["problems"] if "voter" in one]
