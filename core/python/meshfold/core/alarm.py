"""The thread that lets operators act when their time has come.

It is started when the first operator waits for time, sleeps until the earliest deadline - it does not poll - and ends with
its graph. A graph with a clock of its own has none: who moves that clock calls `graph.advance()`.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshfold._native import Alarm, GraphBase

__all__ = ("start_alarm",)


def start_alarm(graph: weakref.ref[GraphBase]) -> None:
    """Start the thread of a graph, if its clock is the system's."""
    owner = graph()
    alarm = None if owner is None else owner.alarm()
    if alarm is not None:
        threading.Thread(target=_run, args=(alarm, graph), name="meshfold alarm", daemon=True).start()


def _run(alarm: Alarm, graph: weakref.ref[GraphBase]) -> None:
    while (clock_set := alarm.wait()) is not None:
        owner = graph()
        if owner is None:
            return
        owner.advance(clock_set)
        # A name that is kept while sleeping would keep the graph alive.
        del owner
