"""Routes over a broker: nodes, bridges, transports, commands.

Names are imported when they are first used: the command line answers at once, and pays for what a command needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshfold.core.errors import ConfigError, MeshError, TooLarge, TransportClosed, TransportTimeout
    from meshfold.mesh.bridge import Bridge
    from meshfold.mesh.context import Context
    from meshfold.mesh.node import Member, Node, WriteAnswer
    from meshfold.mesh.reply import Reply

__all__ = (
    "Bridge",
    "ConfigError",
    "Context",
    "Member",
    "MeshError",
    "Node",
    "Reply",
    "TooLarge",
    "TransportClosed",
    "TransportTimeout",
    "WriteAnswer",
)

_HOMES = {
    "Bridge": "meshfold.mesh.bridge",
    "Context": "meshfold.mesh.context",
    "Member": "meshfold.mesh.node",
    "Node": "meshfold.mesh.node",
    "Reply": "meshfold.mesh.reply",
    "WriteAnswer": "meshfold.mesh.node",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "meshfold.core.errors")), name)
