"""The reference and the runner.

The reference is a list of three lambdas applied to n floats. Machines differ and share their cores, so absolute figures
drift by a factor of two where ratios hold.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

__all__ = ("Case", "Figure", "Result", "reference", "run_cases", "run_figures")

REFERENCE_ITEMS = 150_000
QUICK_DIVISOR = 20


def reference(items: int = REFERENCE_ITEMS) -> float:
    """Items per second of the plain-Python chain of three lambdas."""
    chain: list[Callable[[float], float]] = [lambda x: x + 1.0, lambda x: x * 2.0, lambda x: x - 1.0]
    begin = perf_counter()
    for i in range(items):
        x = float(i)
        for step in chain:
            x = step(x)
    return items / (perf_counter() - begin)


@dataclass(frozen=True)
class Case:
    """One thing measured: `run(n)` does it n times and returns the rate per second."""

    name: str
    unit: str
    items: int
    run: Callable[[int], float]
    #: what it is compared with in the same run, by name
    peers: dict[str, Callable[[int], float]] = field(default_factory=dict[str, Callable[[int], float]])


@dataclass(frozen=True)
class Figure:
    """One thing that should stay small: `run(quick)` measures it once."""

    name: str
    unit: str
    #: not above this
    wanted: float
    run: Callable[[bool], float]


@dataclass
class Result:
    """What a case gave: median, minimum and maximum of the rate, and the median ratio to the reference.

    A figure that should stay small has no reference, and says what it should not exceed.
    """

    case: str
    unit: str
    value: float
    min: float
    max: float
    ratio: dict[str, float]
    runs: int
    peer: dict[str, float] = field(default_factory=dict[str, float])
    wanted: float | None = None

    def document(self) -> dict[str, Any]:
        """The result as JSON."""
        return asdict(self)


def run_cases(cases: Iterable[Case], *, quick: bool = False, runs: int = 5) -> list[Result]:
    """Measure each case `runs` times (once with `quick`, a twentieth of the size), reference before and after."""
    results: list[Result] = []
    for case in cases:
        items = max(1, case.items // QUICK_DIVISOR) if quick else case.items
        values: list[float] = []
        ratios: list[float] = []
        references: list[float] = []
        peers: dict[str, list[tuple[float, float]]] = {name: [] for name in case.peers}
        for _ in range(1 if quick else runs):
            before = reference(REFERENCE_ITEMS // (5 if quick else 1))
            value = case.run(items)
            for name, run in case.peers.items():
                # The case again after its peer: what drifts in between does not count for either.
                rate = run(items)
                peers[name].append((rate, (value + case.run(items)) / 2 / rate))
            after = reference(REFERENCE_ITEMS // (5 if quick else 1))
            values.append(value)
            references.append((before + after) / 2)
            ratios.append(value / references[-1])
        results.append(
            Result(
                case.name,
                case.unit,
                round(statistics.median(values), 1),
                round(min(values), 1),
                round(max(values), 1),
                {"reference": round(statistics.median(ratios), 4)}
                | {
                    name: round(statistics.median(one[1] for one in found), 4)
                    for name, found in peers.items()
                },
                len(values),
                {"reference": round(statistics.median(references), 1)}
                | {
                    name: round(statistics.median(one[0] for one in found), 1)
                    for name, found in peers.items()
                },
            )
        )
    return results


def run_figures(figures: Iterable[Figure], *, quick: bool = False, runs: int = 3) -> list[Result]:
    """Measure each figure `runs` times, once with `quick`."""
    results: list[Result] = []
    for figure in figures:
        values = [figure.run(quick) for _ in range(1 if quick else runs)]
        middle, low, high = (round(pick(values), 3) for pick in (statistics.median, min, max))
        results.append(
            Result(figure.name, figure.unit, middle, low, high, {}, len(values), wanted=figure.wanted)
        )
    return results
