"""Settings of a node: `meshfold.toml`, then `MESHFOLD_*` and `NATS_*` variables, then command-line options; the last wins.

A file is read strictly: an unknown key, a value of another type or a broken line is an error that names the place. The
JSON Schema of the file is made from the same types (`meshfold schema`).
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from meshfold.core.errors import ConfigError
from meshfold.mesh.files import read_named_text

__all__ = ("FILE_NAME", "NodeSettings", "Settings", "json_schema", "load_settings")

FILE_NAME: Final = "meshfold.toml"
FILE_BYTES_MAX: Final = 1024 * 1024


class NodeSettings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The table `[node]`."""

    #: the node's name; a joined node has the name of its token
    name: str | None = None
    #: folder of the node's or the mesh's state
    dir: str | None = None
    #: the server's URL, or several joined by commas, instead of what the mesh says
    nats: str | None = None
    #: a creds file, nkey file, user or token of the operator's own, for servers that know no JWTs of the mesh
    creds: str | None = None
    nkey: str | None = None
    user: str | None = None
    password_file: str | None = None
    token_file: str | None = None
    #: TLS: authorities to trust, and this client's certificate and key
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    #: file that holds a join token, used when `dir` holds no identity
    join_token_file: str | None = None
    #: what runs on the node: `sampler`, `reader`, or `package.module:function` of your own
    app: str | None = None
    #: routes that `reader` bridges in
    read: list[str] = msgspec.field(default_factory=list)
    #: address of health and metrics, such as `127.0.0.1:8080`; none: not served
    health_listen: str | None = None
    log_level: str = "warning"
    log_format: str = "text"


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file."""

    node: NodeSettings = msgspec.field(default_factory=NodeSettings)


#: Variables, and the setting each one gives. Secrets themselves are read where they are used and are no settings.
_VARIABLES: Final = {
    "NATS_URL": "nats",
    "NATS_CREDS": "creds",
    "NATS_NKEY": "nkey",
    "NATS_USER": "user",
    "NATS_CA": "ca",
    "NATS_CERT": "cert",
    "NATS_KEY": "key",
    "MESHFOLD_NAME": "name",
    "MESHFOLD_STATE_DIR": "dir",
    "MESHFOLD_NATS": "nats",
    "MESHFOLD_CREDS": "creds",
    "MESHFOLD_NKEY": "nkey",
    "MESHFOLD_CA": "ca",
    "MESHFOLD_CERT": "cert",
    "MESHFOLD_KEY": "key",
    "MESHFOLD_PASSWORD_FILE": "password_file",
    "MESHFOLD_TOKEN_FILE": "token_file",
    "MESHFOLD_JOIN_TOKEN_FILE": "join_token_file",
    "MESHFOLD_APP": "app",
    "MESHFOLD_READ": "read",
    "MESHFOLD_HTTP": "health_listen",
    "MESHFOLD_HEALTH_LISTEN": "health_listen",
    "MESHFOLD_LOG_LEVEL": "log_level",
    "MESHFOLD_LOG_FORMAT": "log_format",
}
#: Variables that mean something elsewhere.
_OTHER: Final = frozenset(
    {
        "MESHFOLD_CONTEXT",
        "MESHFOLD_CONTEXTS",
        "MESHFOLD_JOIN_TOKEN",
        "MESHFOLD_CONFIG",
        "MESHFOLD_PASSPHRASE_FILE",
    }
)
_FOREIGN: Final = re.compile(r"MESHFOLD_(TEST|BENCH|JAEGER|NATS_CHART|SERVICE|PORT)")


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of `meshfold.toml`."""
    schema = msgspec.json.schema(Settings)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": FILE_NAME, **schema}


def load_settings(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> NodeSettings:
    """Read the settings.

    :param path: the file; None takes `MESHFOLD_CONFIG`, else `meshfold.toml` of the working directory if there is one
    :param options: what the command line gave; None values are left out
    :raises ConfigError: naming file and line, variable or option, and what to write instead
    """
    environ = os.environ if environ is None else environ
    chosen = path or (Path(environ["MESHFOLD_CONFIG"]) if environ.get("MESHFOLD_CONFIG") else None)
    if chosen is None and Path(FILE_NAME).exists():
        chosen = Path(FILE_NAME)
    found = _read(chosen) if chosen is not None else {}
    node = dict(found.get("node", {})) if isinstance(found.get("node", {}), dict) else found["node"]
    if chosen is not None:
        _convert({**found, "node": node}, chosen)
    for variable, value in _variables(environ).items():
        setting = _VARIABLES[variable]
        node[setting] = [part for part in value.split(",") if part] if setting == "read" else value
    node |= {key: value for key, value in (options or {}).items() if value is not None}
    settings = _convert({"node": node}, None).node
    _check(settings)
    return settings


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Those that are set, `MESHFOLD_*` behind `NATS_*` so that they win.

    :raises ConfigError: for a `MESHFOLD_*` variable that means nothing
    """
    for name in environ:
        if name.startswith("MESHFOLD_") and name not in _VARIABLES and name not in _OTHER:
            if _FOREIGN.match(name):
                continue
            raise ConfigError(
                f"unknown variable {name}",
                fix=_nearest(name, (*_VARIABLES, *_OTHER), prefix="MESHFOLD_"),
                item=name,
            )
    return {name: environ[name] for name in _VARIABLES if environ.get(name)}


def _read(path: Path) -> dict[str, Any]:
    text = read_named_text(path, FILE_BYTES_MAX, str(path))
    if not text.strip():
        # What a full disk or a failed template leaves behind is not taken for "all defaults".
        raise ConfigError(
            f"{path}:1: the file is empty", fix="write [node] into it, or remove it", item=str(path)
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"at line (\d+)", str(error))
        line = int(match[1]) if match else text.count("\n") + 1
        raise ConfigError(f"{path}:{line}: {error}", item=str(path)) from None


def _line_of(path: Path, key: str) -> int:
    """Where a key stands first."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if re.match(rf"\s*\[?\s*{re.escape(key)}\b", line):
            return number
    return 1


def _convert(document: dict[str, Any], path: Path | None) -> Settings:
    try:
        return msgspec.convert(document, Settings)
    except msgspec.ValidationError as error:
        text = str(error)
        unknown = re.search(r"unknown field `([^`]*)`", text)
        if unknown:
            known = [
                field.name for field in msgspec.structs.fields(NodeSettings if "$.node" in text else Settings)
            ]
            what, fix, key = f"unknown key {unknown[1]!r}", _nearest(unknown[1], known), unknown[1]
        else:
            where = re.search(r"`\$\.(?:node\.)?(\w+)", text)
            key = where[1] if where else "node"
            what, fix = f"{key}: {text.partition(' - at')[0]}", "`meshfold schema` shows what goes where"
        place = f"{path}:{_line_of(path, key)}: " if path is not None else ""
        raise ConfigError(f"{place}{what}", fix=fix, item=key) from None


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """What may have been meant; a prefix that all have says nothing about likeness."""
    ends = sorted(one.removeprefix(prefix) for one in known if one.startswith(prefix))
    close = difflib.get_close_matches(name.removeprefix(prefix), ends, n=1)
    if close:
        return f"did you mean {prefix}{close[0]}?"
    return f"known: {', '.join(prefix + end for end in ends)}"


LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("text", "json")


def _check(settings: NodeSettings) -> None:
    for name, value, allowed in (
        ("log_level", settings.log_level, LEVELS),
        ("log_format", settings.log_format, FORMATS),
    ):
        if value not in allowed:
            raise ConfigError(f"{name} {value!r} is unknown", fix=f"one of {', '.join(allowed)}", item=name)
    if settings.health_listen is not None:
        host, _, port = settings.health_listen.rpartition(":")
        if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
            raise ConfigError(
                f"health_listen {settings.health_listen!r} is no address",
                fix="write host:port",
                item="health_listen",
            )
