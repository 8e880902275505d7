"""Three machines: two nodes and the broker between them, each in a network namespace of its own.

`init`, `invite`, `join` and `node run` give the same sealed routes as `up`; who listens on the broker's wire reads nothing
of them. Needs root and iproute2, which CI has: there the test fails without them, elsewhere it is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from machines import RUN_S, Machine, wait_for
from meshfold.mesh.broker import find_server
from meshfold.mesh.up.sampler import routes_of

BROKER, HUB, EDGE = "10.77.0.1", "10.77.0.2", "10.77.0.3"

#: Listens on every packet of the namespace it runs in, until SIGTERM; prints the bytes it saw and how often each text was in them.
SNIFFER = """
import json, signal, socket, sys
texts = [text.encode() for text in sys.argv[1:]]
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
wire.settimeout(0.2)
going = True
def stop(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, stop)
seen, found = 0, dict.fromkeys(sys.argv[1:], 0)
print("listening", flush=True)
while going:
    try:
        packet = wire.recv(65535)
    except TimeoutError:
        continue
    seen += len(packet)
    for text in texts:
        found[text.decode()] += packet.count(text)
print(json.dumps({"bytes": seen, "found": found}), flush=True)
"""


def ip(*arguments: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine, Machine]]:
    """Broker, hub and edge: the nodes reach the broker and not each other."""
    missing: Callable[[str], Any] = pytest.fail if os.environ.get("CI") else pytest.skip
    if shutil.which("ip") is None or os.geteuid() != 0:
        missing("network namespaces need root and iproute2")
    names = [f"mf{os.getpid()}{part}" for part in ("b", "h", "e")]
    made = [Machine(tmp_path / name[-1], "ip", "netns", "exec", name) for name in names]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
            wire(names)
        except subprocess.CalledProcessError as error:
            missing(f"no network namespaces here: {error.stderr.decode()}")
        yield made[0], made[1], made[2]
    finally:
        for machine in reversed(made):
            machine.stop()
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def wire(names: list[str]) -> None:
    """A switch in the broker's namespace, whose ports for the nodes do not reach each other."""
    broker = names[0]
    ip("-n", broker, "link", "add", "switch", "type", "bridge")
    ip("-n", broker, "addr", "add", f"{BROKER}/24", "dev", "switch")
    ip("-n", broker, "link", "set", "switch", "up")
    for number, (name, address) in enumerate(((names[1], HUB), (names[2], EDGE))):
        port = f"port{number}"
        ip("-n", broker, "link", "add", port, "type", "veth", "peer", "name", "wire", "netns", name)
        ip("-n", broker, "link", "set", port, "master", "switch", "up")
        ip("-n", broker, "link", "set", "dev", port, "type", "bridge_slave", "isolated", "on")
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "wire")
        ip("-n", name, "link", "set", "wire", "up")


def found_mesh(broker: Machine, hub: Machine) -> None:
    """`init` on the hub's machine, the server on the broker's, the voter on the hub's."""
    made = hub.ask(
        "init",
        "--dir",
        "mesh",
        "--key-file",
        "root.key",
        "--nats",
        f"nats://{BROKER}:4222",
        "--mesh",
        "plant",
    )
    assert (made["mesh"], made["node"]) == ("plant", "hub")
    broker.start(find_server(), "-c", made["server_config"])
    reads = [part for name in routes_of() for part in ("--read", f"edge-1/host/{name}")]
    wait_for(lambda: reachable(hub), broker.logs)
    hub.start_meshfold("node", "run", "--dir", "mesh", *reads)


def reachable(machine: Machine) -> bool:
    """Whether the broker takes connections from there."""
    probe = f"import socket; socket.create_connection(({BROKER!r}, 4222), 2).close()"
    return machine.run(sys.executable, "-c", probe).returncode == 0


def let_in(hub: Machine, other: Machine, name: str, *how: str) -> None:
    """`invite` on the hub's machine, the token carried over, `join` on the other."""
    wait_for(lambda: hub.meshfold("status").returncode == 0, hub.logs)
    hub.ask("invite", name, "--for", "1h", "--out", str(other.folder / f"{name}.token"), *how)
    joined = other.ask("join", "--dir", name, "--token-file", f"{name}.token")
    assert (joined["mesh"], joined["node"]) == ("plant", name)


def test_two_machines_and_a_broker_give_the_sealed_routes_of_up(
    machines: tuple[Machine, Machine, Machine],
) -> None:
    broker, hub, edge = machines
    sniffer = broker.start(sys.executable, "-c", SNIFFER, "percent", "rounds", "edge-1.host.cpu")
    assert sniffer.stdout is not None
    assert sniffer.stdout.readline().strip() == "listening"
    found_mesh(broker, hub)
    let_in(hub, edge, "edge-1")
    edge_run = edge.start_meshfold("node", "run", "--dir", "edge-1", "--app", "sampler")
    rows = wait_for(
        lambda: rows if len(rows := hub.delivered("hub")) == len(routes_of()) else None,
        lambda: hub.logs() + edge.logs(),
    )
    assert len(rows) >= 12
    assert all(row["unexplained"] == 0 for row in rows.values())
    # Each machine has its commands: the hub's as operator, the edge's as the node that joined there.
    assert {node["name"] for node in hub.ask("status")["nodes"]} == {"hub", "edge-1"}
    assert {node["name"] for node in edge.ask("status")["nodes"]} == {"hub", "edge-1"}
    event = hub.ask("route", "latest", "edge-1/host/memory")
    assert event["value"]["values"]["percent"] > 0
    assert edge.ask("why", event["id"])["node"] == "edge-1"
    watched = edge.meshfold("route", "watch", "edge-1/host/cpu", "--count", "3", "--json")
    assert watched.returncode == 0, watched.stderr
    assert len(watched.stdout.splitlines()) == 3
    # Nobody without a grant: it joins, and that is all.
    let_in(hub, edge, "stranger", "--no-grants")
    refused = edge.meshfold("route", "latest", "edge-1/host/cpu", "--context", "stranger/context.json")
    assert refused.returncode == 3, refused.stderr
    assert "META_READ" in refused.stderr
    # The token is spent: another machine that has it gets nothing.
    again = hub.meshfold("join", "--dir", "thief", "--token-file", str(edge.folder / "edge-1.token"))
    assert again.returncode == 2, again.stderr
    assert "used by another request" in again.stderr
    # A second process on the same folder is kept out, as a start, and told why.
    second = edge.meshfold("node", "run", "--dir", "edge-1")
    assert second.returncode == 2
    assert "in use" in second.stderr
    # Who stops says goodbye: nothing is unexplained, no tail unknown.
    edge_run.send_signal(signal.SIGTERM)
    edge_run.communicate(timeout=RUN_S)
    assert edge_run.returncode == 0, edge.logs()
    flow = hub.ask("audit", "flow")
    assert flow["unexplained"] == 0
    assert all(row["unknown_tail"] == 0 for row in flow["routes"])
    sniffer.send_signal(signal.SIGTERM)
    said, _ = sniffer.communicate(timeout=RUN_S)
    heard = json.loads(said)
    assert heard["found"]["edge-1.host.cpu"] > 0, "subjects are visible: the listener hears the broker's wire"
    assert heard["found"]["rounds"] > 0, (
        "the one plaintext route is readable: the listener would see plaintext"
    )
    assert heard["found"]["percent"] == 0, "a sealed value was readable on the wire"
