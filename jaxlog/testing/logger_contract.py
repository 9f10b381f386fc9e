"""`LoggerContract`: what the loop and its users may rely on in every logger."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxlog.errors import LoggerError, WriteError
from jaxlog.loggers.logger import Logger
from jaxlog.storage.block import Block

__all__ = ["LoggerContract"]

_TIMEOUT_SECS = 60


class LoggerContract:
    """Tests that a class of yours runs with pytest by inheriting them.

    Attributes:
        writes_files: whether values leave the process. A logger for which that is False need not
            refuse a forked child, nor can its storage fail.
        refuses_after_close: whether a log after `close` is an error.
        number: the type that values are kept as.

    Example:
        >>> from jaxlog.loggers.memory import MemoryLogger
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
    number: type = np.float32

    def make_logger(self, place: str) -> Logger:
        """A new logger that writes below `place`, a folder that may not be there yet."""
        raise NotImplementedError("define make_logger(self, place): a new logger below that folder")

    def rows_of(self, logger: Any, place: str) -> list[tuple[str, int, float]]:
        """`(tag, step, value)` of all that is on storage, in any order."""
        raise NotImplementedError("define rows_of(self, logger, place): what is on storage there")

    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        """Where a test writes; override it for another filesystem."""
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

    def test_a_forked_child_leaves_the_files_alone(
        self, place: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not self.writes_files:
            pytest.skip("nothing leaves the process")
        logger = self.make_logger(place)
        logger.log_metrics({"a": 1.0}, 0)
        parent = os.getpid()
        with monkeypatch.context() as child:  # a real fork is no thing to do under a test runner
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
                turn.wait(0.001)  # for a thread of which nothing is known but that it writes

        def use() -> None:
            logger.log_metrics({"a": 1.0}, 0)
            {"flush": logger.flush, "close": logger.close, "log": log_until_it_is_raised}[at]()

        with pytest.raises((WriteError, LoggerError)):
            use()
        with contextlib.suppress(LoggerError):
            logger.close()
        logger.close()
