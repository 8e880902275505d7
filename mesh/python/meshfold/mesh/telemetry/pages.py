"""The pages of a process: its vitals fetched from its loop, judged and rendered.

The loop is asked anew for each request. One that does not answer within `LOOP_S` is stuck: `/livez` fails, which makes
an orchestrator restart the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from http import HTTPStatus
from typing import Any, Final

from meshfold.mesh.telemetry.health import Check, judge, report
from meshfold.mesh.telemetry.http import TEXT, HealthServer, Page
from meshfold.mesh.telemetry.metrics import CONTENT_TYPE, render

__all__ = ("Vitals", "serve_health")

LOOP_S: Final = 3.0

#: The vitals of every node of the process, by name; None: that node does not answer (yet). Runs in the loop.
Vitals = Callable[[], Awaitable[dict[str, dict[str, Any] | None]]]


class _Stuck(Exception):
    """The loop does not answer."""


class _Pages:
    def __init__(self, loop: asyncio.AbstractEventLoop, vitals: Vitals, started: Callable[[], bool]) -> None:
        self._loop = loop
        self._vitals = vitals
        self._started = started

    def _fetch(self) -> dict[str, dict[str, Any] | None]:
        async def gather() -> dict[str, dict[str, Any] | None]:
            return await self._vitals()

        work = gather()
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise _Stuck from None
        try:
            return future.result(LOOP_S)
        except FutureTimeoutError:
            future.cancel()
            raise _Stuck from None

    def live(self, verbose: bool) -> tuple[HTTPStatus, str, bytes]:
        try:
            self._fetch()
            check = Check("loop", True, "answers")
        except _Stuck:
            check = Check("loop", False, f"no answer within {LOOP_S:.0f} s")
        return _answer("livez", [check], verbose)

    def startup(self, verbose: bool) -> tuple[HTTPStatus, str, bytes]:
        done = self._started()
        return _answer("startup", [Check("started", done, "yes" if done else "not yet")], verbose)

    def ready(self, verbose: bool) -> tuple[HTTPStatus, str, bytes]:
        try:
            nodes = self._fetch()
        except _Stuck:
            return _answer("readyz", [Check("loop", False, f"no answer within {LOOP_S:.0f} s")], verbose)
        checks: list[Check] = []
        for name, vitals in nodes.items():
            if vitals is None:
                checks.append(Check(f"node {name}", False, "does not take part"))
                continue
            prefix = f"{name} " if len(nodes) > 1 else ""
            checks += (Check(prefix + one.name, one.ok, one.detail) for one in judge(vitals))
        return _answer("readyz", checks or [Check("node", False, "starting")], verbose)

    def metrics(self, verbose: bool) -> tuple[HTTPStatus, str, bytes]:
        try:
            nodes = self._fetch()
        except _Stuck:
            return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, b"the node does not answer\n"
        return HTTPStatus.OK, CONTENT_TYPE, render(one for one in nodes.values() if one is not None)


def _answer(title: str, checks: list[Check], verbose: bool) -> tuple[HTTPStatus, str, bytes]:
    ok, text = report(title, checks, verbose=verbose)
    return HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE, TEXT, text.encode()


def serve_health(listen: str, vitals: Vitals, started: Callable[[], bool]) -> HealthServer:
    """Serve the pages of what runs in the current loop.

    :param listen: `host:port`
    :param started: whether the start is over, for `/healthz/startup`
    :raises ConfigError: if the address cannot be listened on
    """
    pages = _Pages(asyncio.get_running_loop(), vitals, started)
    routes: dict[str, Page] = {
        "/livez": pages.live,
        "/readyz": pages.ready,
        "/healthz/startup": pages.startup,
        "/metrics": pages.metrics,
    }
    return HealthServer(listen, routes)
