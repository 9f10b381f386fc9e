"""The state of the shards of a shard_map (or pmap) that contribute to a logged value."""

from __future__ import annotations

import dataclasses
import warnings

import jax.numpy as jnp
from jax import lax

from jaxlog.logs import AccumulatorState, KeySpec, contributing_shards, neutral

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

    Args:
        spec: the key.
        state: what this shard logged.
        shards: the shards; `varying` must be complete, so call this after all logs were traced.

    Raises:
        SchemaError: `sync_dist_group` names no axis of the mesh, or no partition of the shards.
    """
    varying = shards.varying.get(spec.name, frozenset()) if shards.checked else None
    if varying:
        _warn_if_lost(spec, varying)
    contributors = contributing_shards(spec.name, spec.options, shards.sizes, varying)
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


def _warn_if_lost(spec: KeySpec, axes: frozenset[str]) -> None:
    """Warns of an epoch value of which all shards but one are dropped, as Lightning does."""
    options = spec.options
    if options.syncs or options.rank_zero_only or not options.on_epoch:
        return
    warnings.warn(
        f"log({spec.name!r}, ..., on_epoch=True) inside shard_map differs over the mesh axes "
        f"{sorted(axes)}, and only the value of shard 0 is logged; write sync_dist=True to reduce "
        f"over all shards, or rank_zero_only=True to say that one is enough",
        stacklevel=2,
    )
