"""What shards on several processes logged, brought to every process: one collective a dtype."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlog.logs import Part

__all__ = ["gathered"]


def gathered(part: Part | None, devices: Sequence[Any] | None = None) -> Part | None:
    """A part with an axis of devices, unsharded on each of them.

    With one process nothing is done. With several, this is a collective: every process calls it at
    the same step.

    Args:
        part: shards, or what this process holds of what `jax.pmap` returned.
        devices: those of that pmap.
    """
    leaves = jax.tree.leaves(part)
    if part is None or jax.process_count() == 1 or all(x.is_fully_replicated for x in leaves):
        return part
    if devices is not None:
        from jax.experimental import multihost_utils  # noqa: PLC0415 - for several processes only

        mesh = Mesh(np.array(devices), ("devices",))
        spec = PartitionSpec("devices")
        part = multihost_utils.host_local_array_to_global_array(part, mesh, spec)
    else:
        mesh = leaves[0].sharding.mesh
    return _replicate(NamedSharding(mesh, PartitionSpec()))(part)


@functools.cache
def _replicate(unsharded: NamedSharding) -> Any:
    def run(part: Part) -> Part:
        leaves, treedef = jax.tree.flatten(part)
        out = list(leaves)
        # A collective has a fixed cost, so the leaves of one dtype travel as one array.
        for dtype in {leaf.dtype for leaf in leaves}:
            of_dtype = [i for i, leaf in enumerate(leaves) if leaf.dtype == dtype]
            flat = [leaves[i].reshape(leaves[i].shape[0], -1) for i in of_dtype]
            joined = jax.lax.with_sharding_constraint(jnp.concatenate(flat, axis=1), unsharded)
            ends = np.cumsum([one.shape[1] for one in flat])[:-1]
            for i, one in zip(of_dtype, jnp.split(joined, ends, axis=1), strict=True):
                out[i] = one.reshape(leaves[i].shape)
        return jax.tree.unflatten(treedef, out)

    return jax.jit(run, out_shardings=unsharded)
