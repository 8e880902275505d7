"""Whether a node is well, judged from its vitals: pure, so that every verdict has a test.

Ready means proof of progress: a heartbeat of our own came back through the broker lately, and every bridge moved or
could move events. A connection alone proves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ("Check", "judge", "report")

#: Heartbeats go out every half second; of six in a row at least one comes back.
ECHO_S_MAX: Final = 3.0
#: Events that wait longer than this at a bridge, and none leaves: it is stuck.
STALL_S_MAX: Final = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One verdict."""

    name: str
    ok: bool
    detail: str


def judge(vitals: dict[str, Any]) -> list[Check]:
    """Every verdict on readiness."""
    echo_s = vitals["echo_age_s"]
    moves = echo_s is not None and echo_s <= ECHO_S_MAX
    progress = (
        "no heartbeat of ours came back yet"
        if echo_s is None
        else f"a heartbeat came back {echo_s:.1f} s ago"
    )
    return [
        Check("grants", vitals["grants"] > 0, f"{vitals['grants']} held" if vitals["grants"] else "none yet"),
        Check("broker", vitals["connected"], "connected" if vitals["connected"] else "not connected"),
        Check("progress", moves, progress),
        *(_bridge(row, moves=moves) for row in vitals["bridges"] if row["state"] != "closed"),
    ]


def _bridge(row: dict[str, Any], *, moves: bool) -> Check:
    name = f"bridge {row['dir']} {row['route']}"
    if row["state"] == "failed":
        return Check(name, False, "failed")
    if row["stalled_s"] > STALL_S_MAX:
        return Check(name, False, f"{row['pending']} events wait, none left for {row['stalled_s']:.1f} s")
    if not moves:
        return Check(name, False, "nothing can move")
    if row["state"] == "starting":
        # It could move events, as soon as somebody shares the route: not this node's fault.
        return Check(name, True, "waits for a producer")
    return Check(name, True, f"{row['events']} events moved")


def report(title: str, checks: Sequence[Check], *, verbose: bool) -> tuple[bool, str]:
    """Whether all hold, and the text for people and probes."""
    ok = all(check.ok for check in checks)
    shown = checks if verbose else [check for check in checks if not check.ok]
    lines = [f"[{'+' if check.ok else '-'}] {check.name}: {check.detail}" for check in shown]
    return ok, "".join(f"{line}\n" for line in [*lines, f"{title}: {'ok' if ok else 'failed'}"])
