"""Bridges: the visible nodes of a graph through which routes leave for the mesh and arrive from it."""

from meshfold.mesh.bridge.base import Bridge
from meshfold.mesh.bridge.incoming import IncomingBridge
from meshfold.mesh.bridge.outgoing import OutgoingBridge

__all__ = ("Bridge", "IncomingBridge", "OutgoingBridge")
