"""What a step function logged in a window, all keys side by side."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from jaxlog.logs import Schema
from jaxlog.logs.layout import LayoutGroup
from jaxlog.logs.decode import Column
from jaxlog.loop.accumulators import Accumulator
from jaxlog.loop.names import Key
from jaxlog.loop.nonfinite import NonFiniteWatch
from jaxlog.loop.rows import Table
from jaxlog.metrics import Metric

__all__ = ["Names", "Sheet", "names_of"]

_REDUCE: dict[str, tuple[np.ufunc, float]] = {
    "sum": (np.add, 0.0),
    "min": (np.minimum, np.inf),
    "max": (np.maximum, -np.inf),
}


@dataclasses.dataclass(frozen=True)
class Names:
    """What the specs of a schema are called in a phase.

    Attributes:
        keys: one an spec.
        tags: the tag of each for its per-step values.
        on_step: whether it wants those: bool, shape `(k,)`.
    """

    keys: tuple[Key, ...]
    tags: tuple[str, ...]
    on_step: np.ndarray


@functools.lru_cache(maxsize=256)
def names_of(schema: Schema, loader: str, lane: str) -> Names:
    """The names, with what the loader and the lane append."""
    keys = tuple(
        Key(spec.name, spec.options, (loader if spec.options.add_dataloader_idx else "") + lane)
        for spec in schema
    )
    on_step = np.array([spec.options.on_step for spec in schema], bool)
    return Names(keys, tuple(key.step_tag for key in keys), on_step)


class Sheet:
    """The values of n steps under the k names of a schema.

    Attributes:
        names: of the columns.
        values: float64, shape `(n, k)`.
        kept: which of them were logged, and are not skipped: bool, shape `(n, k)`.
    """

    def __init__(
        self,
        names: Names,
        logged: Iterable[tuple[LayoutGroup, Column, dict[str, Metric]]],
        sizes: np.ndarray,
    ) -> None:
        """Lays out what was logged.

        Args:
            names: of the columns.
            logged: as `devices.logged` reads it.
            sizes: the batch size of each step: float64, shape `(n,)`.
        """
        self.names = names
        self._sizes = sizes
        self._groups = list(logged)
        shape = (len(sizes), len(names.keys))
        self.values, self.kept = np.full(shape, np.nan), np.ones(shape, bool)
        self._has_steps = np.zeros(len(names.keys), bool)
        for group, column, _ in self._groups:
            if column.state:
                self.kept[:, group.at] = column.present()
            if column.has_steps:
                self.values[:, group.at] = column.step_values(sizes)
                self._has_steps[group.at] = True

    def check(self, watch: NonFiniteWatch, steps: np.ndarray) -> None:
        """Has every value that is not finite counted, and left out where that is the policy.

        Args:
            watch: what counts them.
            steps: the x value of each step, shape `(n,)`.
        """
        finite = np.isfinite(self.values)
        if finite.all():
            return
        for i in np.flatnonzero((self.kept & ~finite).any(axis=0) & self._has_steps):
            kept = self.kept[:, i].copy()
            stays = watch.keep(self.names.keys[i], self.values[kept, i], steps[kept])
            self.kept[kept, i] = stays

    def fill(self, table: Table, rows: np.ndarray, *, folds: bool) -> None:
        """Sets the per-step values in a table.

        Args:
            table: where.
            rows: the row of each step: int, shape `(n,)`.
            folds: whether several steps may share a row, and are reduced there.
        """
        wanted = self._has_steps & self.names.on_step
        names = self.names
        if not folds:
            keys = {names.tags[i]: names.keys[i] for i in np.flatnonzero(wanted).tolist()}
            whole = len(keys) == len(names.keys)
            values = self.values if whole else self.values[:, wanted]
            table.set_keys(keys, rows, values, self.kept if whole else self.kept[:, wanted])
            return
        table.add(names.tags[i] for i in np.flatnonzero(wanted).tolist())
        for group, column, _ in self._groups:
            if not wanted[group.places[0]]:
                continue
            weights = column.weights(self._sizes)
            for j, i in enumerate(group.places.tolist()):
                kept = self.kept[:, i]
                table.fold_key(names.keys[i], rows[kept], self.values[kept, i], weights[kept, j])

    def reduce_into(self, accumulator: Callable[[Key], Accumulator]) -> None:
        """Adds to the reductions over the epoch, which `accumulator` finds."""
        for key in self.names.keys:  # in this order they stand in the row of the epoch
            if key.options.on_epoch:
                accumulator(key)
        for group, column, states in self._groups:
            if not group.first.options.on_epoch:
                continue
            here = np.any(self.kept[:, group.at], axis=0).tolist()
            keys = [self.names.keys[i] for i in group.places.tolist()]
            found = [
                accumulator(key) if is_here else None
                for key, is_here in zip(keys, here, strict=True)
            ]
            self._add(group, column, states, found)

    def states(self) -> Iterator[tuple[Key, Metric]]:
        """The metrics, and the state of each that the steps add up to."""
        for group, _, states in self._groups:
            for spec, i in zip(group.specs, group.places.tolist(), strict=True):
                if spec.name in states:
                    yield self.names.keys[i], states[spec.name]

    def _add(
        self,
        group: LayoutGroup,
        column: Column,
        states: dict[str, Metric],
        found: list[Accumulator | None],
    ) -> None:
        """Adds what a group logged to the reductions of its keys; None logged nothing."""
        if group.first.metric is not None:
            for spec, one in zip(group.specs, found, strict=True):
                if one is not None:
                    one.add_metric(states[spec.name])
        elif group.first.options.reduce_fx == "mean":
            for one, *sums in zip(found, *self._sums(group, column), strict=True):
                if one is not None:
                    one.add_sums(*sums)
        else:
            for one, value in zip(found, self._reduced(group), strict=True):
                if one is not None:
                    one.add_value(value, 1.0)

    def _sums(self, group: LayoutGroup, column: Column) -> tuple[list[float], list[float]]:
        """Of each mean, the sum of value times weight, and that of the weights."""
        kept = self.kept[:, group.at]
        parts = column.means(self._sizes)
        numerators, denominators = (np.where(kept, x, 0.0).sum(axis=0).tolist() for x in parts)
        return numerators, denominators

    def _reduced(self, group: LayoutGroup) -> list[float]:
        """Of each sum or extremum, that of the steps."""
        reduce, nothing = _REDUCE[group.first.options.reduce_fx]
        values = np.where(self.kept[:, group.at], self.values[:, group.at], nothing)
        return reduce.reduce(values, axis=0).tolist()
