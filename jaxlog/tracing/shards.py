"""Values that differ between the shards of a shard_map (or a pmap): which of them is logged."""

from __future__ import annotations

import math
import warnings
from typing import Any

import jax
import numpy as np

from jaxlog.errors import SchemaError
from jaxlog.logs.cells import Cells, fold_axes
from jaxlog.logs.schema import Entry
from jaxlog.tracing.interpreter import Shards

__all__ = ["fold_shards"]


def fold_shards(entry: Entry, cells: Cells, shards: Shards) -> Cells:
    """One set of cells from those of all shards, as `sync_dist` and its siblings say.

    Without `sync_dist`, or with `rank_zero_only`, the first shard speaks. With it, values are
    reduced over the mesh axes along which they differ; a value that JAX knows to be equal on all
    shards along an axis (a `psum` was taken) counts once, and where JAX does not check
    (`check_vma=False`, `pmap`) every shard counts.

    Args:
        entry: what was logged.
        cells: arrays with one leading axis, all shards in the order of the mesh.
        shards: the mesh axes.

    Raises:
        SchemaError: `sync_dist_group` names no axis of the mesh, or no partition of the shards.
    """
    options = entry.options
    axes = list(shards.sizes)
    varying = shards.varying.get(entry.name, frozenset()) if shards.checked else frozenset(axes)
    if not options.syncs:
        if shards.checked and varying and options.on_epoch and not options.rank_zero_only:
            _warn(entry, sorted(varying))
        return _take(cells, 0)
    group = options.sync_dist_group
    if isinstance(group, tuple) and any(isinstance(part, tuple) for part in group):
        members = _members(entry, group, math.prod(shards.sizes.values()))
        return fold_axes(entry, jax.tree.map(lambda x: x[members], cells), 1)
    named = set(axes) if group is None else {group} if isinstance(group, str) else set(group)
    if unknown := named - set(axes):
        raise SchemaError(
            f"log({entry.name!r}, ..., sync_dist_group={group!r}): the mesh axes here are "
            f"{axes}, and {sorted(unknown)} is none of them"
        )
    cells = jax.tree.map(lambda x: x.reshape((*shards.sizes.values(), *x.shape[1:])), cells)
    reduced = 0
    for axis in axes:  # axes that are reduced move past those of which the first is taken
        if axis in named and axis in varying:
            reduced += 1
        else:
            at = reduced
            cells = jax.tree.map(lambda x, at=at: x.take(0, axis=at), cells)
    return fold_axes(entry, cells, reduced)


def _take(cells: Cells, index: int) -> Cells:
    return jax.tree.map(lambda x: x[index], cells)


def _members(entry: Entry, groups: tuple[Any, ...], count: int) -> np.ndarray:
    """The group of the first shard, which is the one that is logged."""
    flat = sorted(index for group in groups for index in group)
    if flat != list(range(count)):
        raise SchemaError(
            f"log({entry.name!r}, ..., sync_dist_group={groups!r}): axis_index_groups hold each of "
            f"the {count} shards once, such as {[list(range(count))]}"
        )
    return np.array(next(group for group in groups if 0 in group))


def _warn(entry: Entry, axes: list[str]) -> None:
    warnings.warn(
        f"log({entry.name!r}, ..., on_epoch=True) inside shard_map differs over the mesh axes "
        f"{axes}, and only the value of shard 0 is logged; write sync_dist=True to reduce over all "
        f"shards, or rank_zero_only=True to say that one is enough",
        stacklevel=2,
    )
