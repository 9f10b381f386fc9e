"""`LoggerContract`: tests of everything that the loop and its users rely on in a logger."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxlog.errors import LoggerError, WriteError
from jaxlog.loggers import FileLogger, Logger
from jaxlog.storage import Block, Sink

__all__ = ["HeldSink", "LoggerContract"]

_TIMEOUT_SECS = 60


class HeldSink:
    """A sink whose first write waits until a test lets it go on.

    Args:
        sink: what is written to.

    Attributes:
        entered: set when the first write has begun.
        gate: set it to let that write continue.

    Example:
        >>> from jaxlog.storage import EventSink, Uploads
        >>> sink = HeldSink(EventSink(Uploads("memory://held_sink")))
        >>> sink.gate.set()
        >>> sink.write([])
        >>> sink.entered.is_set()
        True
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.entered = threading.Event()
        self.gate = threading.Event()
        self._flushes = threading.Semaphore(0)

    @property
    def path(self) -> str:
        """As the sink names it."""
        return self._sink.path

    @property
    def min_interval_secs(self) -> float:
        """0, so that a test need not wait between two writes."""
        return 0.0

    @property
    def retry_secs(self) -> float | None:
        """As the sink wants it."""
        return self._sink.retry_secs

    def write(self, items: Sequence[Any]) -> None:
        """Waits for `gate`, and writes."""
        self.entered.set()
        assert self.gate.wait(_TIMEOUT_SECS), "the test did not set the gate"
        self._sink.write(items)

    def flush(self) -> None:
        """Flushes, and counts it."""
        self._sink.flush()
        self._flushes.release()

    def close(self) -> None:
        """Closes."""
        self._sink.close()

    def wait_for_flush(self) -> None:
        """Waits for one more flush to have ended."""
        assert self._flushes.acquire(timeout=_TIMEOUT_SECS), "the waiting rows are not written"


class LoggerContract:
    """A suite of tests for a logger; inherit from it and run pytest.

    Attributes:
        writes_files: whether values leave the process. If not, the tests of forked children and of
            failing storage are skipped.
        refuses_after_close: whether logging after `close` is an error.
        max_queue: for a logger with a thread, the number of waiting rows at which it writes.
        number: the type in which values are stored.

    Example:
        >>> from jaxlog.loggers import MemoryLogger
        >>> class TestMemory(LoggerContract):
        ...     writes_files = refuses_after_close = False
        ...     number = float
        ...
        ...     def make_logger(self, place):
        ...         return MemoryLogger()
        ...
        ...     def rows_of(self, logger, place):
        ...         return [(t, step, v) for step, row in logger.rows for t, v in row.items()]
        >>> TestMemory().test_what_was_logged_is_there_after_close("anywhere")
    """

    writes_files = True
    refuses_after_close = True
    max_queue = 10
    number: type = np.float32

    def make_logger(self, place: str) -> Logger:
        """A new logger that writes below `place`, a folder that may not exist yet."""
        raise NotImplementedError("define make_logger(self, place): a new logger below that folder")

    def rows_of(self, logger: Any, place: str) -> list[tuple[str, int, float]]:
        """`(tag, step, value)` of everything on storage, in any order."""
        raise NotImplementedError("define rows_of(self, logger, place): what is on storage there")

    def hold_writes(self, logger: Any, monkeypatch: pytest.MonkeyPatch) -> HeldSink | None:
        """Makes the first write of `logger` to storage wait; called before anything is logged.

        Override it for a logger with a `BackgroundWriter` that is not a `FileLogger`: put a
        `HeldSink` around the writer's sink.

        Returns:
            The sink; None for a logger that writes in the log call itself.
        """
        if not isinstance(logger, FileLogger):
            return None
        held: list[HeldSink] = []
        make_sink = logger._make_sink  # pyright: ignore[reportPrivateUsage]

        def make_held(uploads: Any) -> HeldSink:
            held.append(HeldSink(make_sink(uploads)))
            return held[0]

        monkeypatch.setattr(logger, "_make_sink", make_held)
        logger._writer()  # pyright: ignore[reportPrivateUsage]  # makes the sink now
        return held[0]

    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        """The folder that a test writes to; override it for another filesystem."""
        return str(tmp_path / "logs")

    def _check(self, logger: Any, place: str, expected: list[tuple[str, int, float]]) -> None:
        kept = sorted((tag, step, float(self.number(value))) for tag, step, value in expected)
        found = sorted(
            (tag, step, float(value)) for tag, step, value in self.rows_of(logger, place)
        )
        assert found == kept

    def test_what_was_logged_is_there_after_close(self, place: str) -> None:
        logger = self.make_logger(place)
        expected = []
        for step in range(30):
            logger.log_metrics({"loss": step / 3, "größe/x y": -step}, step)
            expected += [("loss", step, step / 3), ("größe/x y", step, -step)]
        logger.close()
        self._check(logger, place, expected)

    def test_flush_is_a_barrier(self, place: str) -> None:
        logger = self.make_logger(place)
        expected = []
        for step in range(5):
            logger.log_metrics({"a": float(step)}, step)
            expected.append(("a", step, step))
            logger.flush()
            self._check(logger, place, expected)
        logger.close()

    def test_numbers_of_every_kind(self, place: str) -> None:
        values = [True, 3, 0.5, np.float16(0.25), np.array(2.0), np.int8(-3), math.inf, -math.inf]
        with self.make_logger(place) as logger:
            for step, value in enumerate(values):
                logger.log_metrics({"a": value}, step)
            logger.log_metrics({"nan": math.nan}, 0)
        found = self.rows_of(logger, place)
        assert sum(math.isnan(value) for _, _, value in found) == 1
        kept = {step: value for tag, step, value in found if tag == "a"}
        assert [kept[step] for step in range(len(values))] == [float(value) for value in values]

    def test_what_is_no_number_is_refused_by_its_tag(self, place: str) -> None:
        with self.make_logger(place) as logger:
            with pytest.raises(LoggerError, match="wrong"):
                logger.log_metrics({"fine": 1.0, "wrong": "text"}, 0)
            logger.log_metrics({"fine": 2.0}, 1)
        self._check(logger, place, [("fine", 1, 2.0)])

    def test_values_are_those_of_the_call(self, place: str) -> None:
        logger, row, array = self.make_logger(place), {"a": 1.0}, np.array(2.0)
        logger.log_metrics(row, 0)
        logger.log_metrics({"a": array}, 1)
        row["a"] = array[...] = -1.0
        logger.close()
        self._check(logger, place, [("a", 0, 1.0), ("a", 1, 2.0)])

    def test_without_a_step_they_count_up(self, place: str) -> None:
        with self.make_logger(place) as logger:
            for value in (1.0, 2.0):
                logger.log_metrics({"a": value})
            logger.log_metrics({"a": 3.0}, 10)
            logger.log_metrics({"a": 4.0})
        steps = zip((0, 1, 10, 11), (1.0, 2.0, 3.0, 4.0), strict=True)
        self._check(logger, place, [("a", step, value) for step, value in steps])

    def test_a_block_is_its_rows(self, place: str) -> None:
        present = np.array([[True, False], [True, True], [False, False]])
        steps = np.array([3, 7, 9])
        with self.make_logger(place) as logger:
            logger.write_block(Block(("a", "b"), steps, np.zeros(3), np.ones((3, 2)), present))
            logger.write_block(Block(("a",), steps[:0], np.zeros(0), np.ones((0, 1))))
        self._check(logger, place, [("a", 3, 1.0), ("a", 7, 1.0), ("b", 7, 1.0)])

    def test_lanes_that_reach_it_are_kept_apart(self, place: str) -> None:
        lanes = ("x", "y", None)
        values = np.arange(3.0).reshape(1, 3)
        with self.make_logger(place) as logger:
            tags = ("a", "a", "b/x")
            logger.write_block(Block(tags, np.array([3]), np.zeros(1), values, lanes=lanes))
        self._check(logger, place, [("a/x", 3, 0.0), ("a/y", 3, 1.0), ("b/x", 3, 2.0)])

    def test_hyperparameters_are_taken(self, place: str) -> None:
        with self.make_logger(place) as logger:
            logger.log_hyperparams({"optimizer": {"lr": 0.1}, "name": "adam"})
            logger.log_metrics({"a": 1.0}, 0)
        self._check(logger, place, [("a", 0, 1.0)])

    def test_close_may_be_called_twice(self, place: str) -> None:
        for used in (True, False):
            logger = self.make_logger(place)
            if used:
                logger.log_metrics({"a": 1.0}, 0)
            logger.close()
            logger.close()
            logger.flush()
            logger.finalize("success")
            if self.refuses_after_close:
                with pytest.raises(LoggerError, match="closed"):
                    logger.log_metrics({"a": 1.0}, 1)

    def test_threads_lose_nothing(self, place: str) -> None:
        logger, together = self.make_logger(place), threading.Barrier(4)

        def log(number: int) -> None:
            together.wait(_TIMEOUT_SECS)
            for step in range(50):
                logger.log_metrics({f"thread_{number}": float(step)}, step)
                if step % 20 == 0:
                    logger.flush()

        threads = [threading.Thread(target=log, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_TIMEOUT_SECS)
            assert not thread.is_alive()
        logger.close()
        expected = [(f"thread_{n}", step, float(step)) for n in range(4) for step in range(50)]
        self._check(logger, place, expected)

    @pytest.mark.parametrize("before", [0, 1])
    def test_rows_that_come_while_it_writes_are_not_left_waiting(
        self, place: str, monkeypatch: pytest.MonkeyPatch, before: int
    ) -> None:
        """`max_queue` rows are written without a flush, also when they came during a write.

        Args:
            place: where it writes.
            monkeypatch: of the test.
            before: rows short of `max_queue` that come during the write; the rest come after it.
        """
        logger = self.make_logger(place)
        held = self.hold_writes(logger, monkeypatch)
        if held is None:
            pytest.skip("log calls write themselves")
        expected = []

        def log(rows: int) -> None:
            for _ in range(rows):
                step = len(expected)
                logger.log_metrics({"a": float(step)}, step)
                expected.append(("a", step, float(step)))

        log(self.max_queue)
        assert held.entered.wait(_TIMEOUT_SECS), "max_queue rows are not written"
        log(self.max_queue - before)
        held.gate.set()
        held.wait_for_flush()
        log(before)
        while len(self.rows_of(logger, place)) < len(expected):
            held.wait_for_flush()
        self._check(logger, place, expected)
        logger.close()
        self._check(logger, place, expected)

    def test_a_forked_child_leaves_the_files_alone(
        self, place: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not self.writes_files:
            pytest.skip("nothing leaves the process")
        logger = self.make_logger(place)
        logger.log_metrics({"a": 1.0}, 0)
        parent = os.getpid()
        with monkeypatch.context() as child:  # a real fork would copy the test runner's threads
            child.setattr(os, "getpid", lambda: parent + 1)
            with pytest.raises(LoggerError, match="make a logger in the child"):
                logger.log_metrics({"a": -1.0}, 1)
            logger.close()
        logger.log_metrics({"a": 2.0}, 2)
        logger.close()
        self._check(logger, place, [("a", 0, 1.0), ("a", 2, 2.0)])

    @pytest.mark.parametrize("at", ["flush", "close", "log"])
    def test_an_error_of_storage_surfaces(self, tmp_path: Path, at: str) -> None:
        if not self.writes_files:
            pytest.skip("nothing leaves the process")
        (tmp_path / "file").write_text("no folder can be made below a file")
        logger = self.make_logger(str(tmp_path / "file" / "logs"))

        def log_until_it_is_raised() -> None:
            turn = threading.Event()
            for step in range(10_000):
                logger.log_metrics({"a": 1.0}, step)
                # Any logger may run here, so there is no event to wait for. Let its thread run.
                turn.wait(0.001)

        def use() -> None:
            logger.log_metrics({"a": 1.0}, 0)
            {"flush": logger.flush, "close": logger.close, "log": log_until_it_is_raised}[at]()

        with pytest.raises((WriteError, LoggerError)):
            use()
        with contextlib.suppress(LoggerError):
            logger.close()
        logger.close()
