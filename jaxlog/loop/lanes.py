"""Lanes: several runs side by side in one program, as `vmap` over seeds makes them.

On the device a recording has an axis of lanes. On the host a lane is a suffix of names, `/lane_0`,
until the loggers take it off again: each lane is a run of its own there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxlog.errors import LogArgumentError
from jaxlog.loop.names import Key
from jaxlog.storage.block import Block

__all__ = ["PerLane", "lane_names", "means_over_lanes"]


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
    """Each key that stands for all lanes, and the mean of theirs, for callbacks and bars."""
    found: dict[tuple[str, str], tuple[Key, list[float]]] = {}
    for key, value in values:
        lane = next((lane for lane in lanes if key.suffix.endswith(f"/{lane}")), None)
        if lane is not None:
            whole = key._replace(suffix=key.suffix.removesuffix(f"/{lane}"))
            found.setdefault((whole.name, whole.suffix), (whole, []))[1].append(value)
    for key, parts in found.values():
        yield key, float(np.mean(parts))


class PerLane:
    """A logger of all lanes: hands each lane's columns to a logger of its own."""

    def __init__(self, logger: Any, lanes: tuple[str, ...]) -> None:
        """`logger` gives the others by `for_lane`, when there is something to write."""
        self._logger = logger
        self._names = lanes
        self._lanes: Mapping[str, Any] = {}

    def write_block(self, block: Block) -> None:
        """Writes each lane's columns, and to all what no lane logged."""
        for name, logger in self._parts().items():
            logger.write_block(self._part(block, name))

    def _parts(self) -> Mapping[str, Any]:
        if not self._lanes:
            self._lanes = {name: self._logger.for_lane(name) for name in self._names}
        return self._lanes

    def log_histogram(self, tag: str, values: Any, step: int, *, edges: Any) -> None:
        """Hands a lane's own to it, and to all what no lane logged."""
        for name, logger in self._parts().items():
            if not tag.endswith(tuple(f"/{n}" for n in self._names if n != name)):
                logger.log_histogram(tag.removesuffix(f"/{name}"), values, step, edges=edges)

    def _part(self, block: Block, lane: str) -> Block:
        ending, others = f"/{lane}", tuple(f"/{n}" for n in self._names if n != lane)
        chosen = [i for i, tag in enumerate(block.tags) if not tag.endswith(others)]
        return Block(
            tuple(block.tags[i].removesuffix(ending) for i in chosen),
            block.steps,
            block.wall_times,
            block.values[:, chosen],
            None if block.present is None else block.present[:, chosen],
        )

    @property
    def pending(self) -> int:
        """What the lanes' loggers have not stored yet, as far as they know."""
        return sum(getattr(logger, "pending", 0) for logger in self._lanes.values())

    def flush(self) -> None:
        """Flushes every lane's."""
        for logger in (self._logger, *self._lanes.values()):
            logger.flush()

    def finalize(self, status: str) -> None:
        """Ends every lane's."""
        for logger in (*self._lanes.values(), self._logger):
            logger.finalize(status)
