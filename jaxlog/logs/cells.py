"""The arithmetic of cells: what one step has logged so far, as a monoid of device values.

`Cells` map an entry's role names to arrays of shape (); a metric's state stands under `"metric"`.
Each function takes the entry, which fixes dtypes and structure, so cells never change either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlog.logs.schema import Entry, Role
from jaxlog.metrics import Metric

__all__ = [
    "Cells",
    "contribution",
    "fold_axes",
    "merge",
    "merge_steps",
    "neutral",
    "neutral_steps",
    "strong",
]

Cells = dict[str, Any]
StepCells = dict[str, Cells]


def strong(value: Any, dtype: str) -> jax.Array:
    """`value` as a strongly typed array of that dtype."""
    return lax.convert_element_type(value, jnp.dtype(dtype))


def _neutral_scalar(role: Role) -> np.ndarray:
    dtype = np.dtype(role.dtype)
    if role.fold == "add":
        return np.zeros((), dtype)
    floating = np.issubdtype(dtype, np.floating)
    least, greatest = (
        (-np.inf, np.inf) if floating else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    )
    return np.full((), greatest if role.fold == "min" else least, dtype)


def neutral(entry: Entry) -> Cells:
    """The cells of a step that has not logged this entry: `merge(neutral, c) == c`.

    They are numpy arrays: constants of a program, and on the host no program at all.
    """
    cells: Cells = {role.name: _neutral_scalar(role) for role in entry.roles}
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
        cells[role.name] = _cell(role, cells[role.name], value, weight, present, shape)
    return cells


def _cell(
    role: Role,
    empty: jax.Array,
    value: Any,
    weight: Any | None,
    present: Any | None,
    shape: tuple[int, ...],
) -> jax.Array:
    explicit = weight is not None
    if role.name == "units":
        one: Any = jnp.zeros(shape, role.dtype) if explicit else jnp.ones(shape, role.dtype)
    elif role.name == "weight":
        one = strong(weight, role.dtype) if explicit else jnp.zeros(shape, role.dtype)
    elif role.name == "wtotal":
        if not explicit:
            return jnp.broadcast_to(empty, shape)
        one = strong(value, role.dtype) * strong(weight, role.dtype)
    elif role.name == "total" and explicit:
        return jnp.broadcast_to(empty, shape)
    else:
        one = strong(value, role.dtype)
    if present is None:
        return one
    return jnp.where(present, one, jnp.broadcast_to(empty, shape))


def neutral_steps(entries: Sequence[Entry]) -> StepCells:
    """Cells of several entries, none of them logged."""
    return {entry.name: neutral(entry) for entry in entries}


def merge_steps(entries: Mapping[str, Entry], a: StepCells, b: StepCells) -> StepCells:
    """Name by name `merge`; a name that only one side has is taken as it is."""
    merged = dict(a)
    for name, cells in b.items():
        merged[name] = merge(entries[name], a[name], cells) if name in a else cells
    return merged
