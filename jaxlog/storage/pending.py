"""`Pending`: what was accepted and is not on storage yet, and the counts that bound it."""

from __future__ import annotations

from collections import deque
from typing import Any

from jaxlog.storage.block import Row, Rows

__all__ = ["Pending"]

_MOST_ROWS = 64  # rows merged into one item; a full queue drops whole items


class Pending:
    """A queue of items, and counts of the rows and scalars in it and in the sink.

    An item is first in the queue (`add`), then held by the sink (`take`), then on storage
    (`saved`). `rows` and `scalars` count the first two. Not thread-safe: the owner holds a lock.

    Args:
        most_scalars: the queue is full above this number.

    Example:
        >>> pending = Pending(10)
        >>> pending.add("a", rows=1, scalars=6)
        >>> pending.is_full_for(6), pending.take(), pending.scalars
        (True, ['a'], 6)
        >>> pending.saved(*pending.held)
        >>> pending.scalars
        0
    """

    def __init__(self, most_scalars: int) -> None:
        self._most = most_scalars
        self._queue: deque[list[Any]] = deque()  # of [item, rows, scalars]
        self._open: Rows | None = None  # the last item, if further rows may be added to it
        self._queued_rows = self._queued_scalars = 0
        self.rows = 0
        self.scalars = 0
        self.dropped = 0  # scalars

    def add(self, item: Any, rows: int, scalars: int) -> None:
        """Appends to the queue; a `Row` joins the last item if that has the same tags."""
        if type(item) is not Row:
            self._queue.append([item, rows, scalars])
            self._open = None
        elif (
            (last := self._open) is not None
            # Identity, not equality: loggers pass the same tuple for the same names, and comparing
            # a hundred strings would cost more than the rest of this method.
            and last.tags is item.tags
            and len(last.steps) < _MOST_ROWS
        ):
            last.append(item)
            entry = self._queue[-1]
            entry[1] += rows
            entry[2] += scalars
        else:
            self._open = Rows(item)
            self._queue.append([self._open, rows, scalars])
        self._queued_rows += rows
        self._queued_scalars += scalars
        self.rows += rows
        self.scalars += scalars

    def is_full_for(self, scalars: int) -> bool:
        """Whether there is no room for so many scalars; an empty queue has room for any number."""
        return bool(self.scalars) and self.scalars + scalars > self._most

    def drop_for(self, scalars: int) -> None:
        """Drops items from the front of the queue until there is room for so many scalars."""
        self._open = None
        while self._queue and self.is_full_for(scalars):
            _, rows, dropped = self._queue.popleft()
            self._queued_rows -= rows
            self._queued_scalars -= dropped
            self.rows -= rows
            self.scalars -= dropped
            self.dropped += dropped

    def take(self) -> list[Any]:
        """Empties the queue; from now on its items count as held by the sink."""
        items = [item for item, _, _ in self._queue]
        self._queue.clear()
        self._open = None
        self._queued_rows = self._queued_scalars = 0
        return items

    @property
    def queued_rows(self) -> int:
        """Rows in the queue, without those that the sink holds."""
        return self._queued_rows

    @property
    def held(self) -> tuple[int, int]:
        """Rows and scalars that the sink holds."""
        return self.rows - self._queued_rows, self.scalars - self._queued_scalars

    def saved(self, rows: int, scalars: int) -> None:
        """Subtracts so many, which the sink has put on storage, or has lost."""
        self.rows -= rows
        self.scalars -= scalars
