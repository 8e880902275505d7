"""Which mesh is meant: from options, settings, variables, and the meshes that run on this machine."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meshfold.core.errors import ConfigError
from meshfold.mesh.config.nats_login import foreign_login, nats_context, nats_context_exists, tls_of
from meshfold.mesh.config.settings import NodeSettings, load_settings
from meshfold.mesh.context import Context
from meshfold.mesh.enrolment import MemberFolder

__all__ = ("find_mesh", "with_settings")


def find_mesh(
    context: str | Path | None, config: Path | None, options: Mapping[str, Any]
) -> tuple[Context, NodeSettings]:
    """Return the context that is meant, with server and login as settings say, and the settings.

    :param context: a context file, the name of a mesh that runs, or else the name of a context of the `nats` command,
        which then says server and login of the mesh that is found without it
    :raises ConfigError: if there is none, or something named cannot be used
    """
    environ = dict(os.environ)
    if isinstance(context, str) and _is_nats_context(context, environ):
        environ["NATS_CONTEXT"], context = context, None
    settings = load_settings(config, environ=environ, options=options)
    chosen = context
    if chosen is None and settings.dir is not None:
        chosen = Path(settings.dir) / "context.json"
        if not chosen.exists() and MemberFolder.exists(chosen.parent):
            # A voter's folder, carried here from where its mesh was made.
            MemberFolder.open(chosen.parent).context().save(link=False)
        if not chosen.exists():
            raise ConfigError(
                f"there is no mesh in {settings.dir}",
                fix="make one with `meshfold init`, or join one with `meshfold join`",
                item="dir",
            )
    found = Context.load(chosen if chosen is not None else environ.get("MESHFOLD_CONTEXT"))
    if found.embedded:
        # NATS_* variables are about a server of the operator's own; this mesh brought its server.
        environ = {key: value for key, value in environ.items() if not key.startswith("NATS_")}
        settings = load_settings(config, environ=environ, options=options)
    return with_settings(found, settings, environ), settings


def _is_nats_context(name: str, environ: Mapping[str, str]) -> bool:
    """Whether the `nats` command has a context of that name, and no mesh that runs here has it."""
    if "/" in name or name.endswith(".json") or not nats_context_exists(name, environ):
        return False
    return all(context.mesh != name for context in Context.running())


def with_settings(context: Context, settings: NodeSettings, environ: Mapping[str, str]) -> Context:
    """The context with the server, login and TLS of settings.

    :raises ConfigError: if a file cannot be used
    """
    if environ.get("NATS_CONTEXT"):
        settings = nats_context(environ["NATS_CONTEXT"], settings, environ)
    return dataclasses.replace(
        context,
        url=settings.nats or context.url,
        login=foreign_login(settings, environ),
        tls=tls_of(settings),
    )
