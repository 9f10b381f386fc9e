"""`Fetcher`: everything that goes to the loggers, in one order, fetched one window late.

Windows of steps, ends of phases, scalars at a step of their own and other calls of a logger (for
histograms, pictures, text, hyperparameters) wait in one queue. The copies of an item's arrays off
the device start when it is queued; it is read when the next window is queued, so the device is
never waited for while it trains. Loggers get what the items hold in the order of the queue, and
within a window in the order of its steps.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from jaxlog.loggers import Logger
from jaxlog.loop.cost import Cost
from jaxlog.storage import Block
from jaxlog.windows import LatestValues, NonFiniteWatch, Output, Phase, Settings, Window

__all__ = ["Fetcher", "PhaseEnd", "Queued"]


class Queued(Protocol):
    """Something that waits for its arrays: a window, the end of a phase, a scalar, another call."""

    @property
    def arrays(self) -> Any:
        """A pytree of what is still on a device."""
        ...

    def ingest(self, arrays: Any, latest: LatestValues, /) -> Sequence[Output]:
        """Takes in its arrays, on the host now; returns what the loggers get, in order."""
        ...


class PhaseEnd:
    """The end of a phase: its epoch row is written after everything that it logged."""

    arrays = ()  # what epoch hooks logged is already being copied

    def __init__(self, phase: Phase) -> None:
        """The end of `phase`, which has its `end` set."""
        self._phase = phase

    def ingest(self, arrays: Any, latest: LatestValues) -> list[Output]:
        """Publishes the epoch's values; returns its row."""
        del arrays
        self._phase.publish(latest)
        return self._phase.epoch_row()


class Fetcher:
    """The queue between the device and the loggers.

    Attributes:
        latest: Lightning's three mappings.
        watch: counts values that are not finite.
    """

    def __init__(self, loggers: Sequence[Logger], settings: Settings) -> None:
        """An empty queue.

        Args:
            loggers: where everything goes.
            settings: the loop's options.
        """
        self.latest = LatestValues(settings.lanes)
        self.watch = NonFiniteWatch(settings.nan_policy)
        self._loggers = list(loggers)
        self._queue: deque[Queued] = deque()
        self._num_windows = 0  # in the queue
        self._counts: dict[str, Any] = dict.fromkeys(
            (field.name for field in dataclasses.fields(Cost)), 0
        )

    # ---- the device-to-host crossing ------------------------------------------------------------

    def start(self, tree: Any) -> None:
        """Starts copying every array of a pytree to the host; does not wait."""
        arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
        # Start all copies before anything is read, so that they overlap.
        for array in arrays:
            array.copy_to_host_async()
        if arrays:
            self._count(copies=len(arrays), bytes=sum(array.nbytes for array in arrays))

    def read(self, tree: Any) -> Any:
        """The pytree with numpy in place of its arrays; waits for copies that `start` began."""
        return jax.tree.map(lambda x: np.asarray(x) if hasattr(x, "__array__") else x, tree)

    # ---- the queue ------------------------------------------------------------------------------

    def push(self, item: Queued) -> None:
        """Starts fetching an item, which comes after all that is queued."""
        self.start(item.arrays)
        self._queue.append(item)
        self._num_windows += isinstance(item, Window)

    def process(self, keep: int = 0) -> None:
        """Takes in what is queued, except the last `keep` windows and what comes after them.

        Raises:
            LoggerError: a logger failed, now or in the background; the others got everything.
            NonFiniteError: a value was not finite, under `nan_policy="raise"`.
        """
        if not self._queue:
            return
        errors = _Errors()
        while self._queue and (self._num_windows > keep or not isinstance(self._queue[0], Window)):
            item = self._queue.popleft()
            # Off the queue first: an item that raises is not tried again at every call.
            outputs = self._ingest(item)
            with errors:
                self._write(outputs)
        # A logger's error comes first; a value that was not finite is reported at the next call.
        errors.raise_first()
        self.watch.raise_found()

    def _ingest(self, item: Queued) -> Sequence[Output]:
        begun = fetched = time.perf_counter()
        is_window = isinstance(item, Window)
        self._num_windows -= is_window
        try:
            arrays = self.read(item.arrays)
            fetched = time.perf_counter()
            return item.ingest(arrays, self.latest)
        finally:
            self._count(
                fetch_secs=fetched - begun,
                reduce_secs=time.perf_counter() - fetched,
                windows=int(is_window),
            )

    def _write(self, outputs: Sequence[Output]) -> None:
        if not outputs:
            return
        begun = time.perf_counter()
        try:
            self._each(functools.partial(_write, outputs=outputs))
        finally:
            self._count(write_secs=time.perf_counter() - begun)
        for block in outputs:
            if isinstance(block, Block):
                absent = 0 if block.present is None else int((~block.present).sum())
                self._count(rows=len(block.steps), scalars=block.values.size - absent)

    # ---- the loggers ----------------------------------------------------------------------------

    @property
    def has_loggers(self) -> bool:
        """Whether anything is written."""
        return bool(self._loggers)

    def cost(self) -> Cost:
        """What logging has cost so far; takes in nothing and does not wait."""
        pending = sum(logger.pending for logger in self._loggers)
        return Cost(**self._counts | {"pending": pending})

    def _count(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self._counts[name] += amount

    def flush(self) -> None:
        """Takes in everything and has every logger flush.

        Raises:
            LoggerError: the first logger's error, after all had their turn.
        """
        self.process()
        self._each(lambda logger: logger.flush())

    def close(self, status: str = "success") -> None:
        """Takes in everything and ends every logger.

        Args:
            status: how the run ended, for loggers that keep it: `"success"` or `"failed"`.

        Raises:
            LoggerError: the first logger's error, after all had their turn.
        """
        try:
            self.process()
        finally:
            self._each(lambda logger: logger.finalize(status))

    def _each(self, action: Callable[[Logger], object]) -> None:
        errors = _Errors()
        for logger in self._loggers:
            with errors:
                action(logger)
        errors.raise_first()


def _write(logger: Logger, outputs: Sequence[Output]) -> None:
    errors = _Errors()
    for output in outputs:
        with errors:  # a picture that a logger refuses must not cost the rows after it
            if isinstance(output, Block):
                logger.write_block(output)
            else:
                output.write(logger)
    errors.raise_first()


class _Errors:
    """Collects errors of independent actions: one that fails does not stop the others."""

    def __init__(self) -> None:
        self._first: Exception | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self._first = self._first or error
        return True

    def raise_first(self) -> None:
        """Raises the first error, if there was one."""
        if self._first is not None:
            raise self._first
