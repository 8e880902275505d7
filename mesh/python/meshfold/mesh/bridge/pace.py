"""How fast a route comes in: its rate over the last seconds, and how long its events took.

Takes one entry a frame. Time is handed in, so a test decides what the clock says.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Any, Final

__all__ = ("Pace",)

#: Frames kept; a route with more than that in the window is measured over a shorter one.
FRAMES_MAX: Final = 512
WINDOW_NS: Final = 5_000_000_000
#: A window is never taken for shorter than this: two frames close together make no rate.
WINDOW_NS_MIN: Final = 1_000_000_000
#: Upper bounds of the histogram in seconds; a further bucket holds what took longer.
BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Pace:
    """Rate and latency of one incoming route."""

    def __init__(self, begun_ns: int) -> None:
        self._begun_ns = begun_ns
        self._frames: deque[tuple[int, int]] = deque(maxlen=FRAMES_MAX)
        self._latencies_ms: deque[float] = deque(maxlen=FRAMES_MAX)
        self._buckets = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0

    def note(self, now_ns: int, events: int, latency_ns: int | None) -> None:
        """Note a frame that came in.

        :param now_ns: monotonic
        :param latency_ns: from publish to delivery of its newest event, by both ends' wall clocks; None: not known
        """
        self._frames.append((now_ns, events))
        if latency_ns is not None:
            took_s = max(0, latency_ns) / 1e9
            self._latencies_ms.append(took_s * 1e3)
            self._buckets[bisect_left(BOUNDS_S, took_s)] += 1
            self._sum_s += took_s

    def rate_hz(self, now_ns: int) -> float:
        """Events per second over the last 5 s, or since the begin if that is later."""
        full = len(self._frames) == FRAMES_MAX
        since_ns = max(self._begun_ns, now_ns - WINDOW_NS, self._frames[0][0] if full else 0)
        events = sum(count for at_ns, count in self._frames if at_ns >= since_ns)
        return round(events * 1e9 / max(WINDOW_NS_MIN, now_ns - since_ns), 2)

    def latency_ms(self) -> dict[str, float]:
        """p50 and p99, to the microsecond; empty while nothing came."""
        ordered = sorted(self._latencies_ms)
        if not ordered:
            return {}
        return {
            "p50": round(ordered[len(ordered) // 2], 3),
            "p99": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 3),
        }

    def histogram(self) -> dict[str, Any]:
        """Every latency since the begin: `bounds_s`, `counts` (one more than bounds) and `sum_s`."""
        return {"bounds_s": list(BOUNDS_S), "counts": list(self._buckets), "sum_s": round(self._sum_s, 9)}
