"""Four threads publish while one observer is slow, one raises and an operator comes and goes: `tools/stress.py --events 10000000`.

It ends with exit code 1 unless the order on the route was the order of numbers, nothing was lost without a reason and a
counter, nothing was stuck, every failure was counted, and memory stayed flat. A small form of it is a test.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from meshfold.core import Event, Graph, Schema, mean, route
from meshfold.core.flow import EdgeCounters

THREADS: Final = 4
#: One event in so many makes the raising observer raise.
RAISES_EACH: Final = 1000
#: The operator is taken off and put back each so many events.
SWAPS_EACH: Final = 10_000
#: Until this part of the run, memory is still being filled: queues, retention, the allocator's pools.
WARM_PART: Final = 0.2
#: What counts as flat: the most that memory may grow after that.
GROWTH_BYTES_MAX: Final = 16 * 1024 * 1024
STUCK_S: Final = 300.0
READINGS: Final = 50

SOURCE = route("stress", "line", "level", schema=Schema.int())
MEANS = route("stress", "line", "mean", schema=Schema.float())


@dataclass
class Outcome:
    """What a run showed; `wrong` is empty where all holds."""

    events: int
    seconds: float = 0.0
    raised: int = 0
    slow_delivered: int = 0
    slow_dropped: int = 0
    slow_pending: int = 0
    operators: int = 0
    rss_warm_bytes: int = 0
    rss_max_bytes: int = 0
    rss_end_bytes: int = 0
    wrong: list[str] = field(default_factory=list[str])


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Ordered:
    """An observer that sees that numbers rise, and where it must see all of them that none is missing."""

    def __init__(self, name: str, *, whole: bool) -> None:
        self.name, self.whole = name, whole
        self.last = self.count = self.faults = 0

    def __call__(self, event: Event[int]) -> None:
        """Take one event."""
        seq = event.seq
        self.faults += seq != self.last + 1 if self.whole else seq <= self.last
        self.last = seq
        self.count += 1

    def complain(self, events: int, wrong: list[str]) -> None:
        """Add what is wrong."""
        if self.faults:
            wrong.append(f"{self.name}: {self.faults} events out of order or missing")
        if self.whole and self.count != events:
            wrong.append(f"{self.name}: {self.count} of {events} events")


def work(event: Event[int]) -> None:
    """What makes the slow observer slow."""
    sum(range(event.seq % 7 + 400))


def raises(event: Event[int]) -> None:
    """The observer that fails now and then."""
    if event.seq % RAISES_EACH == 0:
        raise RuntimeError("on purpose")


class Stress:
    """One run: what hangs on the graph, and what its threads do."""

    def __init__(self, events: int, tell: Callable[[str], object]) -> None:
        self.events, self.tell = events, tell
        self.graph, self.outcome = Graph(name="stress"), Outcome(events)
        self.inside = Ordered("inside the turn", whole=True)
        self.slow = Ordered("the slow observer", whole=False)
        self.lossless = Ordered("the lossless stream", whole=True)
        self.done = threading.Event()
        self.graph.observe(SOURCE, raises)
        self.graph.observe(SOURCE, self.inside)
        self.slow_edge = self.graph.observe(SOURCE, self.take_slowly, capacity=1024, overflow="drop_oldest")
        self.stream = self.graph.stream(SOURCE, capacity=4096, overflow="block")

    def take_slowly(self, event: Event[int]) -> None:
        """The slow observer."""
        self.slow(event)
        work(event)

    def publish(self, share: int) -> None:
        """One of the publishing threads."""
        for number in range(share):
            self.graph.publish(SOURCE, number)

    def read(self) -> None:
        """The lossless reader; where nothing comes for too long, something is stuck."""
        while self.lossless.count < self.events:
            before = self.lossless.count
            for event in self.stream.blocking(timeout=STUCK_S):
                self.lossless(event)
                if self.lossless.count >= self.events:
                    break
            if self.lossless.count == before:
                self.outcome.wrong.append(f"stuck after {before} events")
                break
        self.done.set()

    def swap(self) -> None:
        """Take an operator off and put it back, again and again."""
        operator, at = self.graph.pipe(SOURCE).map(mean(10)).into(MEANS), 0
        while not self.done.is_set():
            if self.graph.published(SOURCE) >= at + SWAPS_EACH:
                operator.close()
                operator = self.graph.pipe(SOURCE).map(mean(10)).into(MEANS)
                at = self.graph.published(SOURCE)
                self.outcome.operators += 1
            self.done.wait(0.001)
        operator.close()

    def measure(self) -> None:
        """Look at memory now and then."""
        step, outcome = 0, self.outcome
        while not self.done.is_set():
            part = self.graph.published(SOURCE) / self.events
            if part >= WARM_PART:
                now = resident_bytes()
                outcome.rss_warm_bytes = outcome.rss_warm_bytes or now
                outcome.rss_max_bytes = max(outcome.rss_max_bytes, now)
            if part * READINGS >= step:
                step += 1
                self.tell(f"{part:4.0%} {resident_bytes() / 2**20:8.1f} MiB\n")
            self.done.wait(0.05)

    def run(self) -> Outcome:
        """All threads at once, and what became of it."""
        shares = [self.events // THREADS + (place < self.events % THREADS) for place in range(THREADS)]
        threads = [threading.Thread(target=self.publish, args=(share,)) for share in shares]
        threads += [threading.Thread(target=target) for target in (self.read, self.swap, self.measure)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        outcome = self.outcome
        outcome.seconds = time.monotonic() - begun
        outcome.rss_end_bytes = resident_bytes()
        judge(self.graph, outcome, self.slow_edge.counters)
        for order in (self.inside, self.lossless, self.slow):
            order.complain(self.events, outcome.wrong)
        self.slow_edge.close()
        self.stream.close()
        return outcome


def judge(graph: Graph, outcome: Outcome, slow: EdgeCounters) -> None:
    """Add what is wrong with numbers, failures, losses and memory; `slow` are the counters of the slow observer."""
    wrong, events = outcome.wrong, outcome.events
    outcome.raised = graph.failures()[0]
    outcome.slow_delivered, outcome.slow_pending = slow.delivered, slow.pending
    outcome.slow_dropped = sum(slow.dropped.values())
    if graph.published(SOURCE) != events:
        wrong.append(f"{graph.published(SOURCE)} of {events} events were numbered")
    if outcome.raised != events // RAISES_EACH:
        wrong.append(f"{outcome.raised} failures counted, {events // RAISES_EACH} made")
    if set(slow.dropped) - {"overflow_oldest"}:
        wrong.append(f"losses for other reasons: {slow.dropped}")
    if slow.offered != events:
        wrong.append(f"the slow observer was offered {slow.offered} of {events} events")
    for edge in graph.edges():
        if edge.counters.unexplained:
            wrong.append(f"{edge.name}: {edge.counters.unexplained} events are unexplained")
    grown = outcome.rss_max_bytes - outcome.rss_warm_bytes
    if grown > GROWTH_BYTES_MAX:
        wrong.append(f"memory grew by {grown / 2**20:.1f} MiB")


def main() -> int:
    """Run it and say what it showed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000, help="how many events to publish")
    options = parser.parse_args()
    if options.events < 1:
        parser.error("--events is at least 1")
    outcome = Stress(options.events, sys.stderr.write).run()
    sys.stdout.write(json.dumps(asdict(outcome), indent=2) + "\n")
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
