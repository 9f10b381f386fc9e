"""The loggers that ship keep the contract that they ask of others; and it notices who does not."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from jaxlog.errors import LoggerError
from jaxlog.loggers import CSVLogger, Logger, MemoryLogger, TensorBoardLogger
from jaxlog.reading import read_scalars
from jaxlog.storage import open_filesystem, read_whole
from jaxlog.testing import LoggerContract


class TestTensorBoard(LoggerContract):
    def make_logger(self, place):
        return TensorBoardLogger(place, "", "run")

    def rows_of(self, logger, place):
        table = read_scalars(place, backend="numpy")
        columns = (table[name].tolist() for name in ("tag", "step", "value"))
        return list(zip(*columns, strict=True))


class TestTensorBoardInMemory(TestTensorBoard):
    @pytest.fixture
    def place(self, memory_url):
        return memory_url


class TestCSV(LoggerContract):
    number = np.float64
    max_queue = 100

    def make_logger(self, place):
        return CSVLogger(place, "", "run")

    def rows_of(self, logger, place):
        text = read_whole(*open_filesystem(f"{place}/run/metrics.csv")).decode()
        rows = csv.DictReader(io.StringIO(text, newline=""))
        return [
            (tag, int(row["step"]), float(value))
            for row in rows
            for tag, value in row.items()
            if tag != "step" and value
        ]


class TestCSVInMemory(TestCSV):
    @pytest.fixture
    def place(self, memory_url):
        return memory_url


class TestMemory(LoggerContract):
    writes_files = refuses_after_close = False
    number = np.float64

    def make_logger(self, place):
        return MemoryLogger()

    def rows_of(self, logger, place):
        return [(tag, step, value) for step, row in logger.rows for tag, value in row.items()]


class Forgetful(TestMemory):
    """Breaks the contract in every way that is tried below."""

    __test__ = False
    refuses_after_close = True

    def make_logger(self, place):
        class Broken(MemoryLogger):
            def log_metrics(self, metrics, step=None):
                if len(self.blocks) < 4:
                    super().log_metrics(metrics, step)

        return Broken()


@pytest.mark.parametrize(
    "law",
    [
        "test_what_was_logged_is_there_after_close", "test_flush_is_a_barrier",
        "test_threads_lose_nothing", "test_close_may_be_called_twice",
    ],
)  # fmt: skip
def test_a_logger_that_breaks_a_law_fails_it(law) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(Forgetful(), law)("place")


def test_a_suite_without_its_two_methods_says_what_to_define() -> None:
    with pytest.raises(NotImplementedError, match="define make_logger"):
        LoggerContract().make_logger("")
    with pytest.raises(NotImplementedError, match="define rows_of"):
        LoggerContract().rows_of(Logger(), "")


def test_an_error_of_ours_is_what_is_asked_for() -> None:
    with TestMemory().make_logger("") as logger, pytest.raises(LoggerError):
        logger.log_metrics({"a": "text"})  # pyright: ignore[reportArgumentType]
