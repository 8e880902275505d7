"""The part of `Graph` that writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from meshfold.core.credit_cycles import credit_cycles
from meshfold.core.elements import Elements
from meshfold.core.errors import WiringError
from meshfold.core.event import Event
from meshfold.core.operator import Operator
from meshfold.core.pipeline import Pipeline
from meshfold.core.route import Route
from meshfold.core.stage import Port, Stage
from meshfold.core.writes.binding import Shadow, ShadowState, WriteBinding, install
from meshfold.core.writes.guarded import GuardedWrite, RetryPolicy, Scheduler, SchedulerRun, SchedulerSnapshot
from meshfold.core.writes.loop import ControlLoop, Frame, Missing

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.stores.keyspace import Keyspace

__all__ = ("Problem", "Writes")

T = TypeVar("T")
I = TypeVar("I")
O = TypeVar("O")
#: What makes a write one that waits.
_GUARDS: Final = frozenset(
    {
        "after_ack",
        "ack_route",
        "dead_letter",
        "expires_at_epoch",
        "needs_credit",
        "not_before",
        "not_before_epoch",
        "retry",
        "watermark",
    }
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that `validate_graph` found: what, where, and what to do."""

    what: str
    route: str
    fix: str


class Writes(Elements):
    """The part of `Graph` that installs write bindings, guarded writes and control loops."""

    _scheduler: Scheduler | None
    _shadows: dict[Route[Any], Shadow[Any, Any]]
    _loops: dict[str, ControlLoop]

    def bind(self, binding: WriteBinding[I, O]) -> Shadow[I, O]:
        """Install a write binding (S17, S18). A request that is retained and was not projected yet is projected now.

        :raises WiringError: if its request is bound already, or it would close a loop that nothing cuts
        """
        shadow = install(self._graph(), binding)
        self._writes()[binding.request] = shadow
        return shadow

    def shadow_state(self, binding: WriteBinding[I, O]) -> ShadowState[I, O]:
        """What was asked for, reported and holds, with the coherence of it all (S17).

        :raises WiringError: if the binding is not installed
        """
        return self._shadow(binding).state()

    def reconcile_write_binding(
        self,
        binding: WriteBinding[I, O],
        *,
        reported: O | None = None,
        effective: I | None = None,
        ack: bool | None = None,
        cause: Event[I] | str | None = None,
    ) -> ShadowState[I, O]:
        """Publish what a device answered, together: all of it, or an error and none of it.

        :param cause: the request that it answers; None: the newest
        :raises WiringError: if the binding is not installed, has no acknowledgement route, or nothing was asked for
        :raises EncodeError: if a value does not fit
        """
        shadow = self._shadow(binding)
        request = cause if cause is not None else self._graph().latest(binding.request)
        if ack is not None and (binding.ack is None or request is None):
            raise WiringError(
                f"{binding.request.text} has no {'acknowledgement route' if binding.ack is None else 'request'}",
                fix="leave ack out",
                item="ack",
            )
        if reported is not None:
            binding.reported.encode_value(reported)
        if effective is not None:
            binding.effective.encode_value(effective)
        if ack is not None and request is not None:
            shadow.acknowledge(request, accepted=ack)
        if reported is not None:
            shadow.report(reported, cause=request)
        if effective is not None:
            shadow.set_effective(effective, parents=[] if request is None else [request])
        return shadow.state()

    def shadows(self) -> list[Shadow[Any, Any]]:
        """The installed write bindings, in the order they were made."""
        return [shadow for shadow in self._writes().values() if shadow.open]

    def _shadow(self, binding: WriteBinding[I, O]) -> Shadow[I, O]:
        shadow = self._writes().get(binding.request)
        if shadow is None:
            raise WiringError(
                f"{binding.request.text} is not bound here", fix="bind it first", item=binding.request.text
            )
        return cast("Shadow[I, O]", shadow)

    def write(
        self, target: WriteBinding[I, Any] | Shadow[I, Any] | Route[I], value: I, **guards: Any
    ) -> Event[I] | GuardedWrite[I]:
        """Ask for a value: publish a request on a binding, by its routes or by its request route.

        With guards it waits for them as `publish_guarded` does, with the binding's acknowledgement route where it has one;
        without, `desired` has it when this returns.

        :param guards: those of `publish_guarded`, or what `publish` takes
        :raises WiringError: if nothing is bound there: a request that nobody projects reaches no device
        :raises EncodeError: if the value does not fit; nothing was asked for
        :raises QueueFull: if 2048 guarded writes wait
        """
        if isinstance(target, Shadow):
            target = target.binding
        request: Route[I] = target if isinstance(target, Route) else target.request
        shadow = self._writes().get(request)
        if shadow is None or not shadow.open:
            raise WiringError(
                f"{request.text} is not bound here", fix="bind it with graph.bind", item=request.text
            )
        if guards.keys() & _GUARDS:
            if guards.get("retry") is not None:
                guards.setdefault("ack_route", shadow.binding.ack)
            return self.publish_guarded(request, value, **guards)
        made: Event[I] = shadow.request(value, **guards)
        return made

    def publish_guarded(
        self,
        target: Route[T],
        value: T,
        *,
        not_before_epoch: int | None = None,
        not_before: int | None = None,
        watermark: tuple[Route[int], int] | None = None,
        after_ack: Route[Any] | None = None,
        needs_credit: bool = False,
        expires_at_epoch: int | None = None,
        ack_route: Route[Any] | None = None,
        retry: RetryPolicy | None = None,
        dead_letter: Route[T] | None = None,
        parents: Iterable[Event[Any] | str] = (),
    ) -> GuardedWrite[T]:
        """Publish a value once all guards hold, in a run of the scheduler (S19).

        :param not_before: ns of the graph's clock
        :param watermark: the integer on that route has reached that number
        :param after_ack: something newer than now is on that route
        :param expires_at_epoch: the last epoch in which it may go
        :param ack_route: where it is acknowledged; what is there now does not count
        :param retry: tried again until acknowledged
        :param dead_letter: gets the value if it expires or is never acknowledged
        :raises EncodeError: if the value does not fit
        :raises QueueFull: if 2048 writes wait
        :raises WiringError: if it is to be tried again without an `ack_route`
        """
        return self.scheduler().put(
            target,
            value,
            not_before_epoch=not_before_epoch,
            not_before=not_before,
            watermark=watermark,
            after_ack=after_ack,
            needs_credit=needs_credit,
            expires_at_epoch=expires_at_epoch,
            ack_route=ack_route,
            retry=retry,
            dead_letter=dead_letter,
            parents=parents,
        )

    def keep_guarded_writes(self, store: Keyspace, *routes: Route[Any]) -> int:
        """Keep guarded writes in a store from now on, and take up those that wait there; returns how many.

        From here on a write is on the disk when `publish_guarded` returns, and it goes on waiting after a restart of a graph
        of the same name. One that a crash left on its way is sent again, tainted DELIVERY_DUPLICATED. Epochs go on, too.

        :param routes: those that kept writes name; routes that the graph knows need not be given
        :raises WiringError: if writes wait here already, or one in the store names a route that nobody knows
        :raises SchemaMismatch: if such a route has another schema now
        :raises StoreDamaged: if what lies there is no write
        """
        return self.scheduler().keep(store, routes)

    def scheduler(self) -> Scheduler:
        """The guarded writes of this graph."""
        if self._scheduler is None:
            self._scheduler = Scheduler(self._graph())
        return self._scheduler

    def run_scheduler(self, epoch: int | None = None) -> SchedulerRun:
        """Run one epoch of guarded writes. Raises as `Scheduler.run`."""
        return self.scheduler().run(epoch)

    def scheduler_snapshot(self) -> SchedulerSnapshot:
        """What guarded writes wait for."""
        return self.scheduler().snapshot()

    def control_loop(
        self,
        name: str,
        *,
        reads: Iterable[Route[Any]],
        writes: Iterable[Route[Any]],
        step: Callable[[Frame], Mapping[Route[Any], Any]],
        missing: Missing = "skip",
        max_age: float | None = None,
    ) -> ControlLoop:
        """Make a control loop (S20). It runs when `run` is called, or by an epoch route that it follows.

        :raises WiringError: if a loop of that name exists, or `missing` is unknown
        """
        if missing not in ("hold", "skip", "expire"):
            raise WiringError(
                f"unknown policy {missing!r}", fix="use 'hold', 'skip' or 'expire'", item="missing"
            )
        if name in self._loops:
            raise WiringError(f"a loop named {name} exists", fix="use another name", item=name)
        loop = ControlLoop(self._graph(), name, tuple(reads), tuple(writes), step, missing, max_age)
        for r in (*loop.reads, *loop.writes):
            self.declare(r)
        self._loops[name] = loop
        return loop

    def forget_loop(self, loop: ControlLoop) -> None:
        """Take a control loop out of the graph; `loop.close()` does."""
        if self._loops.get(loop.name) is loop:
            del self._loops[loop.name]

    def control_loops(self) -> list[ControlLoop]:
        """All control loops, by name."""
        return [self._loops[name] for name in sorted(self._loops)]

    def await_ack(
        self,
        source: Route[T],
        binding: WriteBinding[T, Any],
        *,
        waiting_max: int = 1,
        name: str | None = None,
    ) -> Operator:
        """Request each value of `source`, one at a time: the next when *its* acknowledgement has come (S22).

        What waits meanwhile is bounded; of more, the newest replaces the one before, counted as `coalesced`.

        :raises WiringError: if the binding has no acknowledgement route
        """
        if binding.ack is None:
            raise WiringError(
                f"{binding.request.text} has no acknowledgement route", fix="make one", item="ack"
            )
        stage = Stage(
            "await_ack", {"waiting_max": waiting_max}, (Port(1, binding.ack), Port(2, binding.request))
        )
        pipe: Pipeline[T] = Pipeline(self._graph(), source, (stage,), label="ack boundary")
        return pipe.into(binding.request, name=name)

    def validate_graph(self) -> list[Problem]:
        """What is wired, but not as it should be. Loops that nothing cuts are refused when they are made (S5, S22)."""
        graph = self._graph()
        bound = {r for r, shadow in self._writes().items() if shadow.open}
        problems = [
            Problem("requests that no write binding projects", r.text, "install one with graph.bind")
            for r in graph.routes()
            if r.addr.plane == "write" and r.addr.variant == "request" and r not in bound
        ]
        for cycle in credit_cycles(graph):
            around = " -> ".join((*cycle, cycle[0]))
            what = f"every queue of the loop {around} holds its producers up: when all are full nothing moves"
            problems.append(
                Problem(what, cycle[0], "let one of them drop, coalesce or spill, or cut it by an epoch")
            )
        return problems

    def credit_for(self, r: Route[Any]) -> int:
        """How many events may be published on the route now without waiting."""
        return self._graph().room_for(r)

    def _graph(self) -> Graph:
        return cast("Graph", self)

    def _writes(self) -> dict[Route[Any], Shadow[Any, Any]]:
        return self._shadows
