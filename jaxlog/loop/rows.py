"""Per-step values of a window as a table, and the rows of it that are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from jaxlog.loop.names import Key
from jaxlog.storage.block import Block

__all__ = ["Table", "epoch_block"]

EPOCH = "epoch"
STEP = "step"


_FOLD: dict[str, np.ufunc] = {"sum": np.add, "min": np.minimum, "max": np.maximum}


@dataclasses.dataclass
class Table:
    """Values by row and tag, absent where nothing was logged.

    Attributes:
        size: number of rows, n.
        index: tag to its column.
        values: float64, shape `(n, k)`.
        present: which rows logged which tag: bool, shape `(n, k)`.
        keys: tag to the key it stands for; a tag carried over from the window before has none.
        sums: tag to weighted sums, of means that several batches of one row share.
        weights: tag to the weights of those.
    """

    size: int
    index: dict[str, int] = dataclasses.field(default_factory=dict)
    values: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    present: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0), bool))
    keys: dict[str, Key] = dataclasses.field(default_factory=dict)
    sums: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    weights: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def set_keys(
        self, keys: Mapping[str, Key], rows: np.ndarray, values: np.ndarray, present: np.ndarray
    ) -> None:
        """Sets what m steps logged under many keys.

        Args:
            keys: tag to key, for each column of values.
            rows: the row of each step: int, shape `(m,)`.
            values: float64, shape `(m, len(keys))`.
            present: which of them were logged: bool, of the same shape.
        """
        whole = len(rows) == self.size and bool((rows == np.arange(self.size)).all())
        if whole and self.index.keys().isdisjoint(keys):
            self._append(keys, values, present)  # nearly always: a row a step
        else:
            self.add(keys)
            for j, tag in enumerate(keys):
                self.set(tag, rows[present[:, j]], values[present[:, j], j])
        self.keys |= keys

    def add(self, tags: Iterable[str]) -> None:
        """Makes room for tags that nothing was logged under yet."""
        if new := [tag for tag in tags if tag not in self.index]:
            shape = (self.size, len(new))
            self._append(new, np.zeros(shape), np.zeros(shape, bool))

    def _append(self, tags: Iterable[str], values: np.ndarray, present: np.ndarray) -> None:
        if self.index:
            values = np.concatenate([self.values, values], axis=1)
            present = np.concatenate([self.present, present], axis=1)
        self.index |= {tag: at for at, tag in enumerate(tags, len(self.index))}
        self.values, self.present = values, present

    def set_key(self, key: Key, rows: np.ndarray, values: np.ndarray) -> None:
        """`set` for the per-step values of a key."""
        self.keys[key.step_tag] = key
        self.set(key.step_tag, rows, values)

    def set(self, tag: str, rows: np.ndarray, values: np.ndarray) -> None:
        """Sets the values of some rows; of two for one row, the later stays."""
        self.add((tag,))
        at = self.index[tag]
        self.values[rows, at] = values
        self.present[rows, at] = True

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
            at = self.index.get(tag)
            if at is not None and self.present[row, at]:
                value = _FOLD[reduction](self.values[row, at], value)  # noqa: PLW2901 - folded in
            self.set_key(key, np.array([row]), np.array([value]))

    def last_row(self) -> Table:
        """The last row as a table of its own, for `carry`."""
        kept = [tag for tag, at in self.index.items() if self.present[-1, at]]
        at = [self.index[tag] for tag in kept]
        sums, weights = (
            {tag: x[-1:] for tag, x in part.items() if tag in kept}
            for part in (self.sums, self.weights)
        )
        index = {tag: i for i, tag in enumerate(kept)}
        return Table(1, index, self.values[-1:, at], self.present[-1:, at], {}, sums, weights)

    def carry(self, row: Table) -> None:
        """Begins the first row with what the window before logged of it."""
        self.add(row.index)
        for tag, at in row.index.items():
            self.set(tag, np.zeros(1, int), row.values[:, at])
        for mine, theirs in ((self.sums, row.sums), (self.weights, row.weights)):
            for tag, value in theirs.items():
                mine[tag] = np.concatenate([value, np.zeros(self.size - 1)])

    def last(self, chosen: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The latest value of each tag and whether it has any, among the chosen rows if given."""
        if not self.index:
            return np.zeros(0), np.zeros(0, bool)
        present = self.present if chosen is None else self.present & chosen[:, None]
        if present[-1].all():
            return self.values[-1], present[-1]
        at = self.size - 1 - np.argmax(present[::-1], axis=0)
        return self.values[at, np.arange(len(at))], np.asarray(present.any(axis=0))

    def without(self, tags: Collection[str]) -> Table:
        """This table without some tags."""
        if not tags:
            return self
        kept = [tag for tag in self.index if tag not in tags]
        at = [self.index[tag] for tag in kept]
        keys = {tag: key for tag, key in self.keys.items() if tag not in tags}
        sums, weights = (
            {tag: x for tag, x in part.items() if tag not in tags}
            for part in (self.sums, self.weights)
        )
        index = {tag: i for i, tag in enumerate(kept)}
        values, present = self.values[:, at], self.present[:, at]
        return Table(self.size, index, values, present, keys, sums, weights)

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
        if not self.index:
            return None
        kept = chosen & self.present.any(axis=1)
        if not kept.any():
            return None
        values, present, steps = self.values[kept], self.present[kept], steps[kept]
        tags = dict(self.index)
        if epoch is not None:
            own = np.zeros(len(steps), bool)
            if STEP in tags:  # a logged "step" is a row's x value, as in Lightning
                at = tags.pop(STEP)
                steps, own = np.where(present[:, at], values[:, at], steps), present[:, at]
                values, present = np.delete(values, at, axis=1), np.delete(present, at, axis=1)
                tags = {tag: i for i, tag in enumerate(tags)}
            values, present = _with_epoch(tags, values, present, epoch, ~own)
        return _block(tuple(tags), steps, times[kept], values, present)


def _with_epoch(
    tags: dict[str, int], values: np.ndarray, present: np.ndarray, epoch: float, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Adds the epoch to the rows that want one and did not log their own."""
    if EPOCH in tags:
        at = tags[EPOCH]
        values[:, at] = np.where(present[:, at], values[:, at], epoch)
        present[:, at] |= wanted
    elif wanted.any():
        tags[EPOCH] = len(tags)
        values = np.concatenate([values, np.full((len(values), 1), epoch)], axis=1)
        present = np.concatenate([present, wanted[:, None]], axis=1)
    return values, present


def _block(
    tags: tuple[str, ...],
    steps: np.ndarray,
    times: np.ndarray,
    values: np.ndarray,
    present: np.ndarray,
) -> Block | None:
    if not tags:
        return None
    kept = present.any(axis=1)  # a row that logged nothing but its x value is none
    if not kept.all():
        steps, times, values, present = steps[kept], times[kept], values[kept], present[kept]
    steps = steps.astype(np.int64)
    return Block(tags, steps, times, values, None if present.all() else present)


def epoch_block(values: Mapping[str, float], step: int, time: float, epoch: float) -> Block | None:
    """The one row of epoch values; None when there are none."""
    if not values:
        return None
    table = Table(1)
    table.add(values)
    for tag, value in values.items():
        table.set(tag, np.zeros(1, int), np.array([value]))
    return table.block(np.ones(1, bool), np.array([step]), np.array([time]), epoch)
