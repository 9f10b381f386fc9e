"""`Sink`: what a `BackgroundWriter` writes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["Sink"]


class Sink(Protocol):
    """The destination of a `BackgroundWriter`, whose thread alone calls the methods.

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
        """The name of the destination in error messages."""
        ...

    @property
    def min_interval_secs(self) -> float:
        """Least time between two writes that no caller waits for.

        Object stores charge by the request, and Cloud Storage accepts one write a second per name.
        """
        ...

    @property
    def retry_secs(self) -> float | None:
        """Seconds until the next flush, for data the store did not take; None if there is none."""
        ...

    def write(self, items: Sequence[Any]) -> None:
        """Takes items in order; they are safe only after the next `flush`."""
        ...

    def flush(self) -> None:
        """Puts everything it took on storage, or raises and keeps it for the next flush.

        Raises:
            StoreAwayError: the store is unreachable; call this again in `retry_secs`.
        """
        ...

    def close(self) -> None:
        """Flushes and ends the file; data that cannot be written now is lost."""
        ...
