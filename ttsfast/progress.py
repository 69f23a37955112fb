"""Progress bars on stderr, so that stdout stays readable by programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ttsfast.streams import Forgiving

T = TypeVar("T")


class _Console(Console):
    """On stderr, which a run outlives: its log is a file."""

    @property
    def file(self) -> Any:
        return Forgiving(super().file)

    @file.setter
    def file(self, stream: Any) -> None:
        self._file = stream


console = _Console(stderr=True)


def progress_bar() -> Progress:
    """A bar with a count and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Iterate with a progress bar."""
    with progress_bar() as bar:
        task = bar.add_task(description, total=total)
        for item in items:
            yield item
            bar.advance(task)
