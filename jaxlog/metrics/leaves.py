"""Dictionaries of leaves under their declared reductions: merge two, fold axes, fold a mesh.

A "mean" state is a monoid because its class has one more leaf, the number of batches behind the
value (`MEAN_WEIGHT`, 0 in an empty metric); values merge by weighted mean. The fractions
`weight / total` are formed before the product, so that the neutral element is exact and large
values do not overflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlog.metrics.array_namespace import array_namespace
from jaxlog.metrics.declaration import StateSpec
from jaxlog.metrics.reductions import REDUCTIONS

Leaves = dict[str, Any]
Specs = Mapping[str, StateSpec]

MEAN_WEIGHT = "_mean_weight"


def merge_leaves(specs: Specs, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> Leaves:
    """Each pair of leaves combined by its reduction; dtypes stay the declared ones."""
    xp = array_namespace(*mine.values(), *theirs.values())
    if xp is jnp:
        mine, theirs = cast_leaves(specs, mine), cast_leaves(specs, theirs)
    merged = {}
    for name, spec in specs.items():
        if REDUCTIONS[spec.reduce].weighted:
            a, b, weights = mine[name], theirs[name], (mine[MEAN_WEIGHT], theirs[MEAN_WEIGHT])
            fractions = _fractions(xp, xp.stack(weights), xp.add(*weights)[None])
            merged[name] = a * _beside(fractions[0], a) + b * _beside(fractions[1], b)
        else:
            merged[name] = REDUCTIONS[spec.reduce].combine(mine[name], theirs[name])
    return merged


def fold_leading(specs: Specs, leaves: Mapping[str, Any], num_leading: int) -> Leaves:
    """The first `num_leading` axes of every leaf folded by its reduction."""
    xp = array_namespace(*leaves.values())
    if xp is jnp:
        leaves = cast_leaves(specs, leaves)
    axes = tuple(range(num_leading))
    folded = {}
    for name, spec in specs.items():
        leaf, reduction = leaves[name], REDUCTIONS[spec.reduce]
        if reduction.weighted:
            weights = leaves[MEAN_WEIGHT]
            fractions = _fractions(xp, weights, weights.sum(axis=axes, keepdims=True))
            leaf = leaf * _beside(fractions, leaf)
        folded[name] = reduction.fold(leaf, axes)
    return folded


def fold_mesh(specs: Specs, leaves: Mapping[str, Any], axis_name: Any) -> Leaves:
    """Every leaf folded over mesh axes by collectives; each shard holds the same result."""
    leaves = cast_leaves(specs, leaves)
    folded = {}
    for name, spec in specs.items():
        leaf, reduction = leaves[name], REDUCTIONS[spec.reduce]
        if reduction.weighted:
            weight = leaves[MEAN_WEIGHT]
            fraction = _fractions(jnp, weight, reduction.collective(weight, axis_name))
            leaf *= _beside(fraction, leaf)
        folded[name] = reduction.collective(leaf, axis_name)
    return folded


def fold_rows(merge: Callable[[Any, Any], Any], rows: Any) -> Any:
    """The left fold of `merge` over the leading axis (length at least 1) of a pytree of leaves."""
    leaves = jax.tree.leaves(rows)

    def row(index: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[index], rows)

    if array_namespace(*leaves) is np:
        folded = row(0)
        for i in range(1, len(leaves[0])):
            folded = merge(folded, row(i))
        return folded
    # Starting at row 0, not at an empty metric, keeps the carry's varying mesh axes (shard_map)
    # equal to the rows'.
    rest = jax.tree.map(lambda leaf: leaf[1:], rows)
    return jax.lax.scan(lambda carry, x: (merge(carry, x), None), row(0), rest)[0]


def gather_mesh(leaf: jax.Array, axis_name: Any) -> jax.Array:
    """All shards' leaves stacked along a new leading axis, in mesh order, on every shard.

    A psum of one-hot rows: unlike `all_gather`, its result is known to be replicated, so shard_map
    accepts it under `out_specs=P()`.
    """
    size = jax.lax.psum(1, axis_name)
    rows = jnp.zeros((size, *leaf.shape), leaf.dtype)
    mine = jax.lax.axis_index(axis_name)
    return jax.lax.psum(rows.at[mine].set(leaf), axis_name)


def cast_leaves(specs: Specs, leaves: Mapping[str, Any]) -> Leaves:
    """Leaves as jax arrays of the declared dtypes, strongly typed."""
    return {name: cast_leaf(leaves[name], specs[name].dtype) for name in specs}


def cast_leaf(leaf: Any, dtype: np.dtype) -> jax.Array:
    """`leaf` as a strongly typed jax array of `dtype`, in a buffer of its own if it was numpy."""
    if isinstance(leaf, jax.Array):
        return jax.lax.convert_element_type(leaf, dtype)
    # jnp.array promises a copy: memory shared with the caller's numpy array must not be donated.
    return jnp.array(np.asarray(leaf), dtype=dtype)


def _fractions(xp: Any, weights: Any, total: Any) -> Any:
    """`weights / total`, and 0 where the total is 0; never divides by zero."""
    return xp.where(total > 0, weights / xp.where(total > 0, total, xp.ones_like(total)), 0.0)


def _beside(weight: Any, leaf: Any) -> Any:
    """`weight` with trailing axes of length 1, so that it multiplies `leaf` at equal rank."""
    reshaped = weight.reshape(weight.shape + (1,) * (leaf.ndim - weight.ndim))
    return reshaped.astype(leaf.dtype)
