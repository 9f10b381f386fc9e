"""`Table`: scalars by row and key, from the calls of a step function to the rows that are written.

One container from the fetched columns to the `Block` that loggers take: `decode` makes a table with
a row for each call of a step function, `in_rows` brings the calls to rows of steps, `join` puts
what several step functions and the host logged side by side, `block` chooses what is written.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from jaxlog.logs import REDUCTIONS, Reduction
from jaxlog.storage import Block
from jaxlog.windows.key import Key

__all__ = ["Columns", "Table", "epoch_block"]

EPOCH = "epoch"
STEP = "step"


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """The keys of a table's columns, and what is asked of all of them at once.

    Attributes:
        keys: one a column.
        tags: the tag of each column's scalars.
    """

    keys: tuple[Key, ...]
    tags: tuple[str, ...]

    @classmethod
    def of_steps(cls, keys: Sequence[Key]) -> Columns:
        """Columns of per-step values."""
        return cls(tuple(keys), tuple(key.step_tag for key in keys))

    @functools.cached_property
    def on_step(self) -> np.ndarray:
        """Which keys want per-step values: bool, shape `(k,)`."""
        return np.array([key.options.on_step for key in self.keys], bool)

    @functools.cached_property
    def for_loggers(self) -> np.ndarray:
        """Which keys loggers may see: bool, shape `(k,)`."""
        return np.array([key.options.logger for key in self.keys], bool)

    @functools.cached_property
    def by_reduction(self) -> dict[str, np.ndarray]:
        """Reduction to the columns that reduce by it: int."""
        names = [key.options.reduce_fx for key in self.keys]
        return {name: np.flatnonzero([n == name for n in names]) for name in dict.fromkeys(names)}

    @functools.cached_property
    def index(self) -> dict[tuple[str, str | None], int]:
        """Tag and lane to the column."""
        pairs = zip(self.tags, self.keys, strict=True)
        return {(tag, key.lane): at for at, (tag, key) in enumerate(pairs)}

    def select(self, chosen: np.ndarray) -> Columns:
        """Some of the columns, in their order."""
        at = np.flatnonzero(chosen).tolist()
        return Columns(tuple(self.keys[i] for i in at), tuple(self.tags[i] for i in at))


@dataclasses.dataclass
class Table:
    """Values by row and key, absent where nothing was logged.

    Attributes:
        columns: the k keys.
        values: float64, shape `(n, k)`; what is absent may be any number.
        present: bool, shape `(n, k)`.
        weights: the weight of each value in a mean, float64, shape `(n, k)`; None if no rows of
            this table are ever reduced.
    """

    columns: Columns
    values: np.ndarray
    present: np.ndarray
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def blank(cls, columns: Columns, size: int, *, weighted: bool = False) -> Table:
        """A table of `size` rows in which nothing was logged."""
        shape = (size, len(columns.keys))
        weights = np.zeros(shape) if weighted else None
        return cls(columns, np.full(shape, np.nan), np.zeros(shape, bool), weights)

    # ---- rows -----------------------------------------------------------------------------------

    def in_rows(self, row_of: np.ndarray, size: int) -> Table:
        """A table of `size` rows from one of calls.

        Calls of one row are reduced by each key's reduction if the table has weights; else the
        latest value stays, as the value of a step is the last that was logged in it.

        Args:
            row_of: the row of each call: int, shape `(n,)`, rising.
            size: the number of rows.
        """
        if len(row_of) == size and (row_of == np.arange(size)).all():
            return self  # nearly always: one call a row
        rows = Table.blank(self.columns, size, weighted=self.weights is not None)
        # Row-major, so the calls of one row stay in program order.
        calls, at = np.nonzero(self.present)
        rows.present[row_of[calls], at] = True
        if self.weights is None:
            # Of repeated indices numpy assigns the last, and calls are in program order.
            rows.values[row_of[calls], at] = self.values[calls, at]
            return rows
        for name, columns in self.columns.by_reduction.items():
            rows._reduce(self, REDUCTIONS[name], columns, row_of)
        return rows

    def _reduce(
        self, calls: Table, reduction: Reduction, columns: np.ndarray, row_of: np.ndarray
    ) -> None:
        """Reduces some columns of the calls into these rows."""
        present, values = calls.present[:, columns], calls.values[:, columns]
        assert self.weights is not None and calls.weights is not None  # noqa: PT018 - in_rows asks
        shape = (len(self), len(columns))
        if not reduction.weighted:
            reduced = np.full(shape, reduction.limit)
            reduction.ufunc.at(reduced, row_of, np.where(present, values, reduction.limit))
            self.values[:, columns] = reduced
            return
        # A weight of 0 contributes nothing whatever the value is; 0 * NaN would be NaN.
        weights = np.where(present, calls.weights[:, columns], 0.0)
        total, sums = np.zeros(shape), np.zeros(shape)
        np.add.at(total, row_of, weights)
        with np.errstate(divide="ignore", invalid="ignore"):
            np.add.at(sums, row_of, np.where(weights > 0, values * weights, 0.0))
            self.values[:, columns] = sums / total
        self.weights[:, columns] = total

    @staticmethod
    def join(tables: Sequence[Table], size: int) -> Table:
        """The columns of several tables of `size` rows side by side.

        A key in several tables is one column: reduced as in `in_rows`, in the order of the tables.
        """
        if len(tables) == 1:
            return tables[0]
        index: dict[tuple[str, str | None], int] = {}
        keys: list[Key] = []
        for table in tables:
            for label, at in table.columns.index.items():
                if label not in index:
                    index[label] = len(keys)
                    keys.append(table.columns.keys[at])
        columns = Columns.of_steps(keys)
        if len(keys) == sum(len(table.columns.keys) for table in tables):
            return _side_by_side(columns, tables, size)
        # The tables become calls of the same rows, one table after the other: then one rule reduces
        # both the calls of a step function and what several of them logged under one key.
        calls = Table.blank(columns, size * len(tables), weighted=_are_weighted(tables))
        for i, table in enumerate(tables):
            at = [index[label] for label in table.columns.index]
            here = slice(i * size, (i + 1) * size)
            calls.values[here, at], calls.present[here, at] = table.values, table.present
            if calls.weights is not None and table.weights is not None:
                calls.weights[here, at] = table.weights
        return calls.in_rows(np.tile(np.arange(size), len(tables)), size)

    def last_row(self) -> Table:
        """The last row as a table of one row, without what it did not log."""
        return self.select(self.present[-1]).part(slice(-1, None))

    def part(self, rows: slice) -> Table:
        """Some of the rows."""
        weights = None if self.weights is None else self.weights[rows]
        return Table(self.columns, self.values[rows], self.present[rows], weights)

    # ---- columns --------------------------------------------------------------------------------

    def select(self, chosen: np.ndarray) -> Table:
        """Some of the columns: bool, shape `(k,)`."""
        if chosen.all():
            return self
        weights = None if self.weights is None else self.weights[:, chosen]
        columns = self.columns.select(chosen)
        return Table(columns, self.values[:, chosen], self.present[:, chosen], weights)

    def latest(self, chosen: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The latest value of each column and whether it has any, among the chosen rows if given.

        Both of shape `(k,)`, float64 and bool.
        """
        if not len(self) or not len(self.columns.keys):
            return np.zeros(len(self.columns.keys)), np.zeros(len(self.columns.keys), bool)
        present = self.present if chosen is None else self.present & chosen[:, None]
        # Nearly always every key was logged in the last row; then nothing is searched.
        if present[-1].all():
            return self.values[-1], present[-1]
        at = len(self) - 1 - np.argmax(present[::-1], axis=0)
        return self.values[at, np.arange(len(at))], np.asarray(present.any(axis=0))

    # ---- what is written ------------------------------------------------------------------------

    def block(
        self, chosen: np.ndarray, steps: np.ndarray, times: np.ndarray, epoch: float | None
    ) -> Block | None:
        """The chosen rows that logged anything, as loggers take them; None if there are none.

        Args:
            chosen: bool, shape `(n,)`.
            steps: x values, int, shape `(n,)`.
            times: wall times, seconds since the epoch, shape `(n,)`.
            epoch: the epoch that rows carry: each has it under `"epoch"`, unless it logged that, or
                logged a `"step"`, which is then its x value. None for the rows of evaluation steps,
                which have their own x axis and no epoch.
        """
        # A row that logged nothing is not written, or evaluation would leave empty rows.
        kept = chosen & self.present.any(axis=1)
        if not kept.any():
            return None
        values, present, steps = self.values[kept], self.present[kept], steps[kept]
        tags = list(self.columns.tags)
        lanes: list[str | None] = [key.lane for key in self.columns.keys]
        if epoch is not None:
            own = np.zeros(len(steps), bool)
            if (STEP, None) in self.columns.index:  # a logged "step" is a row's x value
                at = self.columns.index[STEP, None]
                steps, own = np.where(present[:, at], values[:, at], steps), present[:, at]
                values, present = np.delete(values, at, axis=1), np.delete(present, at, axis=1)
                del tags[at], lanes[at]
            values, present = _with_epoch(tags, values, present, epoch, ~own)
            lanes += [None] * (len(tags) - len(lanes))
        return _block(tags, lanes, steps=steps, times=times[kept], values=values, present=present)


def _are_weighted(tables: Sequence[Table]) -> bool:
    return any(table.weights is not None for table in tables)


def _side_by_side(columns: Columns, tables: Sequence[Table], size: int) -> Table:
    if not tables:
        return Table.blank(columns, size)
    values = np.concatenate([table.values for table in tables], axis=1)
    present = np.concatenate([table.present for table in tables], axis=1)
    weights = [table.weights for table in tables if table.weights is not None]
    whole = np.concatenate(weights, axis=1) if len(weights) == len(tables) else None
    return Table(columns, values, present, whole)


def _with_epoch(
    tags: list[str], values: np.ndarray, present: np.ndarray, epoch: float, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Adds the epoch to the rows that want one and did not log their own."""
    if own := [at for at, tag in enumerate(tags) if tag == EPOCH]:  # one, or one a lane
        values[:, own] = np.where(present[:, own], values[:, own], epoch)
        present[:, own] |= wanted[:, None]
    elif wanted.any():
        tags.append(EPOCH)
        values = np.concatenate([values, np.full((len(values), 1), epoch)], axis=1)
        present = np.concatenate([present, wanted[:, None]], axis=1)
    return values, present


def _block(
    tags: Sequence[str],
    lanes: Sequence[str | None],
    *,
    steps: np.ndarray,
    times: np.ndarray,
    values: np.ndarray,
    present: np.ndarray,
) -> Block | None:
    if not tags:
        return None
    kept = present.any(axis=1)  # a row that logged nothing but its x value is not written
    if not kept.all():
        steps, times, values, present = steps[kept], times[kept], values[kept], present[kept]
    return Block(
        tuple(tags),
        steps.astype(np.int64),
        times,
        values,
        None if present.all() else present,
        tuple(lanes) if any(lane is not None for lane in lanes) else None,
    )


def epoch_block(
    values: Sequence[tuple[Key, float]], step: int, time: float, epoch: float
) -> Block | None:
    """The one row of epoch values; None if there are none."""
    keys = tuple(key for key, _ in values)
    columns = Columns(keys, tuple(key.epoch_tag for key in keys))
    row = np.array([[value for _, value in values]], np.float64).reshape(1, len(keys))
    table = Table(columns, row, np.ones(row.shape, bool))
    return table.block(np.ones(1, bool), np.array([step]), np.array([time]), epoch)
