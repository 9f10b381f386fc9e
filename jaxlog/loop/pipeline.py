"""From windows to loggers: fetched one window late, in order, without stalling the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from jaxlog.loop.drain import Drain
from jaxlog.loop.phase import Phase
from jaxlog.loop.results import Results
from jaxlog.loop.window import Window
from jaxlog.storage.block import Block

__all__ = ["Pipeline"]


class Pipeline:
    """A queue of windows and ends of phases, what they add up to, and the loggers behind it.

    Attributes:
        results: Lightning's three mappings.
        drain: the device-to-host crossing.
    """

    def __init__(self, loggers: Sequence[Any]) -> None:
        """An empty pipeline."""
        self.results = Results()
        self.drain = Drain()
        self._loggers = list(loggers)
        self._queue: deque[Window | Phase] = deque()
        self._windows = 0

    def push_window(self, window: Window) -> None:
        """Starts fetching a window; takes in those before it, which have arrived by now."""
        self.drain.start(window.arrays)
        self._queue.append(window)
        self._windows += 1
        self.process(keep=1)

    def push_end(self, phase: Phase) -> None:
        """Has the phase's epoch row written after everything it logged."""
        self._queue.append(phase)

    def process(self, keep: int = 0) -> None:
        """Takes in what is queued, but for the last `keep` windows and what comes after them.

        Raises:
            LoggerError: a logger failed, now or in the background; the others got everything.
        """
        while self._queue and (self._windows > keep or isinstance(self._queue[0], Phase)):
            item = self._queue.popleft()
            if isinstance(item, Phase):
                item.publish(self.results)
                self._write(item.epoch_row())
            else:
                self._windows -= 1
                arrays = self.drain.read(item.arrays)
                self._write(item.phase.absorb(item, arrays, self.results))

    def _write(self, block: Block | None) -> None:
        if block is not None:
            self._each(lambda logger: _write_block(logger, block))

    def flush(self) -> None:
        """Takes in everything and has every logger flush.

        Raises:
            LoggerError: the first logger's error, after all had their turn.
        """
        self.process()
        self._each(lambda logger: logger.flush())

    def close(self) -> None:
        """Flushes and closes every logger.

        Raises:
            LoggerError: the first logger's error, after all had their turn.
        """
        try:
            self.process()
        finally:
            self._each(lambda logger: logger.close())

    def _each(self, action: Any) -> None:
        first: Exception | None = None
        for logger in self._loggers:
            try:
                action(logger)
            except Exception as error:  # noqa: BLE001 - one failing logger never stops the others
                first = first or error
        if first is not None:
            raise first


def _write_block(logger: Any, block: Block) -> None:
    """Hands a block to a logger; a plain object need only have `log_metrics`."""
    if hasattr(logger, "write_block"):
        logger.write_block(block)
    else:
        for step, _, metrics in block.rows():
            logger.log_metrics(metrics, step)
