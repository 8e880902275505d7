"""The node: a process's part of a mesh."""

from meshfold.mesh.node.members import Member
from meshfold.mesh.node.node import Node

__all__ = ("Member", "Node")
