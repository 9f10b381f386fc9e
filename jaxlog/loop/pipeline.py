"""From windows to loggers: fetched one window late, in order, without stalling the device."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from jaxlog.loop.cost import Cost
from jaxlog.loop.drain import Drain
from jaxlog.loop.histograms import BucketRow
from jaxlog.loop.nonfinite import NonFiniteWatch
from jaxlog.loop.phase import Phase
from jaxlog.loop.point import Point
from jaxlog.loop.results import Results
from jaxlog.loop.window import Window
from jaxlog.storage.block import Block

__all__ = ["Pipeline"]


class Pipeline:
    """A queue of windows and ends of phases, what they add up to, and the loggers behind it.

    Attributes:
        results: Lightning's three mappings.
        drain: the device-to-host crossing.
        watch: counts values that are not finite.
    """

    def __init__(self, loggers: Sequence[Any], nan_policy: str = "keep") -> None:
        """An empty pipeline."""
        self.watch = NonFiniteWatch(nan_policy)
        self._fetch_secs = self._reduce_secs = self._write_secs = 0.0
        self._taken = self._rows = self._scalars = 0
        self.results = Results()
        self.drain = Drain()
        self._loggers = list(loggers)
        self._queue: deque[Window | Phase | Point] = deque()
        self._windows = 0

    def push_window(self, window: Window) -> None:
        """Starts fetching a window, which comes after all that is queued."""
        self.drain.start(window.arrays)
        self._queue.append(window)
        self._windows += 1

    def push_end(self, phase: Phase) -> None:
        """Has the phase's epoch row written after everything it logged."""
        self._queue.append(phase)

    def push_point(self, point: Point) -> None:
        """Has one value with an x value of its own written, after what is queued."""
        self.drain.start(point.value)
        self._queue.append(point)

    def process(self, keep: int = 0) -> None:
        """Takes in what is queued, but for the last `keep` windows and what comes after them.

        Raises:
            LoggerError: a logger failed, now or in the background; the others got everything.
            NonFiniteError: a value was not finite, under `nan_policy="raise"`.
        """
        if not self._queue:
            return
        self._process(keep)
        self.watch.check()

    def cost(self) -> Cost:
        """What this has cost so far; takes in nothing and waits for nobody."""
        return Cost(
            fetch_secs=self._fetch_secs,
            reduce_secs=self._reduce_secs,
            write_secs=self._write_secs,
            windows=self._taken,
            copies=self.drain.copies,
            bytes=self.drain.bytes,
            rows=self._rows,
            scalars=self._scalars,
            pending=sum(map(pending_of, self._loggers)),
        )

    def _process(self, keep: int) -> None:
        first: Exception | None = None
        while self._queue and (self._windows > keep or not isinstance(self._queue[0], Window)):
            item = self._queue.popleft()
            block = self._take_in(item)
            phase = item.phase if isinstance(item, Window) else item
            rows = phase.take_histograms() if isinstance(phase, Phase) else []
            try:
                if block is not None or rows:
                    self._write(block, rows)
            except Exception as error:  # noqa: BLE001 - what is queued still goes to the others
                first = first or error
        if first is not None:
            raise first

    def _take_in(self, item: Window | Phase | Point) -> Block | None:
        begun = fetched = time.perf_counter()
        try:
            if isinstance(item, Phase):
                item.publish(self.results)
                return item.epoch_row()
            if isinstance(item, Point):
                value = self.drain.read(item.value)
                fetched = time.perf_counter()
                return item.publish(self.results, value)
            self._windows -= 1
            self._taken += 1
            arrays = self.drain.read(item.arrays)
            fetched = time.perf_counter()
            return item.phase.absorb(item, arrays, self.results)
        finally:
            self._fetch_secs += fetched - begun
            self._reduce_secs += time.perf_counter() - fetched

    def _write(self, block: Block | None, histograms: Sequence[BucketRow]) -> None:
        begun = time.perf_counter()
        try:
            self._each(functools.partial(_write, block=block, histograms=histograms))
        finally:
            self._write_secs += time.perf_counter() - begun
        if block is None:
            return
        self._rows += len(block.steps)
        absent = 0 if block.present is None else block.present.size - int(block.present.sum())
        self._scalars += block.values.size - absent

    def flush(self) -> None:
        """Takes in everything and has every logger flush.

        Raises:
            LoggerError: the first logger's error, after all had their turn.
        """
        self.process()
        self._each(lambda logger: _call(logger, "flush"))

    def close(self, status: str = "success") -> None:
        """Flushes and closes every logger.

        Args:
            status: how the run ended, for loggers that keep it: `"success"` or `"failed"`.

        Raises:
            LoggerError: the first logger's error, after all had their turn.
        """
        try:
            self.process()
        finally:
            self._each(functools.partial(_close, status=status))

    def _each(self, action: Any) -> None:
        first: Exception | None = None
        for logger in self._loggers:
            try:
                action(logger)
            except Exception as error:  # noqa: BLE001 - one failing logger never stops the others
                first = first or error
        if first is not None:
            raise first


def _call(logger: Any, method: str, *args: Any) -> bool:
    """Calls a method that a plain object need not have; returns whether it does."""
    found = getattr(logger, method, None)
    if found is not None:
        found(*args)
    return found is not None


def pending_of(logger: Any) -> int:
    """How many values a logger has accepted and not stored yet; 0 where it does not say."""
    pending = getattr(logger, "pending", 0)
    return pending if isinstance(pending, int) else 0


def _close(logger: Any, status: str) -> None:
    if not _call(logger, "finalize", status):
        _call(logger, "close")


def _write(logger: Any, block: Block | None, histograms: Sequence[BucketRow]) -> None:
    """Hands all to a logger; a plain object need only have `log_metrics`."""
    for row in histograms:
        row.write(logger)
    if block is None:
        return
    if hasattr(logger, "write_block"):
        logger.write_block(block)
    else:
        for step, _, metrics in block.rows():
            logger.log_metrics(metrics, step)
