"""Fixtures of the container tests: an engine, and a running mesh for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from docker_mesh import ContainerMesh


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """The Docker engine. Without one the tests are skipped with the reason; in CI they fail with it."""
    import docker_engine
    from docker.errors import DockerException

    try:
        client = docker_engine.connect()
    except DockerException as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    docker_engine.sweep(client)
    yield client
    client.close()


@pytest.fixture
def containers(engine: Any, request: pytest.FixtureRequest) -> Iterator[ContainerMesh]:
    """A broker, a hub and an edge, numbers flowing between them; removed with the test."""
    from docker_mesh import ContainerMesh

    mesh = ContainerMesh(engine)
    try:
        mesh.start()
        yield mesh
    finally:
        mesh.stop()
