"""The node: a process's part of a mesh."""

from meshfold.mesh.node.members import Member
from meshfold.mesh.node.node import Node
from meshfold.mesh.node.writing import WriteAnswer

__all__ = ("Member", "Node", "WriteAnswer")
