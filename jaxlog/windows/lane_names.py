"""Lanes: several runs side by side in one program, as `vmap` over seeds makes them.

On the device a recording has an axis of lanes. On the host the lane is a field of each key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from jaxlog.errors import LogArgumentError
from jaxlog.windows.key import Key

__all__ = ["lane_names", "means_over_lanes"]


def lane_names(lanes: Any) -> tuple[str, ...]:
    """The names of `Loop(lanes=...)`: as given, or `lane_0`, `lane_1`, ...

    Raises:
        LogArgumentError: neither a positive int nor distinct names.
    """
    if lanes is None:
        return ()
    if isinstance(lanes, int) and not isinstance(lanes, bool) and lanes > 0:
        return tuple(f"lane_{i}" for i in range(lanes))
    names = tuple(lanes) if isinstance(lanes, Iterable) and not isinstance(lanes, str) else ()
    valid = all(isinstance(name, str) and name and "/" not in name for name in names)
    if not names or not valid or len(set(names)) < len(names):
        raise LogArgumentError(
            f"Loop(lanes={lanes!r}): takes how many there are, or their names, each once and "
            f"without '/': lanes=4, or lanes=['lr=0.1', 'lr=0.01']"
        )
    return names


def means_over_lanes(
    values: Iterable[tuple[Key, float]], lanes: tuple[str, ...]
) -> Iterator[tuple[Key, float]]:
    """Each key that lanes logged, without the lane, and the mean of the lanes' values."""
    if not lanes:
        return
    found: dict[tuple[str, str], tuple[Key, list[float]]] = {}
    for key, value in values:
        if key.lane is not None:
            of_all = key._replace(lane=None)
            found.setdefault((key.name, key.loader), (of_all, []))[1].append(value)
    for key, parts in found.values():
        yield key, float(np.mean(parts))
