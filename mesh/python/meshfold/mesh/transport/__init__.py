"""Bytes over a broker, at most once."""

from meshfold.mesh.transport.login import Login, tls_context
from meshfold.mesh.transport.nats import NatsTransport, check_url, check_urls
from meshfold.mesh.transport.sim import SimBroker, SimFaults, SimTransport

__all__ = (
    "Login",
    "NatsTransport",
    "SimBroker",
    "SimFaults",
    "SimTransport",
    "check_url",
    "check_urls",
    "tls_context",
)
