"""Settings: what is read from where, and how bad input is named (HOSTILE rows HL)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from meshfold.core.errors import ConfigError
from meshfold.mesh.config import foreign_login, json_schema, load_settings, nats_context


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory without settings."""
    monkeypatch.chdir(tmp_path)


def written(tmp_path: Path, data: bytes) -> Path:
    """A file with these bytes."""
    path = tmp_path / "some.toml"
    path.write_bytes(data)
    return path


def test_options_win_over_variables_and_those_over_the_file(tmp_path: Path) -> None:
    path = written(
        tmp_path, b'[node]\nname = "file"\ndir = "/file"\nnats = "nats://file:1"\nread = ["a/b/c"]\n'
    )
    environ = {"MESHFOLD_NAME": "variable", "NATS_URL": "nats://other:1", "MESHFOLD_NATS": "nats://ours:1"}
    settings = load_settings(path, environ=environ, options={"name": "option", "dir": None})
    assert settings.name == "option"
    assert settings.dir == "/file"
    assert settings.nats == "nats://ours:1"
    assert settings.read == ["a/b/c"]


def test_the_file_of_the_working_directory_and_the_variable_are_found(tmp_path: Path) -> None:
    (tmp_path / "meshfold.toml").write_text('[node]\nname = "here"\n')
    assert load_settings(environ={}).name == "here"
    other = written(tmp_path, b'[node]\nname = "there"\n')
    assert load_settings(environ={"MESHFOLD_CONFIG": str(other)}).name == "there"


#: HL1: bad files; what the message has to name.
HL1 = {
    "unknown key": (b'[node]\nnmae = "x"\n', r"some\.toml:2: unknown key 'nmae'; did you mean name\?"),
    "unknown table": (b'\n[nodes]\nname = "x"\n', r"some\.toml:2: unknown key 'nodes'; did you mean node\?"),
    "wrong type": (b"[node]\nname = 5\n", r"some\.toml:2: name: Expected `str \| null`, got `int`"),
    "wrong list": (b"[node]\nread = [1]\n", r"some\.toml:2: read: Expected `str`, got `int`"),
    "duplicate key": (b'[node]\nname = "x"\nname = "y"\n', r"some\.toml:3: "),
    "broken line": (b'[node]\nname "x"\n', r"some\.toml:2: "),
    "byte order mark": (b'\xef\xbb\xbf[node]\nname = "x"\n', r"some\.toml:1: "),
    "no text": (b'[node]\nname = "\xff"\n', r"some\.toml:2: this is no UTF-8 text"),
    "NUL": (b'[node]\nname = "\x00"\n', r"some\.toml:2: "),
    "node is no table": (b"node = 3\n", r"some\.toml:1: "),
    "too large": (b"#" * (2 * 1024 * 1024), r"some\.toml has more than 1048576 bytes"),
    "empty": (b"", r"some\.toml:1: the file is empty"),
    "nothing but lines": (b"\n \t\n", r"some\.toml:1: the file is empty"),
}


@pytest.mark.parametrize("row", HL1)
def test_hl1_a_bad_file_is_named_with_its_line(tmp_path: Path, row: str) -> None:
    data, message = HL1[row]
    with pytest.raises(ConfigError, match=message):
        load_settings(written(tmp_path, data), environ={})


def test_a_file_of_nothing_but_comments_changes_nothing(tmp_path: Path) -> None:
    assert load_settings(written(tmp_path, b"# later\n"), environ={}) == load_settings(environ={})


def test_hl1_a_file_without_an_end_is_refused_and_not_read_to_it() -> None:
    with pytest.raises(ConfigError, match="/dev/zero has more than 1048576 bytes"):
        load_settings(Path("/dev/zero"), environ={})


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("MESHFOLD_NAEM", "did you mean MESHFOLD_NAME?"),
        ("MESHFOLD_STATEDIR", "did you mean MESHFOLD_STATE_DIR?"),
        ("MESHFOLD_X", "known: MESHFOLD_APP, "),
    ],
)
def test_an_unknown_variable_is_an_error_that_suggests_the_nearest(name: str, fix: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown variable {name}") as raised:
        load_settings(environ={name: "x"})
    assert fix in str(raised.value)


def test_hl5_a_path_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (tmp_path / "nothing.toml", loop, tmp_path):
        with pytest.raises(ConfigError, match="cannot read"):
            load_settings(path, environ={})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MESHFOLD_LOG_LEVEL", "loud"),
        ("MESHFOLD_LOG_FORMAT", "xml"),
        ("MESHFOLD_HTTP", "8080"),
        ("MESHFOLD_HTTP", "h:x"),
        ("MESHFOLD_HTTP", "h:70000"),
        ("MESHFOLD_HTTP", "h:٣"),
    ],
)
def test_a_value_that_cannot_be_one_is_refused(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match="one of|host:port"):
        load_settings(environ={variable: value})


def test_the_schema_describes_every_setting_and_validates_as_json() -> None:
    schema = json.loads(json.dumps(json_schema()))
    node = schema["$defs"]["NodeSettings"]
    assert node["additionalProperties"] is False
    assert {"name", "dir", "nats", "read", "health_listen"} <= set(node["properties"])


def test_two_logins_at_once_are_refused_and_a_user_needs_a_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two logins"):
        foreign_login(load_settings(environ={"NATS_USER": "u", "NATS_CREDS": "c"}), {"NATS_PASSWORD": "p"})
    with pytest.raises(ConfigError, match="without a password"):
        foreign_login(load_settings(environ={"NATS_USER": "u"}), {})
    secret = tmp_path / "password"
    secret.write_text("p\n")
    settings = load_settings(environ={"NATS_USER": "u", "MESHFOLD_PASSWORD_FILE": str(secret)})
    login = foreign_login(settings, {})
    assert login is not None
    assert (login.user, login.password) == ("u", "p")
    assert "'p'" not in repr(login)
    assert foreign_login(load_settings(environ={}), {}) is None


def test_a_context_of_the_nats_command_gives_url_and_login(tmp_path: Path) -> None:
    folder = tmp_path / "nats" / "context"
    folder.mkdir(parents=True)
    (folder / "plant.json").write_text(
        json.dumps(
            {"url": "nats://plant:4222", "user": "u", "password": "p", "description": "x", "tls_first": False}
        )
    )
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "NATS_CONTEXT": "plant"}
    settings = nats_context("plant", load_settings(environ={}), environ)
    assert settings.nats == "nats://plant:4222"
    login = foreign_login(settings, environ)
    assert login is not None
    assert (login.user, login.password) == ("u", "p")
    for name in ("../plant", "nothing", ""):
        with pytest.raises(ConfigError):
            nats_context(name, load_settings(environ={}), environ)
