"""Control loops: epochs in which a frozen set of values is read, a function is run, and writes are made (S20, S21)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from meshfold._native import frozen, publish_owned
from meshfold.core.closing import Closing
from meshfold.core.errors import WiringError
from meshfold.core.event import Event
from meshfold.core.operator import Operator
from meshfold.core.pipeline import Pipeline
from meshfold.core.route import Route, route
from meshfold.core.schema import Schema
from meshfold.core.stage import Port, Stage
from meshfold.core.stream import Edge

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("ControlLoop", "Frame", "LoopRun", "ReadThenWriteNextEpochStep")

T = TypeVar("T")
U = TypeVar("U")
Missing = Literal["hold", "skip", "expire"]
#: Results of a next-epoch step that may wait.
WAITING_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Frame(Mapping[Route[Any], Any]):
    """What a loop reads in one epoch: one version of each route, all of one moment. Maps routes to values."""

    epoch: int
    events: Mapping[Route[Any], Event[Any]]

    def __getitem__(self, r: Route[Any]) -> Any:
        return self.events[r].value

    def __iter__(self) -> Iterator[Route[Any]]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)


@dataclass(frozen=True, slots=True)
class LoopRun:
    """What one epoch did: `ran`, or why not: `missing` names the routes; `busy`: the epoch before was still at work."""

    epoch: int
    outcome: Literal["ran", "missing", "expired", "busy", "failed"]
    writes: tuple[Event[Any], ...] = ()
    missing: tuple[str, ...] = ()
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class LoopStatus:
    """Counts of a loop's epochs by outcome."""

    epoch: int
    ran: int
    skipped: int
    expired: int
    busy: int
    failed: int


@dataclass
class ControlLoop(Closing):
    """Epoch n: freeze the reads, run the function, publish its writes tagged n, not before n + 1 for this loop (S20).

    :param step: gets a `Frame`, returns the values to write by route; it must only depend on the frame
    :param missing: what an input without a value does: `hold` runs without it once it has been there before (its last
        value is in the frame), `skip` and `expire` do not run; `expire` also treats inputs older than `max_age` so
    :param max_age: seconds after which an input is too old, for `expire`
    """

    graph: Graph
    name: str
    reads: tuple[Route[Any], ...]
    writes: tuple[Route[Any], ...]
    step: Callable[[Frame], Mapping[Route[Any], Any]]
    missing: Missing = "skip"
    max_age: float | None = None
    _held: dict[Route[Any], Event[Any]] = field(default_factory=dict[Route[Any], "Event[Any]"])
    _counts: dict[str, int] = field(default_factory=dict[str, int])
    _running: threading.Lock = field(default_factory=threading.Lock)
    _followed: list[tuple[Route[int], Edge]] = field(default_factory=list[tuple[Route[int], Edge]])
    _epoch: int = 0
    _open: bool = True

    def run(self, epoch: int | None = None) -> LoopRun:
        """Run one epoch. Epochs are never run at the same time: one that finds another at work is skipped and counted.

        :param epoch: None: the next
        :raises WiringError: if the epoch is not after the last one, or the loop was closed
        """
        if not self._open:
            raise WiringError(f"the loop {self.name} was closed", fix="make it again", item=self.name)
        if not self._running.acquire(blocking=False):
            self._count("busy")
            return LoopRun(epoch or self._epoch, "busy")
        try:
            now = self._epoch + 1 if epoch is None else epoch
            if now <= self._epoch:
                raise WiringError(
                    f"epoch {now} of {self.name} is not after {self._epoch}",
                    fix="epochs only move forward",
                    item="epoch",
                )
            self._epoch = now
            done = self._run(now)
        finally:
            self._running.release()
        self._count(done.outcome)
        return done

    def _run(self, epoch: int) -> LoopRun:
        found = dict(zip(self.reads, frozen(self.graph, self.reads), strict=True))
        events: dict[Route[Any], Event[Any]] = {r: e for r, e in found.items() if e is not None}
        if self.missing == "hold":
            self._held.update(events)
            events = dict(self._held)
        old = [r.text for r, event in events.items() if self._too_old(event)]
        lacking = [r.text for r in self.reads if r not in events]
        if lacking:
            return LoopRun(epoch, "missing", missing=tuple(lacking))
        if old:
            return LoopRun(epoch, "expired", missing=tuple(old))
        frame = Frame(epoch, events)
        try:
            values = self.step(frame)
            encoded = [(r, self._checked(r, value)) for r, value in values.items()]
        except Exception as error:  # noqa: BLE001 - a failing loop is counted and goes on with the next epoch (S4)
            return LoopRun(epoch, "failed", error=error)
        parents = [event.id for event in events.values()]
        guard = [f"not_before_epoch:{epoch + 1}"]
        writes = [
            publish_owned(
                self.graph, r, value, parents=parents, epoch=epoch, guards=guard, taints=["SCHED_GATED"]
            )
            for r, value in encoded
        ]
        return LoopRun(epoch, "ran", tuple(writes))

    def _too_old(self, event: Event[Any]) -> bool:
        if self.missing != "expire" or self.max_age is None:
            return False
        return self.graph.now_ns() - event.ingest_time > int(self.max_age * 1e9)

    def _checked(self, r: Route[Any], value: Any) -> Any:
        if r not in self.writes:
            raise WiringError(
                f"{self.name} does not declare that it writes {r.text}", fix="name it in writes=", item=r.text
            )
        # Nothing is written unless everything can be.
        r.encode_value(value)
        return value

    def _count(self, outcome: str) -> None:
        self._counts[outcome] = self._counts.get(outcome, 0) + 1

    def status(self) -> LoopStatus:
        """How its epochs went."""
        count = self._counts.get
        return LoopStatus(
            self._epoch,
            count("ran", 0),
            count("missing", 0),
            count("expired", 0),
            count("busy", 0),
            count("failed", 0),
        )

    def follow(self, epochs: Route[int]) -> Edge:
        """Run whenever the integer on `epochs` grows; numbers it jumps over are skipped epochs."""

        def run(event: Event[int]) -> None:
            if event.value > self._epoch:
                done = self.run(event.value)
                if done.error is not None:
                    raise done.error

        edge = self.graph.observe(epochs, run)
        self._followed.append((epochs, edge))
        return edge

    def follows(self) -> list[Route[int]]:
        """The epoch routes that run it, as far as they were not closed."""
        there = {row[0] for row in self.graph.edge_rows()}
        return [r for r, edge in self._followed if edge.number in there]

    def close(self) -> None:
        """Take it out of the graph, with what it follows. An epoch that runs ends. Idempotent."""
        self._open = False
        for _, edge in self._followed:
            edge.close()
        self._followed.clear()
        self.graph.forget_loop(self)


@dataclass(frozen=True)
class ReadThenWriteNextEpochStep(Generic[T, U]):
    """Reads a route in one epoch and writes what it makes of it in the next, behind a barrier (S21).

    The results are one stream: the events of `output`, for every observer the same ones in the same order, each with the
    epoch of its input plus one. They pass when `epochs` reaches theirs.
    """

    name: str
    read: Route[T]
    output: Route[U]
    transform: Callable[[T], U]
    epochs: Route[int]

    @classmethod
    def map(
        cls, name: str, read: Route[T], output: Route[U], transform: Callable[[T], U]
    ) -> ReadThenWriteNextEpochStep[T, U]:
        """A step with an epoch route of its own, moved by `advance`."""
        addr = output.addr
        epochs = route(
            addr.owner,
            addr.family,
            f"{addr.stream}-epoch",
            schema=Schema.int(),
            plane="state",
            layer="internal",
            variant="state",
        )
        return cls(name, read, output, transform, epochs)

    def install(self, graph: Graph) -> Operator:
        """Install it; installing it again gives the same operator.

        :raises WiringError: if something else of its name is installed
        """
        for info in graph.operators():
            if info.name == self.name:
                if info.sink == self.output and info.label == "epoch step":
                    return Operator(graph, info.id)
                raise WiringError(f"{self.name} is installed already", fix="use another name", item=self.name)
        pipe: Pipeline[T] = Pipeline(graph, self.read, label="epoch step")
        stage = Stage("next_epoch", {"waiting_max": WAITING_MAX}, (Port(1, self.epochs, replay=True),))
        return pipe.map(self.transform).stage(stage).into(self.output, name=self.name)

    def advance(self, graph: Graph, epoch: int) -> None:
        """Begin an epoch: results of the ones before pass."""
        graph.publish(self.epochs, epoch, epoch=epoch)
