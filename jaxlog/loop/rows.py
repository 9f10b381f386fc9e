"""Per-step values of a window as a table, and the rows of it that are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np

from jaxlog.loop.names import Key
from jaxlog.storage.block import Block

__all__ = ["Table", "epoch_block"]

_Columns = dict[str, tuple[np.ndarray, np.ndarray]]

EPOCH = "epoch"
STEP = "step"


@dataclasses.dataclass
class Table:
    """Values by tag and batch; arrays of shape `(n,)`, absent where nothing was logged.

    Attributes:
        size: number of batches, n.
        values: tag to values, float64.
        present: tag to which batches logged it, bool.
        keys: tag to the key it stands for; a tag carried over from the window before has none.
    """

    size: int
    values: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    present: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    keys: dict[str, Key] = dataclasses.field(default_factory=dict)

    def set_key(self, key: Key, batches: np.ndarray, values: np.ndarray) -> None:
        """`set` for the per-step values of a key."""
        self.keys[key.step_tag] = key
        self.set(key.step_tag, batches, values)

    def set(self, tag: str, batches: np.ndarray, values: np.ndarray) -> None:
        """Sets the values of some batches; of two for one batch, the later stays."""
        if tag not in self.values:
            self.values[tag] = np.zeros(self.size)
            self.present[tag] = np.zeros(self.size, bool)
        self.values[tag][batches] = values
        self.present[tag][batches] = True

    def last(self, tag: str, chosen: np.ndarray | None = None) -> float | None:
        """The latest value of a tag, among the chosen batches if given."""
        present = self.present[tag] if chosen is None else self.present[tag] & chosen
        where = np.flatnonzero(present)
        return float(self.values[tag][where[-1]]) if len(where) else None

    def row(self, batch: int) -> dict[str, float]:
        """What one batch logged."""
        return {tag: float(self.values[tag][batch]) for tag in self.values if self.has(tag, batch)}

    def has(self, tag: str, batch: int) -> bool:
        """Whether a batch logged a tag."""
        return bool(self.present[tag][batch])

    def without(self, tags: Collection[str]) -> Table:
        """This table without some tags."""
        values = {tag: x for tag, x in self.values.items() if tag not in tags}
        return Table(self.size, values, {tag: self.present[tag] for tag in values})

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
