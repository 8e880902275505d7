"""Stages of pipelines: what the engine is told to do, and functions that keep a state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from meshfold.core.errors import WiringError
from meshfold.core.expressions import Aggregate, Expr

if TYPE_CHECKING:
    from meshfold.core.route import Route

__all__ = ("Fold", "Port", "Stage", "nanoseconds")


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


class Fold:
    """A function with a state: `step(state, value)` gives the next state, and with `pair` also the result.

    The state of the operator that runs it; saved as JSON, and read back as the type of the initial state.
    """

    def __init__(self, step: Callable[[Any, Any], Any], initial: Any, *, pair: bool) -> None:
        self._step = step
        self._state = initial
        self._type: Any = type(initial) if initial is not None else Any
        self._pair = pair
        self.__qualname__ = getattr(step, "__qualname__", type(step).__name__)

    def __call__(self, value: Any) -> Any:
        if self._pair:
            # Both or neither: a step that raises leaves the state as it was.
            self._state, result = self._step(self._state, value)
            return result
        self._state = self._step(self._state, value)
        return self._state

    def save(self) -> bytes:
        """The state as bytes.

        :raises WiringError: if it has no JSON form
        """
        try:
            return msgspec.json.encode(self._state)
        except (TypeError, ValueError) as error:
            raise WiringError(
                f"the state of {self.__qualname__} has no JSON form: {error}",
                fix="keep a number, text, list, dict, dataclass or msgspec.Struct",
                item="state",
            ) from None

    def load(self, data: bytes) -> None:
        """Take over a saved state.

        :raises WiringError: if it is none of this type
        """
        try:
            self._state = msgspec.json.decode(data, type=self._type)
        except msgspec.MsgspecError as error:
            raise WiringError(f"not a state of {self.__qualname__}: {error}", item="state") from None


def nanoseconds(seconds: float, what: str) -> int:
    """A duration in ns.

    :raises WiringError: if it is not above 0
    """
    ns = round(seconds * 1e9) if math.isfinite(seconds) and abs(seconds) < 1e9 else 0
    if ns <= 0:
        raise WiringError(f"{what} of {seconds} s", fix="use a time above 0", item=what)
    return ns


def computed(way: str, f: Callable[..., Any] | Expr | Aggregate, kind: str) -> Stage:
    """The stage for a function, an expression or an aggregate."""
    if isinstance(f, Expr):
        return Stage(kind, {"expr": f.form})
    if isinstance(f, Aggregate):
        config: dict[str, Any] = {"aggregate": f.form}
        if f.size is not None:
            config["size"] = f.size
        return Stage("rolling", config)
    if not callable(f):
        raise WiringError(f"{f!r} cannot be called", fix="give a function or an expression", item=kind)
    return Stage("foreign", {"way": way}, function=f)


def combined(combine: Callable[..., Any] | Expr | None) -> tuple[Stage, ...]:
    """What makes one value of the sides of a join: called with them, or an expression over `value[0]`, `value[1]`."""
    if combine is None:
        return ()
    if isinstance(combine, Expr):
        return (Stage("map", {"expr": combine.form}),)
    return (Stage("foreign", {"way": "spread"}, function=combine),)
