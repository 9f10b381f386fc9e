"""The ring buffer: a ring of packed rows, one a step, and how the host reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlog.compat import beside
from jaxlog.logs.accumulator_state import StepState, neutral
from jaxlog.logs.packing import pack, pack_host, unpack_host
from jaxlog.logs.schema import KeySpec, Schema

__all__ = [
    "Column",
    "RingBuffer",
    "blank_row",
    "decode_rows",
    "merge_ring_buffers",
    "pack_state",
    "push_row",
]


class RingBuffer(NamedTuple):
    """The latest rows.

    Attributes:
        rows: int32, shape `(rows, words)`; step `i` stands in row `i % rows`.
        steps: int32, shape (); how many steps were pushed.
    """

    rows: Any
    steps: Any

    @classmethod
    def empty(cls, rows: int, words: int) -> RingBuffer:
        """A ring_buffer with room for `rows` steps; numpy, so that making one compiles nothing."""
        return cls(np.zeros((rows, words), np.int32), np.zeros((), np.int32))

    def fetch(self) -> np.ndarray:
        """The rows kept, oldest first, on the host: int32, shape `(n, words)`."""
        rows, steps = np.asarray(self.rows), int(self.steps)
        if steps <= len(rows):
            return rows[:steps]
        return np.roll(rows, -(steps % len(rows)), axis=0)


def pack_state(schema: Schema, state: StepState) -> jax.Array:
    """One row of the ring buffer: int32, shape `(words,)`."""
    values: list[jax.Array] = []
    fields = []
    for spec in schema:
        for field in spec.columns:
            fields.append(field)
            values.append(_column(state[spec.name], field.name))
    return pack(values, fields)


def blank_row(specs: Sequence[KeySpec]) -> np.ndarray:
    """What a step that logged none of these has in its row; numpy, so nothing is computed."""
    values: list[np.ndarray] = []
    for spec in specs:
        state = neutral(spec) | {"value": np.full((), np.nan, np.float32)}
        values += [state[field.name] for field in spec.columns]
    return pack_host(values, [field for spec in specs for field in spec.columns])


def _column(state: dict[str, Any], field: str) -> jax.Array:
    if field == "value":
        return lax.convert_element_type(jnp.asarray(state["metric"].compute()), jnp.float32)
    return state[field]


def push_row(ring_buffer: RingBuffer, row: jax.Array) -> RingBuffer:
    """The ring buffer after one more step; the oldest row makes room."""
    at = lax.rem(ring_buffer.steps, jnp.int32(ring_buffer.rows.shape[0]))
    rows = lax.dynamic_update_index_in_dim(ring_buffer.rows, beside(row, ring_buffer.rows), at, 0)
    return RingBuffer(rows, ring_buffer.steps + jnp.int32(1))


def merge_ring_buffers(first: RingBuffer, second: RingBuffer) -> RingBuffer:
    """The ring buffer of the steps of `first` followed by those of `second`."""
    size = first.rows.shape[0]
    steps = first.steps + second.steps
    slot = lax.iota(jnp.int32, size)
    # The newest step that belongs into each slot of a ring of `steps` steps.
    step = steps - 1 - lax.rem(steps - 1 - slot, jnp.int32(size))
    from_second = step - first.steps
    other = second.rows[lax.rem(jnp.maximum(from_second, 0), jnp.int32(second.rows.shape[0]))]
    rows = jnp.where((from_second >= 0)[:, None], other, first.rows)
    return RingBuffer(rows, steps)


@dataclasses.dataclass(frozen=True)
class Column:
    """What n steps logged under one name, on the host; arrays of shape `(n,)`.

    Or under k names that are stored and reduced alike, arrays of shape `(n, k)`; then so are
    results, and `spec` is one of theirs.

    Attributes:
        spec: the name and its options.
        state: field name to values, in the dtype of the field.
    """

    spec: KeySpec
    state: dict[str, np.ndarray]

    @property
    def has_steps(self) -> bool:
        """Whether steps have a value of their own."""
        return any(field != "units" for field in self.state)

    def take(self, rows: np.ndarray) -> Column:
        """The chosen steps only: bool or int, shape `(m,)`."""
        return Column(self.spec, {field: values[rows] for field, values in self.state.items()})

    def present(self) -> np.ndarray:
        """Which steps logged the name: bool, shape `(n,)`."""
        counts = [self.state[name] > 0 for name in ("units", "weight") if name in self.state]
        if counts:
            return np.logical_or.reduce(counts)
        return np.ones(np.shape(next(iter(self.state.values()), ())), bool)

    def step_values(self, batch_sizes: np.ndarray | None = None) -> np.ndarray:
        """The value of each step: float64; NaN where it was not logged.

        Args:
            batch_sizes: weights of values that have none of their own, shape `(n,)`; they matter
                only where one step logged the name with and without `batch_size=`.
        """
        if "raw" in self.state or "value" in self.state:
            raw = self.state.get("raw", self.state.get("value"))
            values = np.asarray(raw, np.float64)
        elif self.spec.options.reduce_fx == "mean":
            numerators, denominators = self.means(batch_sizes)
            with np.errstate(divide="ignore", invalid="ignore"):
                values = numerators / denominators
        else:
            values = self.state[self.spec.options.reduce_fx].astype(np.float64)
        return np.where(self.present(), values, np.nan)

    def weights(self, batch_sizes: np.ndarray) -> np.ndarray:
        """The weight of each step in a mean: float64, shape `(n,)`.

        Args:
            batch_sizes: weights of values that have none of their own, shape `(n,)`.
        """
        if self.spec.metric is None and self.spec.options.reduce_fx == "mean":
            return self.means(batch_sizes)[1]
        sizes, present = np.asarray(batch_sizes, np.float64), self.present()
        return sizes if present.ndim == 1 else np.broadcast_to(sizes[:, None], present.shape)

    def means(self, batch_sizes: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Weighted sums and weights of each step, float64, shape `(n,)`; 0 where not logged."""
        present = self.present()
        sizes = np.ones(len(present)) if batch_sizes is None else np.asarray(batch_sizes, float)
        sizes = sizes[:, None] if present.ndim > 1 else sizes
        numerators, denominators = np.zeros(present.shape), np.zeros(present.shape)
        state = {name: values.astype(np.float64) for name, values in self.state.items()}
        if "weight" in state:
            weighted = state.get("wtotal")
            if weighted is None:
                with np.errstate(invalid="ignore"):
                    weighted = state["raw"] * state["weight"]
            numerators += np.where(state["weight"] > 0, weighted, 0.0)
            denominators += state["weight"]
        if "total" in state or "weight" not in state:
            units = state.get("units", np.ones(present.shape))
            given = np.where(units > 0, sizes, 0.0)
            value = state["total"] / np.maximum(units, 1) if "total" in state else state["raw"]
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
    fields = [field for spec in schema for field in spec.columns]
    arrays = iter(unpack_host(rows, fields))
    return {
        spec.name: Column(spec, {field.name: next(arrays) for field in spec.columns})
        for spec in schema
    }
