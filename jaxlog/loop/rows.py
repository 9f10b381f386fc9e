"""Per-step values of a window as a table, and the rows of it that are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from jaxlog.loop.names import Key
from jaxlog.storage.block import Block

__all__ = ["Table", "epoch_block"]

_Columns = dict[str, tuple[np.ndarray, np.ndarray]]

EPOCH = "epoch"
STEP = "step"


_FOLD: dict[str, np.ufunc] = {"sum": np.add, "min": np.minimum, "max": np.maximum}


@dataclasses.dataclass
class Table:
    """Values by tag and row; arrays of shape `(n,)`, absent where nothing was logged.

    Attributes:
        size: number of rows, n.
        values: tag to values, float64.
        present: tag to which rows logged it, bool.
        keys: tag to the key it stands for; a tag carried over from the window before has none.
        sums: tag to weighted sums, of means that several batches of one row share.
        weights: tag to the weights of those.
    """

    size: int
    values: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    present: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    keys: dict[str, Key] = dataclasses.field(default_factory=dict)
    sums: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    weights: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def set_key(self, key: Key, rows: np.ndarray, values: np.ndarray) -> None:
        """`set` for the per-step values of a key."""
        self.keys[key.step_tag] = key
        self.set(key.step_tag, rows, values)

    def set(self, tag: str, rows: np.ndarray, values: np.ndarray) -> None:
        """Sets the values of some rows; of two for one row, the later stays."""
        if tag not in self.values:
            self.values[tag] = np.zeros(self.size)
            self.present[tag] = np.zeros(self.size, bool)
        self.values[tag][rows] = values
        self.present[tag][rows] = True

    def fold_key(self, key: Key, rows: np.ndarray, values: np.ndarray, weights: np.ndarray) -> None:
        """Adds to the values of some rows by the key's reduction.

        Args:
            key: what was logged.
            rows: where, int, shape `(m,)`; several may name one row.
            values: what, shape `(m,)`.
            weights: of means, shape `(m,)`.
        """
        tag, reduction = key.step_tag, key.options.reduce_fx
        if reduction == "mean":
            sums = self.sums.setdefault(tag, np.zeros(self.size))
            total = self.weights.setdefault(tag, np.zeros(self.size))
            np.add.at(sums, rows, values * weights)
            np.add.at(total, rows, weights)
            touched = np.unique(rows)
            with np.errstate(divide="ignore", invalid="ignore"):
                self.set_key(key, touched, sums[touched] / total[touched])
            return
        for row, value in zip(rows, values, strict=True):
            if tag in self.values and self.present[tag][row]:
                value = _FOLD[reduction](self.values[tag][row], value)  # noqa: PLW2901 - folded in
            self.set_key(key, np.array([row]), np.array([value]))

    def last_row(self) -> Table:
        """The last row as a table of its own, for `carry`."""
        kept = {tag for tag, present in self.present.items() if present[-1]}
        parts = (self.values, self.present, self.sums, self.weights)
        values, present, sums, weights = (
            {tag: x[-1:] for tag, x in part.items() if tag in kept} for part in parts
        )
        return Table(1, values, present, {}, sums, weights)

    def carry(self, row: Table) -> None:
        """Begins the first row with what the window before logged of it."""
        for tag, value in row.values.items():
            self.set(tag, np.zeros(1, int), value)
        for mine, theirs in ((self.sums, row.sums), (self.weights, row.weights)):
            for tag, value in theirs.items():
                mine[tag] = np.concatenate([value, np.zeros(self.size - 1)])

    def last(self, tag: str, chosen: np.ndarray | None = None) -> float | None:
        """The latest value of a tag, among the chosen batches if given."""
        present = self.present[tag] if chosen is None else self.present[tag] & chosen
        where = np.flatnonzero(present)
        return float(self.values[tag][where[-1]]) if len(where) else None

    def without(self, tags: Collection[str]) -> Table:
        """This table without some tags."""
        parts = (self.values, self.present, self.keys, self.sums, self.weights)
        shown: list[dict[str, Any]] = [
            {tag: x for tag, x in part.items() if tag not in tags} for part in parts
        ]
        return Table(self.size, *shown)

    def block(
        self, chosen: np.ndarray, steps: np.ndarray, times: np.ndarray, epoch: float | None
    ) -> Block | None:
        """The rows of the chosen batches that logged anything; None if there are none.

        Args:
            chosen: bool, shape `(n,)`.
            steps: x values, shape `(n,)`.
            times: wall times, shape `(n,)`.
            epoch: the epoch that rows carry: each has it under `"epoch"`, unless it logged that,
                or logged a `"step"`, which is then its x value. None for the rows of evaluation
                steps, which have an x value of their own, and no epoch.
        """
        if not self.values:
            return None
        present = np.stack([self.present[tag] for tag in self.values], axis=1)
        kept = chosen & present.any(axis=1)
        if not kept.any():
            return None
        columns = {tag: (self.values[tag][kept], self.present[tag][kept]) for tag in self.values}
        steps = steps[kept]
        if epoch is not None:
            steps, has_step = _own_steps(columns, steps)
            _add_epoch(columns, epoch, ~has_step)
        return _block(columns, steps, times[kept])


def _own_steps(columns: _Columns, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(x values, whether logged)`: a logged `"step"` is a row's x value, as in Lightning."""
    if STEP not in columns:
        return steps, np.zeros(len(steps), bool)
    values, present = columns.pop(STEP)
    return np.where(present, values, steps).astype(np.int64), present


def _add_epoch(columns: _Columns, epoch: float, wanted: np.ndarray) -> None:
    """Adds the epoch to the rows that want one and did not log their own."""
    size = len(wanted)
    values, own = columns.get(EPOCH, (np.zeros(size), np.zeros(size, bool)))
    if (present := own | wanted).any():
        columns[EPOCH] = (np.where(own, values, epoch), present)


def _block(
    columns: Mapping[str, tuple[np.ndarray, np.ndarray]], steps: np.ndarray, times: np.ndarray
) -> Block | None:
    if not columns:
        return None
    present = np.stack([mask for _, mask in columns.values()], axis=1)
    values = np.stack([values for values, _ in columns.values()], axis=1)
    kept = present.any(axis=1)  # a row that logged nothing but its x value is none
    return Block(
        tags=tuple(columns),
        steps=steps[kept].astype(np.int64),
        wall_times=times[kept],
        values=values[kept],
        present=None if present[kept].all() else present[kept],
    )


def epoch_block(values: Mapping[str, float], step: int, time: float, epoch: float) -> Block | None:
    """The one row of epoch values; None when there are none."""
    if not values:
        return None
    table = Table(1)
    for tag, value in values.items():
        table.set(tag, np.zeros(1, int), np.array([value]))
    return table.block(np.ones(1, bool), np.array([step]), np.array([time]), epoch)
