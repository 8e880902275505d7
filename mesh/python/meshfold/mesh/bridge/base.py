"""What both directions of a bridge share: a state, a readiness, a contract."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Literal, Protocol

from meshfold.core import Route
from meshfold.core.errors import TransportTimeout
from meshfold.core.jobs import end_jobs
from meshfold.mesh.reply import Reply

__all__ = ("Bridge", "Requests")

State = Literal["starting", "ready", "failed", "closed"]


class Requests(Protocol):
    """What takes the requests of a route while its bridge is open."""

    @property
    def counters(self) -> dict[str, Any]:
        """What was taken and refused."""
        ...

    async def start(self) -> None:
        """Listen."""
        ...

    async def close(self) -> None:
        """Take no more. Idempotent."""
        ...


class Bridge(ABC):
    """A route between this graph and the mesh. Made by `Node.share` and `Node.read`.

    Contract `at_most_once`: an event arrives once or never; order holds per (producer, incarnation); what is lost on
    the way is counted `dropped(link_loss)` at the reader, never silent (S43).
    """

    def __init__(self, route: Route[Any], loop: asyncio.AbstractEventLoop) -> None:
        self.route = route
        self._loop = loop
        self._state: State = "starting"
        self._failure: BaseException | None = None
        self._ready = asyncio.Event()
        self._jobs: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> State:
        """starting, ready, failed or closed."""
        return self._state

    @property
    @abstractmethod
    def counters(self) -> dict[str, Any]:
        """What went through, what was lost and why."""

    def ready(self, timeout: float = 5.0) -> Reply[Bridge]:
        """Wait until events move, or could: `await bridge.ready()`, or `.result()` outside the node's loop.

        :param timeout: seconds
        :raises TransportTimeout: if it is not ready in time
        :raises MeshfoldError: what made the bridge fail, such as `GrantDenied`
        """
        return Reply(self._wait_ready(timeout), self._loop)

    async def _wait_ready(self, timeout_s: float) -> Bridge:
        try:
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        except TimeoutError:
            raise TransportTimeout(
                f"the bridge of {self.route.text} is not ready after {timeout_s} s",
                fix="is its other side running? `meshfold status` shows who is here",
                subject=self.route.text,
                timeout_s=timeout_s,
            ) from None
        if self._failure is not None:
            raise self._failure
        return self

    def _become_ready(self) -> None:
        if self._state == "starting":
            self._state = "ready"
            self._ready.set()

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._state = "failed"
        self._ready.set()

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` in the node's loop; an error fails the bridge and is raised by `ready`."""

        async def guarded() -> None:
            try:
                await work()
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - every failure belongs to whoever waits for the bridge
                self._fail(error)

        def begin() -> None:
            job = self._loop.create_task(guarded())
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)

        self._loop.call_soon_threadsafe(begin)

    async def _stop_jobs(self) -> None:
        await end_jobs(self._jobs)

    def close(self) -> Reply[None]:
        """End the bridge; what was taken from the graph is sent first. Idempotent."""
        return Reply(self._close(), self._loop)

    @abstractmethod
    async def _close(self) -> None: ...
