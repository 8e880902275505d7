"""Pipelines: a list of stages that the engine runs as one node of the graph.

A stage is an operator of the engine or a Python function. Functions that follow each other run as one step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from meshfold.core.operator import Operator
from meshfold.core.route import Route

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("Pipeline", "Port", "Stage")

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Port:
    """A route that feeds a port of a stage, by the port's number; with `replay` its latest event counts as an input."""

    number: int
    route: Route[Any]
    replay: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """An operator of the engine by its kind, or (`kind` is `foreign`) a Python function and the way it is called."""

    kind: str
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    ports: tuple[Port, ...] = ()
    sides: Mapping[str, Route[Any]] = field(default_factory=dict[str, "Route[Any]"])
    function: Callable[..., Any] | None = None


class Pipeline(Generic[T]):
    """A description that grows; nothing runs until `into` or `observe` ends it. Immutable."""

    def __init__(
        self,
        graph: Graph,
        source: Route[Any],
        stages: tuple[Stage, ...] = (),
        *,
        replay: bool = False,
        label: str = "pipe",
    ) -> None:
        self._graph = graph
        self._source = source
        self._stages = stages
        self._replay = replay
        self._label = label

    def stage(self, stage: Stage, *, label: str | None = None) -> Pipeline[Any]:
        """Add any stage: the way operators that have no method of their own are used."""
        return Pipeline(
            self._graph,
            self._source,
            (*self._stages, stage),
            replay=self._replay,
            label=label or self._label,
        )

    def map(self, f: Callable[[T], U]) -> Pipeline[U]:
        """Replace each value by `f(value)`. An `f` that raises discards the value; the error is counted (S4)."""
        return self.stage(_function("map", f))

    def filter(self, f: Callable[[T], bool]) -> Pipeline[T]:
        """Keep values for which `f(value)` is true."""
        return self.stage(_function("filter", f))

    def flat_map(self, f: Callable[[T], Iterable[U]]) -> Pipeline[U]:
        """Replace each value by the items of `f(value)`, in order."""
        return self.stage(_function("flat_map", f))

    def distinct(self, *, keys_max: int = 65_536) -> Pipeline[T]:
        """Drop a value that equals the one before it with the same partition key, counted as `coalesced`.

        :param keys_max: partition keys remembered; values of further keys all pass
        """
        return self.stage(Stage("distinct", {"keys_max": keys_max}))

    def coalesce_latest(self, window: float) -> Pipeline[T]:
        """Of all values within `window` seconds after a first one let only the newest pass, at the window's end.

        The others are counted as `coalesced`, and the one that passes is tainted DELIVERY_COALESCED.

        :raises WiringError: at the end of the pipeline, if the window is not above 0
        """
        return self.stage(Stage("coalesce", {"window_ns": int(window * 1e9)}))

    def into(self, sink: Route[T], *, name: str | None = None) -> Operator:
        """Publish the results on `sink`: each with its causes as parents, in their trace, with their taints.

        :raises WiringError: if it would close a cycle, or a stage is wrongly configured
        """
        return self._install(name or f"{self._label} {self._source.text} -> {sink.text}", sink, None)

    def observe(self, fn: Callable[[T], Any], *, name: str | None = None) -> Operator:
        """Call `fn` with each resulting value, inside the turn.

        :raises WiringError: if a stage is wrongly configured
        """
        return self._install(name or f"{self._label} {self._source.text}", None, fn)

    def install(self, *, name: str | None = None) -> Operator:
        """Install it for the side outputs of its stages alone; what leaves the last stage goes nowhere.

        :raises WiringError: if it would close a cycle, or a stage is wrongly configured
        """
        return self._install(name or f"{self._label} {self._source.text}", None, None)

    def _install(self, name: str, sink: Route[Any] | None, observer: Callable[[Any], Any] | None) -> Operator:
        routes: list[Route[Any]] = []

        def place(r: Route[Any]) -> int:
            routes.append(r)
            return len(routes) - 1

        stages: list[dict[str, Any]] = []
        functions: list[list[tuple[str, Callable[..., Any]]]] = []
        inputs: list[dict[str, Any]] = [{"route": place(self._source), "replay": self._replay}]
        sides: list[dict[str, Any]] = []
        for stage in self._stages:
            if stage.function is not None:
                _add_function(stages, functions, stage.config["way"], stage.function)
                continue
            number = len(stages)
            stages.append({"kind": stage.kind, "with": dict(stage.config)})
            for port in stage.ports:
                entry = {
                    "route": place(port.route),
                    "stage": number,
                    "port": port.number,
                    "replay": port.replay,
                }
                inputs.append(entry)
            sides += [{"stage": number, "side": side, "route": place(r)} for side, r in stage.sides.items()]
        spec: dict[str, Any] = {
            "name": name,
            "label": self._label,
            "stages": stages,
            "inputs": inputs,
            "sides": sides,
        }
        if sink is not None:
            spec["sink"] = place(sink)
        return Operator(self._graph, self._graph.install(json.dumps(spec), routes, functions, observer))


def _function(way: str, f: Callable[..., Any]) -> Stage:
    return Stage("foreign", {"way": way}, function=f)


def _add_function(
    stages: list[dict[str, Any]],
    functions: list[list[tuple[str, Callable[..., Any]]]],
    way: str,
    f: Callable[..., Any],
) -> None:
    """Append to the run of functions at the end, or begin one; what fans out ends its run."""
    joins = bool(stages) and stages[-1]["kind"] == "foreign" and functions[-1][-1][0] != "flat_map"
    if joins and way != "spread":
        functions[-1].append((way, f))
    else:
        functions.append([(way, f)])
        stages.append({"kind": "foreign", "function": len(functions) - 1, "with": {"functions": []}})
    stages[-1]["with"]["functions"].append(f"{way} {getattr(f, '__qualname__', type(f).__name__)}")
