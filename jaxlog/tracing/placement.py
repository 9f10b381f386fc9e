"""The devices on which the first logs are put, so that the step that returns them compiles once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from jaxlog.logs import Recording

__all__ = ["place", "place_recording", "placement_of"]


def placement_of(leaves: Iterable[Any]) -> Sharding | None:
    """The sharding of the logs that a step of these arguments returns; None leaves it to JAX.

    With arguments on several devices, JAX returns the logs replicated over them; with arguments
    committed to one device, on that device. Logs with another sharding in the first call than in
    the second would make `jax.jit` compile the step twice.
    """
    found: Sharding | None = None
    for leaf in leaves:
        if not isinstance(leaf, jax.Array) or isinstance(leaf, Tracer):
            continue
        if not leaf.committed:
            continue
        sharding = leaf.sharding
        if len(sharding.device_set) > 1:
            return NamedSharding(_mesh_of(sharding), PartitionSpec())
        found = found or _replicated(sharding)
    return found


def _replicated(sharding: Sharding) -> Sharding:
    """A sharding of one device that fits arrays of any rank.

    An argument on a mesh of one device may name a mesh axis for its first axis; the logs also hold
    arrays of shape (), for which that sharding is an error.
    """
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec())
    return SingleDeviceSharding(next(iter(sharding.device_set)))


def _mesh_of(sharding: Sharding) -> Mesh:
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
        return sharding.mesh
    devices = sorted(sharding.device_set, key=lambda device: device.id)
    return Mesh(np.array(devices), ("devices",))


def place(logs: Any, sharding: Sharding | None) -> Any:
    """`logs`, a pytree of numpy arrays, with that sharding; compiles nothing."""
    if sharding is None:
        return jax.device_put(logs)
    if sharding.is_fully_addressable:
        return jax.device_put(logs, sharding)

    # device_put would check by a collective that all processes pass the same values.
    def one(x: Any) -> jax.Array:
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(one, logs)


def place_recording(recording: Recording, sharding: Sharding | None) -> Recording:
    """A recording of numpy arrays on the devices on which the step will return it.

    Args:
        recording: what is placed. Its shards go to the mesh of their shard_map.
        sharding: the sharding of the rest; None for replicated over that mesh, if there is one.
    """
    shard_axes = recording.shard_axes
    mesh = None if shard_axes is None else _concrete(shard_axes.mesh, sharding)
    if shard_axes is None or mesh is None:
        return place(recording, sharding)
    whole = NamedSharding(mesh, PartitionSpec()) if sharding is None else sharding
    shards = place(recording.shards, NamedSharding(mesh, PartitionSpec(shard_axes.axes)))
    steps, part = place((recording.steps, recording.whole), whole)
    return Recording(recording.schema, steps, part, shards)


def _concrete(mesh: Any, sharding: Sharding | None) -> Mesh | None:
    """The concrete mesh; a traced program may know only the abstract one."""
    if isinstance(mesh, Mesh):
        return mesh
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
        return sharding.mesh if sharding.mesh.abstract_mesh == mesh else None
    known = jax.sharding.get_mesh()
    return known if isinstance(known, Mesh) and known.abstract_mesh == mesh else None
