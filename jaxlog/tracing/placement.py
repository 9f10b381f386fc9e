"""Where the first logs must live, so that the step that returns them compiles once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

__all__ = ["place", "placement_of"]


def placement_of(leaves: Iterable[Any]) -> Sharding | None:
    """The sharding that a step of these arguments gives its logs; None leaves it to JAX.

    With arguments on several devices, the logs come back replicated over them; with arguments
    committed to one device, they come back there. Logs that start elsewhere would have another
    sharding in the second call than in the first, and the step would compile twice.
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
        found = found or sharding
    return found


def _mesh_of(sharding: Sharding) -> Mesh:
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
        return sharding.mesh
    devices = sorted(sharding.device_set, key=lambda device: device.id)
    return Mesh(np.array(devices), ("devices",))


def place(logs: Any, sharding: Sharding | None) -> Any:
    """`logs` on that sharding, without compiling anything."""
    return jax.device_put(logs) if sharding is None else jax.device_put(logs, sharding)
