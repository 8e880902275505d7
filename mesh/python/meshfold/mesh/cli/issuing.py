"""Which mesh's issuer is meant by a command that makes grants or tokens."""

from __future__ import annotations

from meshfold.core.errors import ConfigError
from meshfold.mesh.context import Context

__all__ = ("issuing_context",)


def issuing_context(which: str | None) -> Context:
    """The context that is named; where none is, the one on this machine that holds the issuer of the newest mesh here.

    :raises ConfigError: if there is none, or the one that is meant holds no issuer
    """
    chosen = Context.load(which)
    if chosen.authority_dir is not None:
        return chosen
    holders = [one for one in Context.running() if one.authority_dir and one.cluster == chosen.cluster]
    if which is None and holders:
        return holders[0]
    raise ConfigError(
        f"{chosen.path} is of a node that joined: grants and tokens are made where the mesh's issuer is",
        fix=f"name its context: --context {holders[0].path}" if holders else "run it on that machine",
        item="issuer",
    )
