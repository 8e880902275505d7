"""The rendered chart runs: its pods as containers with exactly what was rendered, on a broker that takes one token."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from chart_pod import Cluster, Pod

Until = Callable[[Callable[[], Any], str], Any]

pytestmark = pytest.mark.timeout(300)

RELEASE_VOTERS = "demo-meshfold-voters"
TOKEN = uuid.uuid4().hex


class Installed:
    """The pods of one release."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.pods: list[Pod] = []

    def pod(self, kind: str, owner: str, suffix: str) -> Pod:
        """Start a pod, or start it again."""
        from chart_pod import Pod

        pod = Pod.of(self.cluster, kind, owner, suffix)
        self.pods.append(pod)
        pod.start()
        return pod


def meshfold(pod: Pod, *arguments: str) -> Any:
    """The JSON document of a command, as `kubectl exec` runs it."""
    answer = pod.container.exec_run(["meshfold", *arguments, "--json"], demux=True)
    out, errors = (part.decode() if part else "" for part in answer.output)
    assert answer.exit_code == 0, errors
    return json.loads(out)


def answers(pod: Pod, until: Until) -> None:
    """Wait until all three probes hold."""

    def hold() -> bool:
        pod.container.reload()
        assert pod.container.status == "running", pod.text()
        return all(pod.probe(kind) == 200 for kind in ("startupProbe", "readinessProbe", "livenessProbe"))

    until(hold, f"the probes of {pod.name}")


@pytest.fixture
def installed(engine: Any, tmp_path: Path) -> Iterator[Installed]:
    """The chart rendered for the image under test, and a broker."""
    from chart_pod import Cluster
    from chart_under_test import ChartCopy
    from docker_engine import UID, labels, nats_image, node_image

    image = node_image(engine)
    repository, _, tag = image.name.partition(":")
    objects = ChartCopy(tmp_path).render(
        {
            "image": {"repository": repository, "tag": tag},
            "broker": {"url": "nats://broker:4222"},
            "workers": {"enabled": True, "app": "sampler", "joinToken": {"existingSecret": "worker-token"}},
        }
    )
    name = f"mf-{uuid.uuid4().hex[:12]}"
    network = engine.networks.create(f"{name}-net", internal=True, labels=labels())
    (tmp_path / "nats.conf").write_text(f'authorization {{ token: "{TOKEN}" }}\n')
    broker = engine.containers.create(
        nats_image(engine),
        ["-c", "/nats.conf"],
        user=f"{UID}:{UID}",
        volumes={str(tmp_path / "nats.conf"): {"bind": "/nats.conf", "mode": "ro"}},
        labels=labels(),
        network_mode="none",
    )
    engine.networks.get("none").disconnect(broker)
    network.connect(broker, aliases=["broker"])
    broker.start()
    secrets = {
        "mesh-root": {"passphrase": uuid.uuid4().hex},
        "broker-login": {"token": TOKEN},
        "worker-token": {"token": ""},
    }
    cluster = Cluster(
        engine, objects, secrets, image=image, network=network.name, folder=tmp_path / "volumes"
    )
    release = Installed(cluster)
    try:
        yield release
    finally:
        for pod in release.pods:
            pod.remove()
        broker.remove(force=True, v=True)
        network.remove()


def test_the_rendered_pods_make_a_mesh_join_it_and_come_back(installed: Installed, until: Until) -> None:
    voter = installed.pod("StatefulSet", RELEASE_VOTERS, "0")
    answers(voter, until)
    made = meshfold(voter, "invite", "worker", "--uses", "2")
    installed.cluster.secrets["worker-token"]["token"] = made["token"]
    workers = [installed.pod("Deployment", "demo-meshfold-workers", suffix) for suffix in ("abcde", "fghij")]
    for worker in workers:
        answers(worker, until)

    def members() -> set[str]:
        return {node["name"] for node in meshfold(voter, "status")["nodes"]} - {"operator"}

    until(lambda: len(members()) == 3, "three members")
    names = members() - {f"{RELEASE_VOTERS}-0"}
    assert len(names) == 2
    assert all(name.startswith("worker-") for name in names)
    memory = f"{min(names)}/host/memory"
    until(lambda: memory in {row["route"] for row in meshfold(voter, "route", "ls")["routes"]}, "routes")
    event = meshfold(voter, "route", "latest", memory)
    assert event["value"]["values"]["total"] > 0

    spec = installed.cluster.objects["Pod", "demo-meshfold-test"]["spec"]
    from chart_pod import Pod

    check = Pod(installed.cluster, "demo-meshfold-test", spec, {})
    for part in spec["containers"]:
        code, text = check.run({**part, "volumeMounts": []})
        assert code == 0, f"{part['name']}: {text}"

    cluster_id = meshfold(voter, "invite", "--list")["invites"][0]["cluster"]
    voter.kill()
    voter.start()
    answers(voter, until)
    assert meshfold(voter, "invite", "--list")["invites"][0]["cluster"] == cluster_id
    until(lambda: members() >= names, "the workers to be seen again")
    for pod in (*workers, voter):
        assert pod.end() == 0, pod.text()
