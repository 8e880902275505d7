"""Guarded writes: published when their guards hold, tried again until acknowledged, given up when they expire (S19).

The scheduler moves by epochs, which only go forward. It is run by hand, or by an epoch route that it follows. A write that
ends without success is told on the debug plane with its reason, and put on its dead-letter route where it has one.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from meshfold._native import publish_owned
from meshfold.core.errors import QueueFull, WiringError
from meshfold.core.event import Event
from meshfold.core.route import Route, route
from meshfold.core.schema import Schema
from meshfold.core.stream import Edge
from meshfold.core.writes.kept import Kept, KeptWrites

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.stores.keyspace import Keyspace

__all__ = ("GuardedWrite", "RetryPolicy", "Scheduler", "SchedulerRun", "SchedulerSnapshot")

T = TypeVar("T")
#: Writes that may wait; one more is refused.
PENDING_MAX: Final = 2048
Outcome = Literal["sent", "acknowledged", "expired", "exhausted"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When an unacknowledged write is tried again: not before `backoff` + 1 epochs and `seconds` after the last attempt.

    :param max_attempts: the first one included
    :param factor: by which the backoff grows with each attempt
    :param jitter: epochs added, different for each write and attempt and the same in each run
    """

    max_attempts: int = 1
    backoff: int = 0
    factor: float = 1.0
    max_backoff: int = 1024
    jitter: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if (
            self.max_attempts < 1
            or self.backoff < 0
            or self.factor < 1
            or self.jitter < 0
            or self.seconds < 0
        ):
            raise WiringError(
                "a retry policy has at least one attempt, a factor of at least 1 and nothing below 0",
                item="retry",
            )

    @classmethod
    def never(cls) -> RetryPolicy:
        """One attempt."""
        return cls()

    @classmethod
    def immediate(cls, max_attempts: int) -> RetryPolicy:
        """Each epoch."""
        return cls(max_attempts)

    @classmethod
    def fixed_backoff(cls, max_attempts: int, backoff_epochs: int) -> RetryPolicy:
        """After the same number of epochs each time."""
        return cls(max_attempts, backoff_epochs)

    @classmethod
    def exponential(cls, max_attempts: int, backoff_epochs: int = 1, *, max_backoff: int = 64) -> RetryPolicy:
        """After twice as many epochs each time, with as much jitter as the first backoff."""
        return cls(max_attempts, backoff_epochs, 2.0, max_backoff, backoff_epochs)

    def wait(self, write: int, attempts: int) -> int:
        """Epochs between attempt number `attempts` and the next."""
        backoff = min(int(self.backoff * self.factor ** (attempts - 1)), self.max_backoff)
        if self.jitter:
            digest = hashlib.sha256(f"{write}.{attempts}".encode()).digest()
            backoff += int.from_bytes(digest[:4], "big") % (self.jitter + 1)
        return backoff + 1


@dataclass(slots=True)
class GuardedWrite(Generic[T]):
    """A write that waits. `baseline` is the newest acknowledgement when it was put in: only a newer one counts."""

    number: int
    target: Route[T]
    value: T
    not_before_epoch: int
    not_before: int | None
    watermark: tuple[Route[int], int] | None
    after_ack: Route[Any] | None
    ack_route: Route[Any] | None
    needs_credit: bool
    expires_at_epoch: int | None
    retry: RetryPolicy
    dead_letter: Route[T] | None
    parents: list[str]
    baseline: tuple[bytes, bytes, int] | None
    after_baseline: tuple[bytes, bytes, int] | None
    attempts: int = 0
    last_epoch: int = 0
    last_time: int = 0
    sent: Event[T] | None = None
    #: it may have gone out in an earlier life
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class SchedulerRun:
    """What one run did: the epoch it ran as, what was published, and what ended, by outcome."""

    epoch: int
    sent: tuple[Event[Any], ...]
    ended: dict[Outcome, int]


@dataclass(frozen=True, slots=True)
class SchedulerSnapshot:
    """The scheduler now. Each row: write, target, the guards it still waits for, attempts, earliest epoch of the next."""

    epoch: int
    pending: tuple[tuple[int, str, tuple[str, ...], int, int], ...]
    ended: dict[Outcome, int]
    pending_max: int = PENDING_MAX


class Scheduler:
    """The guarded writes of one graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._lock = threading.RLock()
        self._pending: list[GuardedWrite[Any]] = []
        self._number = 0
        self._ended: dict[Outcome, int] = {"sent": 0, "acknowledged": 0, "expired": 0, "exhausted": 0}
        #: the epoch of the last run
        self.epoch = 0
        self._kept: KeptWrites | None = None

    def keep(self, store: Keyspace, routes: Iterable[Route[Any]]) -> int:
        """Keep what waits in a store from now on; see `Graph.keep_guarded_writes`."""
        kept = KeptWrites(store, self._graph.name)
        with self._lock:
            if self._kept is not None or self._pending:
                raise WiringError(
                    "guarded writes wait here already",
                    fix="keep them before the first is put in",
                    item="store",
                )
            found = kept.load(self._graph, {r.addr.tag: r for r in routes})
            for number, was, at in found:
                self._pending.append(_restored(number, was, at))
                self._number = max(self._number, number)
            self.epoch = max(self.epoch, kept.epoch)
            self._kept = kept
        return len(found)

    def put(self, target: Route[T], value: T, **guards: Any) -> GuardedWrite[T]:
        """Put a write in; see `Graph.publish_guarded`."""
        target.encode_value(value)
        ack, after = guards.get("ack_route"), guards.get("after_ack")
        retry: RetryPolicy = guards.get("retry") or RetryPolicy.never()
        if retry.max_attempts > 1 and ack is None:
            raise WiringError(
                "a write that is tried again needs to know when to stop",
                fix="give ack_route=",
                item="ack_route",
            )
        with self._lock:
            if len(self._pending) >= PENDING_MAX:
                raise QueueFull(
                    f"{PENDING_MAX} guarded writes wait already",
                    fix="run the scheduler, or let them expire",
                    route=target.text,
                    capacity=PENDING_MAX,
                )
            self._number += 1
            write = GuardedWrite(
                number=self._number,
                target=target,
                value=value,
                not_before_epoch=guards.get("not_before_epoch") or 0,
                not_before=guards.get("not_before"),
                watermark=guards.get("watermark"),
                after_ack=after,
                ack_route=ack,
                needs_credit=bool(guards.get("needs_credit")),
                expires_at_epoch=guards.get("expires_at_epoch"),
                retry=retry,
                dead_letter=guards.get("dead_letter"),
                parents=[p if isinstance(p, str) else p.id for p in guards.get("parents") or ()],
                baseline=self._mark(ack),
                after_baseline=self._mark(after),
            )
            self._note([(write, False)], [])
            self._pending.append(write)
            return write

    def _note(self, writes: Iterable[tuple[GuardedWrite[Any], bool]], gone: Iterable[int]) -> None:
        if self._kept is not None:
            self._kept.note(writes, gone, self.epoch)

    def cancel(self, write: GuardedWrite[Any]) -> bool:
        """Take a write out; whether it was still in."""
        with self._lock:
            there = write in self._pending
            if there:
                self._note([], [write.number])
                self._pending.remove(write)
            return there

    def _mark(self, r: Route[Any] | None) -> tuple[bytes, bytes, int] | None:
        latest = None if r is None else self._graph.latest(r)
        return None if latest is None else (latest.producer, latest.incarnation, latest.seq)

    def _newer(self, r: Route[Any], baseline: tuple[bytes, bytes, int] | None) -> bool:
        now = self._mark(r)
        if now is None or now == baseline:
            return False
        return baseline is None or now[:2] != baseline[:2] or now[2] > baseline[2]

    def missing(self, write: GuardedWrite[Any], epoch: int) -> tuple[str, ...]:
        """The guards of a write that do not hold in that epoch."""
        found: list[str] = []
        if epoch < write.not_before_epoch:
            found.append(f"not_before_epoch:{write.not_before_epoch}")
        now = self._graph.now_ns()
        if write.not_before is not None and now < write.not_before:
            found.append(f"not_before:{write.not_before}")
        if write.watermark is not None:
            latest = self._graph.latest(write.watermark[0])
            if latest is None or latest.value < write.watermark[1]:
                found.append(f"watermark:{write.watermark[1]}")
        if write.after_ack is not None and not self._newer(write.after_ack, write.after_baseline):
            found.append(f"after_ack:{write.after_ack.text}")
        if write.needs_credit and self._graph.credit_for(write.target) == 0:
            found.append("credit")
        if write.attempts:
            next_epoch = write.last_epoch + write.retry.wait(write.number, write.attempts)
            if epoch < next_epoch or now < write.last_time + int(write.retry.seconds * 1e9):
                found.append(f"backoff:{next_epoch}")
        return tuple(found)

    def run(self, epoch: int | None = None) -> SchedulerRun:
        """Run one epoch: publish what may go, end what is acknowledged, expired or exhausted. In the order put in.

        :param epoch: None: the next
        :raises WiringError: if the epoch is not after the last one
        """
        with self._lock:
            now = self.epoch + 1 if epoch is None else epoch
            if now <= self.epoch:
                raise WiringError(
                    f"epoch {now} is not after {self.epoch}", fix="epochs only move forward", item="epoch"
                )
            self.epoch = now
            before = dict(self._ended)
            sent: list[Event[Any]] = []
            done: list[int] = []
            for write in list(self._pending):
                outcome = self._advance(write, now, sent)
                if outcome is not None:
                    self._pending.remove(write)
                    self._ended[outcome] += 1
                    done.append(write.number)
            changed = [(write, False) for write in self._pending if write.last_epoch == now]
            self._note(changed, done)
            ended: dict[Outcome, int] = {
                name: count - before[name] for name, count in self._ended.items() if count > before[name]
            }
            return SchedulerRun(now, tuple(sent), ended)

    def _advance(self, write: GuardedWrite[Any], epoch: int, sent: list[Event[Any]]) -> Outcome | None:
        if write.attempts and write.ack_route is not None and self._newer(write.ack_route, write.baseline):
            return "acknowledged"
        if write.expires_at_epoch is not None and epoch > write.expires_at_epoch:
            self._give_up(write, "expired")
            return "expired"
        if write.attempts >= write.retry.max_attempts:
            if epoch < write.last_epoch + write.retry.wait(write.number, write.attempts):
                return None
            self._give_up(write, "exhausted")
            return "exhausted"
        if self.missing(write, epoch):
            return None
        gated = write.not_before_epoch or write.attempts or write.after_ack is not None
        guards = [f"not_before_epoch:{write.not_before_epoch}"] if write.not_before_epoch else []
        if write.expires_at_epoch is not None:
            guards.append(f"expires_at_epoch:{write.expires_at_epoch}")
        taints = ["SCHED_GATED" if gated else "SCHED_READY"]
        if write.repeated:
            taints.append("DELIVERY_DUPLICATED")
            write.repeated = False
        self._note([(write, True)], [])
        event = publish_owned(
            self._graph,
            write.target,
            write.value,
            parents=write.parents,
            epoch=epoch,
            guards=guards,
            taints=taints,
        )
        sent.append(event)
        write.sent, write.last_epoch, write.last_time = event, epoch, self._graph.now_ns()
        write.attempts += 1
        return "sent" if write.ack_route is None else None

    def _give_up(self, write: GuardedWrite[Any], why: Outcome) -> None:
        told = {
            "write": write.number,
            "target": write.target.text,
            "outcome": why,
            "attempts": write.attempts,
        }
        parents = [*write.parents, *([write.sent.id] if write.sent is not None else [])]
        self._graph.publish(debug_route(write.target), told, parents=parents, taints=["SCHED_EXPIRED"])
        if write.dead_letter is not None:
            self._graph.publish(write.dead_letter, write.value, parents=parents, taints=["SCHED_EXPIRED"])

    def snapshot(self) -> SchedulerSnapshot:
        """What waits, and for what: guards are told as of the next epoch."""
        with self._lock:
            rows = [self._row(write) for write in self._pending]
            return SchedulerSnapshot(self.epoch, tuple(rows), dict(self._ended))

    def _row(self, write: GuardedWrite[Any]) -> tuple[int, str, tuple[str, ...], int, int]:
        earliest = max(write.not_before_epoch, self.epoch + 1)
        if write.attempts:
            earliest = max(earliest, write.last_epoch + write.retry.wait(write.number, write.attempts))
        return (
            write.number,
            write.target.text,
            self.missing(write, self.epoch + 1),
            write.attempts,
            earliest,
        )

    def follow(self, epochs: Route[int]) -> Edge:
        """Run whenever the integer on `epochs` grows; one that does not is ignored."""

        def run(event: Event[int]) -> None:
            if event.value > self.epoch:
                self.run(event.value)

        return self._graph.observe(epochs, run)


def _restored(number: int, was: Kept, at: dict[str, Any]) -> GuardedWrite[Any]:
    """A write as it was kept."""
    target: Route[Any] = at["target"]
    return GuardedWrite(
        number=number,
        target=target,
        value=target.decode_value(was.value),
        not_before_epoch=was.not_before_epoch,
        not_before=was.not_before,
        watermark=None if was.watermark is None else (at["watermark"], was.watermark[2]),
        after_ack=at["after_ack"],
        ack_route=at["ack_route"],
        needs_credit=was.needs_credit,
        expires_at_epoch=was.expires_at_epoch,
        retry=RetryPolicy(**was.retry),
        dead_letter=at["dead_letter"],
        parents=was.parents,
        baseline=was.baseline,
        after_baseline=was.after_baseline,
        attempts=was.attempts,
        last_epoch=was.last_epoch,
        last_time=was.last_time,
        repeated=was.sending,
    )


def debug_route(target: Route[Any]) -> Route[dict[str, Any]]:
    """Where is told what became of writes to `target`."""
    addr = target.addr
    return route(
        addr.owner,
        addr.family,
        addr.stream,
        schema=Schema.json(dict[str, Any]),
        plane="debug",
        variant="debug",
    )
