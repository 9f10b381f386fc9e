"""The arithmetic of cells: what one step has logged so far, as a monoid of device values.

`Cells` map an entry's role names to arrays of shape (); a metric's state stands under `"metric"`.
Each function takes the entry, which fixes dtypes and structure, so cells never change either.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlog.logs.roles import Role
from jaxlog.logs.schema import Entry
from jaxlog.metrics import Metric

__all__ = [
    "Cells",
    "contribution",
    "fold_axes",
    "merge",
    "merge_steps",
    "neutral",
    "neutral_scalar",
    "strong",
]

Cells = dict[str, Any]
StepCells = dict[str, Cells]


def strong(value: Any, dtype: str) -> jax.Array:
    """`value` as a strongly typed array of that dtype."""
    return lax.convert_element_type(value, jnp.dtype(dtype))


def neutral_scalar(role: Role) -> np.ndarray:
    """What changes nothing: 0 in a sum, the greatest value in a minimum, the least in a maximum."""
    dtype = np.dtype(role.dtype)
    if role.fold == "add":
        return np.zeros((), dtype)
    floating = np.issubdtype(dtype, np.floating)
    least, greatest = (-np.inf, np.inf) if floating else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return np.full((), greatest if role.fold == "min" else least, dtype)


def neutral(entry: Entry) -> Cells:
    """The cells of a step that has not logged this entry: `merge(neutral, c) == c`.

    They are numpy arrays: constants of a program, and on the host no program at all.
    """
    cells: Cells = {role.name: neutral_scalar(role) for role in entry.roles}
    if entry.metric is not None:
        zeros = [np.zeros(leaf.shape, leaf.dtype) for leaf in entry.leaves]
        example: Metric = jax.tree.unflatten(entry.metric, zeros)
        cells["metric"] = example.where(np.zeros((), bool))
    return cells


_PAIR = {"add": lax.add, "min": lax.min, "max": lax.max}
_AXES = {"add": jnp.sum, "min": jnp.min, "max": jnp.max}


def merge(entry: Entry, a: Cells, b: Cells) -> Cells:
    """The cells of a step that logged `a`, then `b`."""
    merged: Cells = {r.name: _PAIR[r.fold](a[r.name], b[r.name]) for r in entry.roles}
    if entry.metric is not None:
        merged["metric"] = a["metric"].merge(b["metric"])
    return merged


def fold_axes(entry: Entry, cells: Cells, leading: int) -> Cells:
    """Folds `leading` batch axes, as `vmap` makes them, into one set of cells."""
    if not leading:
        return cells
    axes = tuple(range(leading))
    folded: Cells = {
        r.name: _AXES[r.fold](cells[r.name], axis=axes, dtype=r.dtype)
        if r.fold == "add"
        else _AXES[r.fold](cells[r.name], axis=axes)
        for r in entry.roles
    }
    if entry.metric is not None:
        folded["metric"] = cells["metric"].reduce_axes(leading)
    return folded


def contribution(
    entry: Entry, value: Any, weight: Any | None = None, mask: Any | None = None
) -> Cells:
    """The cells of one log call.

    Args:
        entry: what is logged.
        value: a number, or a `Metric`; may carry leading batch axes.
        weight: explicit weight, of the value's shape; None weighs by batch size.
        mask: bool, of the value's shape; False contributes nothing, whatever the value is.
    """
    if entry.metric is not None:
        shape = jnp.shape(jax.tree.leaves(value)[0])
        axes = shape[: len(shape) - len(entry.leaves[0].shape)]
        cells = {"metric": value}
        return cells | {role.name: jnp.ones(axes, role.dtype) for role in entry.roles}
    present = None if mask is None else mask
    if weight is not None:
        given = weight != 0
        present = given if present is None else present & given
    cells = neutral(entry)
    shape = jnp.shape(value)
    for role in entry.roles:
        filler = jnp.broadcast_to(cells[role.name], shape)
        cell = _cell(role, value, weight, filler)
        cells[role.name] = cell if present is None else jnp.where(present, cell, filler)
    return cells


def _cell(role: Role, value: Any, weight: Any | None, nothing: jax.Array) -> jax.Array:
    """What one call adds to a role; `nothing` where the role is not for calls of its kind."""
    if role.name in ("weight", "wtotal"):
        if weight is None:
            return nothing
        amount = strong(weight, role.dtype)
        return amount if role.name == "weight" else strong(value, role.dtype) * amount
    if role.name in ("units", "total") and weight is not None:
        return nothing
    if role.name == "units":
        return jnp.ones(nothing.shape, role.dtype)
    return strong(value, role.dtype)


def merge_steps(
    entries: Mapping[str, Entry], a: StepCells, b: StepCells, *, in_shard: bool = False
) -> StepCells:
    """Name by name `merge`; a name that only one side has is taken as it is.

    Args:
        entries: what is logged.
        a: what was logged first.
        b: what was logged then.
        in_shard: whether these are the cells of one shard, without an axis of shards.
    """
    merged = dict(a)
    for name, cells in b.items():
        entry = entries[name]
        both = functools.partial(merge, entry)
        if entry.on_mesh and not in_shard:
            both = jax.vmap(both)
        merged[name] = both(a[name], cells) if name in a else cells
    return merged
