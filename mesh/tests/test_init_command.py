"""`meshfold init`: where the broker's configuration goes, and that a refusal leaves nothing behind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from meshfold.core.errors import ConfigError
from meshfold.mesh.cli.app import app
from typer.testing import CliRunner


def init(folder: Path, *options: str) -> list[str]:
    """The command's arguments."""
    return ["init", "--dir", str(folder / "mesh"), "--key-file", str(folder / "root.key"), "--json", *options]


def test_the_brokers_configuration_goes_where_it_is_told_and_holds_nothing_secret(tmp_path: Path) -> None:
    conf = tmp_path / "broker" / "server.conf"
    conf.parent.mkdir()
    answer = CliRunner().invoke(app, init(tmp_path, "--server-config", str(conf)))
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["server_config"] == str(conf)
    assert conf.stat().st_mode & 0o777 == 0o644
    assert not (tmp_path / "mesh" / "nats-server.conf").exists()
    text = conf.read_text()
    for key in (tmp_path / "mesh").rglob("*.key"):
        assert key.read_bytes().hex() not in text
    assert re.search(r"\bS[AOU][A-Z2-7]{56}\b", text) is None  # seeds of accounts, operators, users


def test_a_place_for_it_that_is_not_there_is_refused_before_a_mesh_is_made(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, init(tmp_path, "--server-config", str(tmp_path / "none" / "x.conf")))
    assert isinstance(answer.exception, ConfigError)
    assert str(tmp_path / "none") in str(answer.exception)
    assert not (tmp_path / "mesh" / "authority").exists()


@pytest.mark.parametrize("name", ["No", "a b", "", "x" * 49])
def test_a_name_that_cannot_be_one_is_refused(tmp_path: Path, name: str) -> None:
    answer = CliRunner().invoke(app, init(tmp_path, "--mesh", name))
    assert isinstance(answer.exception, ConfigError)
    assert not (tmp_path / "mesh").exists()
