"""Routes over a broker: nodes, bridges, transports, commands.

Names are imported when they are first used: the command line answers at once, and pays for what a command needs.
"""

from __future__ import annotations

# Not from `typing`: until the command line's own code runs, Ctrl-C ends in a traceback, and this would be most of that time.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "meshfold.core.errors")), name)
