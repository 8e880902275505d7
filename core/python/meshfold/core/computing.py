"""What a graph computes: pipelines, windows and joins over routes, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from meshfold._native import GraphBase
from meshfold.core.errors import WiringError
from meshfold.core.expressions import Expr
from meshfold.core.operator import Operator
from meshfold.core.pipeline import Pipeline
from meshfold.core.route import Route, require_same_schema

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.join_plan import JoinExplanation, JoinInput, JoinPlan, JoinRecord

__all__ = ("Computing",)

T = TypeVar("T")
U = TypeVar("U")
#: Join plans that one graph remembers for `explain_join`.
_JOINS_MAX: Final = 1024


class Computing(GraphBase):
    """The part of `Graph` that describes operators."""

    _joins: dict[str, JoinRecord]

    def pipe(self, r: Route[T], *, replay_latest: bool = False) -> Pipeline[T]:
        """Begin a pipeline: `.map(f)`, `.window(...)` and so on, ended by `.into(route)`, `.observe(fn)` or `.stream()`.

        :param replay_latest: the route's latest event counts as an input when the pipeline is installed
        """
        return Pipeline(cast("Graph", self), r, replay=replay_latest)

    def filter(self, source: Route[T], predicate: Callable[[T], bool] | Expr) -> Pipeline[T]:
        """The values of `source` for which the predicate holds, its latest first."""
        return self.pipe(source, replay_latest=True).filter(predicate)

    def window(self, source: Route[T], size: int | None = None, **options: Any) -> Pipeline[Any]:
        """Windows over a route; see `Pipeline.window`."""
        return self.pipe(source).window(size, **options)

    def join_latest(
        self,
        left: Route[Any],
        *others: Route[Any],
        combine: Callable[..., Any] | Expr | None = None,
        **options: Any,
    ) -> Pipeline[Any]:
        """The latest values of two or more routes, their present ones first; see `Pipeline.join_latest`."""
        return self.pipe(left, replay_latest=True).join_latest(*others, combine=combine, **options)

    def lookup_join(
        self,
        left: Route[Any],
        right: Route[Any],
        combine: Callable[..., Any] | Expr | None = None,
        **options: Any,
    ) -> Pipeline[Any]:
        """Each value of `left` with the latest of `right`; see `Pipeline.lookup_join`."""
        return self.pipe(left).lookup_join(right, combine, **options)

    def interval_join(
        self,
        left: Route[Any],
        right: Route[Any],
        within: int,
        combine: Callable[..., Any] | Expr | None = None,
        **options: Any,
    ) -> Pipeline[Any]:
        """Values of both routes that are near in time; see `Pipeline.interval_join`."""
        return self.pipe(left).interval_join(right, within, combine, **options)

    def stateful_map(
        self, source: Route[T], initial_state: U, step: Callable[[U, T], tuple[U, Any]], output: Route[Any]
    ) -> Operator:
        """Publish the second of `state, result = step(state, value)` on `output`."""
        return self.pipe(source).stateful_map(step, initial_state).into(output)

    def materialize(self, source: Route[T], state_route: Route[T]) -> Operator:
        """Copy `source` into a state route, its latest first. Until it is closed nobody else writes there: the state is what
        the source was, and a publish on it is refused.

        :raises WiringError: if `state_route` is not on the plane `state`
        :raises SchemaMismatch: if the schemas differ
        """
        if state_route.addr.plane != "state":
            raise WiringError(
                f"{state_route.text} is no state route", fix="make it with plane='state'", item="plane"
            )
        require_same_schema(source, state_route, "convert with pipe(source).map(...).into(state_route)")
        pipe: Pipeline[T] = Pipeline(cast("Graph", self), source, replay=True, label="materialize")
        return pipe.into(state_route, name=f"materialize {state_route.text}")

    def plan_join(
        self,
        name: str,
        left: JoinInput,
        right: JoinInput,
        *,
        within: int | None = None,
        partitions: int = 16,
    ) -> JoinPlan:
        """Choose how to join two routes: local, lookup, broadcast mirror or repartition, the first that is right (S27).

        `plan.install(combine, sink)` runs it, `plan.explain()` tells what was chosen, why, and how its keys fall.

        :param within: ns of event time that partners may be apart; None: the latest of both sides
        :raises WiringError: if clock domains differ, both sides are unbounded, or keys can be brought together by nothing
        """
        from meshfold.core.join_plan import JoinPlan

        plan = JoinPlan(cast("Graph", self), name, left, right, within, partitions)
        if not self.join_runs(name):
            self.remember_join(plan.record)
        return plan

    def explain_join(self, plan: JoinPlan | str) -> JoinExplanation:
        """What a join plan does and what running it showed, by itself or by its name.

        :raises WiringError: if none of that name was planned here
        """
        if isinstance(plan, str):
            found = self._joins.get(plan)
            if found is None:
                raise WiringError(f"no join is named {plan[:60]!r}", fix="plan it first", item="join")
            return found.explain(cast("Graph", self))
        return plan.explain()

    def joins(self) -> list[JoinRecord]:
        """The joins that were planned here, by name."""
        return [self._joins[name] for name in sorted(self._joins)]

    def join_runs(self, name: str) -> bool:
        """Whether a join of that name is installed."""
        found = self._joins.get(name)
        return found is not None and bool(found.operators)

    def remember_join(self, record: JoinRecord) -> None:
        """Let queries find a plan by its name: the last one that was planned, or the one that runs.

        :raises WiringError: if too many are remembered and all of them run
        """
        idle = next((name for name, known in self._joins.items() if not known.operators), None)
        if record.name not in self._joins and len(self._joins) >= _JOINS_MAX:
            if idle is None:
                raise WiringError(f"{_JOINS_MAX} joins run here", fix="close one", item=record.name)
            del self._joins[idle]
        self._joins[record.name] = record
