"""`Recording`: the values that the steps of a loop logged since the last fetch, unreduced.

A `Loop` reduces on the host, in float64, so a recording has no running totals: it holds one packed
row a step, and the states of metrics. The shards of a shard_map each write their own part, so that
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
    """What the keys of one schema logged, on one shard or on the step as a unit.

    Attributes:
        rows: int32, shape `(rows, words)`; one packed row for each step.
        metrics: states merged over the steps, by name.
        states: states of every step, leaves of shape `(rows, ...)`, by name.
    """

    rows: Any
    metrics: dict[str, Any]
    states: dict[str, Any]

    @classmethod
    def empty(cls, schema: Schema, rows: int) -> Self:
        """A part with room for that many steps; numpy, so that making it compiles nothing."""
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
            at: the index of the row to write, int32, shape ().
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
    """The logging state that the compiled step of a loop updates; immutable, a pytree.

    Attributes:
        schema: what is logged; static.
        steps: how many steps were pushed: int32, shape ().
        whole: what the step logs outside of a shard_map, or reduces by itself.
        shards: what the shards of a shard_map log, each leaf with an axis of shards in front; None
            if no key is kept apart by shard.
        should_write: whether the row of the next step is written, bool, shape (); None if no lazy
            value needs it.
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
        """A recording with room for that many steps; numpy, so that making it compiles nothing."""
        whole, kept = schema.part(on_mesh=False), schema.part(on_mesh=True)
        shards = None
        if (shard_axes := shared_shard_axes(kept)) is not None:
            part = Part.empty(kept, rows)
            shards = jax.tree.map(lambda x: _repeated(x, shard_axes.size), part)
        return cls(schema, np.zeros((), np.int32), Part.empty(whole, rows), shards)

    @property
    def arrays(self) -> tuple[Any, Any, Any, Any]:
        """All but the schema: `Recording(schema, *arrays)` is an equal recording."""
        return self.steps, self.whole, self.shards, self.should_write

    def tree_flatten(self) -> tuple[tuple[Any, ...], Schema]:
        """Arrays, then the static half."""
        return self.arrays, self.schema

    @classmethod
    def tree_unflatten(cls, schema: Schema, children: Sequence[Any]) -> Self:
        """The inverse of `tree_flatten`."""
        return cls(schema, *children)

    @property
    def shard_axes(self) -> ShardAxes | None:
        """The axes of the shards that are kept apart; None if no key is."""
        return shared_shard_axes(self.schema.part(on_mesh=True))

    def push(self, state: StepState) -> tuple[Self, Any]:
        """`(this recording after one more step, the step's packed rows)`.

        The rows are int32: of shape `(words,)` for `whole`, and `(shards, words)` or None for
        `shards`. A recording that is full overwrites its oldest row.

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
        # should_write is returned unchanged because the recording is donated: JAX warns of a
        # donated buffer that no output can use.
        return type(self)(self.schema, steps, part, shards, self.should_write), (row, shard_row)


def shared_shard_axes(schema: Schema) -> ShardAxes | None:
    """The shard axes of an `on_mesh` schema, whose specs all share them; None if it is empty."""
    return next((spec.shard_axes for spec in schema), None)


def _advance_shards(schema: Schema, part: Part, state: StepState, at: Any) -> tuple[Part, Any]:
    """`Part.advance` in a shard_map: each shard updates its own part, without communication."""
    shard_axes = shared_shard_axes(schema)
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
