"""One bar as the rest of the package sees it: it counts, and is drawn now and then."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

__all__ = ["Bar", "LineBar", "Outline", "in_notebook", "shown"]


@dataclasses.dataclass(frozen=True)
class Outline:
    """What a bar shows.

    Attributes:
        label: its name.
        total: how many batches there will be; None where nobody knows.
        refresh_secs: least time between two redraws, in seconds.
        values: gives what stands beside it, by name.
    """

    label: str
    total: int | None
    refresh_secs: float
    values: Callable[[], Mapping[str, Any]]


class Bar:
    """Counts, and shows nothing.

    Attributes:
        outline: what it would show.
        count: batches so far.
    """

    def __init__(self, outline: Outline) -> None:
        """Of no batch yet."""
        self.outline = outline
        self.count = 0
        self._drawn = time.monotonic()

    def advance(self) -> None:
        """One batch more; redraws when it is time."""
        self.count += 1
        now = time.monotonic()
        if now - self._drawn >= self.outline.refresh_secs:
            self._drawn = now
            self.draw()

    def draw(self) -> None:
        """Shows where things stand."""

    def finish(self) -> None:
        """Shows the end of it."""


class LineBar(Bar):
    """One line when it is over: for a file or a pipe."""

    def __init__(self, outline: Outline, stream: IO[str]) -> None:
        """A line for `stream`."""
        super().__init__(outline)
        self._stream = stream

    def finish(self) -> None:
        """Writes the line."""
        of = "" if self.outline.total is None else f"/{self.outline.total}"
        parts = [f"{self.outline.label}: {self.count}{of} batches"]
        parts += [f"{name}={shown(value)}" for name, value in self.outline.values().items()]
        print(", ".join(parts), file=self._stream, flush=True)


def shown(value: Any) -> str:
    """A value as bars write it: floats to three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def in_notebook() -> bool:
    """Whether output goes to a cell of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
