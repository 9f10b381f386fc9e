"""The accumulator state of a key: what one step has logged of it so far, as a monoid.

An `AccumulatorState` maps the field names of a key spec to device arrays of shape (), and
`"metric"` to the state of a logged metric. Each function takes the spec, which fixes dtypes and
structure; so neither changes while a step runs, and a state can be the carry of a scan.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlog.logs.fields import Field
from jaxlog.logs.schema import KeySpec
from jaxlog.metrics import Metric

__all__ = [
    "AccumulatorState",
    "contribution",
    "fold_axes",
    "merge",
    "merge_steps",
    "neutral",
    "strong",
]

AccumulatorState = dict[str, Any]
StepState = dict[str, AccumulatorState]


def strong(value: Any, dtype: str) -> jax.Array:
    """`value` as an array of that dtype, strongly typed: a weak type would change a scan carry."""
    return lax.convert_element_type(value, jnp.dtype(dtype))


def neutral(spec: KeySpec) -> AccumulatorState:
    """The state of a step that has not logged this key; merging it changes nothing.

    Its arrays are numpy arrays: a traced program takes them as constants, and on the host making
    them runs no program.
    """
    state: AccumulatorState = {
        field.name: np.full((), field.reduction.identity(field.dtype), field.dtype)
        for field in spec.fields
    }
    if spec.metric is not None:
        zeros = [np.zeros(leaf.shape, leaf.dtype) for leaf in spec.leaves]
        example: Metric = jax.tree.unflatten(spec.metric, zeros)
        state["metric"] = example.where(np.zeros((), bool))
    return state


def merge(spec: KeySpec, a: AccumulatorState, b: AccumulatorState) -> AccumulatorState:
    """The state of a step that logged `a`, then `b`."""
    merged: AccumulatorState = {
        field.name: field.reduction.combine(a[field.name], b[field.name]) for field in spec.fields
    }
    if spec.metric is not None:
        merged["metric"] = a["metric"].merge(b["metric"])
    return merged


def fold_axes(spec: KeySpec, state: AccumulatorState, leading: int) -> AccumulatorState:
    """Folds `leading` batch axes, as `vmap` makes them, into one state."""
    if not leading:
        return state
    axes = tuple(range(leading))
    folded: AccumulatorState = {
        field.name: field.reduction.fold(state[field.name], axes) for field in spec.fields
    }
    if spec.metric is not None:
        folded["metric"] = state["metric"].reduce_axes(leading)
    return folded


def contribution(
    spec: KeySpec, value: Any, weight: Any | None = None, mask: Any | None = None
) -> AccumulatorState:
    """The state of one log call.

    Args:
        spec: the key spec.
        value: a number, or a `Metric`; may have leading batch axes.
        weight: explicit weight, of the value's shape; None weighs by batch size. Weight 0 counts
            as not logged.
        mask: bool, of the value's shape; False contributes nothing, whatever the value is.
    """
    if spec.metric is not None:
        shape = jnp.shape(jax.tree.leaves(value)[0])
        axes = shape[: len(shape) - len(spec.leaves[0].shape)]
        state = {"metric": value}
        return state | {field.name: jnp.ones(axes, field.dtype) for field in spec.fields}
    present = mask
    if weight is not None:
        counts = weight != 0
        present = counts if present is None else present & counts
    state = neutral(spec)
    shape = jnp.shape(value)
    for field in spec.fields:
        filler = jnp.broadcast_to(state[field.name], shape)
        given = _field_value(field, value, weight, filler)
        # A where, not a product with the mask: a masked NaN times 0 would still be NaN.
        state[field.name] = given if present is None else jnp.where(present, given, filler)
    return state


def _field_value(field: Field, value: Any, weight: Any | None, nothing: jax.Array) -> jax.Array:
    """What one call adds to a field; `nothing` if the field is for the other kind of weight."""
    if field.name in ("weight", "wtotal"):
        if weight is None:
            return nothing
        amount = strong(weight, field.dtype)
        return amount if field.name == "weight" else strong(value, field.dtype) * amount
    if field.name in ("units", "total") and weight is not None:
        return nothing
    if field.name == "units":
        return jnp.ones(nothing.shape, field.dtype)
    return strong(value, field.dtype)


def merge_steps(
    specs: Mapping[str, KeySpec], a: StepState, b: StepState, *, in_shard: bool = False
) -> StepState:
    """`merge` for each name; a name that only one side has keeps its state.

    Args:
        specs: name to key spec.
        a: what was logged first.
        b: what was logged after it.
        in_shard: whether the states belong to one shard of a shard_map, so that the states of keys
            that are kept apart have no leading axis of shards.
    """
    merged = dict(a)
    for name, state in b.items():
        spec = specs[name]
        both = functools.partial(merge, spec)
        if spec.on_mesh and not in_shard:
            both = jax.vmap(both)
        merged[name] = both(a[name], state) if name in a else state
    return merged
