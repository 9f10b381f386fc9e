"""The ring buffer: the packed rows of the latest steps, one row a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlog.compat import beside
from jaxlog.logs.accumulator_state import StepState, neutral
from jaxlog.logs.packing import pack, pack_host
from jaxlog.logs.schema import KeySpec, Schema

__all__ = [
    "RingBuffer",
    "blank_row",
    "merge_ring_buffers",
    "pack_state",
    "push_row",
]


class RingBuffer(NamedTuple):
    """The latest rows.

    Attributes:
        rows: int32, shape `(rows, words)`; row `i % rows` holds step `i`.
        steps: how many steps were pushed: int32, shape ().
    """

    rows: Any
    steps: Any

    @classmethod
    def empty(cls, rows: int, words: int) -> RingBuffer:
        """A ring buffer with room for `rows` steps; numpy, so that making it compiles nothing."""
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
    """The row of a step that logged none of these keys; numpy, so that no program runs."""
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
    """The ring buffer after one more step, whose row replaces the oldest."""
    at = lax.rem(ring_buffer.steps, jnp.int32(ring_buffer.rows.shape[0]))
    rows = lax.dynamic_update_index_in_dim(ring_buffer.rows, beside(row, ring_buffer.rows), at, 0)
    return RingBuffer(rows, ring_buffer.steps + jnp.int32(1))


def merge_ring_buffers(first: RingBuffer, second: RingBuffer) -> RingBuffer:
    """The ring buffer of the steps of `first` followed by those of `second`."""
    size = first.rows.shape[0]
    steps = first.steps + second.steps
    slot = lax.iota(jnp.int32, size)
    # The number of the newest step that each slot of a ring of `steps` steps holds.
    step = steps - 1 - lax.rem(steps - 1 - slot, jnp.int32(size))
    from_second = step - first.steps
    other = second.rows[lax.rem(jnp.maximum(from_second, 0), jnp.int32(second.rows.shape[0]))]
    rows = jnp.where((from_second >= 0)[:, None], other, first.rows)
    return RingBuffer(rows, steps)
