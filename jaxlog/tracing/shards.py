"""Values that differ between the shards of a shard_map (or a pmap): which of them is logged."""

from __future__ import annotations

import math
import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlog.errors import SchemaError
from jaxlog.logs.cells import Cells, neutral
from jaxlog.logs.schema import Entry
from jaxlog.tracing.interpreter import Shards

__all__ = ["speaking"]


def speaking(entry: Entry, cells: Cells, shards: Shards) -> Cells:
    """A shard's cells if it is one that is logged, else neutral ones; inside the shard_map.

    Without `sync_dist`, or with `rank_zero_only`, the first shard speaks. With it, all speak whose
    values differ: a value that JAX knows to be equal along an axis (a `psum` was taken) counts
    once, and where JAX does not check (`check_vma=False`, `pmap`) every shard counts.

    Args:
        entry: what was logged.
        cells: arrays of this shard.
        shards: the mesh axes.

    Raises:
        SchemaError: `sync_dist_group` names no axis of the mesh, or no partition of the shards.
    """
    speakers = _speakers(entry, shards)
    if speakers.all():
        return cells
    index = jnp.zeros((), jnp.int32)
    for axis, size in shards.sizes.items():
        index = index * size + lax.axis_index(axis)
    speaks = jnp.asarray(speakers.reshape(-1))[index]
    nothing = neutral(entry)
    kept: Cells = {
        role.name: jnp.where(speaks, cells[role.name], nothing[role.name]) for role in entry.roles
    }
    if entry.metric is not None:
        kept["metric"] = cells["metric"].where(speaks)
    return kept


def _speakers(entry: Entry, shards: Shards) -> np.ndarray:
    """Which shards are logged: bool, one axis a mesh axis."""
    options, sizes = entry.options, tuple(shards.sizes.values())
    axes = list(shards.sizes)
    varying = shards.varying.get(entry.name, frozenset()) if shards.checked else frozenset(axes)
    group = options.sync_dist_group
    speakers = np.zeros(sizes, bool)
    if not options.syncs:
        if shards.checked and varying and options.on_epoch and not options.rank_zero_only:
            _warn(entry, sorted(varying))
        speakers[(0,) * len(sizes)] = True
    elif isinstance(group, tuple) and any(isinstance(part, tuple) for part in group):
        speakers.flat[_members(entry, group, math.prod(sizes))] = True
    else:
        named = set(axes) if group is None else {group} if isinstance(group, str) else set(group)
        if unknown := named - set(axes):
            raise SchemaError(
                f"log({entry.name!r}, ..., sync_dist_group={group!r}): the mesh axes here are "
                f"{axes}, and {sorted(unknown)} is none of them"
            )
        speakers[tuple(slice(None) if a in named & varying else 0 for a in axes)] = True
    return speakers


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
