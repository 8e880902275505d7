"""Where pipelines begin, end and choose: start_with, take, take_until, switch, do_action."""

from __future__ import annotations

import pytest
from meshfold.core import Event, Graph, ManualClock, Schema, Taint, WiringError, route

IN = route("choice", "test", "in", schema=Schema.float())
OUT = route("choice", "test", "out", schema=Schema.float())
END = route("choice", "test", "end", schema=Schema.str())
MODE = route("choice", "test", "mode", schema=Schema.str())
NEAR = route("choice", "test", "near", schema=Schema.float())
FAR = route("choice", "test", "far", schema=Schema.float())


def gathered(graph: Graph) -> list[Event[float]]:
    found: list[Event[float]] = []
    graph.observe(OUT, found.append)
    return found


def values(events: list[Event[float]]) -> list[float]:
    return [event.value for event in events]


def test_m20_start_with_gives_its_values_when_installed_and_before_the_first() -> None:
    clock = ManualClock(5_000)
    graph = Graph(clock=clock, seed=1)
    graph.publish(IN, 9.0)
    found = gathered(graph)
    graph.pipe(IN, replay_latest=True).start_with(1.0, 2).into(OUT)
    assert values(found) == [1.0, 2.0, 9.0]
    assert (found[0].parents, found[0].time) == ([], 5_000)
    graph.publish(IN, 3.0)
    assert values(found) == [1.0, 2.0, 9.0, 3.0]


def test_m20_start_with_does_not_begin_again_after_a_restart() -> None:
    graph = Graph()
    state = graph.pipe(IN).start_with(1.0).into(OUT, name="once").checkpoint()
    again = Graph()
    operator = again.pipe(IN).start_with(1.0).into(OUT, name="once")
    found = gathered(again)
    operator.restore(state)
    again.publish(IN, 2.0)
    assert values(found)[-1:] == [2.0]
    assert again.published(OUT) == 2


@pytest.mark.parametrize("bad", [(), ({"x": 1},), (float("nan"),), (1 << 70,), (0.0,) * 1025])
def test_m20_what_cannot_stand_at_the_start_is_refused(bad: tuple[object, ...]) -> None:
    graph = Graph()
    with pytest.raises(WiringError):
        graph.pipe(IN).start_with(*bad).into(OUT)  # type: ignore[arg-type]
    assert graph.operators() == []


def test_m20_take_lets_the_first_values_pass_and_no_more() -> None:
    graph = Graph()
    found = gathered(graph)
    operator = graph.pipe(IN).take(3).into(OUT)
    for number in range(5):
        graph.publish(IN, float(number))
    assert values(found) == [0.0, 1.0, 2.0]
    assert operator.describe().stages[0].gauges == {"passed": 3, "ended": 1}
    assert operator.counters.offered == operator.counters.delivered == 5
    later = Graph()
    second = later.pipe(IN).take(3).into(OUT)
    second.restore(operator.checkpoint())
    later.publish(IN, 1.0)
    assert later.published(OUT) == 0
    with pytest.raises(WiringError, match="take -1"):
        graph.pipe(IN).take(-1)


def test_m20_take_until_ends_with_the_first_event_of_the_other_route() -> None:
    graph = Graph()
    found = gathered(graph)
    graph.publish(END, "from before")
    graph.pipe(IN).take_until(END).into(OUT)
    graph.publish(IN, 1.0)
    graph.publish(END, "now")
    graph.publish(IN, 2.0)
    assert values(found) == [1.0]


def test_m20_switch_gives_the_values_of_the_route_that_was_chosen_last() -> None:
    graph = Graph()
    found = gathered(graph)
    operator = graph.pipe(MODE).switch({"near": NEAR, "far": FAR}).into(OUT)
    graph.publish(NEAR, 1.0)
    choice = graph.publish(MODE, "near", taints=[Taint.TRUST_UNVERIFIED])
    sent = graph.publish(NEAR, 2.0)
    graph.publish(FAR, 100.0)
    graph.publish(MODE, "far")
    graph.publish(NEAR, 3.0)
    graph.publish(FAR, 200.0)
    graph.publish(MODE, "off")
    graph.publish(NEAR, 4.0)
    graph.publish(FAR, 300.0)
    assert values(found) == [2.0, 200.0]
    assert set(found[0].parents) == {sent.id, choice.id}
    assert "TRUST_UNVERIFIED" in found[0].taints
    assert operator.describe().stages[0].gauges == {"case": 0, "passed": 2}
    assert {port for _, _, port in operator.describe().inputs} == {"in", "case 1", "case 2"}


def test_m20_switch_can_begin_with_what_the_chosen_route_holds() -> None:
    graph = Graph()
    found = gathered(graph)
    graph.publish(NEAR, 1.0)
    operator = graph.pipe(MODE).switch({"near": NEAR, "far": FAR}, replay_latest=True).into(OUT)
    graph.publish(FAR, 50.0)
    graph.publish(MODE, "near")
    graph.publish(MODE, "near")
    graph.publish(MODE, "far")
    assert values(found) == [1.0, 50.0]
    later = Graph()
    again = gathered(later)
    restored = later.pipe(MODE).switch({"near": NEAR, "far": FAR}, replay_latest=True).into(OUT)
    restored.restore(operator.checkpoint())
    later.publish(FAR, 60.0)
    assert values(again) == [60.0]


def test_m20_a_switch_of_no_or_too_many_cases_is_refused() -> None:
    graph = Graph()
    with pytest.raises(WiringError, match="a switch of 0 cases"):
        graph.pipe(MODE).switch({})
    many = {str(number): NEAR for number in range(17)}
    with pytest.raises(WiringError, match="a switch of 17 cases"):
        graph.pipe(MODE).switch(many)


def test_m20_do_action_acts_and_lets_the_value_pass_or_fails_alone() -> None:
    graph = Graph()
    found = gathered(graph)
    done: list[float] = []

    def act(item: float) -> str:
        if item == 2.0:
            raise RuntimeError("not this one")
        done.append(item)
        return "ignored"

    graph.pipe(IN).do_action(act).taint(Taint.DELIVERY_SAMPLED).into(OUT)
    for number in (1.0, 2.0, 3.0):
        graph.publish(IN, number)
    assert done == values(found) == [1.0, 3.0]
    assert found[0].taints == ["DELIVERY_SAMPLED"]
    assert graph.failures()[0] == 1
