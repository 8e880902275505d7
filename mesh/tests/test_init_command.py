"""`meshfold init`: where the broker's configuration goes, and that a refusal leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from meshfold.core.errors import ConfigError
from meshfold.mesh.cli.app import app
from meshfold.mesh.cli.issuing import issuing_context
from meshfold.mesh.context import Context
from meshfold.mesh.enrolment import AuthorityFolder
from meshfold.security.join import JoinToken
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


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("nats://127.0.0.1:14666", 14666),
        ("nats://broker.plant", 4222),
        ("tls://n1:4333,tls://n2:4444", 4333),
    ],
)
def test_the_server_listens_where_nodes_are_told_to_look(tmp_path: Path, url: str, port: int) -> None:
    answer = CliRunner().invoke(app, init(tmp_path, "--nats", url))
    assert answer.exit_code == 0, answer.output
    assert f'listen: "0.0.0.0:{port}"\n' in (tmp_path / "mesh" / "nats-server.conf").read_text()


def test_beside_a_joined_node_the_issuer_of_its_mesh_is_found_and_never_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHFOLD_CONTEXTS", str(tmp_path / "contexts"))
    for name in ("plant", "other"):
        (tmp_path / name).mkdir()
        assert CliRunner().invoke(app, init(tmp_path / name, "--mesh", name)).exit_code == 0
    runs = {
        name: replace(
            Context.load(tmp_path / name / "mesh" / "context.json"), pid=os.getpid(), created_ns=age
        )
        for age, name in enumerate(("plant", "other"), 1)
    }
    joined = tmp_path / "edge-1"
    joined.mkdir()
    member = replace(
        runs["plant"], mesh="joined", state_dir=joined, authority_dir=None, member="edge-1", created_ns=9
    )
    member.save()
    with pytest.raises(ConfigError, match="run it on that machine"):
        issuing_context(None)
    runs["other"].save()
    with pytest.raises(ConfigError, match="run it on that machine"):
        issuing_context(None)
    runs["plant"].save()
    assert issuing_context(None).path == runs["plant"].path
    # What was named is never replaced by another.
    with pytest.raises(ConfigError, match=re.escape(f"--context {runs['plant'].path}")):
        issuing_context(str(member.path))
    assert issuing_context("other").path == runs["other"].path


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


def test_asked_again_it_takes_the_mesh_that_is_there(tmp_path: Path) -> None:
    first = CliRunner().invoke(app, init(tmp_path, "--if-missing", "--mesh", "home"))
    before = {path: path.read_bytes() for path in (tmp_path / "mesh").rglob("*") if path.is_file()}
    again = CliRunner().invoke(app, init(tmp_path, "--if-missing", "--mesh", "home"))
    assert (first.exit_code, again.exit_code) == (0, 0), again.output
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert {path: path.read_bytes() for path in before} == before
    refused = CliRunner().invoke(app, init(tmp_path, "--mesh", "home"))
    assert "already holds a mesh" in str(refused.exception)


def test_a_mesh_of_another_name_is_not_taken_for_this_one(tmp_path: Path) -> None:
    CliRunner().invoke(app, init(tmp_path, "--mesh", "home"))
    for other in (["--mesh", "barn"], ["--mesh", "home", "--voter", "cellar"]):
        answer = CliRunner().invoke(app, init(tmp_path, "--if-missing", *other))
        assert isinstance(answer.exception, ConfigError)
        assert "home with the voter hub" in str(answer.exception)


def test_what_was_left_unfinished_is_finished(tmp_path: Path) -> None:
    CliRunner().invoke(app, init(tmp_path))
    cluster = (tmp_path / "mesh" / "authority" / "cluster").read_bytes()
    for name in ("context.json", "nats-server.conf"):
        (tmp_path / "mesh" / name).unlink()
    answer = CliRunner().invoke(app, init(tmp_path, "--if-missing"))
    assert answer.exit_code == 0, answer.output
    assert Context.load(tmp_path / "mesh" / "context.json").cluster == cluster
    assert (tmp_path / "mesh" / "nats-server.conf").exists()


def test_an_issuer_that_is_due_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CliRunner().invoke(app, init(tmp_path))
    issuer = tmp_path / "mesh" / "authority"
    until_ms = AuthorityFolder.open(issuer).issuer.certificate.not_after_ms
    later_ns = (until_ms - 20 * 86_400_000) * 1_000_000
    monkeypatch.setattr("meshfold.mesh.enrolment.found.time.time_ns", lambda: later_ns)
    answer = CliRunner().invoke(app, init(tmp_path, "--if-missing"))
    assert answer.exit_code == 0, answer.output
    assert AuthorityFolder.open(issuer).issuer.certificate.not_after_ms > until_ms


def invite(folder: Path, *options: str) -> list[str]:
    """The command's arguments."""
    return ["invite", *options, "--json", "--context", str(folder / "mesh" / "context.json")]


def test_an_invite_tells_for_how_many_nodes_it_is_and_the_list_how_many_came(tmp_path: Path) -> None:
    CliRunner().invoke(app, init(tmp_path))
    made = CliRunner().invoke(app, invite(tmp_path, "worker", "--uses", "5"))
    assert made.exit_code == 0, made.output
    document = json.loads(made.stdout)
    assert (document["node"], document["uses"]) == ("worker", 5)
    assert JoinToken.decode(document["token"]).fleet
    (row,) = json.loads(CliRunner().invoke(app, invite(tmp_path, "--list")).stdout)["invites"]
    assert (row["name"], row["state"], row["uses"], row["used"]) == ("worker", "open", 5, 0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["worker", "--uses", "0"], "1 to 1000"),
        (["worker", "--uses", "2", "--operator"], "operators"),
        (["w" * 40, "--uses", "2"], "at most 39"),
    ],
)
def test_an_invite_that_makes_no_sense_is_refused_and_none_is_made(
    tmp_path: Path, options: list[str], says: str
) -> None:
    CliRunner().invoke(app, init(tmp_path))
    answer = CliRunner().invoke(app, invite(tmp_path, *options))
    assert isinstance(answer.exception, ConfigError)
    assert says in str(answer.exception)
    assert json.loads(CliRunner().invoke(app, invite(tmp_path, "--list")).stdout)["invites"] == []
