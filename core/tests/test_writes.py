"""Write bindings, guarded writes, lifecycles and control loops: what holds, and when it may be said to."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshfold.core import EncodeError, Event, Graph, Schema, WiringError, route
from meshfold.core.clocks import ManualClock
from meshfold.core.errors import QueueFull
from meshfold.core.writes import (
    Frame,
    Lifecycle,
    ReadThenWriteNextEpochStep,
    RetryPolicy,
    Shadow,
    WriteBinding,
)

PENDING, STALE = "COHERENCE_WRITE_PENDING", "COHERENCE_STALE_REPORTED"
UNMATCHED, STABLE = "COHERENCE_ECHO_UNMATCHED", "COHERENCE_STABLE"
EPOCHS = route("plant", "time", "epoch", schema=Schema.int())
TARGET = route("plant", "heat", "target", schema=Schema.int())
SEEN = route("plant", "heat", "seen", schema=Schema.int())
ACKS = route("plant", "heat", "acks", schema=Schema.int())
DEAD = route("plant", "heat", "dead", schema=Schema.int())


def power(**options: Any) -> WriteBinding[int, int]:
    return WriteBinding.logical("plant", "heat", "power", schema=Schema.int(), **options)


def bound(**options: Any) -> tuple[Graph, WriteBinding[int, int], Shadow[int, int]]:
    graph, binding = Graph(), power(**options)
    return graph, binding, graph.bind(binding)


# M70-M73 bindings and shadows


def test_m70_routes_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(WiringError, match="reconcile"):
        power(observation_schema=Schema.str())
    good = power()
    with pytest.raises(WiringError, match="different streams"):
        WriteBinding(TARGET, good.desired, good.reported, good.effective, good.override)
    graph, binding, _ = bound()
    with pytest.raises(WiringError, match="bound already"):
        graph.bind(binding)


def test_m70_a_request_from_before_the_binding_is_projected_once() -> None:
    graph, binding = Graph(), power()
    request = graph.publish(binding.request, 40)
    with graph.bind(binding):
        desired = graph.latest(binding.desired)
        assert desired is not None
        assert (desired.value, desired.parents) == (40, [request.id])
    graph.bind(binding)
    assert graph.published(binding.desired) == 1


def test_m71_a_request_is_desired_when_the_call_returns() -> None:
    graph, binding, shadow = bound()
    request = shadow.request(70)
    desired = graph.latest(binding.desired)
    assert desired is not None
    assert (desired.value, desired.parents, desired.trace) == (70, [request.id], request.trace)
    assert desired.taints == [PENDING]
    assert graph.published(binding.desired) == 1


def test_m72_an_answer_is_published_whole_or_not_at_all() -> None:
    graph, binding, shadow = bound(acknowledged=False)
    shadow.request(1)
    with pytest.raises(WiringError, match="acknowledgement"):
        graph.reconcile_write_binding(binding, reported=1, ack=True)
    bad: Any = "no int"
    with pytest.raises(EncodeError):
        graph.reconcile_write_binding(binding, reported=1, effective=bad)
    assert graph.latest(binding.reported) is None
    state = graph.reconcile_write_binding(binding, reported=1)
    assert state.coherence == (STABLE,)
    with pytest.raises(WiringError, match="bind it first"):
        graph.shadow_state(WriteBinding.logical("a", "b", "c", schema=Schema.int()))


def test_m73_a_clamped_device_is_stable() -> None:
    _graph, _binding, shadow = bound()
    assert shadow.state().coherence == ()
    request = shadow.request(80)
    assert shadow.state().coherence == (PENDING,)
    shadow.report(70, cause=request)
    state = shadow.state()
    assert state.effective is not None
    assert (state.effective.value, state.coherence, state.by) == (70, (STABLE,), "write ids")
    assert state.effective.taints == [STABLE]


def test_m73_an_echo_of_another_write_is_told_until_the_owner_says_what_holds() -> None:
    _, _, shadow = bound()
    first = shadow.request(10)
    shadow.report(10, cause=first)
    second = shadow.request(20)
    shadow.report(11, cause=first)
    assert shadow.state().coherence == (PENDING, UNMATCHED)
    shadow.report(20, cause=second)
    assert shadow.state().coherence == (STABLE,)
    shadow.report(5)
    state = shadow.state()
    assert state.effective is not None
    assert (state.effective.value, state.coherence, state.unmatched) == (20, (UNMATCHED,), 2)
    shadow.accept()
    state = shadow.state()
    assert state.effective is not None
    assert (state.effective.value, state.coherence) == (5, (STABLE,))


def test_m73_a_report_from_before_the_acknowledgement_is_stale() -> None:
    _, _, shadow = bound()
    shadow.report(1)
    request = shadow.request(2)
    shadow.acknowledge(request)
    assert shadow.state().coherence == (STALE,)
    other = shadow.request(3)
    shadow.acknowledge(request)
    assert shadow.state().coherence == (PENDING,)
    shadow.report(3, cause=other)
    assert shadow.state().coherence == (STABLE,)


def test_m73_a_request_that_nobody_answers_in_time_is_stale() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    shadow = graph.bind(power(report_within=2.0))
    shadow.request(1)
    clock.advance(2)
    graph.advance()
    assert shadow.state().coherence == (PENDING, STALE) or shadow.state().coherence == (STALE, PENDING)


def test_m73_without_write_ids_values_decide_and_the_snapshot_says_so() -> None:
    _, _, shadow = bound(write_ids=False)
    shadow.request(80)
    shadow.report(70)
    state = shadow.state()
    assert state.by == "values"
    assert set(state.coherence) == {PENDING, STALE}
    shadow.report(80)
    assert shadow.state().coherence == (STABLE,)


def test_m73_fire_and_forget_is_never_stable() -> None:
    graph, binding, shadow = bound(fire_and_forget=True, acknowledged=False)
    shadow.request(3)
    effective = graph.latest(binding.effective)
    assert effective is not None
    assert (effective.value, effective.taints) == (3, [PENDING])
    assert shadow.state().coherence == (PENDING,)


def test_m73_only_the_binding_writes_what_it_owns() -> None:
    graph, binding, shadow = bound()
    for r in (binding.desired, binding.reported, binding.effective):
        with pytest.raises(WiringError, match="owns"):
            graph.publish(r, 1)
    shadow.close()
    shadow.close()
    graph.publish(binding.reported, 1)


@given(
    st.lists(
        st.tuples(st.sampled_from(["request", "report", "old", "alone", "ack"]), st.integers(0, 3)),
        max_size=30,
    )
)
@settings(max_examples=80, deadline=None)
def test_m73_coherence_follows_the_rule(steps: list[tuple[str, int]]) -> None:
    _, _, shadow = bound()
    requests: list[Event[int]] = []
    effective: int | None = None
    reported: int | None = None
    echoed = acked = behind = foreign = False
    for what, value in steps:
        if what == "request":
            requests.append(shadow.request(value))
            echoed = acked = behind = False
        elif what == "ack" and requests:
            shadow.acknowledge(requests[-1])
            acked, behind = True, False
        elif what != "ack":
            cause = None
            if what == "report" and requests:
                cause = requests[-1]
            elif what == "old" and len(requests) > 1:
                cause = requests[-2]
            shadow.report(value, cause=cause)
            ours = cause is not None and cause is requests[-1]
            reported, behind, foreign = value, acked, bool(requests) and not ours
            echoed = echoed or ours
            if not requests or ours or effective is None:
                effective = value
    wanted = set()
    if requests:
        if not echoed and not acked:
            wanted.add(PENDING)
        if not echoed and acked and not behind:
            wanted.add(STALE)
        if foreign and reported != effective:
            wanted.add(UNMATCHED)
        wanted = wanted or {STABLE}
    elif effective is not None:
        wanted = {STABLE}
    state = shadow.state()
    assert set(state.coherence) == wanted
    assert (None if state.effective is None else state.effective.value) == effective


# M74 lifecycles


def test_m74_intent_and_observation_may_differ_and_the_supervisor_leads_one_to_the_other() -> None:
    graph = Graph()
    binding: WriteBinding[str, int] = WriteBinding.logical(
        "plant",
        "pump",
        "lifecycle",
        schema=Schema.str(),
        observation_schema=Schema.int(),
        reconcile=lambda rpm: "running" if rpm > 100 else "stopped",
    )
    shadow = graph.bind(binding)
    requested: list[str] = []
    graph.observe(binding.request, lambda event: requested.append(event.value))
    lifecycle = Lifecycle(
        shadow,
        graph,
        matches=lambda target, rpm: (rpm > 100) == (target == "running"),
        plan=lambda target, rpm: "prime" if target == "running" and not rpm else target,
        retry=RetryPolicy.immediate(3),
    )
    assert lifecycle.step() is None
    lifecycle.target("running")
    first = lifecycle.step()
    assert first is not None
    shadow.report(50, cause=first)
    second = lifecycle.step()
    assert second is not None
    shadow.report(1400, cause=second)
    assert requested == ["prime", "running"]
    assert lifecycle.status().phase == "converged"
    effective = graph.latest(binding.effective)
    assert effective is not None
    assert effective.value == "running"
    shadow.report(0)
    for _ in range(9):
        lifecycle.step()
    assert requested == ["prime", "running", "prime", "prime", "prime"]
    assert lifecycle.status().phase == "failed"
    with pytest.raises(WiringError, match="forward"):
        lifecycle.step(2)


# M75-M77 guarded writes


def sent(graph: Graph) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    graph.observe(TARGET, lambda event: seen.append((event.value, event.epoch)))
    return seen


def test_m75_a_write_waits_for_its_epoch_and_says_what_held() -> None:
    graph = Graph()
    seen = sent(graph)
    graph.publish_guarded(TARGET, 7, not_before_epoch=3)
    assert graph.scheduler_snapshot().pending == ((1, TARGET.text, ("not_before_epoch:3",), 0, 3),)
    for _ in range(4):
        graph.run_scheduler()
    assert seen == [(7, 3)]
    latest = graph.latest(TARGET)
    assert latest is not None
    assert (latest.guards, latest.taints) == (["not_before_epoch:3"], ["SCHED_GATED"])
    assert graph.scheduler_snapshot().pending == ()
    with pytest.raises(WiringError, match="forward"):
        graph.run_scheduler(4)


def test_m75_an_acknowledgement_from_before_does_not_count() -> None:
    graph = Graph()
    seen = sent(graph)
    graph.publish(ACKS, 1)
    graph.publish_guarded(TARGET, 1, after_ack=ACKS)
    graph.run_scheduler()
    assert seen == []
    graph.publish(ACKS, 2)
    graph.run_scheduler()
    assert seen == [(1, 2)]


def test_m75_what_expires_is_told_and_put_aside() -> None:
    graph = Graph()
    seen, dead = sent(graph), []
    graph.observe(DEAD, lambda event: dead.append((event.value, event.taints)))
    graph.publish_guarded(TARGET, 5, after_ack=ACKS, expires_at_epoch=2, dead_letter=DEAD)
    runs = [graph.run_scheduler() for _ in range(3)]
    assert [run.ended for run in runs] == [{}, {}, {"expired": 1}]
    assert seen == []
    assert dead == [(5, ["SCHED_EXPIRED"])]
    told = [r for r in graph.routes() if r.addr.plane == "debug"]
    event = graph.latest(told[0])
    assert event is not None
    assert (event.value["outcome"], event.taints) == ("expired", ["SCHED_EXPIRED"])


def test_m75_time_and_watermark_guards_hold() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    seen = sent(graph)
    graph.publish_guarded(TARGET, 1, not_before=2 * 10**9, watermark=(SEEN, 10))
    graph.run_scheduler()
    clock.advance(2)
    graph.publish(SEEN, 9)
    graph.run_scheduler()
    assert seen == []
    graph.publish(SEEN, 10)
    graph.run_scheduler()
    assert seen == [(1, 3)]


def test_m75_one_more_than_may_wait_is_refused() -> None:
    graph = Graph()
    for _ in range(2048):
        graph.publish_guarded(TARGET, 1, not_before_epoch=9)
    with pytest.raises(QueueFull):
        graph.publish_guarded(TARGET, 1, not_before_epoch=9)
    bad: Any = "no int"
    with pytest.raises(EncodeError):
        graph.publish_guarded(TARGET, bad)


def test_m76_it_is_tried_again_after_the_backoff_until_exhausted() -> None:
    graph = Graph()
    seen = sent(graph)
    graph.publish_guarded(TARGET, 1, ack_route=ACKS, retry=RetryPolicy.fixed_backoff(3, 1))
    runs = [graph.run_scheduler() for _ in range(8)]
    assert [epoch for _, epoch in seen] == [1, 3, 5]
    assert [run.ended for run in runs if run.ended] == [{"exhausted": 1}]
    with pytest.raises(WiringError, match="ack_route"):
        graph.publish_guarded(TARGET, 1, retry=RetryPolicy.immediate(2))
    with pytest.raises(WiringError):
        RetryPolicy(0)


def test_m76_an_acknowledgement_ends_it() -> None:
    graph = Graph()
    seen = sent(graph)
    graph.publish_guarded(TARGET, 1, ack_route=ACKS, retry=RetryPolicy.immediate(5))
    graph.run_scheduler()
    graph.publish(ACKS, 1)
    assert graph.run_scheduler().ended == {"acknowledged": 1}
    assert len(seen) == 1


def test_m76_exponential_backoff_doubles_with_the_same_jitter_each_run() -> None:
    policy = RetryPolicy.exponential(6, 4, max_backoff=20)
    waits = [policy.wait(1, attempt) for attempt in range(1, 6)]
    assert waits == [policy.wait(1, attempt) for attempt in range(1, 6)]
    for wait, least in zip(waits, (5, 9, 17, 21, 21), strict=True):
        assert least <= wait <= least + 4


def test_m77_the_scheduler_follows_an_epoch_route() -> None:
    graph = Graph()
    seen = sent(graph)
    graph.scheduler().follow(EPOCHS)
    graph.publish_guarded(TARGET, 1, not_before_epoch=10)
    for epoch in (4, 3, 9, 12):
        graph.publish(EPOCHS, epoch)
    assert seen == [(1, 12)]


# M78 control loops


def test_m78_an_epoch_reads_one_moment_and_writes_after_it() -> None:
    graph, binding, shadow = bound()
    shadow.report(10)
    frames: list[tuple[int, int]] = []

    def step(frame: Frame) -> dict[Any, int]:
        frames.append((frame.epoch, frame[binding.effective]))
        return {binding.request: frame[binding.effective] + 1}

    shadow.device(lambda value: value)
    loop = graph.control_loop("heat", reads=[binding.effective], writes=[binding.request], step=step)
    for _ in range(3):
        assert loop.run().outcome == "ran"
    assert frames == [(1, 10), (2, 11), (3, 12)]
    latest = graph.latest(binding.request)
    assert latest is not None
    assert (latest.epoch, latest.guards, latest.taints) == (
        3,
        ["not_before_epoch:4"],
        ["SCHED_GATED", STABLE],
    )
    assert len(latest.parents) == 1
    with pytest.raises(WiringError, match="forward"):
        loop.run(3)


def test_m78_missing_and_old_inputs_follow_the_declared_policy() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    kwargs: Any = {"reads": [SEEN], "writes": [TARGET], "step": lambda frame: {TARGET: frame[SEEN]}}
    skip = graph.control_loop("skip", **kwargs)
    expire = graph.control_loop("expire", missing="expire", max_age=1.0, **kwargs)
    hold = graph.control_loop("hold", missing="hold", **kwargs)
    assert [loop.run().outcome for loop in (skip, expire, hold)] == ["missing"] * 3
    graph.configure_retention(SEEN, history=1)
    graph.publish(SEEN, 4)
    assert [loop.run().outcome for loop in (skip, expire, hold)] == ["ran"] * 3
    graph.configure_retention(SEEN, history=0)
    clock.advance(2)
    assert [loop.run().outcome for loop in (skip, expire, hold)] == ["missing", "missing", "ran"]
    graph.configure_retention(SEEN, history=1)
    graph.publish(SEEN, 5)
    clock.advance(2)
    assert expire.run().outcome == "expired"
    assert (skip.status().skipped, expire.status().expired) == (2, 1)
    assert [loop.name for loop in graph.control_loops()] == ["expire", "hold", "skip"]
    with pytest.raises(WiringError):
        graph.control_loop("skip", **kwargs)
    with pytest.raises(WiringError):
        graph.control_loop("x", **kwargs | {"missing": "guess"})


def test_m78_a_function_that_fails_or_writes_elsewhere_writes_nothing() -> None:
    graph = Graph()
    graph.publish(SEEN, 0)
    bad: Any = {TARGET: 1, DEAD: 2}
    loop = graph.control_loop("bad", reads=[SEEN], writes=[TARGET], step=lambda frame: bad)
    run = loop.run()
    assert run.outcome == "failed"
    assert isinstance(run.error, WiringError)
    assert graph.latest(TARGET) is None
    assert loop.status().failed == 1


def test_m78_epochs_do_not_overlap() -> None:
    graph = Graph()
    graph.publish(SEEN, 0)
    inside, leave = threading.Event(), threading.Event()

    def step(frame: Frame) -> dict[Any, int]:
        inside.set()
        assert leave.wait(60)
        return {}

    loop = graph.control_loop("slow", reads=[SEEN], writes=[], step=step)
    thread = threading.Thread(target=loop.run)
    thread.start()
    assert inside.wait(60)
    assert loop.run().outcome == "busy"
    leave.set()
    thread.join(60)
    assert (loop.status().ran, loop.status().busy) == (1, 1)


# M79 read, then write in the next epoch


def test_m79_results_wait_for_the_next_epoch_and_a_loop_runs_once_for_each() -> None:
    graph = Graph()
    step = ReadThenWriteNextEpochStep.map("count", SEEN, TARGET, lambda value: value + 1)
    operator = step.install(graph)
    assert step.install(graph).id == operator.id
    seen, again = sent(graph), sent(graph)
    graph.connect(TARGET, SEEN)
    graph.publish(SEEN, 0, epoch=1)
    assert seen == []
    for epoch in (2, 3, 3, 4):
        step.advance(graph, epoch)
    assert seen == again == [(1, 2), (2, 3), (3, 4)]
    with pytest.raises(WiringError):
        ReadThenWriteNextEpochStep.map("count", SEEN, ACKS, lambda value: value).install(graph)


# M80 loops


def test_m80_a_loop_through_a_write_is_refused_unless_something_cuts_it() -> None:
    graph, binding, shadow = bound()
    shadow.device(lambda value: value)
    with pytest.raises(WiringError, match="cycle"):
        graph.pipe(binding.effective).map(lambda value: value + 1).into(binding.request)
    with pytest.raises(WiringError, match="cycle"):
        graph.capacitor(binding.reported, binding.request, demand=route("a", "b", "c", schema=Schema.int()))
    assert [problem.route for problem in graph.validate_graph()] == []
    other = power().request
    graph.publish(route("x", "y", "z", schema=Schema.int(), plane="write", variant="request"), 1)
    assert len(graph.validate_graph()) == 1
    assert other == binding.request


def test_m80_an_ack_boundary_waits_for_its_own_acknowledgement() -> None:
    graph, binding, shadow = bound()
    requests: list[Event[int]] = []
    graph.observe(binding.request, requests.append)
    old = shadow.request(0)
    shadow.acknowledge(old)
    operator = graph.await_ack(TARGET, binding, waiting_max=1)
    graph.publish_many(TARGET, [1, 2, 3])
    shadow.acknowledge(old)
    assert [event.value for event in requests] == [0, 1]
    shadow.acknowledge(requests[-1])
    assert [event.value for event in requests] == [0, 1, 3]
    assert requests[-1].taints == ["DELIVERY_COALESCED", "SCHED_GATED"]
    assert operator.describe().dropped == {"coalesced": 1}
    with pytest.raises(WiringError):
        graph.await_ack(TARGET, power(acknowledged=False))


def test_m80_an_ack_boundary_cuts_a_loop() -> None:
    graph, binding, shadow = bound()
    graph.await_ack(binding.effective, binding)
    shadow.device(lambda value: min(value + 1, 5))
    shadow.request(0)
    assert graph.published(binding.request) == 2
    for _ in range(9):
        latest = graph.latest(binding.request)
        assert latest is not None
        shadow.acknowledge(latest)
    state = shadow.state()
    assert state.effective is not None
    assert state.effective.value == 5


# graph.write, and taking loops off


def test_m71_write_asks_through_the_binding_and_refuses_what_is_not_bound() -> None:
    graph, binding, shadow = bound()
    targets: list[Any] = [binding, shadow, binding.request]
    for place, target in enumerate(targets):
        made = graph.write(target, 40 + place, correlation="job")
        assert isinstance(made, Event)
        desired = graph.latest(binding.desired)
        assert desired is not None
        assert (desired.value, desired.parents, made.correlation) == (40 + place, [made.id], "job")
    with pytest.raises(EncodeError):
        graph.write(binding, "hot")  # type: ignore[misc]
    with pytest.raises(WiringError, match="is not bound here"):
        graph.write(TARGET, 1)
    shadow.close()
    with pytest.raises(WiringError, match="is not bound here"):
        graph.write(binding, 1)
    assert graph.published(binding.request) == 3


def test_m75_a_write_with_guards_waits_for_them_and_for_the_bindings_acknowledgement() -> None:
    graph, binding, shadow = bound()
    graph.write(binding, 50, not_before_epoch=2, retry=RetryPolicy.immediate(3))
    graph.run_scheduler()
    assert graph.latest(binding.request) is None
    (sent,) = graph.run_scheduler().sent
    assert sent.value == 50
    shadow.acknowledge(sent)
    assert graph.run_scheduler().ended == {"acknowledged": 1}


def test_m78_a_closed_loop_is_out_of_the_graph_and_follows_nothing() -> None:
    graph = Graph()
    graph.publish(SEEN, 1)
    with graph.control_loop("heat", reads=[SEEN], writes=[TARGET], step=lambda frame: {TARGET: 2}) as loop:
        loop.follow(EPOCHS)
        graph.publish(EPOCHS, 1)
        assert graph.published(TARGET) == 1
    graph.publish(EPOCHS, 2)
    assert (graph.published(TARGET), graph.control_loops(), graph.edges()) == (1, [], [])
    with pytest.raises(WiringError, match="was closed"):
        loop.run()
    loop.close()
    graph.control_loop("heat", reads=[SEEN], writes=[TARGET], step=lambda frame: {})
