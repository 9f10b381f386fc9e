"""`Sink`: what a `BackgroundWriter` writes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["Sink"]


class Sink(Protocol):
    """Where a `BackgroundWriter` writes; only its thread calls these methods.

    Example:
        >>> class Printed:
        ...     path = "the screen"
        ...     min_interval_secs = 0.0
        ...     retry_secs = None
        ...
        ...     def write(self, items):
        ...         print(*items)
        ...
        ...     def flush(self): ...
        ...     def close(self): ...
        >>> sink: Sink = Printed()
        >>> sink.write(["row"])
        row
    """

    @property
    def path(self) -> str:
        """What to name in an error."""
        ...

    @property
    def min_interval_secs(self) -> float:
        """Least time between two writes that nobody waits for.

        Object stores charge by the request, and some take one a second for a name.
        """
        ...

    @property
    def retry_secs(self) -> float | None:
        """Seconds until it wants to be flushed again, for what its store did not take yet."""
        ...

    def write(self, items: Sequence[Any]) -> None:
        """Takes items in order; they may still be lost until `flush`."""
        ...

    def flush(self) -> None:
        """Puts all it took on storage, or raises and keeps it for the next time.

        Raises:
            StoreAwayError: nothing is wrong but that it has to be called again in `retry_secs`.
        """
        ...

    def close(self) -> None:
        """Flushes and ends the file; nothing can be kept for later any more."""
        ...
