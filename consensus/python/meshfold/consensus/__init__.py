"""Control state: a durable log, linearizable and watched, and elections with leases and fencing tokens in it.

Raft takes the single voter's place behind the same interface.
"""

from meshfold.consensus.candidate import Candidate, Electorate, Granted, Lease
from meshfold.consensus.commands import Command, Op
from meshfold.consensus.elections import Elections
from meshfold.consensus.fence import Fence, Sink
from meshfold.consensus.leading import Leading
from meshfold.consensus.lease_table import Busy, Holder, Leadership
from meshfold.consensus.raft_log import RaftLog, Wire
from meshfold.consensus.solo import SoloLog
from meshfold.consensus.timing import LAN, LeaseTiming, RaftTiming
from meshfold.consensus.token import Token, check_name
from meshfold.core.errors import ConsensusError, Fenced, NoQuorum, NotLeader

__all__ = (
    "LAN",
    "Busy",
    "Candidate",
    "Command",
    "ConsensusError",
    "Elections",
    "Electorate",
    "Fence",
    "Fenced",
    "Granted",
    "Holder",
    "Leadership",
    "Leading",
    "Lease",
    "LeaseTiming",
    "NoQuorum",
    "NotLeader",
    "Op",
    "RaftLog",
    "RaftTiming",
    "Sink",
    "SoloLog",
    "Token",
    "Wire",
    "check_name",
)
