"""The tape: a ring of packed rows, one a step, and how the host reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlog.compat import beside
from jaxlog.logs.cells import StepCells, neutral
from jaxlog.logs.packing import pack, pack_host, unpack_host
from jaxlog.logs.schema import Entry, Schema

__all__ = ["Column", "Tape", "blank_row", "decode_rows", "merge_tapes", "pack_cells", "push_row"]


class Tape(NamedTuple):
    """The latest rows.

    Attributes:
        rows: int32, shape `(rows, words)`; step `i` stands in row `i % rows`.
        steps: int32, shape (); how many steps were pushed.
    """

    rows: Any
    steps: Any

    @classmethod
    def empty(cls, rows: int, words: int) -> Tape:
        """A tape with room for `rows` steps; numpy, so that making one compiles nothing."""
        return cls(np.zeros((rows, words), np.int32), np.zeros((), np.int32))

    def fetch(self) -> np.ndarray:
        """The rows kept, oldest first, on the host: int32, shape `(n, words)`."""
        rows, steps = np.asarray(self.rows), int(self.steps)
        if steps <= len(rows):
            return rows[:steps]
        return np.roll(rows, -(steps % len(rows)), axis=0)


def pack_cells(schema: Schema, cells: StepCells) -> jax.Array:
    """One row of the tape: int32, shape `(words,)`."""
    values: list[jax.Array] = []
    roles = []
    for entry in schema:
        for role in entry.columns:
            roles.append(role)
            values.append(_column(cells[entry.name], role.name))
    return pack(values, roles)


def blank_row(entries: Sequence[Entry]) -> np.ndarray:
    """What a step that logged none of these has in its row; numpy, so nothing is computed."""
    values: list[np.ndarray] = []
    for entry in entries:
        cells = neutral(entry) | {"value": np.full((), np.nan, np.float32)}
        values += [cells[role.name] for role in entry.columns]
    return pack_host(values, [role for entry in entries for role in entry.columns])


def _column(cells: dict[str, Any], role: str) -> jax.Array:
    if role == "value":
        return lax.convert_element_type(jnp.asarray(cells["metric"].compute()), jnp.float32)
    return cells[role]


def push_row(tape: Tape, row: jax.Array) -> Tape:
    """The tape after one more step; the oldest row makes room."""
    at = lax.rem(tape.steps, jnp.int32(tape.rows.shape[0]))
    rows = lax.dynamic_update_index_in_dim(tape.rows, beside(row, tape.rows), at, 0)
    return Tape(rows, tape.steps + jnp.int32(1))


def merge_tapes(first: Tape, second: Tape) -> Tape:
    """The tape of the steps of `first` followed by those of `second`."""
    size = first.rows.shape[0]
    steps = first.steps + second.steps
    slot = lax.iota(jnp.int32, size)
    # The newest step that belongs into each slot of a ring of `steps` steps.
    step = steps - 1 - lax.rem(steps - 1 - slot, jnp.int32(size))
    from_second = step - first.steps
    other = second.rows[lax.rem(jnp.maximum(from_second, 0), jnp.int32(second.rows.shape[0]))]
    rows = jnp.where((from_second >= 0)[:, None], other, first.rows)
    return Tape(rows, steps)


@dataclasses.dataclass(frozen=True)
class Column:
    """What n steps logged under one name, on the host; arrays of shape `(n,)`.

    Or under k names that are stored and reduced alike, arrays of shape `(n, k)`; then so are
    results, and `entry` is one of theirs.

    Attributes:
        entry: the name and its options.
        cells: role name to values, in the dtype of the role.
    """

    entry: Entry
    cells: dict[str, np.ndarray]

    @property
    def has_steps(self) -> bool:
        """Whether steps have a value of their own."""
        return any(role != "units" for role in self.cells)

    def take(self, rows: np.ndarray) -> Column:
        """The chosen steps only: bool or int, shape `(m,)`."""
        return Column(self.entry, {role: values[rows] for role, values in self.cells.items()})

    def present(self) -> np.ndarray:
        """Which steps logged the name: bool, shape `(n,)`."""
        counts = [self.cells[name] > 0 for name in ("units", "weight") if name in self.cells]
        if counts:
            return np.logical_or.reduce(counts)
        return np.ones(np.shape(next(iter(self.cells.values()), ())), bool)

    def step_values(self, batch_sizes: np.ndarray | None = None) -> np.ndarray:
        """The value of each step: float64; NaN where it was not logged.

        Args:
            batch_sizes: weights of values that have none of their own, shape `(n,)`; they matter
                only where one step logged the name with and without `batch_size=`.
        """
        if "raw" in self.cells or "value" in self.cells:
            raw = self.cells.get("raw", self.cells.get("value"))
            values = np.asarray(raw, np.float64)
        elif self.entry.options.reduce_fx == "mean":
            numerators, denominators = self.means(batch_sizes)
            with np.errstate(divide="ignore", invalid="ignore"):
                values = numerators / denominators
        else:
            values = self.cells[self.entry.options.reduce_fx].astype(np.float64)
        return np.where(self.present(), values, np.nan)

    def weights(self, batch_sizes: np.ndarray) -> np.ndarray:
        """The weight of each step in a mean: float64, shape `(n,)`.

        Args:
            batch_sizes: weights of values that have none of their own, shape `(n,)`.
        """
        if self.entry.metric is None and self.entry.options.reduce_fx == "mean":
            return self.means(batch_sizes)[1]
        sizes, present = np.asarray(batch_sizes, np.float64), self.present()
        return sizes if present.ndim == 1 else np.broadcast_to(sizes[:, None], present.shape)

    def means(self, batch_sizes: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Weighted sums and weights of each step, float64, shape `(n,)`; 0 where not logged."""
        present = self.present()
        sizes = np.ones(len(present)) if batch_sizes is None else np.asarray(batch_sizes, float)
        sizes = sizes[:, None] if present.ndim > 1 else sizes
        numerators, denominators = np.zeros(present.shape), np.zeros(present.shape)
        cells = {name: values.astype(np.float64) for name, values in self.cells.items()}
        if "weight" in cells:
            weighted = cells.get("wtotal")
            if weighted is None:
                with np.errstate(invalid="ignore"):
                    weighted = cells["raw"] * cells["weight"]
            numerators += np.where(cells["weight"] > 0, weighted, 0.0)
            denominators += cells["weight"]
        if "total" in cells or "weight" not in cells:
            units = cells.get("units", np.ones(present.shape))
            given = np.where(units > 0, sizes, 0.0)
            value = cells["total"] / np.maximum(units, 1) if "total" in cells else cells["raw"]
            with np.errstate(invalid="ignore"):
                numerators += np.where(given > 0, value * given, 0.0)
            denominators += given
        return numerators, denominators


def decode_rows(schema: Schema, rows: np.ndarray) -> dict[str, Column]:
    """Fetched rows as columns, by name.

    Args:
        schema: what the rows hold.
        rows: int32, shape `(n, schema.words)`.
    """
    roles = [role for entry in schema for role in entry.columns]
    arrays = iter(unpack_host(rows, roles))
    return {
        entry.name: Column(entry, {role.name: next(arrays) for role in entry.columns})
        for entry in schema
    }
