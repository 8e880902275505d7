"""Control state: a durable log, linearizable and watched. Raft takes the single voter's place behind the same interface."""

from meshfold.consensus.solo import SoloLog
from meshfold.core.errors import ConsensusError, Fenced, NoQuorum, NotLeader

__all__ = ("ConsensusError", "Fenced", "NoQuorum", "NotLeader", "SoloLog")
