"""Every public command: its help has an example, and its `--json` is one document with the promised fields."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from machines import Machine, wait_for
from meshfold.mesh.cli.app import app


def commands(group: Any = None, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its words."""
    group = group or typer.main.get_command(app)
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))
        elif not command.hidden:
            yield (*before, name), command


COMMANDS = dict(commands())
#: What prints something else than an answer: a script, a schema, or nothing but a log.
NOT_JSON = {("completion",), ("schema",), ("node", "run")}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_shows_an_example_that_the_parser_takes(words: tuple[str, ...]) -> None:
    help_ = COMMANDS[words].help or ""
    first = help_.strip().splitlines()[0]
    assert first.endswith((".", ":")) or len(first) > 20
    example = re.search(r"Example: (?:\S+ <\()?(meshfold [^\n]+)", help_)
    assert example is not None, f"no example: {' '.join(words)}"
    text = re.sub(r"\$\(.*\)", "ID", example[1].rstrip(")") if "<(" in help_ else example[1])
    parts = shlex.split(text)[1:]
    assert tuple(parts[: len(words)]) == words
    # Parsed, and not run: an option or a number of words that does not exist is an error here.
    COMMANDS[words].make_context(" ".join(words), parts[len(words) :])


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_of_every_command_says_what_it_is_for(words: tuple[str, ...]) -> None:
    for parameter in COMMANDS[words].params:
        if not getattr(parameter, "hidden", False):
            assert getattr(parameter, "help", None), f"{' '.join(words)}: {parameter.name}"


def test_help_is_plain_without_colour_and_names_every_command() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "meshfold.mesh", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
        check=True,
    )
    assert "\x1b" not in found.stdout
    for words in COMMANDS:
        assert words[0] in found.stdout


def test_a_shell_completes_commands_and_options(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    for shell, sign in (("bash", "complete "), ("zsh", "#compdef"), ("fish", "complete ")):
        script = machine.meshfold("completion", shell)
        assert script.returncode == 0, script.stderr
        assert sign in script.stdout
        assert "_MESHFOLD_COMPLETE" in script.stdout
    executable = str(Path(sys.executable).with_name("meshfold"))
    for words, expected in (
        ("meshfold ro", "route"),
        ("meshfold route l", "latest"),
        ("meshfold status --js", "--json"),
    ):
        machine.environ = {
            "_MESHFOLD_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        answer = machine.run(executable)
        assert expected in answer.stdout.split(), f"{words}: {answer.stdout} {answer.stderr}"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine on which `up` runs, and a member that joined and went."""
    machine = Machine(tmp_path_factory.mktemp("commands") / "machine")
    machine.start_meshfold("up", "--json", "--dir", "state")
    wait_for(lambda: len(machine.delivered("hub")) >= 12, machine.logs)
    machine.ask("invite", "guest", "--out", "guest.token")
    machine.ask("join", "--dir", "guest", "--token-file", "guest.token")
    yield machine
    machine.stop()


def latest(machine: Machine) -> str:
    """The id of a derived event."""
    return str(machine.ask("route", "latest", "hub/host/pressure")["id"])


#: How each command is asked: words that may be made from the mesh, and the fields that were promised.
ASKED: dict[str, tuple[Callable[[Machine], list[str]], tuple[str, ...]]] = {
    "status": (lambda m: [], ("nodes", "groups", "problems")),
    "top": (lambda m: [], ("routes",)),
    "why": (lambda m: [latest(m)], ("event", "causes")),
    "doctor": (lambda m: [], ("checks",)),
    "version": (lambda m: [], ("meshfold", "native", "server", "protocol")),
    "leader": (lambda m: ["control"], ("leader", "term", "token")),
    "route ls": (lambda m: [], ("routes",)),
    "route show": (lambda m: ["edge/host/cpu"], ("route", "address", "schema", "secrecy")),
    "route latest": (lambda m: ["edge/host/cpu"], ("id", "route", "value", "seq", "producer")),
    "route watch": (lambda m: ["edge/host/cpu", "--count", "1"], ("id", "route", "value", "seq", "producer")),
    "route publish": (lambda m: ["operator/notes/line", '"all well"'], ("route", "events")),
    "grant ls": (lambda m: [], ("grants",)),
    "grant issue": (lambda m: ["outsider", "edge/host/cpu", "--action", "META_READ"], ("id", "policy_epoch")),
    "grant explain": (lambda m: ["edge", "hub/host/pressure"], ("decision", "because")),
    "grant revoke": (
        lambda m: [m.ask("grant", "issue", "outsider", "edge/host/swap", "--action", "META_READ")["id"]],
        ("policy_epoch",),
    ),
    "audit flow": (lambda m: [], ("routes", "unexplained")),
    "init": (lambda m: ["--dir", "other", "--key-file", "k"], ("mesh", "node", "id")),
    "renew": (lambda m: ["--dir", "other", "--key-file", "k"], ("not_after_ms",)),
    "invite": (lambda m: ["somebody"], ("mesh", "node", "id", "token")),
    "join": (lambda m: ["--dir", "second", "--token-file", _token(m)], ("mesh", "node", "id")),
    "node ls": (lambda m: [], ("nodes",)),
    "node retire": (lambda m: ["guest"], ("name", "id", "retired", "policy_epoch")),
    "node rm": (lambda m: ["guest"], ("name", "id", "retired")),
    "bench": (lambda m: ["local", "--quick"], ("results",)),
}
#: What needs a mesh of its own: `up` is the mesh, health needs a page, and a decision needs a clone.
ELSEWHERE = {"up", "node health", "node decide"}


def _token(machine: Machine) -> str:
    machine.ask("invite", "second", "--out", "second.token")
    return "second.token"


@pytest.mark.parametrize("name", ASKED)
def test_json_of_a_command_is_one_document_with_its_fields(mesh: Machine, name: str) -> None:
    words, fields = ASKED[name]
    answer = mesh.meshfold(*name.split(), *words(mesh), "--json")
    assert answer.returncode == 0, f"{answer.stderr}{mesh.logs()}"
    document = json.loads(answer.stdout)
    assert isinstance(document, dict)
    assert set(fields) <= set(document), document
    assert "Traceback" not in answer.stderr


def test_no_command_is_without_a_test_of_its_json() -> None:
    known = {tuple(name.split()) for name in (*ASKED, *ELSEWHERE)} | NOT_JSON
    missing = {" ".join(words) for words in set(COMMANDS) - known}
    assert missing <= TESTED_BY_THEIR_OWNERS, f"no test of --json: {missing - TESTED_BY_THEIR_OWNERS}"


#: Commands whose tests stand with what they do.
TESTED_BY_THEIR_OWNERS = frozenset(
    {
        "audit log",
        "grant attenuate",
        "grant show",
        "key ls",
        "key rotate",
        "key shred",
        "query",
        "recover",
        "trace",
    }
)


def kept_out(answer: subprocess.CompletedProcess[str]) -> None:
    """Refused by the members from the moment of retiring, and by the server once its login is revoked there."""
    assert answer.returncode == 3, answer.stderr
    assert "grant" in answer.stderr or "it was retired" in answer.stderr
    assert answer.stdout == ""


def test_a_retired_member_is_refused_and_a_voter_cannot_be_retired(mesh: Machine) -> None:
    mesh.ask("invite", "leaver", "--out", "leaver.token")
    mesh.ask("join", "--dir", "leaver", "--token-file", "leaver.token")
    own = ("--context", "leaver/context.json")
    assert mesh.meshfold("route", "latest", "edge/host/cpu", *own).returncode == 0
    kept = mesh.meshfold("node", "rm", "leaver")
    assert kept.returncode == 2
    assert "node retire leaver" in kept.stderr
    mesh.ask("node", "retire", "leaver")
    kept_out(mesh.meshfold("route", "latest", "edge/host/cpu", *own))
    row = next(row for row in mesh.ask("node", "ls")["nodes"] if row["name"] == "leaver")
    assert row["retired"]
    mesh.ask("node", "rm", "leaver")
    assert "leaver" not in {row["name"] for row in mesh.ask("node", "ls")["nodes"]}
    kept_out(mesh.meshfold("route", "latest", "edge/host/cpu", *own))
    voter = mesh.meshfold("node", "retire", "hub")
    assert voter.returncode == 2
    assert "is a voter" in voter.stderr
    nobody = mesh.meshfold("node", "retire", "nobody")
    assert nobody.returncode == 2
    assert "names 0 members" in nobody.stderr


def test_hl8_whoever_holds_no_grant_is_told_which_one_and_gets_exit_code_three(mesh: Machine) -> None:
    mesh.ask("invite", "stranger", "--no-grants", "--out", "stranger.token")
    mesh.ask("join", "--dir", "stranger", "--token-file", "stranger.token")
    own = ("--context", "stranger/context.json")
    for command in (
        ("audit", "flow"),
        ("audit", "log"),
        ("route", "ls"),
        ("route", "latest", "edge/host/cpu"),
        ("route", "watch", "edge/host/cpu"),
        ("route", "publish", "stranger/a/b", "1"),
        ("top",),
        ("why", latest(mesh)),
    ):
        answer = mesh.meshfold(*command, *own)
        assert answer.returncode == 3, f"{command}: {answer.stderr}"
        assert answer.stdout == ""
        assert "meshfold grant issue stranger" in answer.stderr
        assert len(answer.stderr.strip().splitlines()) == 1, answer.stderr


def test_a_decision_about_a_life_that_is_none_is_refused(mesh: Machine) -> None:
    answer = mesh.meshfold("node", "decide", "edge", "not-a-life")
    assert answer.returncode in (1, 2), answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_schema_is_json_schema_and_names_every_setting(mesh: Machine) -> None:
    document = json.loads(mesh.meshfold("schema").stdout)
    assert document["$schema"].startswith("https://json-schema.org/")
    assert "node" in document["$defs"]["Settings"]["properties"]


def test_a_reader_that_goes_away_is_no_failure(mesh: Machine) -> None:
    """HL9: `meshfold route watch ... | head -1`."""
    command = f"{shlex.quote(sys.executable)} -m meshfold.mesh route watch edge/host/cpu --json"
    answer = mesh.run("bash", "-c", f"set -o pipefail; {command} | head -n 1")
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == 1
    assert answer.stderr == ""


@pytest.mark.parametrize(
    ("command", "redirected", "code", "said"),
    [
        ("version", ">&-", 0, ""),
        ("version", "2>&- >&- <&-", 0, ""),
        ("version", "| true", 0, ""),
        ("schema", "| head -c 1 >/dev/null", 0, ""),
        ("--help", "| head -n 1 >/dev/null", 0, ""),
        ("status", "| true", 0, ""),
        ("version", ">/dev/full", 2, "No space left on device"),
        ("status --json", ">/dev/full", 2, "No space left on device"),
        ("route watch edge/host/cpu", ">/dev/full", 2, "No space left on device"),
        # A log or a socket that took the number of a closed stream would get what is meant for people.
        ("route latest edge/host/cpu", ">&-", 0, ""),
        ("route watch edge/host/cpu --count 2", "2>&- >&- <&-", 0, ""),
    ],
)
def test_hl9_streams_that_are_closed_full_or_left_end_no_command_in_a_traceback(
    mesh: Machine, command: str, redirected: str, code: int, said: str
) -> None:
    program = f"{shlex.quote(sys.executable)} -m meshfold.mesh"
    answer = mesh.run("bash", "-c", f"set -o pipefail; {program} {command} {redirected}")
    assert answer.returncode == code, answer.stderr
    assert said in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == (1 if said else 0), answer.stderr


def test_hl9_up_whose_output_nobody_takes_drains_and_ends_well(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    program = f"{shlex.quote(sys.executable)} -m meshfold.mesh up --for 1s --dir"
    for number, redirected in enumerate(("| true", ">&- 2>&- <&-")):
        answer = machine.run("bash", "-c", f"set -o pipefail; {program} state-{number} {redirected}")
        assert answer.returncode == 0, answer.stderr
        assert "Traceback" not in answer.stderr


def test_lines_of_stdin_are_published_as_they_come_and_a_bad_one_is_named(mesh: Machine) -> None:
    script = "printf '1.5\\n2.5\\nx\\n4.5\\n' | %s -m meshfold.mesh route publish operator/notes/level - --schema float"
    answer = mesh.run("bash", "-c", script % shlex.quote(sys.executable))
    assert answer.returncode == 2
    assert "line 3 is no JSON" in answer.stderr
    assert len(answer.stdout.splitlines()) == 2, "what stood before it was published, and each event named"
    mixed = "printf '1\\n\"text\"\\n' | %s -m meshfold.mesh route publish operator/notes/number -"
    answer = mesh.run("bash", "-c", mixed % shlex.quote(sys.executable))
    assert answer.returncode == 2
    assert "line 2" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_publishing_on_a_route_of_another_is_exit_code_three(mesh: Machine) -> None:
    answer = mesh.meshfold("route", "publish", "edge/host/cpu", "1")
    assert answer.returncode == 3
    assert "OWN" in answer.stderr


def test_any_query_is_asked_by_its_name_of_one_node_or_of_all(mesh: Machine) -> None:
    one = mesh.ask("query", "describe", "route=edge/host/cpu", "--node", "edge")
    assert {row["row"] for row in one["rows"]} >= {"RouteRow", "EdgeRow"}
    page = mesh.ask("query", "buffer_stats", "--node", "edge", "--limit", "1")
    rest = mesh.ask("query", "buffer_stats", "--node", "edge", "--limit", "1000", "--after", page["next"])
    assert len(page["rows"]) == 1
    assert rest["rows"]
    everyone = mesh.ask("query", "topology")
    assert set(everyone["answers"]) >= {"edge", "hub"}
    shown = mesh.meshfold("query", "describe", "route=edge/host/cpu", "--node", "edge")
    assert shown.returncode == 0, shown.stderr
    assert "route=edge/host/cpu" in shown.stdout
    nowhere = mesh.meshfold("query", "describe", "route=no/such/route", "--node", "edge")
    assert nowhere.returncode == 2
    assert "no route no/such/route" in nowhere.stderr
    nobody = mesh.meshfold("query", "topology", "--node", "nobody")
    assert nobody.returncode == 2, nobody.stderr
