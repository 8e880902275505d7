"""The operator's own NATS login: from settings, `NATS_*` variables and the contexts of the `nats` command (ADR-21)."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from meshfold.core.errors import ConfigError
from meshfold.mesh.config.settings import NodeSettings
from meshfold.mesh.files import read_named, read_named_text
from meshfold.mesh.transport import Login, tls_context

__all__ = ("foreign_login", "nats_context", "nats_context_exists", "tls_of")

SECRET_BYTES_MAX: Final = 4096
CONTEXT_BYTES_MAX: Final = 64 * 1024


class _NatsContext(msgspec.Struct):
    """The fields of a context file that mean something here; the `nats` command has more."""

    url: str = ""
    user: str = ""
    password: str = ""
    token: str = ""
    creds: str = ""
    nkey: str = ""
    cert: str = ""
    key: str = ""
    ca: str = ""


def nats_context(name: str, settings: NodeSettings, environ: Mapping[str, str] | None = None) -> NodeSettings:
    """Fill what is not set from the `nats` command's context of that name; its password and token stay in its file.

    :raises ConfigError: if there is none, or it cannot be used
    """
    context = _read(name, os.environ if environ is None else environ)
    fresh = msgspec.structs.replace(settings)
    fresh.nats = fresh.nats or context.url or None
    for field in ("creds", "nkey", "user", "cert", "key", "ca"):
        if getattr(fresh, field) is None:
            setattr(fresh, field, getattr(context, field) or None)
    return fresh


def nats_context_exists(name: str, environ: Mapping[str, str]) -> bool:
    """Whether the `nats` command has a context of that name."""
    try:
        return _path(name, environ).is_file()
    except ConfigError:
        return False


def _path(name: str, environ: Mapping[str, str]) -> Path:
    home = environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    if not re.fullmatch(r"[\w.-]{1,128}", name) or name.startswith("."):
        raise ConfigError(f"{name!r} is no name of a NATS context", item="NATS_CONTEXT")
    return Path(home) / "nats" / "context" / f"{name}.json"


def _read(name: str, environ: Mapping[str, str]) -> _NatsContext:
    path = _path(name, environ)
    try:
        return msgspec.json.decode(
            read_named(path, CONTEXT_BYTES_MAX, name, fix="`nats context ls` lists them"), type=_NatsContext
        )
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is no NATS context: {error}", item=name) from None


def _secret(path: str | None, item: str) -> str | None:
    if path is None:
        return None
    text = read_named_text(Path(path), SECRET_BYTES_MAX, item)
    if not text.strip():
        raise ConfigError(f"{item} {path} is empty", item=item)
    return text.strip("\r\n")


def foreign_login(settings: NodeSettings, environ: Mapping[str, str] | None = None) -> Login | None:
    """The login that settings and variables name; None where the mesh's own JWT is to be used.

    TLS alone is no login: its files then go with the mesh's JWT (`tls_of`).

    :raises ConfigError: if a file cannot be used, or two logins are named at once
    """
    environ = os.environ if environ is None else environ
    password = _secret(settings.password_file, "password_file") or environ.get("NATS_PASSWORD")
    token = _secret(settings.token_file, "token_file") or environ.get("NATS_TOKEN")
    if environ.get("NATS_CONTEXT"):
        context = _read(environ["NATS_CONTEXT"], environ)
        password, token = password or context.password or None, token or context.token or None
    named = [name for name in ("creds", "nkey", "user") if getattr(settings, name)] + (
        ["token"] if token else []
    )
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} are two logins", fix="keep one", item=named[1])
    login: Login | None = None
    if settings.creds:
        login = Login.creds(settings.creds)
    elif settings.nkey:
        login = Login.nkey_seed(settings.nkey)
    elif settings.user:
        if password is None:
            raise ConfigError(
                f"user {settings.user} without a password",
                fix="name a password_file, or set NATS_PASSWORD",
                item="user",
            )
        login = Login(user=settings.user, password=password)
    elif token:
        login = Login(token=token)
    return login


def tls_of(settings: NodeSettings) -> ssl.SSLContext | None:
    """The TLS context that settings name, if any.

    :raises ConfigError: if a file cannot be used
    """
    if settings.ca or settings.cert:
        return tls_context(settings.ca, settings.cert, settings.key)
    return None
