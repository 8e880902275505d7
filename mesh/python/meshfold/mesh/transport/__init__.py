"""Bytes over a broker, at most once."""

from meshfold.mesh.transport.nats import NatsTransport

__all__ = ("NatsTransport",)
