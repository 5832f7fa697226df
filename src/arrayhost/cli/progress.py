"""Progress bars, shown on stderr for what takes longer than a second, and only to a person."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from arrayhost.errors import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Task

__all__ = ["progress"]

_SHOWN_AFTER = 1.0


class _Speed(ProgressColumn):
    """Bytes a second, in the units of the bytes beside it."""

    def render(self, task: Task) -> Text:
        """Draw it."""
        return Text("" if task.speed is None else f"{format_bytes(int(task.speed))}/s", style="progress.data.speed")


@contextlib.contextmanager
def progress(what: str, n_bytes: int) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of bytes done so far; the bar appears after a second."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True),
               _Speed(), TimeRemainingColumn())  # fmt: skip
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(what, total=n_bytes)
    began = time.monotonic()

    def show(done: int) -> None:
        if not bar.live.is_started and time.monotonic() - began > _SHOWN_AFTER:
            bar.start()
        bar.update(task, completed=done)

    try:
        yield show
    finally:
        bar.stop()
