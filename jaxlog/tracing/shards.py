"""Values that differ between the shards of a shard_map (or a pmap): which of them is logged."""

from __future__ import annotations

import math
import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlog.errors import SchemaError
from jaxlog.logs.accumulator_state import AccumulatorState, neutral
from jaxlog.logs.schema import KeySpec
from jaxlog.tracing.interpreter import Shards

__all__ = ["contributing"]


def contributing(spec: KeySpec, state: AccumulatorState, shards: Shards) -> AccumulatorState:
    """A shard's state if it is one that is logged, else neutral ones; inside the shard_map.

    Without `sync_dist`, or with `rank_zero_only`, the first shard contributes. With it, all speak whose
    values differ: a value that JAX knows to be equal along an axis (a `psum` was taken) counts
    once, and where JAX does not check (`check_vma=False`, `pmap`) every shard counts.

    Args:
        spec: what was logged.
        state: arrays of this shard.
        shards: the mesh axes.

    Raises:
        SchemaError: `sync_dist_group` names no axis of the mesh, or no partition of the shards.
    """
    contributors = _contributors(spec, shards)
    if contributors.all():
        return state
    index = jnp.zeros((), jnp.int32)
    for axis, size in shards.sizes.items():
        index = index * size + lax.axis_index(axis)
    contributes = jnp.asarray(contributors.reshape(-1))[index]
    nothing = neutral(spec)
    kept: AccumulatorState = {
        field.name: jnp.where(contributes, state[field.name], nothing[field.name])
        for field in spec.fields
    }
    if spec.metric is not None:
        kept["metric"] = state["metric"].where(contributes)
    return kept


def _contributors(spec: KeySpec, shards: Shards) -> np.ndarray:
    """Which shards are logged: bool, one axis a mesh axis."""
    options, sizes = spec.options, tuple(shards.sizes.values())
    axes = list(shards.sizes)
    varying = shards.varying.get(spec.name, frozenset()) if shards.checked else frozenset(axes)
    group = options.sync_dist_group
    contributors = np.zeros(sizes, bool)
    if not options.syncs:
        if shards.checked and varying and options.on_epoch and not options.rank_zero_only:
            _warn(spec, sorted(varying))
        contributors[(0,) * len(sizes)] = True
    elif isinstance(group, tuple) and any(isinstance(part, tuple) for part in group):
        contributors.flat[_members(spec, group, math.prod(sizes))] = True
    else:
        named = set(axes) if group is None else {group} if isinstance(group, str) else set(group)
        if unknown := named - set(axes):
            raise SchemaError(
                f"log({spec.name!r}, ..., sync_dist_group={group!r}): the mesh axes here are "
                f"{axes}, and {sorted(unknown)} is none of them"
            )
        contributors[tuple(slice(None) if a in named & varying else 0 for a in axes)] = True
    return contributors


def _members(spec: KeySpec, groups: tuple[Any, ...], count: int) -> np.ndarray:
    """The group of the first shard, which is the one that is logged."""
    flat = sorted(index for group in groups for index in group)
    if flat != list(range(count)):
        raise SchemaError(
            f"log({spec.name!r}, ..., sync_dist_group={groups!r}): axis_index_groups hold each of "
            f"the {count} shards once, such as {[list(range(count))]}"
        )
    return np.array(next(group for group in groups if 0 in group))


def _warn(spec: KeySpec, axes: list[str]) -> None:
    warnings.warn(
        f"log({spec.name!r}, ..., on_epoch=True) inside shard_map differs over the mesh axes "
        f"{axes}, and only the value of shard 0 is logged; write sync_dist=True to reduce over all "
        f"shards, or rank_zero_only=True to say that one is enough",
        stacklevel=2,
    )
