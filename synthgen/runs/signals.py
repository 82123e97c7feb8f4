"""Ctrl-C and SIGTERM end a run in a checkpoint, not in the middle of a step."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

from synthgen.errors import EXIT_INTERRUPTED, EXIT_TERMINATED
from synthgen.runs.processes.parent import launched

SAME_SECONDS = 2.0  # torch's launcher passes on the Ctrl-C that its processes have had from the terminal as well


class StopRequest:
    """Context manager: the first SIGINT or SIGTERM only raises a flag; a second SIGINT interrupts at once, unless it is
    the first again, passed on by a launcher.

    with StopRequest() as stop:
        for step in ...:
            ...
            if stop: save(); raise Stopped(..., exit_code=stop.exit_code)
    """

    def __init__(self):
        self.signal: int | None = None
        self._since = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
        elif number == signal.SIGINT and not (launched() and time.monotonic() - self._since < SAME_SECONDS):
            raise KeyboardInterrupt

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        return EXIT_INTERRUPTED if self.signal == signal.SIGINT else EXIT_TERMINATED
