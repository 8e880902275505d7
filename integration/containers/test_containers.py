"""Nodes in containers: sealed events over a network of their own, every kind of kill, a cut; the accounting afterwards.

The apps keep ledgers (apps/counting.py) that know nothing of the mesh's accounting; both have to say the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from docker_mesh import Box, ContainerMesh

Until = Callable[[Callable[[], Any], str], Any]

pytestmark = pytest.mark.timeout(300)

ROUTE = "edge/test/number"
#: Events that have to come through before something is killed, and again after it.
FLOW = 50


def received(mesh: ContainerMesh, edge_life: str | None = None) -> list[int]:
    """Numbers that reached the hub's app, in order; of one life of the edge, or of all."""
    lines = mesh.hub.ledger()
    return [int(number) for _, life, number in lines if edge_life in (None, life)]


def published(mesh: ContainerMesh) -> dict[str, int]:
    """For each life of the edge the last number it noted before publishing it."""
    return {life: int(number) for life, number in mesh.edge.ledger()}


def rows(mesh: ContainerMesh) -> dict[str, dict[str, Any]]:
    """The hub's rows of the route by life of the edge; nothing may be unexplained in any route."""
    code, document, errors = mesh.hub.ask("audit", "flow")
    assert code == 0, errors or document
    assert document["unexplained"] == 0
    found = [row for row in document["routes"] if row["route"] == ROUTE and row["reader"] == "hub"]
    return {row["incarnation"]: row for row in found}


def flows(mesh: ContainerMesh, more_than: int = 0) -> bool:
    """Whether enough events came through since there were `more_than`."""
    for box in (mesh.nats, mesh.hub, mesh.edge):
        box.reload()
        assert box.status == "running", f"{box.alias} is {box.status}: {box.text()}"
    return len(received(mesh)) >= more_than + FLOW


def settle(mesh: ContainerMesh, until: Until) -> dict[str, dict[str, Any]]:
    """End the edge in order, and wait until the hub has counted all that it said at its end."""
    assert mesh.edge.end() == 0, mesh.edge.text()
    last_life, last = next(reversed(published(mesh).items()))

    def counted() -> dict[str, dict[str, Any]] | None:
        found = rows(mesh)
        row = found.get(last_life)
        return found if row is not None and row["published"] == last and not row["pending"] else None

    return dict(until(counted, "the hub to have counted the edge's last events"))


def check_ledgers(mesh: ContainerMesh, found: dict[str, dict[str, Any]], lives: Iterable[str]) -> int:
    """Hold the mesh's rows of these lives against the ledgers; returns how many events were lost on the way."""
    lost = 0
    sent = published(mesh)
    for life in lives:
        row, got = found[life], received(mesh, life)
        assert got == sorted(set(got)), "out of order or twice"
        assert row["delivered"] == len(got)
        missing = got[-1] - got[0] + 1 - len(got)
        tail = sent[life] - got[-1]
        if row["unknown_tail"]:
            assert sum(row["dropped"].values()) >= missing
            assert tail <= row["unknown_tail"] + sum(row["dropped"].values()) - missing
        else:
            assert sum(row["dropped"].values()) == missing + tail
        lost += missing + tail
    return lost


def test_edge_and_hub_exchange_events_that_the_broker_cannot_read(
    containers: ContainerMesh, until: Until
) -> None:
    until(lambda: flows(containers), "events at the hub")
    status = containers.hub.meshfold("status")
    assert {node["name"] for node in status["nodes"]} >= {"edge", "hub"}
    found = settle(containers, until)
    assert check_ledgers(containers, found, found) == 0
    seen = containers.nats.text()
    assert containers.open in seen, (
        "the broker's trace shows nothing, so finding nothing in it proves nothing"
    )
    assert containers.secret not in seen
    opened = containers.hub.meshfold("route", "ls")
    assert ROUTE in {row["route"] for row in opened["routes"]}


def test_three_containers_give_the_sealed_routes_that_up_gives_on_one_machine(
    engine: Any, until: Until
) -> None:
    """`init`, `invite`, `join` and `node run` instead of `up`: every route of its sampler, and nothing to read on the way."""
    from docker_mesh import ContainerMesh
    from meshfold.mesh.up.sampler import routes_of

    routes = routes_of("edge")
    mesh = ContainerMesh(engine)
    try:
        mesh.start(hub="reader", edge="sampler", read=",".join(r.text for r in routes.values()))

        def delivered() -> dict[str, int]:
            code, document, errors = mesh.hub.ask("audit", "flow")
            assert code == 0, errors or document
            assert document["unexplained"] == 0
            return {row["route"]: row["delivered"] for row in document["routes"] if row["reader"] == "hub"}

        until(lambda: all(delivered().get(r.text, 0) > 2 for r in routes.values()), "every route at the hub")
        event = mesh.hub.meshfold("route", "latest", "edge/host/memory")
        assert event["value"]["values"]["total"] > 0
        seen = mesh.nats.text()
    finally:
        mesh.stop()
    # The one route that is declared plaintext shows what would be seen of the others: the names in their values.
    assert "rounds" in seen
    assert not [name for name in ("percent", "bytes_sent", "ctx_switches", "processes") if name in seen]


def test_a_node_has_no_rights_in_its_container(containers: ContainerMesh) -> None:
    script = (
        "import json, os, pathlib\n"
        "status = dict(line.split(':', 1) for line in pathlib.Path('/proc/self/status').read_text().splitlines())\n"
        "def writes(folder):\n"
        "    try:\n"
        "        (pathlib.Path(folder) / 'x').touch()\n"
        "    except OSError as error:\n"
        "        return error.errno\n"
        "    return 0\n"
        "print(json.dumps({'uid': os.getuid(), 'caps': int(status['CapPrm'], 16), 'bounding': int(status['CapBnd'], 16),\n"
        "    'new': status['NoNewPrivs'].strip(), 'root': writes('/'), 'etc': writes('/etc'), 'state': writes(os.environ['HOME'])}))\n"
    )
    answer: Any = containers.hub.get_wrapped_container().exec_run(["python3", "-c", script])
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.output)
    assert found["uid"] == 65532
    assert (found["caps"], found["bounding"], found["new"]) == (0, 0, "1")
    assert found["root"]
    assert found["etc"]
    assert found["state"] == 0


def test_health_follows_the_broker_and_life_does_not(containers: ContainerMesh, until: Until) -> None:
    """Readiness goes with the broker and comes back with it; a broker that is away is no reason to restart a node."""

    def ready(*options: str) -> bool:
        code, document, errors = containers.edge.ask("node", "health", *options)
        assert document is not None, errors
        assert (code == 0) == document["healthy"]
        return bool(document["healthy"])

    until(ready, "the edge to be ready")
    containers.nats.kill()
    until(lambda: not ready(), "the edge to say that it is not ready")
    assert ready("--live")
    containers.nats.again()
    until(ready, "the edge to be ready again")
    check = containers.client.images.get(containers.image.name).attrs["Config"].get("Healthcheck")
    if check is not None:  # an image of the Dockerfile, and not this checkout mounted into an empty one
        assert check["Test"] == ["CMD", "meshfold", "node", "health"]

        def healthy() -> bool:
            container = containers.edge.get_wrapped_container()
            container.reload()
            return bool(container.attrs["State"]["Health"]["Status"] == "healthy")

        until(healthy, "Docker to call the edge healthy")


def test_the_broker_holds_no_part_of_the_mesh_but_its_configuration(containers: ContainerMesh) -> None:
    mounts = containers.nats.get_wrapped_container().attrs["Mounts"]
    assert [(mount["Destination"], mount["RW"]) for mount in mounts] == [("/broker", False)]
    answer: Any = containers.edge.get_wrapped_container().exec_run(["ls", "/var/lib/meshfold/node"])
    assert b"authority" not in answer.output, "an edge holds no issuer"


def test_a_used_token_lets_nobody_else_in(containers: ContainerMesh) -> None:
    token = containers.edge.env["MESHFOLD_JOIN_TOKEN"]
    thief = containers.hub.get_wrapped_container().exec_run(
        ["meshfold", "join", "--dir", "/tmp/thief"], environment={"MESHFOLD_JOIN_TOKEN": token}
    )
    assert thief.exit_code == 2, thief.output
    assert b"used by another request" in thief.output


@pytest.mark.parametrize("victim", ["nats", "hub", "edge"])
def test_after_docker_kill_events_flow_again_and_every_loss_is_explained(
    containers: ContainerMesh, until: Until, victim: str
) -> None:
    until(lambda: flows(containers), "events at the hub")
    box: Box = getattr(containers, victim)
    box.kill()
    before = len(received(containers))
    first_life = next(iter(published(containers)))
    box.again()
    until(lambda: flows(containers, before), f"events after the kill of {victim}")
    found = settle(containers, until)
    if victim == "hub":
        # A new life of the reader counts from where it began to read.
        hub_life = containers.hub.ledger()[-1][0]
        got = [int(number) for reader, _, number in containers.hub.ledger() if reader == hub_life]
        row = found[first_life]
        assert row["delivered"] == len(got)
        assert sum(row["dropped"].values()) == got[-1] - got[0] + 1 - len(got)
        assert row["unknown_tail"] == 0
    else:
        check_ledgers(containers, found, found)
    if victim == "edge":
        assert len(found) == 2
        assert found[first_life]["unknown_tail"] > 0
        assert sum(row["unknown_tail"] > 0 for row in found.values()) == 1


def test_a_cut_network_heals_and_what_was_lost_is_counted(containers: ContainerMesh, until: Until) -> None:
    until(lambda: flows(containers), "events at the hub")
    containers.cut(containers.edge)

    def silent() -> bool:
        answers = containers.hub.meshfold("status")
        return any("edge is silent" in problem for problem in answers["problems"])

    until(silent, "the hub to notice")
    before = len(received(containers))
    containers.heal(containers.edge)
    until(lambda: flows(containers, before), "events after the cut")
    found = settle(containers, until)
    assert len(found) == 1, "the edge ran through the cut"
    check_ledgers(containers, found, found)


def test_nothing_of_an_earlier_run_is_left(engine: Any) -> None:
    import docker_engine

    stale = engine.containers.create(
        docker_engine.nats_image(engine), ["--version"], labels={docker_engine.LABEL: "1-0"}
    )
    ours = engine.containers.create(
        docker_engine.nats_image(engine), ["--version"], labels=docker_engine.labels()
    )
    try:
        docker_engine.sweep(engine)
        left = {container.id for container in engine.containers.list(all=True)}
        assert stale.id not in left
        assert ours.id in left
    finally:
        ours.remove(force=True)
