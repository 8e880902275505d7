"""A rhythm in a thread of its own: for polling sensors and checking their health."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Self

from meshfold.core.errors import WiringError

__all__ = ("ManagedRunLoop",)

#: How long `stop` waits for a step that is running.
STOP_S = 10.0


class ManagedRunLoop:
    """Calls `step` every `period_s` seconds between `start` and `stop`, or inside `with`.

    Steps never overlap. One that takes longer than the period makes the loop skip the beats it missed, counted; one that
    raises is counted, kept in `last_error`, and the next beat comes as ever.

    :raises WiringError: for a period that is not above 0
    """

    def __init__(self, step: Callable[[], object], period_s: float, *, name: str = "run loop") -> None:
        if not period_s > 0:
            raise WiringError(f"a period of {period_s} s", fix="use more than 0 s", item="period_s")
        self._step = step
        self._period_s = period_s
        self._name = name
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        #: Steps that were run.
        self.steps = 0
        #: Beats that were missed because a step took too long.
        self.skipped = 0
        #: Steps that raised.
        self.failures = 0
        self.last_error: Exception | None = None

    def start(self) -> None:
        """Begin, with a step at once. Does nothing if it runs."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End after the step that is running. Idempotent."""
        thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_S)

    def _run(self) -> None:
        due = monotonic()
        while not self._stop.is_set():
            self._once()
            due += self._period_s
            late = monotonic() - due
            if late > 0:
                missed = int(late // self._period_s) + 1
                self.skipped += missed
                due += missed * self._period_s
            self._stop.wait(due - monotonic())

    def _once(self) -> None:
        try:
            self._step()
        except Exception as error:  # noqa: BLE001 - one failing step does not end the rhythm
            self.failures += 1
            self.last_error = error
        self.steps += 1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
