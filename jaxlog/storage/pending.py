"""`Pending`: what was accepted and is not on storage yet, and the counts that bound it."""

from __future__ import annotations

from collections import deque
from typing import Any

from jaxlog.storage.block import Row, Rows

__all__ = ["Pending"]

_MOST_ROWS = 64  # in one item: what is dropped for want of room is dropped by the item


class Pending:
    """A queue of items, and the rows and scalars of what the sink holds besides.

    Not for several threads at once: its owner holds a lock.

    Args:
        most_scalars: with more than these it is full.

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
        self._open: Rows | None = None  # the last item, while it takes more rows
        self._queued_rows = self._queued_scalars = 0
        self.rows = 0
        self.scalars = 0
        self.dropped = 0  # scalars

    def add(self, item: Any, rows: int, scalars: int) -> None:
        """Appends to the queue; a `Row` to the `Rows` of its names, if they were the last."""
        if type(item) is not Row:
            self._queue.append([item, rows, scalars])
            self._open = None
        elif (
            (last := self._open) is not None
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
        """Whether so many more would be too many; an empty queue takes anything."""
        return bool(self.scalars) and self.scalars + scalars > self._most

    def drop_for(self, scalars: int) -> None:
        """Forgets from the front of the queue until so many more have room."""
        self._open = None
        while self._queue and self.is_full_for(scalars):
            _, rows, dropped = self._queue.popleft()
            self._queued_rows -= rows
            self._queued_scalars -= dropped
            self.rows -= rows
            self.scalars -= dropped
            self.dropped += dropped

    def take(self) -> list[Any]:
        """All items of the queue, which the sink then holds."""
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
        """So many of those are on storage, or lost."""
        self.rows -= rows
        self.scalars -= scalars
