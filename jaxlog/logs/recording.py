"""`Recording`: what the steps of a loop log between two fetches, reduced by nobody yet.

A `Loop` reduces on the host, in float64, so a recording has no running totals: rows of packed
scalars and states of metrics. What shards of a shard_map log stays on them, one part each, so that
logging adds no collective to the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from jaxlog.compat import beside
from jaxlog.logs.accumulator_state import StepState, neutral
from jaxlog.logs.ring_buffer import pack_state
from jaxlog.logs.schema import Schema
from jaxlog.logs.shard_axes import ShardAxes

__all__ = ["Part", "Recording"]


class Part(NamedTuple):
    """What the specs of one schema logged, on one shard or on all together.

    Attributes:
        rows: int32, shape `(rows, words)`; one packed row a step.
        metrics: states merged over the steps, by name.
        states: states of every step, leaves of shape `(rows, ...)`, by name.
    """

    rows: Any
    metrics: dict[str, Any]
    states: dict[str, Any]

    @classmethod
    def empty(cls, schema: Schema, rows: int) -> Self:
        """Room for that many steps; numpy, so that making one compiles nothing."""
        once = {
            e.name: neutral(e)["metric"]
            for e in schema
            if e.metric is not None and not e.keeps_states
        }
        each = {e.name: neutral(e)["metric"] for e in schema if e.keeps_states}
        words = np.zeros((rows, schema.words), np.int32)
        return cls(words, once, jax.tree.map(lambda x: _repeated(x, rows), each))

    def advance(self, schema: Schema, state: StepState, at: Any) -> tuple[Self, jax.Array]:
        """This part after one more step, and the step's packed row.

        Args:
            schema: what is logged.
            state: what the step logged.
            at: which row it is, int32, shape ().
        """
        row = pack_state(schema, state)
        states = {name: state[name]["metric"] for name in self.states}
        return type(self)(
            _set(self.rows, row, at),
            {name: metric.merge(state[name]["metric"]) for name, metric in self.metrics.items()},
            jax.tree.map(lambda all_steps, x: _set(all_steps, x, at), self.states, states),
        ), row


def _repeated(x: Any, times: int) -> np.ndarray:
    return np.broadcast_to(x, (times, *np.shape(x)))


def _set(rows: Any, row: Any, at: Any) -> jax.Array:
    return lax.dynamic_update_index_in_dim(rows, beside(row, rows), at, 0)


@jax.tree_util.register_pytree_node_class
class Recording:
    """The state of a loop's step: the rows since the last fetch.

    Attributes:
        schema: what is logged; static.
        steps: int32, shape (); how many steps were pushed.
        whole: what the step logs as one.
        shards: what the shards of a shard_map log, each leaf with an axis of shards in front; None
            where there are none.
        should_write: whether the step to come is written, bool, shape (); None where nobody asks.
    """

    def __init__(
        self, schema: Schema, steps: Any, whole: Part, shards: Part | None, should_write: Any = None
    ) -> None:
        """Use `Recording.empty`."""
        self.schema = schema
        self.should_write = should_write
        self.steps = steps
        self.whole = whole
        self.shards = shards

    @classmethod
    def empty(cls, schema: Schema, rows: int) -> Self:
        """A recording with room for that many steps; numpy, so that making one compiles nothing."""
        whole, kept = schema.part(on_mesh=False), schema.part(on_mesh=True)
        shards = None
        if (shard_axes := shard_axes_of(kept)) is not None:
            part = Part.empty(kept, rows)
            shards = jax.tree.map(lambda x: _repeated(x, shard_axes.size), part)
        return cls(schema, np.zeros((), np.int32), Part.empty(whole, rows), shards)

    @property
    def arrays(self) -> tuple[Any, Any, Any, Any]:
        """All but the schema: `Recording(schema, *arrays)` is this again."""
        return self.steps, self.whole, self.shards, self.should_write

    def tree_flatten(self) -> tuple[tuple[Any, ...], Schema]:
        """Arrays, then the static half."""
        return self.arrays, self.schema

    @classmethod
    def tree_unflatten(cls, schema: Schema, children: Sequence[Any]) -> Self:
        """The inverse of `tree_flatten`."""
        return cls(schema, *children)

    def when(self, should_write: Any) -> Self:
        """This recording, before a step that is written or not."""
        return type(self)(self.schema, self.steps, self.whole, self.shards, should_write)

    @property
    def shard_axes(self) -> ShardAxes | None:
        """The shards that are kept apart."""
        return shard_axes_of(self.schema.part(on_mesh=True))

    def push(self, state: StepState) -> tuple[Self, Any]:
        """`(this recording after one more step, the step's packed rows)`.

        The rows are int32: `(words,)` of the whole, and `(shards, words)` of the shards or None.

        Args:
            state: what the step logged; names left out count as not logged.
        """
        whole, kept = self.schema.part(on_mesh=False), self.schema.part(on_mesh=True)
        state = {e.name: state[e.name] if e.name in state else neutral(e) for e in whole} | {
            e.name: state[e.name] for e in kept if e.name in state
        }
        at = lax.rem(self.steps, jnp.int32(self.whole.rows.shape[0]))
        part, row = self.whole.advance(whole, state, at)
        shards, shard_row = self.shards, None
        if shards is not None:
            shards, shard_row = _advance_shards(kept, shards, state, at)
        steps = self.steps + jnp.int32(1)
        # What is donated comes back, or JAX warns of a buffer that it cannot use.
        return type(self)(self.schema, steps, part, shards, self.should_write), (row, shard_row)


def shard_axes_of(schema: Schema) -> ShardAxes | None:
    """The shards of specs that are all kept apart; None if there is no such spec."""
    return next((spec.shard_axes for spec in schema), None)


def _advance_shards(schema: Schema, part: Part, state: StepState, at: Any) -> tuple[Part, Any]:
    """`Part.advance` on every shard for itself: no shard hears of another."""
    shard_axes = shard_axes_of(schema)
    assert shard_axes is not None  # there are shards
    mine = {spec.name: state[spec.name] for spec in schema if spec.name in state}

    def advance(part: Part, mine: StepState, at: Any) -> tuple[Part, Any]:
        part, mine = jax.tree.map(lambda x: jnp.squeeze(x, 0), (part, mine))
        missing = {spec.name: neutral(spec) for spec in schema}
        return jax.tree.map(lambda x: x[None], part.advance(schema, missing | mine, at))

    sharded = PartitionSpec(shard_axes.axes)
    return jax.shard_map(
        advance,
        mesh=shard_axes.mesh,
        in_specs=(sharded, sharded, PartitionSpec()),
        out_specs=sharded,
        axis_names=set(shard_axes.axes),
        check_vma=False,
    )(part, mine, at)
