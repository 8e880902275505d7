"""Expressions and aggregates: what they compute is what Python computes, and what they cannot is a counted failure."""

from __future__ import annotations

import math
import operator
import statistics
from collections import deque
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshfold.core import (
    Aggregate,
    Expr,
    Graph,
    Schema,
    WiringError,
    count,
    ema,
    event_time,
    field,
    greatest,
    key,
    least,
    max_,
    mean,
    min_,
    quantile,
    route,
    std,
    sum_,
    value,
)


@dataclass
class Reading:
    """A JSON value."""

    temp: float
    unit: str
    ok: bool = True
    tags: tuple[str, ...] = ()
    inner: dict[str, int] | None = None


READINGS = route("expr", "test", "readings", schema=Schema.of(Reading))
NUMBERS = route("expr", "test", "numbers", schema=Schema.float())
INTS = route("expr", "test", "ints", schema=Schema.int())
TEXTS = route("expr", "test", "texts", schema=Schema.str())


def run(
    source: Any, given_values: list[Any], expr: Expr | Aggregate, **envelope: Any
) -> tuple[list[Any], int]:
    graph = Graph()
    seen: list[Any] = []
    installed = graph.pipe(source).map(expr).observe(seen.append)
    for item in given_values:
        graph.publish(source, item, **envelope)
    return seen, installed.describe().failed


def test_fields_of_json_values_are_read_without_decoding_the_rest() -> None:
    readings = [Reading(31.5, "C", inner={"a": 7}, tags=("x", "y")), Reading(20.0, "F", ok=False)]
    assert run(READINGS, readings, field("temp") > 30)[0] == [True, False]
    assert run(READINGS, readings, field("unit"))[0] == ["C", "F"]
    assert run(READINGS, readings, field("inner", "a")) == ([7], 1)
    assert run(READINGS, readings, field("tags", 1)) == (["y"], 1)
    assert run(READINGS, readings, field("inner")["a"] == 7) == ([True], 1)
    assert run(READINGS, readings, (field("temp") > 30) & field("ok"))[0] == [True, False]
    assert run(READINGS, readings, (field("unit") == "F") | (field("temp") > 30))[0] == [True, True]
    assert run(READINGS, readings, ~(field("unit") == "F"))[0] == [True, False]


def test_a_filter_by_an_expression_keeps_the_value_as_it_was() -> None:
    graph = Graph()
    hot = route("expr", "test", "hot", schema=Schema.of(Reading))
    graph.pipe(READINGS).filter(field("temp") > 30).into(hot)
    graph.publish(READINGS, Reading(31.0, "C", tags=("a",)))
    graph.publish(READINGS, Reading(29.0, "C"))
    latest = graph.latest(hot)
    assert latest is not None
    assert latest.value == Reading(31.0, "C", tags=("a",))
    assert graph.published(hot) == 1


def test_the_envelope_is_there_for_expressions() -> None:
    assert run(NUMBERS, [1.0], key, key="k")[0] == ["k"]
    assert run(NUMBERS, [1.0], event_time + 1, time=41)[0] == [42]
    assert run(TEXTS, ["a"], value + "b")[0] == ["ab"]


@pytest.mark.parametrize(
    ("source", "item", "expr", "why"),
    [
        (INTS, 2**62, value * 4, "beyond 64 bits"),
        (INTS, 1, value // 0, "division by zero"),
        (NUMBERS, 1.0, value / 0, "division by zero"),
        (NUMBERS, 1.0, value < "a", "do not go together"),
        (NUMBERS, 1.0, field("a"), "has none"),
        (READINGS, Reading(1.0, "C"), field("nothing"), "missing"),
        (NUMBERS, 1.0, ~value, "no bool"),
        (TEXTS, "a", mean(3), "no number"),
    ],
)
def test_what_cannot_be_computed_is_a_counted_failure_with_a_reason(
    source: Any, item: Any, expr: Expr | Aggregate, why: str
) -> None:
    graph = Graph()
    installed = graph.pipe(source).map(expr).observe(lambda _: pytest.fail("a result"))
    graph.publish(source, item)
    assert installed.describe().failed == 1
    assert why in graph.failures()[1][0][1]


def test_expressions_that_make_no_sense_are_refused_where_they_are_written() -> None:
    with pytest.raises(WiringError, match="no truth"):
        bool(field("a") > 1)
    with pytest.raises(WiringError, match="list in an expression"):
        field("a") == [1]  # noqa: B015 - the comparison itself is refused
    with pytest.raises(WiringError, match="without a name"):
        field()
    with pytest.raises(WiringError, match="only a field"):
        (field("a") + 1)["b"]
    deep: Expr = value
    for _ in range(55):
        deep = deep + 1
    with pytest.raises(WiringError, match="nested too deeply"):
        Graph().pipe(NUMBERS).map(deep).observe(print)


OPERATIONS: dict[str, Any] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
}


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(OPERATIONS)),
    st.one_of(st.integers(-(2**40), 2**40), st.floats(-1e6, 1e6)),
    st.one_of(st.integers(-(2**20), 2**20), st.floats(-1e6, 1e6)),
)
def test_arithmetic_is_that_of_python(name: str, a: float, b: float) -> None:
    op = OPERATIONS[name]
    source: Any = INTS if isinstance(a, int) else NUMBERS
    seen, failed = run(source, [a], op(value, b))
    try:
        expected = op(a, b)
    except ZeroDivisionError:
        assert (seen, failed) == ([], 1)
        return
    assert failed == 0
    assert type(seen[0]) is type(expected)
    assert seen[0] == expected or math.isclose(seen[0], expected, rel_tol=1e-9, abs_tol=1e-6)
    assert run(source, [a], least(value, b))[0] == [min(a, b)]
    assert run(source, [a], greatest(value, b))[0] == [max(a, b)]


def dumb(aggregate: Aggregate, items: list[float]) -> float | int:
    """The aggregate over a list, as one would write it down."""
    match aggregate.what:
        case "mean":
            return statistics.fmean(items)
        case "sum":
            return math.fsum(items)
        case "min":
            return min(items)
        case "max":
            return max(items)
        case "count":
            return len(items)
        case "std":
            return statistics.pstdev(items)
        case _:
            assert aggregate.q is not None
            ordered = sorted(items)
            place = aggregate.q * (len(items) - 1)
            low = math.floor(place)
            high = min(low + 1, len(items) - 1)
            return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
    st.sampled_from(["mean", "sum", "min", "max", "count", "std", "quantile"]),
)
def test_m21_rolling_aggregates_agree_with_adding_up_anew(size: int, items: list[float], what: str) -> None:
    made = {
        "mean": mean(size),
        "sum": sum_(size),
        "min": min_(size),
        "max": max_(size),
        "count": count(size),
        "std": std(size),
        "quantile": quantile(0.3, size),
    }[what]
    seen, failed = run(NUMBERS, items, made)
    window: deque[float] = deque(maxlen=size)
    assert failed == 0
    for item, found in zip(items, seen, strict=True):
        window.append(item)
        assert found == pytest.approx(dumb(made, list(window)), rel=1e-6, abs=1e-3)


def test_aggregates_over_all_and_by_key() -> None:
    graph = Graph()
    seen: list[Any] = []
    graph.pipe(NUMBERS).scan(sum_()).observe(seen.append)
    for item, name in ((1.0, "a"), (10.0, "b"), (2.0, "a")):
        graph.publish(NUMBERS, item, key=name)
    assert seen == [1.0, 10.0, 3.0]
    assert run(NUMBERS, [1.0, 2.0], ema(0.5))[0] == [1.0, 1.5]


def test_infinities_and_nan_spoil_results_only_while_they_are_in_the_window() -> None:
    seen, _ = run(NUMBERS, [1.0, math.inf, 2.0, 3.0, math.nan, 4.0, 5.0], sum_(2))
    assert seen[:4] == [1.0, math.inf, math.inf, 5.0]
    assert math.isnan(seen[4])
    assert math.isnan(seen[5])
    assert seen[6] == 9.0


def test_a_rolling_result_has_its_window_as_parents_and_keeps_a_taint_while_it_holds_the_event() -> None:
    graph = Graph()
    means = route("expr", "test", "means", schema=Schema.float())
    graph.configure_retention(means, history=10)
    graph.pipe(NUMBERS).map(mean(2)).into(means)
    events = [graph.publish(NUMBERS, float(i), taints=["TIME_REPAIRED"] if i == 1 else []) for i in range(4)]
    found = [graph.lineage(event.id) for event in graph.history(means)]
    taints = [event.taints for event in graph.history(means)]
    assert taints == [[], ["TIME_REPAIRED"], ["TIME_REPAIRED"], []]
    parents = [(line.parents[0].first, line.parents[0].last) for line in found if line is not None]
    assert parents == [(1, 1), (1, 2), (2, 3), (3, 4)]
    assert len({event.trace for event in events}) == 4
