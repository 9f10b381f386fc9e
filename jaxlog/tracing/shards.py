"""Which shards of a shard_map (or pmap) contribute to a value that is logged inside it."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlog.errors import SchemaError
from jaxlog.logs.accumulator_state import AccumulatorState, neutral
from jaxlog.logs.schema import KeySpec

__all__ = ["Shards", "contributing"]


@dataclasses.dataclass
class Shards:
    """The shards of one shard_map while its program is traced.

    Attributes:
        sizes: mesh axis -> number of shards along it, for the manual axes in the order of the mesh.
        checked: whether JAX tracks over which axes a value differs (`check_vma`).
        varying: name -> axes over which what was logged under it is known to differ.
    """

    sizes: dict[str, int]
    checked: bool
    varying: dict[str, frozenset[str]] = dataclasses.field(default_factory=dict)


def contributing(spec: KeySpec, state: AccumulatorState, shards: Shards) -> AccumulatorState:
    """The state of this shard if it contributes, else neutral state; traced inside the shard_map.

    Without `sync_dist`, or with `rank_zero_only`, only the first shard contributes. With it, every
    shard does along the axes over which the value differs: a value that JAX knows to be equal along
    an axis (the result of a `psum`) counts once. Where JAX does not check (`check_vma=False`,
    `pmap`), every shard counts.

    Args:
        spec: what was logged.
        state: what this shard logged.
        shards: the shards.

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
    """Whether each shard contributes: bool, one axis for each mesh axis."""
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
    """The shards in the group of shard 0; only that group is logged, as Lightning does."""
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
