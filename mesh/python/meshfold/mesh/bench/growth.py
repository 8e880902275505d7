"""One process: what grows and what must not - cost with routes and observers, memory, import, the way to another thread.

What changes the process for good (memory, imports) is measured in a process of its own.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns

from meshfold.core import Event, Graph, Route, Schema, route
from meshfold.mesh.bench.reference import Figure

__all__ = ("GROWTH_FIGURES",)

#: Whatever takes longer is broken, not slow.
PROCESS_S = 600.0
_FEW, _MANY, _MANY_QUICK = 10, 100_000, 10_000
_PAGE = os.sysconf("SC_PAGE_SIZE")


def _floats(count: int) -> list[Route[float]]:
    schema = Schema.float("Celsius")
    return [route("bench", "growth", f"r{number}", schema=schema) for number in range(count)]


def _round_robin(graph: Graph, routes: list[Route[float]], items: int) -> float:
    """Nanoseconds of one publish."""
    publish, few = graph.publish, routes[:_FEW]
    begin = perf_counter_ns()
    for _ in range(items // len(few)):
        for at in few:
            publish(at, 1.0)
    return (perf_counter_ns() - begin) / items


def _best_ratio(one: Callable[[], float], other: Callable[[], float], rounds: int) -> float:
    """Best of `one` over best of `other`, taken in turns: what else runs on the machine counts for neither."""
    pairs = [(one(), other()) for _ in range(rounds)]
    return min(pair[0] for pair in pairs) / min(pair[1] for pair in pairs)


def many_routes(quick: bool) -> float:
    """What a publish costs in a graph of 100,000 routes, over one in a graph of 10."""
    big, small = Graph(name="many"), Graph(name="few")
    many, few = _floats(_MANY_QUICK if quick else _MANY), _floats(_FEW)
    for graph, routes in ((big, many), (small, few)):
        for at in routes:
            graph.publish(at, 0.0)
    items = 10_000 if quick else 50_000
    return _best_ratio(
        lambda: _round_robin(big, many, items), lambda: _round_robin(small, few, items), 3 if quick else 9
    )


def fan_out(quick: bool) -> float:
    """What one of 1,000 observers costs in a publish, over one of 10."""

    def cost(observers: int) -> Callable[[], float]:
        graph, (at,) = Graph(), _floats(1)
        for _ in range(observers):
            graph.observe(at, lambda event: None)
        items = max(1, (20_000 if quick else 100_000) // observers)

        def run() -> float:
            begin = perf_counter_ns()
            for _ in range(items):
                graph.publish(at, 1.0)
            return (perf_counter_ns() - begin) / items / observers

        return run

    return _best_ratio(cost(1000), cost(_FEW), 3 if quick else 9)


def _resident() -> float:
    """Memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * _PAGE / 1e6


def rest(count: int) -> float:
    """MB that so many routes of one graph take."""
    graph = Graph()
    graph.declare(_floats(1)[0])
    before = _resident()
    routes = _floats(count)
    for at in routes:
        graph.declare(at)
    assert len(graph.route_objects()) == count
    return _resident() - before


def flat(count: int) -> float:
    """MB that a graph grows by over so many events, after a tenth of them, each to an observer and a queue."""
    graph, (at,) = Graph(), _floats(1)
    graph.observe(at, lambda event: None)
    with graph.stream(at, capacity=256):
        before = 0.0
        for number in range(count):
            graph.publish(at, float(number))
            if number == count // 10:
                before = _resident()
        return _resident() - before


def _apart(what: str, count: int) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "meshfold.mesh.bench.growth", what, str(count)],
        check=True,
        capture_output=True,
        text=True,
        timeout=PROCESS_S,
    )
    return float(done.stdout)


def routes_at_rest(quick: bool) -> float:
    """MB of 100,000 routes (with `quick` of 10,000, times ten)."""
    count = _MANY_QUICK if quick else _MANY
    return _apart("rest", count) * (_MANY / count)


def memory_flat(quick: bool) -> float:
    """MB that a graph grows by over 10 million events (with `quick` 500,000)."""
    return _apart("flat", 500_000 if quick else 10_000_000)


def import_core(quick: bool) -> float:
    """Milliseconds of processor time of `import meshfold.core` in a fresh process whose byte code is cached; the best of some."""
    code = (
        "import time; t = time.process_time(); import meshfold.core; print((time.process_time() - t) * 1000)"
    )
    with tempfile.TemporaryDirectory(prefix="meshfold-bench-") as cache:
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = cache
        times: list[float] = []
        for _ in range(3 if quick else 8):
            done = subprocess.run(
                [sys.executable, "-c", code],
                check=True,
                capture_output=True,
                text=True,
                timeout=PROCESS_S,
                env=env,
            )
            times.append(float(done.stdout))
    return min(times[1:])


def _paced(items: int, attach: Callable[[Graph, Route[int], Callable[[Event[int]], None]], object]) -> float:
    """Median microseconds from before a publish until another thread has the event; one event on the way at a time."""
    graph = Graph()
    at = route("bench", "growth", "moment", schema=Schema.int("ns"))
    taken: list[int] = []
    came = threading.Semaphore(0)

    def receive(event: Event[int]) -> None:
        taken.append(perf_counter_ns() - event.value)
        came.release()

    held = attach(graph, at, receive)
    for _ in range(items):
        graph.publish(at, perf_counter_ns())
        came.acquire()
    del held
    return statistics.median(taken) / 1000


def thread_observer(quick: bool) -> float:
    """Median microseconds from a publish to a queued observer, which is called on a thread of its own."""
    return _paced(1000 if quick else 10_000, lambda graph, at, call: graph.observe(at, call, capacity=64))


def thread_iterator(quick: bool) -> float:
    """Median microseconds from a publish to a thread that iterates a stream."""

    def attach(graph: Graph, at: Route[int], call: Callable[[Event[int]], None]) -> object:
        stream = graph.stream(at, capacity=64)

        def read() -> None:
            for event in stream.blocking(1.0):
                call(event)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return stream, thread

    return _paced(1000 if quick else 10_000, attach)


GROWTH_FIGURES = (
    Figure("publish with 100,000 routes over 10", "times", 1.2, many_routes),
    Figure("an observer of 1,000 over one of 10", "times", 1.2, fan_out),
    Figure("100,000 routes at rest", "MB", 150.0, routes_at_rest),
    Figure("growth over 10 million events", "MB", 4.0, memory_flat),
    Figure("import meshfold.core, processor time", "ms", 100.0, import_core),
    Figure("publish to an observer's thread, p50", "us", 10.0, thread_observer),
    Figure("publish to an iterating thread, p50", "us", 10.0, thread_iterator),
)


if __name__ == "__main__":
    sys.stdout.write(f"{ {'rest': rest, 'flat': flat}[sys.argv[1]](int(sys.argv[2])):.3f}\n")
