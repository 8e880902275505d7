"""Pipelines: a list of stages that the engine runs as one node of the graph.

A stage is an operator of the engine or a Python function. Functions that follow each other run as one step. Event times
are int ns, as events carry them; durations of this host's clock are seconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from meshfold.core.errors import WiringError
from meshfold.core.expressions import Aggregate, Expr
from meshfold.core.operator import Operator
from meshfold.core.route import Route
from meshfold.core.stage import Fold, Port, Stage, combined, computed, nanoseconds

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.values import ValueStream

__all__ = ("Pipeline",)

T = TypeVar("T")
U = TypeVar("U")
#: Routes that one `switch` chooses from.
_CASES_MAX: Final = 16


class Pipeline(Generic[T]):
    """A description that grows; nothing runs until `into`, `observe` or `stream` ends it. Immutable."""

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

    def stage(self, *stages: Stage, label: str | None = None) -> Pipeline[Any]:
        """Add any stages: the way operators that have no method of their own are used."""
        return Pipeline(
            self._graph,
            self._source,
            (*self._stages, *stages),
            replay=self._replay,
            label=label or self._label,
        )

    # Item by item

    @overload
    def map(self, f: Expr | Aggregate) -> Pipeline[Any]: ...

    @overload
    def map(self, f: Callable[[T], U]) -> Pipeline[U]: ...

    def map(self, f: Callable[[T], Any] | Expr | Aggregate) -> Pipeline[Any]:
        """Replace each value by `f(value)`, by an expression, or by an aggregate over the last values of its key.

        An `f` that raises discards the value; the error is counted (S4). Expressions and aggregates run natively.
        """
        return self.stage(computed("map", f, "map"))

    def filter(self, f: Callable[[T], bool] | Expr) -> Pipeline[T]:
        """Keep values for which `f(value)` is true."""
        return self.stage(computed("filter", f, "filter"))

    def flat_map(self, f: Callable[[T], Iterable[U]]) -> Pipeline[U]:
        """Replace each value by the items of `f(value)`, in order."""
        return self.stage(Stage("foreign", {"way": "flat_map"}, function=f))

    def key_by(self, f: Callable[[T], str] | Expr) -> Pipeline[T]:
        """Set the partition key; what keeps a state by key keeps it by this one from here on."""
        return self.stage(computed("key", f, "key"))

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

    def hysteresis(self, low: float, high: float, *, of: Expr | None = None) -> Pipeline[bool]:
        """True from `high` on until the value falls to `low`; a result for the first value and for each change."""
        config: dict[str, Any] = {"low": low, "high": high}
        if of is not None:
            config["of"] = of.form
        return self.stage(Stage("hysteresis", config))

    def do_action(self, f: Callable[[T], Any]) -> Pipeline[T]:
        """Call `f` with each value and let the value pass, whatever `f` returns; if it raises, the value is discarded and
        the error counted (S4)."""

        def act(item: T) -> T:
            f(item)
            return item

        act.__qualname__ = getattr(f, "__qualname__", type(f).__name__)
        return self.stage(computed("map", act, "map"))

    def taint(self, *taints: str) -> Pipeline[T]:
        """Let what passes carry these taints from here on (S28).

        :raises WiringError: at the end of the pipeline, for an unknown taint
        """
        return self.stage(Stage("mark", {"taints": [str(taint) for taint in taints]}))

    # Beginning, end, and choice

    def start_with(self, *values: bool | float | str | bytes) -> Pipeline[T]:
        """Give these values first: when it is installed, before anything that reaches it. They have no parents.

        :raises WiringError: for a value that is no bool, number, text or bytes; at the end of the pipeline, for none or
            more than 1024
        """
        return self.stage(Stage("start_with", {"values": [_literal(value) for value in values]}))

    def take(self, count: int) -> Pipeline[T]:
        """Let the first `count` values pass and no more.

        :raises WiringError: for a count below 0
        """
        if count < 0:
            raise WiringError(f"take {count} values", fix="use at least 0", item="take")
        return self.stage(Stage("take", {"count": count}))

    def take_until(self, end: Route[Any]) -> Pipeline[T]:
        """Let values pass until the first event of `end`."""
        return self.stage(Stage("take", ports=(Port(1, end),)))

    def switch(self, cases: Mapping[Any, Route[U]], *, replay_latest: bool = False) -> Pipeline[U]:
        """Let each value choose a route, and give the values of the one that was chosen last.

        A value that is no case closes all of them. The choice is a cause of what passes: it is a parent, and its taints
        go along (S28).

        :param cases: at most 16 routes by the bool, number, text or bytes that chooses each
        :param replay_latest: the newest value of a route passes when the route is chosen, if it has one
        :raises WiringError: for no or more cases, or a case of another type
        """
        routes = list(cases.values())
        if not 1 <= len(routes) <= _CASES_MAX:
            raise WiringError(f"a switch of {len(routes)} cases", fix=f"use 1 to {_CASES_MAX}", item="switch")
        config = {"cases": [_literal(case) for case in cases], "replay": replay_latest}
        ports = tuple(Port(place, r, replay=replay_latest) for place, r in enumerate(routes, 1))
        return self.stage(Stage("switch", config, ports), label="switch")

    # With a state

    @overload
    def scan(self, f: Aggregate) -> Pipeline[Any]: ...

    @overload
    def scan(self, f: Callable[[U, T], U], initial: U) -> Pipeline[U]: ...

    def scan(self, f: Callable[[Any, T], Any] | Aggregate, initial: Any = None) -> Pipeline[Any]:
        """Replace each value by the state after it: `state = f(state, value)`, or a running aggregate over all.

        Taints of everything that entered the state stay (S28). The state is part of the operator's checkpoint.
        """
        if isinstance(f, Aggregate):
            return self.stage(computed("map", f, "map"))
        fold = Fold(f, initial, pair=False)
        return self.stage(computed("map", fold, "map"), Stage("carry"))

    def stateful_map(self, step: Callable[[U, T], tuple[U, Any]], initial: U) -> Pipeline[Any]:
        """Replace each value by the second of `state, result = step(state, value)`."""
        return self.stage(computed("map", Fold(step, initial, pair=True), "map"), Stage("carry"))

    @overload
    def reduce(self, f: Aggregate, *, trigger: Route[Any]) -> Pipeline[Any]: ...

    @overload
    def reduce(self, f: Callable[[U, T], U], initial: U, *, trigger: Route[Any]) -> Pipeline[U]: ...

    def reduce(
        self, f: Callable[[Any, T], Any] | Aggregate, initial: Any = None, *, trigger: Route[Any]
    ) -> Pipeline[Any]:
        """As `scan`, but the state goes on only when an event of `trigger` comes and something changed since."""
        scanned = self.scan(f) if isinstance(f, Aggregate) else self.scan(f, initial)
        return scanned.sample(trigger=trigger)

    # Fewer in time

    def debounce(self, seconds: float) -> Pipeline[T]:
        """Give the newest value once `seconds` have passed without another; the others are counted as `sampled`."""
        return self.stage(Stage("debounce", {"ns": nanoseconds(seconds, "debounce")}))

    def throttle(self, seconds: float) -> Pipeline[T]:
        """Let one value pass in `seconds`, the first; the others are counted as `sampled`."""
        return self.stage(Stage("throttle", {"ns": nanoseconds(seconds, "throttle")}))

    def sample(self, seconds: float | None = None, *, trigger: Route[Any] | None = None) -> Pipeline[T]:
        """Give the newest value at every multiple of `seconds`, or when an event of `trigger` comes, if it is new.

        :raises WiringError: with both or neither
        """
        if (seconds is None) == (trigger is None):
            raise WiringError(
                "sample with both a time and a trigger, or neither", fix="give one", item="sample"
            )
        if trigger is not None:
            return self.stage(Stage("sample", ports=(Port(1, trigger),)))
        return self.stage(Stage("sample", {"ns": nanoseconds(seconds or 0, "sample")}))

    # Order, repetition, repair

    def dedupe(self, *, ids_max: int = 65_536) -> Pipeline[T]:
        """Let each event (by its id) pass once; clears DELIVERY_DUPLICATED, for that is the proof (S29).

        :param ids_max: ids remembered
        """
        return self.stage(Stage("dedupe", {"ids_max": ids_max}))

    def resequence(
        self, *, capacity: int = 1024, wait: float | None = None, late: Route[T] | None = None
    ) -> Pipeline[T]:
        """Put events into the order of their numbers, by producer.

        A gap is waited for until `capacity` events are held or `wait` seconds have passed; what comes after all goes to
        `late` and is counted. ORDER_POSSIBLY_OUT_OF_ORDER becomes ORDER_RESEQUENCED.
        """
        config: dict[str, Any] = {"capacity": capacity}
        if wait is not None:
            config["ns"] = nanoseconds(wait, "wait")
        return self.stage(Stage("resequence", config, sides={"late": late} if late is not None else {}))

    def repair(
        self,
        domain: str,
        *,
        cleared: Iterable[str],
        added: Iterable[str] = (),
        proof: str,
        by: str,
        using: Callable[[T], Any] | Expr | None = None,
    ) -> Pipeline[Any]:
        """Clear taints of one domain because of a proof; a note of it is in the `guards` of each repaired event (S29).

        :param using: makes the value that deserves it, for instance with repaired times
        :raises WiringError: when installed, if the proof is empty or the taints are none that a proof can clear
        """
        names = {"cleared": [str(taint) for taint in cleared], "added": [str(taint) for taint in added]}
        repair = Stage("repair", {"domain": domain, **names, "proof": proof, "by": by})
        return (self if using is None else self.map(using)).stage(repair)

    # Windows

    def window(
        self,
        size: int | None = None,
        *,
        width: int | None = None,
        slide: int | None = None,
        gap: int | None = None,
        aggregate: Aggregate | Callable[[tuple[T, ...]], Any] | None = None,
        partition_by: Callable[[T], str] | Expr | None = None,
        trigger: Route[Any] | None = None,
        full_only: bool = False,
        flush: bool = False,
        event_time: Callable[[T], int] | Expr | None = None,
        watermark: Route[Any] | None = None,
        disorder: int = 0,
        grace: int = 0,
        late: Route[T] | None = None,
        idle: float | None = None,
        items_max: int = 1 << 20,
        keys_max: int = 65_536,
    ) -> Pipeline[Any]:
        """Collect values into windows, by partition; a result is the tuple of values, or the aggregate over them.

        `size`: the last n values, from the first on (`full_only`: once there are n), or at each event of `trigger`, which
        with `flush` also empties the windows (S23).
        `width`: event time in ns; a window ending at e holds (e - width, e], ends lie at multiples of `slide` (None: of
        the width), and it fires when the watermark reaches its end (S24). `gap`: sessions of values less than `gap` apart.
        The watermark comes from a route (its value, or its time), or is the latest time less `disorder` and 1 ns: what comes
        at most `disorder` behind the latest is in time, equal times are, and a window fires behind its end. A late value
        within `grace` makes a correction - same window, next revision - and a later one goes to `late`, counted (S25).
        Of a result, `time` is the window's end and `logical_time` its revision.

        :param idle: seconds after which a silent partition (count) is forgotten, or a silent source holds nobody back
        :param items_max: values held; more are dropped, counted, and taint the next result
        :raises WiringError: when not exactly one of size, width and gap is given, or when it is installed wrongly
        """
        if sum(kind is not None for kind in (size, width, gap)) != 1:
            raise WiringError("a window of no or several kinds", fix="give size, width or gap", item="window")
        stages: list[Stage] = []
        if partition_by is not None:
            stages.append(computed("key", partition_by, "key"))
        shared: dict[str, Any] = {"keys_max": keys_max}
        if isinstance(aggregate, Aggregate):
            shared["aggregate"] = aggregate.form
        if size is not None:
            if idle is not None:
                shared["idle"] = nanoseconds(idle, "idle")
            config = {
                "size": size,
                "full_only": full_only,
                "flush": flush,
                "trigger": trigger is not None,
                **shared,
            }
            ports = () if trigger is None else (Port(1, trigger),)
            stages.append(Stage("window_count", config, ports))
        else:
            time, clock = _clock(event_time, watermark, disorder, grace, idle)
            kind = "window_time" if gap is None else "window_session"
            extent = {"width": width, "slide": slide} if gap is None else {"gap": gap}
            config = {**extent, "clock": clock, "items_max": items_max, **shared}
            ports = () if watermark is None else (Port(1, watermark, replay=True),)
            stages += [*time, Stage(kind, config, ports, {"late": late} if late is not None else {})]
        if aggregate is not None and not isinstance(aggregate, Aggregate):
            stages.append(computed("map", aggregate, "map"))
        return self.stage(*stages, label="window" if self._label == "pipe" else None)

    # Joins

    def join_latest(
        self,
        *others: Route[Any],
        combine: Callable[..., Any] | Expr | None = None,
        partition_by: tuple[Expr, ...] | bool = False,
    ) -> Pipeline[Any]:
        """Join with the latest values of other routes: a result whenever one changes and all are known (S26).

        Changes of several sides by one cause give one result. The others' latest events count as known from the start.

        :param combine: called with the values, or an expression over `value[0]`, `value[1]`; None: their tuple
        :param partition_by: one expression for each input, or True for the events' own keys: join within a key
        """
        ports = tuple(Port(place, r, replay=True) for place, r in enumerate(others, 1))
        config = {"inputs": len(others) + 1, **_by(partition_by)}
        return self.stage(Stage("join_latest", config, ports), *combined(combine), label="join")

    def lookup_join(
        self,
        right: Route[Any],
        combine: Callable[[T, Any], Any] | Expr | None = None,
        *,
        missing: str = "drop",
        wait: float | None = None,
        partition_by: tuple[Expr, Expr] | bool = False,
        versioned: bool = True,
        waiting_max: int = 1024,
    ) -> Pipeline[Any]:
        """Join each value with the latest of `right`; results for values of this side only (S26).

        :param missing: what becomes of a value whose right side is not known: `drop` (counted as `expired`), `wait` for
            at most `wait` seconds, or `none`: a result with None
        :param versioned: False taints results DET_EXTERNAL_LOOKUP: a replay may find another right side
        :raises WiringError: when installed, if `missing` and `wait` do not go together
        """
        config = {"missing": missing, "versioned": versioned, "waiting_max": waiting_max, **_by(partition_by)}
        if wait is not None:
            config["wait"] = nanoseconds(wait, "wait")
        stage = Stage("lookup_join", config, (Port(1, right, replay=True),))
        return self.stage(stage, *combined(combine), label="join")

    def interval_join(
        self,
        right: Route[Any],
        within: int,
        combine: Callable[[T, Any], Any] | Expr | None = None,
        *,
        partition_by: tuple[Expr, Expr] | None = None,
        unsafe_cross: bool = False,
        watermark: Route[Any] | None = None,
        disorder: int = 0,
        grace: int = 0,
        idle: float | None = None,
        late: tuple[Route[Any], Route[Any]] | None = None,
        items_max: int = 1 << 20,
    ) -> Pipeline[Any]:
        """Join values of equal key whose event times are at most `within` ns apart, each pair once (S26).

        :param partition_by: the key of either side; None: the events' own
        :param unsafe_cross: pair whatever is near in time, without keys
        :param late: where values go that come too late, of this side and of `right` (S25)
        """
        _, clock = _clock(None, watermark, disorder, grace, idle)
        config: dict[str, Any] = {
            "within": within,
            "clock": clock,
            "unsafe_cross": unsafe_cross,
            "items_max": items_max,
        }
        if partition_by is not None:
            config["by"] = [expr.form for expr in partition_by]
        ports = [Port(1, right)]
        if watermark is not None:
            ports.append(Port(2, watermark, replay=True))
        sides = {} if late is None else {"late_left": late[0], "late_right": late[1]}
        return self.stage(
            Stage("interval_join", config, tuple(ports), sides), *combined(combine), label="join"
        )

    # Ends

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

    def stream(self, *, capacity: int = 1024) -> ValueStream[T]:
        """Read the resulting values with `async for` or `.blocking(timeout)`; a full queue drops the oldest, counted.

        :raises WiringError: if a stage is wrongly configured or the capacity is below 1
        """
        from meshfold.core.values import ValueStream

        values: ValueStream[T] = ValueStream(capacity)
        values.attach(self.observe(values.put))
        return values

    def _install(self, name: str, sink: Route[Any] | None, observer: Callable[[Any], Any] | None) -> Operator:
        plan = _Plan()
        inputs = [{"route": plan.place(self._source), "replay": self._replay}]
        sides: list[dict[str, Any]] = []
        for stage in self._stages:
            if stage.function is not None:
                plan.function(stage.config["way"], stage.function)
                continue
            number = len(plan.stages)
            config = {name: setting for name, setting in stage.config.items() if setting is not None}
            plan.stages.append({"kind": stage.kind, "with": config})
            inputs += [
                {"route": plan.place(p.route), "stage": number, "port": p.number, "replay": p.replay}
                for p in stage.ports
            ]
            sides += [{"stage": number, "side": s, "route": plan.place(r)} for s, r in stage.sides.items()]
        spec: dict[str, Any] = {"name": name, "label": self._label, "stages": plan.stages}
        spec |= {"inputs": inputs, "sides": sides}
        if sink is not None:
            spec["sink"] = plan.place(sink)
        number = self._graph.install(json.dumps(spec), plan.routes, plan.functions, observer)
        return Operator(self._graph, number, plan.folds)


class _Plan:
    """What the engine is handed: stages, routes by place, functions by run."""

    def __init__(self) -> None:
        self.stages: list[dict[str, Any]] = []
        self.routes: list[Route[Any]] = []
        self.functions: list[list[tuple[str, Callable[..., Any]]]] = []
        self.folds: list[Fold] = []

    def place(self, r: Route[Any]) -> int:
        self.routes.append(r)
        return len(self.routes) - 1

    def function(self, way: str, f: Callable[..., Any]) -> None:
        """Append to the run of functions at the end, or begin one; what does not give one value ends its run."""
        if isinstance(f, Fold):
            self.folds.append(f)
        joins = bool(self.stages) and self.stages[-1]["kind"] == "foreign"
        if joins and way in ("map", "filter") and self.functions[-1][-1][0] in ("map", "filter", "spread"):
            self.functions[-1].append((way, f))
        else:
            self.functions.append([(way, f)])
            run = len(self.functions) - 1
            self.stages.append({"kind": "foreign", "function": run, "with": {"functions": []}})
        self.stages[-1]["with"]["functions"].append(f"{way} {getattr(f, '__qualname__', type(f).__name__)}")


def _literal(value: Any) -> Any:
    """A value as it stands in an operator's configuration."""
    if isinstance(value, bytes):
        return {"bytes": list(value)}
    if isinstance(value, bool | str) or (isinstance(value, int) and -(1 << 63) <= value < 1 << 63):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise WiringError(
        f"{value!r} cannot stand in a pipeline", fix="use a bool, number, text or bytes", item="value"
    )


def _by(partition_by: tuple[Expr, ...] | bool) -> dict[str, Any]:
    if isinstance(partition_by, bool):
        return {"keyed": partition_by}
    return {"by": [expr.form for expr in partition_by]}


def _clock(
    event_time: Callable[[Any], int] | Expr | None,
    watermark: Route[Any] | None,
    disorder: int,
    grace: int,
    idle: float | None,
) -> tuple[list[Stage], dict[str, Any]]:
    """Stages that set the event time, and what the operator is told of time."""
    clock: dict[str, Any] = {"watermark": watermark is not None, "disorder": disorder, "grace": grace}
    if idle is not None:
        clock["idle"] = nanoseconds(idle, "idle")
    if isinstance(event_time, Expr):
        clock["time"] = event_time.form
        return [], clock
    return [] if event_time is None else [computed("time", event_time, "time")], clock
