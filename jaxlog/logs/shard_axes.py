"""Values that differ between shards: the axes that tell the shards apart, and which shards count.

Under `shard_map` and `jax.pmap` a log call runs once a shard. The options of the key say which of
the shards contribute to the logged value; `contributing_shards` is that rule. The device applies it
inside of a shard_map, and the host applies it to what the devices of a pmap logged.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlog.errors import SchemaError
from jaxlog.logs.options import Options

__all__ = ["ShardAxes", "contributing_devices", "contributing_shards"]


@dataclasses.dataclass(frozen=True)
class ShardAxes:
    """The shards whose values of a key stay apart until the host reduces them.

    A reduction inside the step would be a collective in every step.

    Attributes:
        mesh: the mesh of the shard_map; None under `pmap`, where each device runs the whole step.
        axes: the mesh axes that tell the shards apart, in the order of the mesh.
    """

    mesh: Any = None
    axes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many shards there are; 1 under `pmap`."""
        return math.prod(self.mesh.shape[axis] for axis in self.axes)


def contributing_shards(
    name: str, options: Options, sizes: Mapping[str, int], varying: frozenset[str] | None = None
) -> np.ndarray:
    """Which shards count: bool, one axis for each mesh axis.

    Without `sync_dist`, or with `rank_zero_only`, the first shard counts. With it, all shards count
    whose values differ: along an axis over which JAX knows the values to be equal (a `psum` was
    taken) only the first does, so that a value counts once. With `sync_dist_group`, only shards
    along these axes, or those of the index group of the first shard.

    Args:
        name: the key, for messages.
        options: its options.
        sizes: mesh axis to its size, in the order of the mesh.
        varying: the axes over which the value differs; None where JAX does not track it
            (`check_vma=False`, `pmap`): then it counts as different over all of them.

    Raises:
        SchemaError: `sync_dist_group` names an axis that the mesh has not, or index groups that are
            not a partition of the shards.

    Example:
        >>> options = Options("training_step", on_step=True, on_epoch=False, sync_dist=True)
        >>> contributing_shards("loss", options, {"data": 2, "model": 2}, frozenset({"data"}))
        array([[ True, False],
               [ True, False]])
    """
    counts = np.zeros(tuple(sizes.values()), bool)
    group = options.sync_dist_group
    if not options.syncs:
        counts[(0,) * counts.ndim] = True
    elif _is_index_groups(group):
        counts.flat[_first_group(name, group, counts.size)] = True
    else:
        named = set(sizes) if group is None else {group} if isinstance(group, str) else set(group)
        if unknown := named - set(sizes):
            raise SchemaError(
                f"log({name!r}, ..., sync_dist_group={group!r}): the mesh axes here are "
                f"{list(sizes)}, and {sorted(unknown, key=str)} is not among them"
            )
        reduced = named if varying is None else named & varying
        counts[tuple(slice(None) if axis in reduced else 0 for axis in sizes)] = True
    return counts


def contributing_devices(name: str, options: Options, count: int) -> np.ndarray:
    """Which devices of a pmap count: bool, shape `(count,)`.

    The host does not know the axis name of the pmap, so an axis name in `sync_dist_group` is taken
    to be that one.

    Raises:
        SchemaError: the index groups are not a partition of the devices.
    """
    if not _is_index_groups(options.sync_dist_group):
        options = dataclasses.replace(options, sync_dist_group=None)
    return contributing_shards(name, options, {"devices": count})


def _is_index_groups(group: Any) -> bool:
    return isinstance(group, tuple) and any(isinstance(part, tuple) for part in group)


def _first_group(name: str, groups: tuple[Any, ...], count: int) -> list[int]:
    """The index group of the first shard."""
    parts = [part if isinstance(part, tuple) else (part,) for part in groups]
    held = collections.Counter(index for part in parts for index in part)
    if held != collections.Counter(range(count)):
        raise SchemaError(
            f"log({name!r}, ..., sync_dist_group={groups!r}): axis_index_groups hold each of "
            f"the {count} shards once, such as {[list(range(count))]}"
        )
    return list(next(part for part in parts if 0 in part))
