"""What `doctor` says of the receiver of traces."""

from __future__ import annotations

import socket

import pytest
from meshfold.mesh.cli.checks import exporter_check, spans_check


def test_without_a_receiver_traces_are_off_and_that_is_fine() -> None:
    found = exporter_check({})
    assert found["ok"]
    assert "off" in found["detail"]


def test_a_receiver_that_listens_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        found = exporter_check({"OTEL_EXPORTER_OTLP_ENDPOINT": url})
    assert found["ok"]
    assert found["detail"] == f"OTLP to {url}/v1/traces"


def test_a_receiver_that_does_not_listen_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = exporter_check({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"})
    assert not found["ok"]
    assert str(port) in found["detail"]


def test_a_variable_that_cannot_be_used_fails() -> None:
    found = exporter_check({"OTEL_TRACES_SAMPLER": "sometimes"})
    assert not found["ok"]
    assert "OTEL_TRACES_SAMPLER" in found["detail"]


@pytest.mark.parametrize("lost", ["failed", "dropped"])
def test_a_node_that_loses_spans_fails(lost: str) -> None:
    good = {"recorded": 9, "exported": 9, "failed": 0, "dropped": 0}
    assert spans_check({"hub": good, "edge": good})["ok"]
    found = spans_check({"hub": good, "edge": {**good, lost: 3}})
    assert not found["ok"]
    assert found["detail"].startswith("edge: ")
    assert "receiver" in found["fix"]


def test_where_nothing_is_sent_no_receiver_is_blamed_for_spans_that_were_dropped() -> None:
    sending = {"recorded": 9, "exported": 9, "failed": 0, "dropped": 0}
    alone = {"recorded": 9, "exported": 0, "failed": 0, "dropped": 3}
    found = spans_check({"hub": sending, "edge": alone})
    assert not found["ok"]
    assert "receiver" not in found["fix"] and "OTEL_TRACES_SAMPLER" in found["fix"]
    assert found["detail"] == "edge: 3 dropped"
