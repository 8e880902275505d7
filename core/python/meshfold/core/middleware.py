"""Middleware: code around every publish and every delivery that goes through a layer of a graph.

A layer has the verbs of its graph; what is called on the graph itself does not pass through. Hooks are nested in the order
they are given: the first is outermost. A hook that raises stops the call, and its error is the caller's (for a delivery: the
observer's, so it is counted as that observer's failure, S4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from meshfold.core.errors import WiringError
from meshfold.core.event import Event
from meshfold.core.route import Route

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.stream import Subscription

__all__ = ("Layer", "Middleware")

T = TypeVar("T")
HOOKS_MAX = 32


class Middleware:
    """Override what you need; call `go` to go on, or do not. Values and envelope may be changed on the way in."""

    def publish(
        self, r: Route[Any], value: Any, envelope: dict[str, Any], go: Callable[..., Event[Any]]
    ) -> Event[Any]:
        """Around a publish: `go(value, envelope)` encodes, numbers and delivers it."""
        return go(value, envelope)

    def deliver(self, event: Event[Any], go: Callable[[Event[Any]], Any]) -> Any:
        """Around the delivery of an event to an observer: `go(event)` calls it."""
        return go(event)


class Layer:
    """A graph behind middleware. Made by `Graph.layer`."""

    def __init__(self, graph: Graph, hooks: Iterable[object]) -> None:
        self.graph = graph
        found: list[Middleware] = []
        for hook in hooks:
            if not isinstance(hook, Middleware):
                raise WiringError(
                    f"{type(hook).__name__} is no Middleware", fix="derive from Middleware", item="middleware"
                )
            found.append(hook)
        if not found or len(found) > HOOKS_MAX:
            raise WiringError(
                f"a layer of {len(found)} hooks", fix=f"give 1 to {HOOKS_MAX}", item="middleware"
            )
        self.hooks = tuple(found)

    def publish(self, r: Route[T], value: T, **envelope: Any) -> Event[T]:
        """As `Graph.publish`, through every hook. Raises what that or a hook raises; a hook may keep it from happening."""

        def last(value: Any, envelope: dict[str, Any]) -> Event[Any]:
            return self.graph.publish(r, value, **envelope)

        go: Callable[..., Event[Any]] = last
        for hook in reversed(self.hooks):
            go = partial(_publish, hook, r, go)
        return go(value, envelope)

    def observe(self, r: Route[T], fn: Callable[[Event[T]], Any], **options: Any) -> Subscription:
        """As `Graph.observe`; each event goes through every hook before it reaches `fn`."""
        go: Callable[[Event[Any]], Any] = fn
        for hook in reversed(self.hooks):
            go = partial(_deliver, hook, go)

        def delivered(event: Event[T]) -> None:
            go(event)

        hooks = ", ".join(type(hook).__name__ for hook in self.hooks)
        delivered.__qualname__ = f"{getattr(fn, '__qualname__', 'observer')} behind {hooks}"
        return self.graph.observe(r, delivered, **options)


def _publish(
    hook: Middleware, r: Route[Any], go: Callable[..., Event[Any]], value: Any, envelope: dict[str, Any]
) -> Event[Any]:
    return hook.publish(r, value, dict(envelope), go)


def _deliver(hook: Middleware, go: Callable[[Event[Any]], Any], event: Event[Any]) -> Any:
    return hook.deliver(event, go)
