"""A mesh in containers: a broker, a hub and an edge on a network of their own, hardened as compose.yaml says."""

from __future__ import annotations

import io
import json
import os
import tarfile
import uuid
from pathlib import Path
from typing import Any, Final, Literal

os.environ["TESTCONTAINERS_RYUK_DISABLED"] = (
    "true"  # before the import: its image cannot be had without a registry
)

import docker
import yaml
from docker.errors import NotFound
from docker_engine import ROOT, Image, labels, nats_image, node_image
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

__all__ = ("Box", "ContainerMesh")

APPS: Final = Path(__file__).resolve().parent / "apps"
STATE: Final = "/var/lib/meshfold"
UID: Final = "65532:65532"
LEDGER: Final = f"{STATE}/ledger"
START_S: Final = 120


def compose() -> dict[str, Any]:
    """compose.yaml: the tests run its commands, with its mounts and no more rights than it gives."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def hardening() -> dict[str, Any]:
    """What compose.yaml takes from the containers of nodes."""
    node = compose()["x-node"]
    assert node["read_only"], node
    assert node["cap_drop"] == ["ALL"], node
    return {
        "read_only": True,
        "cap_drop": node["cap_drop"],
        "security_opt": node["security_opt"],
        "tmpfs": dict.fromkeys(node["tmpfs"], ""),
    }


class Box(DockerContainer):
    """One container of a mesh, with a volume of its own."""

    def __init__(self, mesh: ContainerMesh, name: str, image: str, command: list[str]) -> None:
        taken = hardening()
        tmpfs = taken.pop("tmpfs")
        super().__init__(image, **taken, labels=labels(), user=UID)
        self.tmpfs = tmpfs
        self.alias = name
        self.mesh = mesh
        self.with_name(f"{mesh.id}-{name}").with_command(command)
        self.with_network(mesh.network).with_network_aliases(name)

    def meshfold(self, *arguments: str) -> Any:
        """The JSON document of a command that runs inside.

        :raises AssertionError: if it ends otherwise than with 0
        """
        code, document, errors = self.ask(*arguments)
        assert code == 0, f"{self.alias}: meshfold {' '.join(arguments)}: {errors}"
        return document

    def ask(self, *arguments: str) -> tuple[int, Any, str]:
        """Exit code, JSON document (None without one) and errors of a command that runs inside."""
        answer: Any = self.get_wrapped_container().exec_run(["meshfold", *arguments, "--json"], demux=True)
        out, errors = (part.decode() if part else "" for part in answer.output)
        return int(answer.exit_code), json.loads(out) if out.strip() else None, errors

    def text(self) -> str:
        """Everything it has printed."""
        out, errors = self.get_logs()
        return out.decode(errors="replace") + errors.decode(errors="replace")

    def kill(self) -> None:
        """SIGKILL, as `docker kill` does; gone on return."""
        container = self.get_wrapped_container()
        container.kill()
        container.wait()

    def again(self) -> None:
        """Start the same container anew, with the volume it has."""
        self.get_wrapped_container().start()

    def end(self) -> int:
        """Stop it as an orderly stop does; its exit code."""
        container = self.get_wrapped_container()
        container.stop(timeout=30)
        return int(container.wait()["StatusCode"])

    def ledger(self) -> list[list[str]]:
        """The lines of its app's ledger; it may be running or not."""
        try:
            stream, _ = self.get_wrapped_container().get_archive(LEDGER)
        except NotFound:
            return []
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            member = archive.extractfile("ledger")
            assert member is not None
            lines = member.read().decode().splitlines(keepends=True)
        return [line.split() for line in lines if line.endswith("\n")]


class ContainerMesh:
    """Owns network, volumes and containers, and removes them all."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client
        self.id = f"mf-{uuid.uuid4().hex[:12]}"
        self.secret, self.open = (f"canary-{uuid.uuid4().hex}" for _ in range(2))
        self.image: Image = node_image(client)
        self._nats = nats_image(client)
        # internal: these containers reach each other and nobody else.
        self.network = Network(docker_network_kw={"internal": True, "labels": labels()})
        self.network.name = f"{self.id}-net"
        self._boxes: list[Box] = []
        self._volumes: list[str] = []

    def start(self, hub: str = "counting:collect", edge: str = "counting:count", read: str = "") -> None:
        """Make the mesh and bring up its three containers with these apps, the edge joining by token."""
        self.network.create()
        for name in compose()["volumes"]:
            self._volumes.append(self._volume(name))
            self.client.volumes.create(self._volume(name), labels=labels())
        self._found()
        self.nats = Box(self, "nats", self._nats, [*compose()["services"]["nats"]["command"], "-V"])
        for source, target, mode in self._mounts("nats"):
            self.nats.with_volume_mapping(source, target, mode)
        self._up(self.nats, "Server is ready")
        self.hub = self.node("hub", hub)
        self.hub.with_env("MESHFOLD_READ", read)
        self._up(self.hub, "runs in mesh")
        token = self.hub.meshfold("invite", "edge")["token"]
        self.edge = self.node("edge", edge)
        self.edge.with_env("MESHFOLD_JOIN_TOKEN", token)
        self._up(self.edge, "runs in mesh")

    def _volume(self, name: str) -> str:
        return f"{self.id}-{name}"

    def _mounts(self, service: str) -> list[tuple[str, str, Literal["ro", "rw"]]]:
        """Volume, place and mode of each mount of a service."""
        parts = [mount.split(":") for mount in compose()["services"][service]["volumes"]]
        return [(self._volume(name), target, "ro" if mode else "rw") for name, target, *mode in parts]

    def _found(self) -> None:
        """The service `init`, in a container that is gone afterwards; a key file stands in for whoever types a passphrase."""
        service = compose()["services"]["init"]
        volumes = {path: {"bind": path, "mode": "ro"} for path in self.image.mounts}
        for source, target, mode in self._mounts("init"):
            volumes[source] = {"bind": target, "mode": mode}
        self.client.containers.run(
            self.image.name,
            [*service["command"], "--key-file", f"{STATE}/root.key"],
            remove=True,
            network_mode=service["network_mode"],
            volumes=volumes,
            labels=labels(),
            **hardening(),
        )

    def node(self, name: str, app: str) -> Box:
        """A node that runs an app, of `apps/` or built in, not started yet."""
        box = Box(self, name, self.image.name, ["node", "run", "--app", app])
        assert compose()["services"][name]["command"][:2] == ["node", "run"]
        box.with_envs(PYTHONPATH="/apps", CANARY_SECRET=self.secret, CANARY_OPEN=self.open)
        for path in self.image.mounts:
            box.with_volume_mapping(path, path, "ro")
        box.with_volume_mapping(str(APPS), "/apps", "ro")
        for source, target, mode in self._mounts(name):
            box.with_volume_mapping(source, target, mode)
        return box

    def _up(self, box: Box, line: str) -> None:
        self._boxes.append(box)
        box.waiting_for(LogMessageWaitStrategy(line).with_startup_timeout(START_S))
        box.start()

    def cut(self, box: Box) -> None:
        """Take the container off the network, without a word to anybody."""
        self.client.networks.get(str(self.network.id)).disconnect(box.get_container_id())

    def heal(self, box: Box) -> None:
        """Put it back under the name it had."""
        self.network.connect(box.get_container_id(), [box.alias])

    def stop(self) -> None:
        """Remove everything, whatever became of it."""
        for box in self._boxes:
            try:
                box.stop()
            except NotFound:
                continue
        if self.network._network is not None:
            self.network.remove()
        for name in self._volumes:
            try:
                self.client.volumes.get(name).remove(force=True)
            except NotFound:
                continue
