"""The units in which scalars reach storage: `Block`, `Row` and `Rows`.

A `Block` is numpy arrays of steps by tags, what the loop writes. A `Row` is one call of
`log_metrics`, not converted yet: the caller's thread only stores references, and `blocks_of`
converts many rows at once on the writer's thread.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any, NamedTuple

import numpy as np

from jaxlog.errors import LoggerError

__all__ = ["Block", "Row", "Rows", "blocks_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A batch of scalars as columns: row i holds what was logged at `steps[i]`.

    Attributes:
        tags: the names of the columns, each once.
        steps: int64 [n], each at least 0.
        wall_times: float64 [n], seconds since the epoch.
        values: float64 [n, len(tags)]; NaN and infinities are values like any other.
        present: bool [n, len(tags)], False where a tag was not logged; None when all are there.
        lanes: the lane of each column, if several runs share one program; an element None marks a
            column of all lanes. None for a block without lanes. The lane is not part of the tag, so
            a tag that ends in the name of a lane belongs to the user.

    Raises:
        LoggerError: shapes or dtypes that do not fit, a negative step, a tag that occurs twice in
            one lane.

    Example:
        >>> block = Block(("loss",), np.arange(2), np.zeros(2), np.array([[0.5], [0.25]]))
        >>> list(block.rows())
        [(0, 0.0, {'loss': 0.5}), (1, 0.0, {'loss': 0.25})]
    """

    tags: tuple[str, ...]
    steps: np.ndarray
    wall_times: np.ndarray
    values: np.ndarray
    present: np.ndarray | None = None
    lanes: tuple[str | None, ...] | None = None

    def __post_init__(self) -> None:
        set_field = object.__setattr__  # a frozen dataclass has no other way in __post_init__
        lanes = None if self.lanes is None else tuple(self.lanes)
        set_field(self, "lanes", lanes)
        set_field(self, "tags", _checked_tags(tuple(self.tags), lanes))
        set_field(self, "steps", _checked_steps(self.steps))
        rows, shape = (len(self.steps),), (len(self.steps), len(self.tags))
        set_field(self, "wall_times", _array("wall_times", self.wall_times, np.float64, rows))
        set_field(self, "values", _array("values", self.values, np.float64, shape))
        if self.present is not None:
            set_field(self, "present", _array("present", self.present, np.bool_, shape))

    @classmethod
    def row(cls, metrics: Mapping[str, float], step: int, wall_time: float | None = None) -> Block:
        """The block of one row: what was logged at `step`.

        Example:
            >>> Block.row({"loss": 0.5}, step=3, wall_time=0.0).values.tolist()
            [[0.5]]
        """
        now = time.time() if wall_time is None else wall_time
        values = _numbers(list(metrics.values())).reshape(1, len(metrics))
        return cls(tuple(metrics), np.array([step]), np.array([now]), values)

    def of_lane(self, lane: str) -> Block:
        """The columns of one lane and those of all lanes, as a block without lanes.

        Example:
            >>> block = Block(("a", "a"), [0], [0.0], [[1.0, 2.0]], lanes=("slow", "fast"))
            >>> list(block.of_lane("fast").rows())
            [(0, 0.0, {'a': 2.0})]
        """
        if self.lanes is None:
            return self
        tags, columns = _columns_of(self.tags, self.lanes, lane)
        present = None if self.present is None else self.present[:, columns]
        return Block(tags, self.steps, self.wall_times, self.values[:, columns], present)

    def without_lanes(self) -> Block:
        """All columns in one block, those of a lane as `tag/lane`.

        Raises:
            LoggerError: a user's own tag is such a name too.

        Example:
            >>> block = Block(("a", "b"), [0], [0.0], [[1.0, 2.0]], lanes=("slow", None))
            >>> block.without_lanes().tags
            ('a/slow', 'b')
        """
        if self.lanes is None:
            return self
        tags = _joined(self.tags, self.lanes)
        return Block(tags, self.steps, self.wall_times, self.values, self.present)

    def rows(self) -> Iterator[tuple[int, float, dict[str, float]]]:
        """One `(step, wall_time, {tag: value})` per row, absent values left out.

        Columns of a lane are named as in `without_lanes`.
        """
        if self.lanes is not None:
            yield from self.without_lanes().rows()
            return
        steps, times, values = self.steps.tolist(), self.wall_times.tolist(), self.values.tolist()
        if self.present is None:
            for step, wall_time, row in zip(steps, times, values, strict=True):
                yield step, wall_time, dict(zip(self.tags, row, strict=True))
            return
        for step, wall_time, row, here in zip(
            steps, times, values, self.present.tolist(), strict=True
        ):
            cells = zip(self.tags, row, here, strict=True)
            yield step, wall_time, {tag: value for tag, value, there in cells if there}


class Row(NamedTuple):
    """One row as the caller gave it: cheap to queue; the writer's thread converts it to a `Block`.

    Attributes:
        tags: the names; the same object for all rows with the same names, so that the queue can
            compare by identity.
        values: numbers of any kind, one a tag.
        step: at least 0.
        wall_time: seconds since the epoch.

    Example:
        >>> Row.of({"loss": 0.5}, step=3, wall_time=0.0).values
        (0.5,)
    """

    tags: tuple[str, ...]
    values: tuple[Any, ...]
    step: int
    wall_time: float

    @classmethod
    def of(cls, metrics: Mapping[str, Any], step: int, wall_time: float) -> Row:
        """A row with the current content of `metrics`."""
        return cls(tuple(metrics), tuple(metrics.values()), step, wall_time)


class Rows:
    """Consecutive rows with the same tags, as they wait for the writer's thread.

    They are kept in a few lists: thousands of small waiting objects would trigger Python's garbage
    collector, which then also traverses every object that JAX keeps alive.

    Attributes:
        tags: the names.
        values: the values of all rows in one flat list.
        steps: one step a row.
        wall_times: one time a row, seconds since the epoch.

    Example:
        >>> rows = Rows(Row.of({"loss": 0.5}, 0, 0.0))
        >>> rows.append(Row.of({"loss": 0.25}, 1, 0.0))
        >>> rows.steps, rows.values
        ([0, 1], [0.5, 0.25])
    """

    __slots__ = ("steps", "tags", "values", "wall_times")

    def __init__(self, row: Row) -> None:
        self.tags = row.tags
        self.values: list[Any] = list(row.values)
        self.steps = [row.step]
        self.wall_times = [row.wall_time]

    def append(self, row: Row) -> None:
        """Adds a row of the same names."""
        self.values.extend(row.values)
        self.steps.append(row.step)
        self.wall_times.append(row.wall_time)


def blocks_of(items: Iterable[Block | Row | Rows]) -> Iterator[Block]:
    """The same rows in the same order; consecutive rows with the same tags form one block.

    Example:
        >>> rows = [Row.of({tag: step}, step, 0.0) for step, tag in enumerate("aab")]
        >>> [block.values.tolist() for block in blocks_of(rows)]
        [[[0.0], [1.0]], [[2.0]]]
    """
    for key, group in groupby(items, lambda item: None if isinstance(item, Block) else item.tags):
        if key is None:
            yield from (item for item in group if isinstance(item, Block))
            continue
        parts = [Rows(item) if isinstance(item, Row) else item for item in group]
        rows = [part for part in parts if isinstance(part, Rows)]
        steps = list(chain.from_iterable(part.steps for part in rows))
        times = list(chain.from_iterable(part.wall_times for part in rows))
        values = _numbers(list(chain.from_iterable(part.values for part in rows)))
        yield Block(
            key,
            np.array(steps, np.int64),
            np.array(times, np.float64),
            values.reshape(len(steps), len(key)),
        )


def _numbers(values: Sequence[Any]) -> np.ndarray:
    """float64 [len(values)]; an integer beyond the range of float64 becomes an infinity."""
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return np.array([_float(value) for value in values], np.float64)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


# A run logs few different sets of tags, each of them thousands of times. So everything that depends
# on the tags alone is computed once per set and cached.
@functools.lru_cache(maxsize=256)
def _checked_tags(tags: tuple[str, ...], lanes: tuple[str | None, ...] | None) -> tuple[str, ...]:
    for tag in tags:
        if not isinstance(tag, str):
            raise LoggerError(f"tags are strings, but got {tag!r} of type {type(tag).__name__}")
    if lanes is not None and len(lanes) != len(tags):
        raise LoggerError(f"lanes name one lane a tag, but got {len(lanes)} for {len(tags)} tags")
    of_all = {tag for tag, lane in zip(tags, lanes or (), strict=False) if lane is None}
    of_one = {tag for tag, lane in zip(tags, lanes or (), strict=False) if lane is not None}
    columns = tags if lanes is None else tuple(zip(tags, lanes, strict=True))
    if len(set(columns)) != len(columns) or of_all & of_one:
        many = sorted({tag for tag in tags if tags.count(tag) > 1})
        where = "tags" if lanes is None else "the tags of one lane"
        raise LoggerError(f"a tag names one column, but {', '.join(many)} occurs twice in {where}")
    return tags


@functools.lru_cache(maxsize=256)
def _columns_of(
    tags: tuple[str, ...], lanes: tuple[str | None, ...], lane: str
) -> tuple[tuple[str, ...], list[int]]:
    chosen = [number for number, of in enumerate(lanes) if of is None or of == lane]
    return tuple(tags[number] for number in chosen), chosen


@functools.lru_cache(maxsize=256)
def _joined(tags: tuple[str, ...], lanes: tuple[str | None, ...]) -> tuple[str, ...]:
    pairs = zip(tags, lanes, strict=True)
    joined = tuple(tag if lane is None else f"{tag}/{lane}" for tag, lane in pairs)
    both = sorted({tag for tag in joined if joined.count(tag) > 1})
    if both:
        raise LoggerError(
            f"{both[0]!r} is both a tag as it was logged and the tag of a lane, and this logger "
            f"keeps all lanes in one run; rename the one that was logged, or use a logger with "
            f"for_lane(lane), such as TensorBoardLogger"
        )
    return joined


def _checked_steps(steps: Any) -> np.ndarray:
    array = np.asarray(steps)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise LoggerError(
            f"steps must be integers of shape [n], but got {array.dtype} of shape {array.shape}"
        )
    wide = array.size and array.max() > np.iinfo(np.int64).max
    if array.size and (wide or array.min() < 0):
        wrong = array.max() if wide else array.min()
        raise LoggerError(f"a step must be between 0 and 2**63 - 1, but got {wrong}")
    return array.astype(np.int64, copy=False)


def _array(name: str, value: Any, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.asarray(value, dtype)
    except (TypeError, ValueError) as error:
        raise LoggerError(f"{name} must hold {np.dtype(dtype)}: {error}") from error
    if array.shape != shape:
        raise LoggerError(
            f"{name} must have shape {list(shape)} ([n] steps, one column a tag), "
            f"but got {list(array.shape)}"
        )
    return array
