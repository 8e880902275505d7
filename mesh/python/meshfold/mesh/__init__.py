"""Routes over a broker: nodes, bridges, transports, commands."""

from meshfold.core.errors import ConfigError, MeshError, TooLarge, TransportClosed, TransportTimeout
from meshfold.mesh.bridge import Bridge
from meshfold.mesh.context import Context
from meshfold.mesh.node import Member, Node
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
)
