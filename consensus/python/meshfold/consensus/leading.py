"""`Leading`: leadership as a block of code, for both styles.

`async with`: the block is cancelled the moment the lease is over, and `NotLeader` is raised in its place. `with`: a block of
plain code cannot be cut short, so it asks `lease.valid`; at its end `NotLeader` is raised if the lease did not last.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Coroutine, Generator, Iterable
from types import TracebackType
from typing import Any, Protocol

from meshfold.consensus.candidate import Candidate, Lease
from meshfold.consensus.fence import Sink
from meshfold.core.errors import NotLeader, WiringError

__all__ = ("Leading",)


class Pending(Protocol):
    """Work that runs in the event loop of a node."""

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for it in any event loop."""
        ...

    def result(self, timeout: float | None = None) -> Any:
        """Wait for it outside event loops."""
        ...


class Leading:
    """Made by `Election.lead`; enter it once."""

    def __init__(
        self,
        candidate: Callable[[], Candidate],
        barrier: Iterable[Sink],
        run: Callable[[Coroutine[Any, Any, Any]], Pending],
    ) -> None:
        self._candidate = candidate
        self._barrier = tuple(barrier)
        self._run = run
        self._lease: Lease | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._cut = False

    async def _begin(self, on_loss: Callable[[], None] | None) -> Lease:
        if self._lease is not None:
            raise WiringError("lead() was entered before", fix="call lead() again", item="lead")
        lease = self._lease = await self._candidate().campaign()
        try:
            for sink in self._barrier:
                admitted = await asyncio.to_thread(sink.admit, lease.token)
                if inspect.isawaitable(admitted):
                    await admitted
            lease.check()
        except BaseException:
            await lease.resign()
            raise
        if on_loss is not None:
            lease.on_loss(on_loss)
        return lease

    async def _end(self) -> bool:
        """Give it back; whether it lasted."""
        if self._lease is None:
            return True
        await self._lease.resign()
        return not self._lease.lost

    def _over(self) -> NotLeader:
        assert self._lease is not None
        token = self._lease.token
        return NotLeader(
            f"the lease {token} ended before its block did",
            fix="what it did since is for the fences to judge; lead again",
            group=token.election,
            leader=None,
        )

    def _cancel(self) -> None:
        if self._task is not None:
            self._cut = True
            self._task.cancel()

    async def __aenter__(self) -> Lease:
        loop = asyncio.get_running_loop()

        def notify() -> None:
            with contextlib.suppress(
                RuntimeError
            ):  # that loop is closed: there is no block left to cut short
                loop.call_soon_threadsafe(self._cancel)

        try:
            lease: Lease = await self._run(self._begin(notify))
        except asyncio.CancelledError:
            # It may have been granted in the same moment.
            await asyncio.shield(_finished(self._run(self._end())))
            raise
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        if lease.lost:
            self._task = None
            raise self._over()
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        assert task is not None
        # As asyncio.timeout does: only a cancellation of our own becomes our error.
        ours = self._cut and task.uncancel() <= self._cancelling
        lasted = await self._run(self._end())
        if ours and (kind is None or kind is asyncio.CancelledError):
            raise self._over() from error
        if kind is None and not lasted:
            raise self._over()

    def __enter__(self) -> Lease:
        lease: Lease = self._run(self._begin(None)).result()
        return lease

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._run(self._end()).result() and kind is None:
            raise self._over()


async def _finished(pending: Pending) -> None:
    await pending
