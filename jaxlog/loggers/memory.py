"""`MemoryLogger`: keeps everything in memory, for tests and notebooks."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, SupportsFloat

import numpy as np
import numpy.typing as npt

from jaxlog.loggers.logger import Logger, checked_metrics, checked_step
from jaxlog.storage import Block, flat_params

__all__ = ["MemoryLogger"]


class MemoryLogger(Logger):
    """Keeps everything that was logged, in order, also after `close`.

    Attributes:
        blocks: all scalars in the order of logging; `log_metrics` adds a block of one row.
        hyperparams: all hyperparameters, flattened.
        media: `(kind, tag, step, value)` of everything else; the kind is "histogram", "image",
            "text" or "audio". The value of a histogram is the argument `values` or, with `edges`,
            `(counts, edges)`.
        lanes: by name, the loggers of the lanes of a `Loop(lanes=...)`.

    Example:
        >>> logger = MemoryLogger()
        >>> logger.log_metrics({"loss": 0.5}, step=3)
        >>> logger.rows
        [(3, {'loss': 0.5})]
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.hyperparams: dict[str, Any] = {}
        self.media: list[tuple[str, str, int | None, Any]] = []
        self.lanes: dict[str, MemoryLogger] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Always "memory"."""
        return "memory"

    @property
    def rows(self) -> list[tuple[int, dict[str, float]]]:
        """One `(step, {tag: value})` per row."""
        return [(step, row) for block in self.blocks for step, _, row in block.rows()]

    def for_lane(self, lane: str) -> MemoryLogger:
        """A logger for one lane, kept in `lanes`."""
        return self.lanes.setdefault(lane, MemoryLogger())

    def log_metrics(self, metrics: Mapping[str, SupportsFloat], step: int | None = None) -> None:
        """Keeps the values at `step`; None for the step after the last.

        Raises:
            LoggerError: a value is not a number.
        """
        with self._lock:
            after = int(self.blocks[-1].steps[-1]) + 1 if self.blocks else 0
            self.blocks.append(Block.row(checked_metrics(metrics), checked_step(step, after)))

    def write_block(self, block: Block) -> None:
        """Keeps `block`."""
        if block.steps.size:
            with self._lock:
                self.blocks.append(block.without_lanes())

    def log_hyperparams(self, params: object, metrics: Mapping[str, Any] | None = None) -> None:
        """Keeps the hyperparameters, and the metrics at step 0."""
        self.hyperparams.update(flat_params(params))
        if metrics:
            self.log_metrics(metrics, 0)

    def log_histogram(
        self,
        tag: str,
        values: npt.ArrayLike,
        step: int | None = None,
        *,
        edges: npt.ArrayLike | None = None,
    ) -> None:
        """Keeps a copy."""
        kept = np.array(values) if edges is None else (np.array(values), np.array(edges))
        self._keep("histogram", tag, step, kept)

    def log_image(
        self,
        tag: str,
        image: npt.ArrayLike,
        step: int | None = None,
        *,
        dataformats: str | None = None,
    ) -> None:
        """Keeps a copy with the axes in the given order."""
        del dataformats
        self._keep("image", tag, step, np.array(image))

    def log_text(self, tag: str, text: str, step: int | None = None) -> None:
        """Keeps it."""
        self._keep("text", tag, step, text)

    def log_audio(
        self, tag: str, samples: npt.ArrayLike, step: int | None = None, *, sample_rate: int
    ) -> None:
        """Keeps a copy, without the sample rate."""
        del sample_rate
        self._keep("audio", tag, step, np.array(samples))

    def _keep(self, kind: str, tag: str, step: int | None, value: Any) -> None:
        with self._lock:
            self.media.append((kind, tag, None if step is None else checked_step(step, 0), value))
