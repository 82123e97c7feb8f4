"""One progress bar for every long command: a live bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from synthgen.errors import raise_dropped

QUIET = "SYNTHGEN_QUIET"  # set to 1 to show no progress at all (helper processes, tests)


class Bar:
    """Counts done items; `note` values are shown behind the rate and the time left."""

    def __init__(self, description: str, total: int, unit: str, done: int = 0):
        self.description, self.total, self.unit = description, total, unit
        self.done, self.first, self.start = done, done, time.monotonic()
        self.notes: dict[str, float | str] = {}
        self.limit = float("inf")  # seconds after which the work ends whatever is done

    def advance(self, count: int = 1, **notes: float | str) -> None:
        raise_dropped()
        self.done += count
        self.notes.update(notes)
        self._show()

    def line(self) -> str:
        seconds = max(time.monotonic() - self.start, 1e-9)
        rate = (self.done - self.first) / seconds
        left = min((self.total - self.done) / rate if rate > 0 else float("inf"), max(self.limit - seconds, 0))
        pace = f"{rate:.1f} {self.unit}/s" if rate >= 1 or rate == 0 else f"{1 / rate:.1f} s/{self.unit}"
        clock = f"{int(left // 60)}:{int(left % 60):02d} left" if left != float("inf") else "- left"
        notes = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.notes.items())
        return f"{self.description}  {self.done}/{self.total}  {pace}  {clock}  {notes}".rstrip()

    def _show(self) -> None: ...

    def close(self) -> None: ...


class _Lines(Bar):
    every = 10.0  # seconds between lines where there is no terminal

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._last = time.monotonic()

    def _show(self) -> None:
        if time.monotonic() - self._last >= self.every:
            self._last = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def close(self) -> None:
        print(f"{self.line()}  ({time.monotonic() - self.start:.0f} s)", file=sys.stderr, flush=True)


class _Live(Bar):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        text = TextColumn("{task.description}", markup=False)  # a file name may hold what rich takes for markup
        self._rich = Progress(BarColumn(24), text, console=Console(stderr=True))
        self._rich.start()
        self._task = self._rich.add_task(self.line(), total=self.total, completed=self.done)

    def _show(self) -> None:
        self._rich.update(self._task, completed=self.done, description=self.line())

    def close(self) -> None:
        self._show()
        self._rich.stop()


@contextmanager
def progress(description: str, total: int, unit: str = "step", done: int = 0, show: bool = True) -> Iterator[Bar]:
    """A bar over `total` items, `done` of them already behind us; `show=False` on every rank but the first."""
    if not show or os.environ.get(QUIET) == "1":
        kind = Bar
    else:
        kind = _Live if sys.stderr.isatty() else _Lines
    bar = kind(description, total, unit, done)
    try:
        yield bar
    finally:
        bar.close()
