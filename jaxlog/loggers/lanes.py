"""`PerLane`: distributes values to the loggers of several lanes.

A lane is one of several runs in one program, as `vmap` over seeds makes them. The lane of a value
is a field next to its tag (`Block.lanes`). It is never parsed from the tag, because a user's tag
may end in the name of a lane.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from jaxlog.loggers.logger import Logger
from jaxlog.storage import Block

__all__ = ["PerLane"]


class PerLane(Logger):
    """Writes the columns of each lane to that lane's logger, and values without a lane to all.

    The loggers of the lanes come from `logger.for_lane`, which is called when the first value is
    logged: it may reserve the version of a run on storage. If it returns None, `logger` gets
    everything in one run instead, the values of a lane under the tag `tag/lane`.

    Args:
        logger: the logger of the run.
        lanes: the lanes' names, each once.

    Example:
        >>> from jaxlog.loggers import MemoryLogger
        >>> memory = MemoryLogger()
        >>> logger = PerLane(memory, ["slow", "fast"])
        >>> columns = ("loss", "loss", "lr/slow")
        >>> logger.write_block(
        ...     Block(columns, [0], [0.0], [[2.0, 1.0, 0.1]], lanes=("slow", "fast", None))
        ... )
        >>> {name: lane.rows for name, lane in memory.lanes.items()}
        {'slow': [(0, {'loss': 2.0, 'lr/slow': 0.1})], 'fast': [(0, {'loss': 1.0, 'lr/slow': 0.1})]}
    """

    def __init__(self, logger: Logger, lanes: Sequence[str]) -> None:
        self._logger = logger
        self._names = tuple(lanes)

    @functools.cached_property
    def _lanes(self) -> Mapping[str, Logger]:
        """The loggers of the lanes by name; empty for a logger that keeps one run."""
        found: dict[str, Logger] = {}
        for name in self._names:
            lane = self._logger.for_lane(name)
            if lane is None:
                return {}
            found[name] = lane
        return found

    @property
    def _asked(self) -> Mapping[str, Logger]:
        """The loggers of the lanes, if a value was logged already; does not create them."""
        return self.__dict__.get("_lanes", {})

    @property
    def _targets(self) -> Iterable[Logger]:
        """The loggers that get a value without a lane."""
        return self._lanes.values() or (self._logger,)

    @property
    def name(self) -> str:
        """As for the logger of the run."""
        return self._logger.name

    @property
    def version(self) -> int | str:
        """As for the logger of the run."""
        return self._logger.version

    @property
    def save_dir(self) -> str | None:
        """As for the logger of the run."""
        return self._logger.save_dir

    @property
    def log_dir(self) -> str | None:
        """As for the logger of the run."""
        return self._logger.log_dir

    @property
    def pending(self) -> int:
        """Number of scalars of all lanes that are not on storage yet."""
        return self._logger.pending + sum(lane.pending for lane in self._asked.values())

    def for_lane(self, lane: str) -> Logger:
        """The logger for single values of one lane, such as a histogram or an image."""
        return self._lanes[lane] if self._lanes else _Suffixed(self._logger, lane)

    def write_block(self, block: Block) -> None:
        """Writes each lane's columns to its logger, and columns without a lane to all loggers."""
        if not self._lanes:
            self._logger.write_block(block.without_lanes())
        _all_of(
            functools.partial(logger.write_block, block.of_lane(name))
            for name, logger in self._lanes.items()
        )

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Records the values for all lanes."""
        self._each(lambda logger: logger.log_metrics(metrics, step))

    def log_hyperparams(self, params: object, metrics: Mapping[str, Any] | None = None) -> None:
        """Records the hyperparameters for all lanes."""
        self._each(lambda logger: logger.log_hyperparams(params, metrics))

    def log_histogram(
        self,
        tag: str,
        values: npt.ArrayLike,
        step: int | None = None,
        *,
        edges: npt.ArrayLike | None = None,
    ) -> None:
        """Records a histogram for all lanes."""
        self._each(lambda logger: logger.log_histogram(tag, values, step, edges=edges))

    def log_image(
        self,
        tag: str,
        image: npt.ArrayLike,
        step: int | None = None,
        *,
        dataformats: str | None = None,
    ) -> None:
        """Records a picture for all lanes."""
        self._each(lambda logger: logger.log_image(tag, image, step, dataformats=dataformats))

    def log_text(self, tag: str, text: str, step: int | None = None) -> None:
        """Records text for all lanes."""
        self._each(lambda logger: logger.log_text(tag, text, step))

    def log_audio(
        self, tag: str, samples: npt.ArrayLike, step: int | None = None, *, sample_rate: int
    ) -> None:
        """Records sound for all lanes."""
        self._each(lambda logger: logger.log_audio(tag, samples, step, sample_rate=sample_rate))

    def flush(self) -> None:
        """Flushes the loggers of the run and of every lane."""
        _all_of(logger.flush for logger in (self._logger, *self._asked.values()))

    def close(self) -> None:
        """Closes the loggers of every lane and of the run."""
        _all_of(logger.close for logger in (*self._asked.values(), self._logger))

    def finalize(self, status: str) -> None:
        """Ends the runs of every lane and the run itself."""
        loggers = (*self._asked.values(), self._logger)
        _all_of(functools.partial(logger.finalize, status) for logger in loggers)

    def _each(self, log: Callable[[Logger], None]) -> None:
        _all_of(functools.partial(log, logger) for logger in self._targets)


class _Suffixed(Logger):
    """One lane's values in a logger that keeps one run: `tag` becomes `tag/lane`."""

    def __init__(self, logger: Logger, lane: str) -> None:
        self._logger = logger
        self._lane = lane

    def _tag(self, tag: str) -> str:
        return f"{tag}/{self._lane}"

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self._logger.log_metrics({self._tag(tag): v for tag, v in metrics.items()}, step)

    def log_histogram(
        self,
        tag: str,
        values: npt.ArrayLike,
        step: int | None = None,
        *,
        edges: npt.ArrayLike | None = None,
    ) -> None:
        self._logger.log_histogram(self._tag(tag), values, step, edges=edges)

    def log_image(
        self,
        tag: str,
        image: npt.ArrayLike,
        step: int | None = None,
        *,
        dataformats: str | None = None,
    ) -> None:
        self._logger.log_image(self._tag(tag), image, step, dataformats=dataformats)

    def log_text(self, tag: str, text: str, step: int | None = None) -> None:
        self._logger.log_text(self._tag(tag), text, step)

    def log_audio(
        self, tag: str, samples: npt.ArrayLike, step: int | None = None, *, sample_rate: int
    ) -> None:
        self._logger.log_audio(self._tag(tag), samples, step, sample_rate=sample_rate)


def _all_of(actions: Iterable[Callable[[], None]]) -> None:
    """Calls all actions, also after one has raised, then raises the first error."""
    first: Exception | None = None
    for action in actions:
        try:
            action()
        except Exception as error:  # noqa: BLE001  one lane's failure must not cost another's values
            first = first or error
    if first is not None:
        raise first
