"""The protocols through which the rooms meet, so that each can be given another implementation.

Only bytes and plain values cross between rooms.
"""

from meshfold.core.ports.access import AccessDecider, Decision
from meshfold.core.ports.clock import Clock
from meshfold.core.ports.control_log import Change, ControlLog, LogStatus, Versioned
from meshfold.core.ports.transport import Message, MessageHandler, Subscribed, Transport, TransportEvent

__all__ = (
    "AccessDecider",
    "Change",
    "Clock",
    "ControlLog",
    "Decision",
    "LogStatus",
    "Message",
    "MessageHandler",
    "Subscribed",
    "Transport",
    "TransportEvent",
    "Versioned",
)
