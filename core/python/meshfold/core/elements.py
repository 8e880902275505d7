"""Flow elements: operators that hold, release, watch and thin out what flows (S9, S10, S11).

They run in the engine. Each is in `graph.operators()` with its figures, and closing it takes it off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, cast

from meshfold._native import GraphBase
from meshfold.core.errors import WiringError
from meshfold.core.operator import Operator
from meshfold.core.pipeline import Pipeline
from meshfold.core.route import Route, require_same_schema
from meshfold.core.stage import Port, Stage

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("Elements", "RateMatchedSensor", "RateMode")

T = TypeVar("T")
RateMode = Literal["latest", "drop_oldest", "reject"]
#: What a capacitor calls its overflow rules -> what the engine calls them.
_OVERFLOW: Final = {
    "latest": "coalesce_latest",
    "coalesce": "coalesce_latest",
    "drop_oldest": "drop_oldest",
    "reject": "reject",
}
_PROGRESS: Final = ("auto", "epoch", "seq", "time", "value")


class Elements(GraphBase):
    """The part of `Graph` that installs flow elements."""

    def capacitor(
        self,
        source: Route[T],
        sink: Route[T],
        *,
        capacity: int = 1,
        demand: Route[Any] | None = None,
        immediate: bool = False,
        overflow: str = "latest",
        upstream: Route[int] | None = None,
        rejected: Route[T] | None = None,
        replay_latest: bool = True,
        name: str | None = None,
    ) -> Operator:
        """Hold up to `capacity` events of `source`; each event of `demand` lets the oldest pass to `sink` (S9).

        Demand without anything held is remembered, up to `capacity`. An emission keeps epoch and trace and has the held
        event as parent; after a loss the next one is tainted DELIVERY_DROPPED or DELIVERY_COALESCED.

        :param immediate: let everything pass at once, instead of `demand`
        :param overflow: when full: `latest` replaces the newest held, `drop_oldest` the oldest, `reject` refuses the new
        :param upstream: gets how many more events there is room for, whenever that changes
        :param rejected: gets what `reject` refused, so that the producer can act
        :raises WiringError: with both or neither of `demand` and `immediate`, for an unknown overflow rule or a capacity
            that is not 1 to 1048576, or if it would close a cycle
        """
        require_same_schema(source, sink, "use one schema on both sides")
        if overflow not in _OVERFLOW:
            raise WiringError(
                f"unknown overflow rule {overflow!r}",
                fix=f"use one of {', '.join(_OVERFLOW)}",
                item="overflow",
            )
        config = {
            "capacity": capacity,
            "overflow": _OVERFLOW[overflow],
            "demand": demand is not None,
            "immediate": immediate,
        }
        ports = () if demand is None else (Port(1, demand),)
        sides: dict[str, Route[Any]] = {}
        if upstream is not None:
            sides["upstream"] = upstream
        if rejected is not None:
            sides["rejected"] = rejected
        stage = Stage("capacitor", config, ports, sides)
        pipe: Pipeline[T] = Pipeline(_whole(self), source, (stage,), replay=replay_latest, label="capacitor")
        return pipe.into(sink, name=name)

    def resistor(
        self,
        source: Route[T],
        sink: Route[T],
        *,
        gate: Callable[[T], bool] | Route[bool] | None = None,
        release: Route[Any] | None = None,
        repeat: Literal["once", "hold"] = "once",
        replay_latest: bool = True,
        name: str | None = None,
    ) -> Operator:
        """Let values of `source` pass to `sink` when a gate admits them and, with `release`, when it pulses (S10).

        Of admitted values the last is held; overwritten ones are counted as sampled and taint the next emission. A pulse
        with nothing held is not remembered. A gate that raises discards the value and is counted.

        :param gate: a function of the value, or a route whose latest bool opens or closes
        :param repeat: what a second pulse without a newer value does: nothing, or emit again, DELIVERY_DUPLICATED
        :raises WiringError: for an unknown `repeat`, or if it would close a cycle
        """
        require_same_schema(source, sink, "use one schema on both sides")
        if repeat not in ("once", "hold"):
            raise WiringError(f"unknown repeat {repeat!r}", fix="use 'once' or 'hold'", item="repeat")
        pipe: Pipeline[Any] = Pipeline(_whole(self), source, replay=replay_latest, label="resistor")
        ports: list[Port] = [] if release is None else [Port(1, release)]
        if isinstance(gate, Route):
            ports.append(Port(2, gate, replay=True))
        elif gate is not None:
            pipe = pipe.filter(gate)
        config = {"release": release is not None, "repeat": repeat == "hold"}
        return pipe.stage(Stage("resistor", config, tuple(ports))).into(sink, name=name)

    def watchdog(
        self,
        reset_by: Route[Any],
        output: Route[T],
        *,
        after: float,
        clock: Route[Any] | None = None,
        progress: Literal["auto", "epoch", "seq", "time", "value"] = "auto",
        pulse: T | None = None,
        name: str | None = None,
    ) -> Operator:
        """Publish `pulse` once when `clock` has moved on by `after` since the last event of `reset_by` (S11).

        The wait begins at the clock's first event; a reset arms again. Without a clock `after` is in seconds of the
        graph's clock, and the wait begins now.

        :param after: units of the clock's progress, or seconds
        :param progress: what of a clock event counts: its control epoch, number, device time (ns) or integer value;
            `auto` is the epoch if the first event has one, else the number
        :param pulse: a bool, number, text or bytes of the output's schema; None: `timeout`
        :raises WiringError: for an unknown `progress`, or `after` not above 0
        :raises EncodeError: if the pulse does not fit the output's schema
        """
        if progress not in _PROGRESS:
            raise WiringError(
                f"unknown progress {progress!r}", fix=f"use one of {', '.join(_PROGRESS)}", item="progress"
            )
        value: Any = pulse
        if value is None:
            value = "timeout" if output.schema.kind == "str" else b"timeout"
        output.encode_value(value)
        config = {
            "after": int(after * 1e9) if clock is None else int(after),
            "clock": clock is not None,
            "progress": progress,
            "pulse": {"bytes": list(value)} if isinstance(value, bytes) else value,
            "since": self.now_ns(),
        }
        ports = () if clock is None else (Port(1, clock, replay=True),)
        pipe: Pipeline[Any] = Pipeline(
            _whole(self), reset_by, (Stage("watchdog", config, ports),), label="watchdog"
        )
        return pipe.into(output, name=name)


@dataclass(frozen=True, slots=True)
class RateMatchedSensor(Generic[T]):
    """A source whose reader sets the pace: a capacitor that is asked by `demand`.

    :param mode: what becomes of values nobody asked for in time; losses are counted and taint the next value
    """

    source: Route[T]
    sink: Route[T]
    demand: Route[Any]
    capacity: int = 1
    mode: RateMode = "latest"

    def install(self, graph: Graph) -> Operator:
        """Install it. Raises as `Graph.capacitor`."""
        return graph.capacitor(
            self.source, self.sink, capacity=self.capacity, demand=self.demand, overflow=self.mode
        )


def _whole(graph: GraphBase) -> Graph:
    return cast("Graph", graph)
