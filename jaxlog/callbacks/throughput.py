"""Logs the speed of training."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from jaxlog.callbacks.callback import Callback
from jaxlog.callbacks.loop_view import LoopView

__all__ = ["ThroughputMonitor"]


class ThroughputMonitor(Callback):
    """Logs steps and examples per second, and the cost of logging, at the steps that are written.

    Each value is an average over the steps since the last written one. The tags are
    `throughput/steps_per_sec`, `throughput/examples_per_sec` (if batches have a size) and
    `throughput/logging_ms`: the milliseconds a step spent waiting for fetched values and passing
    them to loggers. Time spent in validation is excluded.

    Args:
        prefix: the first part of the tags.
        clock: returns seconds and never goes backwards.

    Example:
        >>> import jaxlog
        >>> logger = jaxlog.MemoryLogger()
        >>> ticks = iter(range(100))
        >>> monitor = jaxlog.ThroughputMonitor(clock=lambda: next(ticks))
        >>> loop = jaxlog.Loop(logger, log_every_n_steps=2, progress_bar=False, callbacks=[monitor])
        >>> with loop:
        ...     for batch in loop.train([0, 1, 2, 3]):
        ...         pass
        >>> [row["throughput/steps_per_sec"] for _, row in logger.rows]
        [2.0, 2.0]
    """

    def __init__(
        self, *, prefix: str = "throughput", clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.prefix = prefix
        self._clock = clock
        self._begin(0.0)

    def _begin(self, blocked: float) -> None:
        self._seconds = 0.0
        self._steps = 0
        self._examples: float | None = 0.0
        self._blocked = blocked
        self._since: float | None = None

    def on_train_epoch_start(self, loop: LoopView) -> None:
        """Starts the count and the clock."""
        self._begin(loop.blocked_secs)
        self._since = self._clock()

    def on_validation_start(self, loop: LoopView) -> None:
        """Stops the clock."""
        del loop
        self._pause()

    def on_validation_end(self, loop: LoopView) -> None:
        """Starts the clock again."""
        del loop
        self._since = self._clock()

    def _pause(self) -> None:
        if self._since is not None:
            self._seconds += self._clock() - self._since
            self._since = None

    def on_train_batch_end(self, loop: LoopView, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Counts the step; logs if its row is written."""
        del outputs, batch, batch_idx
        self._steps += 1
        size = loop.batch_size
        if self._examples is not None:
            self._examples = None if size is None else self._examples + size
        if loop.is_logging_step:
            self._pause()
            self._log(loop)
            self._begin(loop.blocked_secs)
            self._since = self._clock()

    def _log(self, loop: LoopView) -> None:
        seconds = max(self._seconds, 1e-9)
        values = {"steps_per_sec": self._steps / seconds}
        if self._examples:
            values["examples_per_sec"] = self._examples / seconds
        values["logging_ms"] = 1e3 * (loop.blocked_secs - self._blocked) / self._steps
        for name, value in values.items():
            loop.log(f"{self.prefix}/{name}", value)
