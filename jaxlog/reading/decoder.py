"""`decode_scalars`: all scalars of an event file as columns.

Most records of a file differ only in their time, step and values. So one record is parsed, the
records with the same bytes everywhere else are found by comparison, and numpy extracts the numbers
of all of them. Records that match no such pattern are parsed one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from jaxlog.reading.protobuf import Event, EventScalar, ProtobufError, parse_event
from jaxlog.reading.record_parser import Records

__all__ = ["ScalarColumns", "decode_scalars"]

_ROUNDS = 8  # patterns tried among the records of one size before the rest is parsed one by one
_FEW = 4  # so few records of one size are parsed one by one without trying patterns
_CHUNK_BYTES = 1 << 24  # records compared in one step; bounds the memory for the comparison


@dataclass(slots=True)
class ScalarColumns:
    """Scalars in any order; element i of every array belongs to scalar i.

    Attributes:
        tags: int64, the codes of the tags.
        steps: int64.
        wall_times: float64, seconds since the epoch.
        values: float64.
        order: int64, the number of the record that holds the scalar.
    """

    tags: np.ndarray
    steps: np.ndarray
    wall_times: np.ndarray
    values: np.ndarray
    order: np.ndarray

    @classmethod
    def joined(cls, parts: list[ScalarColumns]) -> ScalarColumns:
        """The concatenation of all parts.

        Example:
            >>> ScalarColumns.joined([]).values.tolist()
            []
        """

        def column(name: str, dtype: type) -> np.ndarray:
            return np.concatenate([np.empty(0, dtype), *(getattr(part, name) for part in parts)])

        return cls(
            column("tags", np.int64),
            column("steps", np.int64),
            column("wall_times", np.float64),
            column("values", np.float64),
            column("order", np.int64),
        )

    def kept(self, keep: np.ndarray) -> ScalarColumns:
        """The scalars where `keep` is True, or in the order of its indices."""
        return ScalarColumns(
            self.tags[keep],
            self.steps[keep],
            self.wall_times[keep],
            self.values[keep],
            self.order[keep],
        )


def decode_scalars(
    content: bytes, records: Records, code: Callable[[str], int]
) -> tuple[ScalarColumns, list[tuple[int, int]], int | None]:
    """Decodes the scalars of a file.

    Args:
        content: the file.
        records: the positions of its records.
        code: returns the code of a tag; negative to leave the tag out.

    Returns:
        The scalars, `(record, step)` of each START record, and the number of the first record that
        is not an `Event` message (None if all are).

    Example:
        >>> from jaxlog.storage import Block, scalar_records
        >>> from jaxlog.reading import split_records
        >>> content = b"".join(scalar_records(Block.row({"loss": 0.5}, step=3)))
        >>> columns, starts, bad = decode_scalars(content, split_records(content), lambda tag: 0)
        >>> columns.steps.tolist(), columns.values.tolist()
        ([3], [0.5])
    """
    reader = _Reader(content, records, code)
    order = np.argsort(records.sizes, kind="stable")
    bounds = np.flatnonzero(np.diff(records.sizes[order])) + 1
    for group in np.split(order, bounds) if len(order) else ():
        reader.read(group)
    return ScalarColumns.joined(reader.parts), sorted(reader.starts), reader.bad


@dataclass
class _Reader:
    content: bytes
    records: Records
    code: Callable[[str], int]
    parts: list[ScalarColumns] = field(default_factory=list)
    starts: list[tuple[int, int]] = field(default_factory=list)
    bad: int | None = None

    def read(self, group: np.ndarray) -> None:
        """Decodes the records `group`, which all have the same size."""
        size = int(self.records.sizes[group[0]])
        rows = max(1, _CHUNK_BYTES // max(size, 1))
        for first in range(0, len(group), rows):
            rest = group[first : first + rows]
            for _ in range(_ROUNDS):
                if len(rest) <= _FEW:
                    break
                left = self._read_same_layout(rest, size)
                if len(left) == len(rest):
                    break
                rest = left
            for record in rest.tolist():
                event = self._parse(record)
                if event is not None:
                    self._take_one(record, event)

    def _read_same_layout(self, rest: np.ndarray, size: int) -> np.ndarray:
        """Decodes the records that have the same layout as the first; returns the others."""
        first = self._parse(int(rest[0]))
        if first is None or not _is_regular(first):
            return rest
        # Row i of this view is the `size` bytes from byte i on; indexing copies only those rows.
        every = np.lib.stride_tricks.sliding_window_view(
            np.frombuffer(self.content, np.uint8), size
        )
        rows = every[self.records.starts[rest]]
        left = []
        for members in _groups(rows & _mask(first, size)):
            event = self._parse(int(rest[members[0]]))
            if event is not None and _is_regular(event) and _places(event) == _places(first):
                self._take_many(event, rest[members], rows[members])
            else:
                left.append(members)
        return rest[np.sort(np.concatenate(left))] if left else rest[:0]

    def _take_many(self, event: Event, records: np.ndarray, rows: np.ndarray) -> None:
        scalars = self._wanted(event)
        if not scalars:
            return
        count, width = len(rows), len(scalars)
        values = np.empty((count, width), np.float64)
        for column, (_, scalar) in enumerate(scalars):
            stored = rows[:, scalar.offset : scalar.offset + scalar.width]
            values[:, column] = np.ascontiguousarray(stored).view(f"<f{scalar.width}")[:, 0]
        times = np.full(count, event.wall_time)
        if event.wall_time_at >= 0:
            stored = rows[:, event.wall_time_at : event.wall_time_at + 8]
            times = np.ascontiguousarray(stored).view("<f8")[:, 0]
        codes = np.array([code for code, _ in scalars], np.int64)
        self.parts.append(
            ScalarColumns(
                np.tile(codes, count),
                np.repeat(_steps(rows[:, slice(*event.step_at)]), width),
                np.repeat(times, width),
                values.ravel(),
                np.repeat(records, width),
            )
        )

    def _take_one(self, record: int, event: Event) -> None:
        if event.is_start:
            self.starts.append((record, event.step))
        scalars = self._wanted(event)
        if scalars:
            count = len(scalars)
            self.parts.append(
                ScalarColumns(
                    np.array([code for code, _ in scalars], np.int64),
                    np.full(count, event.step, np.int64),
                    np.full(count, event.wall_time),
                    np.array([scalar.value for _, scalar in scalars], np.float64),
                    np.full(count, record, np.int64),
                )
            )

    def _wanted(self, event: Event) -> list[tuple[int, EventScalar]]:
        coded = ((self.code(scalar.tag), scalar) for scalar in event.scalars)
        return [(code, scalar) for code, scalar in coded if code >= 0]

    def _parse(self, record: int) -> Event | None:
        start = int(self.records.starts[record])
        try:
            return parse_event(self.content[start : start + int(self.records.sizes[record])])
        except ProtobufError:
            self.bad = record if self.bad is None else min(self.bad, record)
            return None


def _is_regular(event: Event) -> bool:
    """Whether the numbers can be copied from the bytes: all values are stored as floats."""
    return not event.is_start and all(scalar.offset >= 0 for scalar in event.scalars)


def _places(event: Event) -> tuple[int, tuple[int, int], list[tuple[int, int]]]:
    places = [(scalar.offset, scalar.width) for scalar in event.scalars]
    return event.wall_time_at, event.step_at, places


def _mask(event: Event, size: int) -> np.ndarray:
    """uint8 [size]: 0xFF for the bytes that records of one layout share, 0 for time and values."""
    mask = np.full(size, 0xFF, np.uint8)
    if event.wall_time_at >= 0:
        mask[event.wall_time_at : event.wall_time_at + 8] = 0
    mask[slice(*event.step_at)] = 0x80  # the continuation bits, which give the length of the varint
    for scalar in event.scalars:
        mask[scalar.offset : scalar.offset + scalar.width] = 0
    return mask


def _groups(keys: np.ndarray) -> Iterator[np.ndarray]:
    """The indices of equal rows, one array per group."""
    if (keys[1:] == keys[0]).all():
        yield np.arange(len(keys))
        return
    flat, size = keys.tobytes(), keys.shape[1]
    found: dict[bytes, list[int]] = {}
    for row in range(len(keys)):
        found.setdefault(flat[row * size : (row + 1) * size], []).append(row)
    for rows in found.values():
        yield np.array(rows, np.intp)


def _steps(digits: np.ndarray) -> np.ndarray:
    """int64 [n] from the varints in uint8 [n, width]."""
    shifts = np.arange(digits.shape[1], dtype=np.uint64) * np.uint64(7)
    parts = (digits & 0x7F).astype(np.uint64) << shifts
    return np.bitwise_or.reduce(parts, axis=1).astype(np.int64)
