"""Other libraries doing the same work in the same run, where they are installed.

None of them is a dependency: what cannot be imported is named in one line and left out. Each works as its documents say it is
used; where one has no per-event entry, a replay of a prepared array stands beside the batched case.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any

from meshfold.mesh.bench.reference import Case

__all__ = ("with_peers",)

#: A rate for so many items.
Run = Callable[[int], float]
_BATCH = 1000


def _push(send: Callable[[float], Any], items: int) -> float:
    begin = perf_counter()
    for number in range(items):
        send(float(number))
    return items / (perf_counter() - begin)


def _nothing(_: Any) -> None:
    """An observer that does as little as ours."""


class _Mean:
    def __init__(self) -> None:
        self.last: deque[float] = deque()
        self.sum = 0.0

    def __call__(self, value: float) -> float:
        self.last.append(value)
        self.sum += value
        if len(self.last) > 100:
            self.sum -= self.last.popleft()
        return self.sum / len(self.last)


def _reactivex() -> dict[str, Run]:
    ops: Any = importlib.import_module("reactivex.operators")
    subject: Any = importlib.import_module("reactivex.subject").Subject

    def through(*stages: Any) -> Run:
        def run(items: int) -> float:
            source = subject()
            (source.pipe(*stages) if stages else source).subscribe(_nothing)
            return _push(source.on_next, items)

        return run

    def join(items: int) -> float:
        source, state = subject(), subject()
        source.pipe(ops.with_latest_from(state), ops.map(sum)).subscribe(_nothing)
        state.on_next(1.0)
        return _push(source.on_next, items)

    def rolling(items: int) -> float:
        return through(ops.map(_Mean()))(items)

    lambdas = through(ops.map(lambda x: x + 1.0), ops.filter(lambda x: x >= 0.0), ops.map(lambda x: x * 2.0))
    return {
        "publish to one observer": through(),
        "map/filter/map of lambdas": lambdas,
        "mean of the last 100": rolling,
        "lookup join": join,
    }


def _streamz() -> dict[str, Run]:
    stream: Any = importlib.import_module("streamz").Stream

    def through(plan: Callable[[Any], Any]) -> Run:
        def run(items: int) -> float:
            source = stream()
            end = plan(source).sink(_nothing)
            rate = _push(source.emit, items)
            end.destroy()
            return rate

        return run

    def lambdas(source: Any) -> Any:
        return source.map(lambda x: x + 1.0).filter(lambda x: x >= 0.0).map(lambda x: x * 2.0)

    return {
        "publish to one observer": through(lambda source: source),
        "map/filter/map of lambdas": through(lambdas),
        "mean of the last 100": through(lambda source: source.map(_Mean())),
    }


def _csp() -> dict[str, Run]:
    csp: Any = importlib.import_module("csp")
    numpy: Any = importlib.import_module("numpy")
    importlib.import_module("csp.stats")
    start = datetime(2024, 1, 1)

    def through(plan: Callable[[Any], Any]) -> Run:
        def run(items: int) -> float:
            times = numpy.datetime64(start, "ns") + numpy.arange(items) * numpy.timedelta64(1, "us")
            values = numpy.arange(items, dtype=float)

            def wire() -> None:
                results = plan(csp.curve(float, (times, values)))
                csp.add_graph_output("count", csp.count(results), tick_count=1)

            begin = perf_counter()
            csp.run(csp.graph(wire), starttime=start, endtime=start + timedelta(seconds=items / 1e6 + 1))
            return items / (perf_counter() - begin)

        return run

    def expressions(x: Any) -> Any:
        above = x + csp.const(1.0)
        return csp.filter(above >= csp.const(0.0), above) * csp.const(2.0)

    return {
        "map/filter/map of expressions, batched": through(expressions),
        "mean of the last 100, batched": through(lambda x: csp.stats.mean(x, 100)),
        "event-time window mean, batched": through(lambda x: csp.stats.mean(x, timedelta(milliseconds=1))),
        "lookup join, batched": through(lambda x: csp.sample(x, csp.const(1.0)) + x),
    }


def _bytewax() -> dict[str, Run]:
    op: Any = importlib.import_module("bytewax.operators")
    dataflow: Any = importlib.import_module("bytewax.dataflow").Dataflow
    testing: Any = importlib.import_module("bytewax.testing")

    def run(items: int) -> float:
        out: list[float] = []
        flow = dataflow("chain")
        values = testing.TestingSource([float(number) for number in range(items)], batch_size=_BATCH)
        stream = op.input("in", flow, values)
        stream = op.map("more", stream, lambda x: x + 1.0)
        stream = op.filter("some", stream, lambda x: x >= 0.0)
        stream = op.map("twice", stream, lambda x: x * 2.0)
        op.output("out", stream, testing.TestingSink(out))
        begin = perf_counter()
        testing.run_main(flow)
        rate = items / (perf_counter() - begin)
        assert len(out) == items
        return rate

    return {"map/filter/map of lambdas, batched": run}


def _polars() -> dict[str, Run]:
    polars: Any = importlib.import_module("polars")

    def run(items: int) -> float:
        values = polars.Series("value", [float(number) for number in range(items)])
        begin = perf_counter()
        assert len(values.rolling_mean(100, min_samples=1)) == items
        return items / (perf_counter() - begin)

    return {"mean of the last 100, batched": run}


_PEERS: dict[str, Callable[[], dict[str, Run]]] = {
    "reactivex": _reactivex,
    "streamz": _streamz,
    "csp": _csp,
    "bytewax": _bytewax,
    "polars": _polars,
}


def with_peers(cases: Iterable[Case]) -> tuple[list[Case], list[str]]:
    """The cases with the peers that can be imported, and a line for each that cannot."""
    runs: dict[str, dict[str, Run]] = {}
    missing: list[str] = []
    for name, load in _PEERS.items():
        try:
            found = load()
        except ImportError as error:
            missing.append(f"{name} is not measured: {error}")
            continue
        for case, run in found.items():
            runs.setdefault(case, {})[name] = run
    return [replace(case, peers={**case.peers, **runs.get(case.name, {})}) for case in cases], missing
