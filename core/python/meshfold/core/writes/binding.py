"""Write bindings: five routes of one device parameter, and the shadow that relates them.

    request --> desired      what was asked for, in the same turn
    reported --> effective   what the device says, and what therefore holds

A write is known by the id of its request. Who reports or acknowledges names that event as the (last) parent, so a device
that does something else than asked - a clamp - is understood, and an echo of an older write is not taken for this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from meshfold._native import own, publish_owned
from meshfold.core.errors import WiringError
from meshfold.core.event import Event
from meshfold.core.operator import Operator
from meshfold.core.pipeline import Pipeline
from meshfold.core.registry import Taint
from meshfold.core.route import Route, route
from meshfold.core.schema import Schema
from meshfold.core.stage import Port, Stage

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("Shadow", "ShadowState", "WriteBinding")

I = TypeVar("I")
O = TypeVar("O")


@dataclass(frozen=True)
class WriteBinding(Generic[I, O]):
    """The routes of one parameter. Make one with `logical`.

    :param reconcile: what an observation means as an intent; needed where both have different schemas
    :param write_ids: whether the device names the write that it answers; without, equal values are all there is to go by
    :param fire_and_forget: nobody reports: what is desired is taken for effective, tainted COHERENCE_WRITE_PENDING for good
    :param report_within: seconds after which a request without a report makes the reported value count as stale
    :raises WiringError: if the routes do not belong together, or schemas differ and no `reconcile` relates them
    """

    request: Route[I]
    desired: Route[I]
    reported: Route[O]
    effective: Route[I]
    override: Route[I]
    ack: Route[bool] | None = None
    reconcile: Callable[[O], I] | None = None
    write_ids: bool = True
    fire_and_forget: bool = False
    report_within: float | None = None

    def __post_init__(self) -> None:
        routes: list[Route[Any]] = [self.request, self.desired, self.reported, self.effective]
        if len({(r.addr.owner, r.addr.family, r.addr.stream) for r in routes}) > 1:
            raise WiringError(
                "the routes of a write binding are of different streams",
                fix="give them one owner, family and stream",
                item=self.request.text,
            )
        if len({r.schema.id for r in (self.request, self.desired, self.effective)}) > 1:
            raise WiringError(
                f"request, desired and effective of {self.request.text} have different schemas",
                fix="use the intent's schema for all three",
                item=self.request.text,
            )
        if self.reconcile is None and self.reported.schema.id != self.request.schema.id:
            raise WiringError(
                f"{self.reported.text} reports {self.reported.schema.name}, not {self.request.schema.name}",
                fix="give reconcile=: what an observation means as an intent",
                item=self.reported.text,
            )

    @classmethod
    def logical(
        cls,
        owner: str,
        family: str,
        stream: str,
        *,
        schema: Schema[I],
        observation_schema: Schema[Any] | None = None,
        acknowledged: bool = True,
        **options: Any,
    ) -> WriteBinding[I, Any]:
        """The usual routes of a parameter: the request on the logical layer, the rest in its shadow.

        :param schema: of what is asked for
        :param observation_schema: of what is reported, where that is another
        :param acknowledged: whether there is an acknowledgement route
        :param options: `reconcile`, `write_ids`, `fire_and_forget`, `report_within`
        :raises WiringError: as `WriteBinding`
        """

        def at(variant: str, of: Schema[Any], layer: str = "shadow") -> Route[Any]:
            return route(owner, family, stream, schema=of, plane="write", layer=layer, variant=variant)

        return cls(
            request=at("request", schema, "logical"),
            desired=at("desired", schema),
            reported=at("reported", observation_schema or schema),
            effective=at("effective", schema),
            override=at("effective", schema, "internal"),
            ack=at("ack", Schema.bool()) if acknowledged else None,
            **options,
        )


@dataclass(frozen=True, slots=True)
class ShadowState(Generic[I, O]):
    """A parameter at one moment. `write` is the id of the newest request; `by` says how answers are recognized."""

    write: str | None
    desired: Event[I] | None
    reported: Event[O] | None
    effective: Event[I] | None
    ack: Event[bool] | None
    coherence: tuple[str, ...]
    by: Literal["write ids", "values"]
    requests: int
    unmatched: int


class Shadow(Operator, Generic[I, O]):
    """An installed write binding: the only one that may write its reported and effective routes (S18).

    Made by `Graph.bind`. Closing gives the routes up.
    """

    def __init__(self, graph: Graph, edge: int, binding: WriteBinding[I, O]) -> None:
        super().__init__(graph, edge)
        self.binding = binding
        #: whether it still owns its routes
        self.open = True
        for r in self._owned():
            own(graph, r, True)

    def _owned(self) -> Sequence[Route[Any]]:
        b = self.binding
        owned: list[Route[Any]] = [b.desired, b.reported, b.effective, b.override]
        return owned if b.ack is None else [*owned, b.ack]

    def request(self, value: I, **envelope: Any) -> Event[I]:
        """Ask for a value; `desired` has it when this returns. The event's id is the write's.

        :raises EncodeError: if the value does not fit; nothing was asked for
        """
        return self._graph.publish(self.binding.request, value, **envelope)

    def report(self, value: O, *, cause: Event[I] | str | None = None, **envelope: Any) -> Event[O]:
        """Say what the device does now.

        :param cause: the request that it answers; None: nobody asked
        :raises EncodeError: if the value does not fit
        """
        return publish_owned(self._graph, self.binding.reported, value, parents=_parents(cause), **envelope)

    def acknowledge(self, cause: Event[I] | str, *, accepted: bool = True) -> Event[bool]:
        """Say that a request was received, and whether it will be acted on.

        :raises WiringError: if the binding has no acknowledgement route
        """
        if self.binding.ack is None:
            raise WiringError(
                f"{self.binding.request.text} has no acknowledgement route",
                fix="make the binding with acknowledged=True",
                item="ack",
            )
        return publish_owned(self._graph, self.binding.ack, accepted, parents=_parents(cause))

    def set_effective(self, value: I, *, parents: Iterable[Event[Any] | str] = ()) -> Event[I]:
        """Say what holds, against what was reported.

        :raises EncodeError: if the value does not fit
        """
        return publish_owned(self._graph, self.binding.override, value, parents=list(parents))

    def accept(self) -> Event[I] | None:
        """Take the newest report for what holds, whoever caused it; None if there is none."""
        reported = self._graph.latest(self.binding.reported)
        if reported is None:
            return None
        value: Any = reported.value
        if self.binding.reconcile is not None:
            value = self.binding.reconcile(value)
        return self.set_effective(value, parents=[reported])

    def device(self, apply: Callable[[I], O]) -> Operator:
        """Let a function be the device: it is called with each value asked for, and what it returns is reported.

        It runs in the engine's order and is seen in `operators()`, so that a loop through it is found (S22).

        :raises WiringError: if it would close a loop that nothing cuts
        """
        b = self.binding
        pipe: Pipeline[I] = Pipeline(self._graph, b.request, label="device")
        return pipe.map(apply).into(b.reported, name=f"device {b.request.text}")

    def state(self) -> ShadowState[I, O]:
        """The parameter now.

        :raises WiringError: if it was closed
        """
        stage = self.describe().stages[-1]
        b, graph = self.binding, self._graph
        bits = stage.gauges["coherence"]
        request = graph.latest(b.request)
        return ShadowState(
            write=None if request is None else request.id,
            desired=graph.latest(b.desired),
            reported=graph.latest(b.reported),
            effective=graph.latest(b.effective),
            ack=None if b.ack is None else graph.latest(b.ack),
            coherence=tuple(name for place, name in enumerate(Taint) if bits >> place & 1),
            by="write ids" if b.write_ids else "values",
            requests=stage.gauges["requests"],
            unmatched=stage.gauges["unmatched"],
        )

    def close(self) -> None:
        """Give the routes up. Idempotent."""
        if self.open:
            self.open = False
            for r in self._owned():
                own(self._graph, r, False)
        super().close()


def install(graph: Graph, binding: WriteBinding[I, O]) -> Shadow[I, O]:
    """Install a binding; a retained request that was not projected yet is projected now, once (S18)."""
    for info in graph.operators():
        if any(stage.kind == "shadow" for stage in info.stages) and info.sink == binding.effective:
            raise WiringError(
                f"{binding.request.text} is bound already", fix="use that binding", item=binding.request.text
            )
    request, desired = graph.latest(binding.request), graph.latest(binding.desired)
    projected = request is not None and desired is not None and request.id in desired.parents
    ports = [Port(1, binding.request, replay=not projected), Port(3, binding.override)]
    if binding.ack is not None:
        ports.append(Port(2, binding.ack))
    config = {
        "write_ids": binding.write_ids,
        "fire_and_forget": binding.fire_and_forget,
        "report_within": int((binding.report_within or 0) * 1e9),
    }
    pipe: Pipeline[Any] = Pipeline(graph, binding.reported, label="shadow")
    if binding.reconcile is not None:
        pipe = pipe.map(binding.reconcile)
    stage = Stage("shadow", config, tuple(ports), {"desired": binding.desired})
    operator = pipe.stage(stage).into(binding.effective, name=f"shadow {binding.request.text}")
    return Shadow(graph, operator.id, binding)


def _parents(cause: Event[Any] | str | None) -> list[Event[Any] | str]:
    return [] if cause is None else [cause]
