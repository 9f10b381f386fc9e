"""The interface of one bar: it counts batches and is redrawn at intervals."""

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
        label: the name of the bar.
        total: number of batches, or None if unknown.
        refresh_secs: least time between two redraws, in seconds.
        values: returns the values to show beside the bar, by name.
    """

    label: str
    total: int | None
    refresh_secs: float
    values: Callable[[], Mapping[str, Any]]


class Bar:
    """A bar that counts and shows nothing; subclasses draw.

    Attributes:
        outline: what a subclass shows.
        count: number of batches so far.
    """

    def __init__(self, outline: Outline) -> None:
        """A bar at zero batches."""
        self.outline = outline
        self.count = 0
        self._drawn = time.monotonic()

    def advance(self) -> None:
        """Counts one batch; redraws if the last redraw is `refresh_secs` ago."""
        self.count += 1
        now = time.monotonic()
        if now - self._drawn >= self.outline.refresh_secs:
            self._drawn = now
            self.draw()

    def draw(self) -> None:
        """Shows the current count and values."""

    def finish(self) -> None:
        """Shows the final state and ends the bar."""


class LineBar(Bar):
    """Writes one line at the end instead of a bar, for a file or a pipe."""

    def __init__(self, outline: Outline, stream: IO[str]) -> None:
        """A bar that writes its line to `stream`."""
        super().__init__(outline)
        self._stream = stream

    def finish(self) -> None:
        """Writes the line."""
        of = "" if self.outline.total is None else f"/{self.outline.total}"
        parts = [f"{self.outline.label}: {self.count}{of} batches"]
        parts += [f"{name}={shown(value)}" for name, value in self.outline.values().items()]
        print(", ".join(parts), file=self._stream, flush=True)


def shown(value: Any) -> str:
    """A value as text: floats with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def in_notebook() -> bool:
    """Whether this runs in a notebook, so that output goes to a cell."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
