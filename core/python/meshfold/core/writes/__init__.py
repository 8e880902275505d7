"""Writes: what is asked of a device, what it reports, and what therefore holds (S17 to S22)."""

from meshfold.core.writes.binding import Shadow, ShadowState, WriteBinding
from meshfold.core.writes.graph import Problem, Writes
from meshfold.core.writes.guarded import GuardedWrite, RetryPolicy, Scheduler, SchedulerRun, SchedulerSnapshot
from meshfold.core.writes.lifecycle import Lifecycle, LifecycleStatus
from meshfold.core.writes.loop import ControlLoop, Frame, LoopRun, ReadThenWriteNextEpochStep

__all__ = (
    "ControlLoop",
    "Frame",
    "GuardedWrite",
    "Lifecycle",
    "LifecycleStatus",
    "LoopRun",
    "Problem",
    "ReadThenWriteNextEpochStep",
    "RetryPolicy",
    "Scheduler",
    "SchedulerRun",
    "SchedulerSnapshot",
    "Shadow",
    "ShadowState",
    "WriteBinding",
    "Writes",
)
