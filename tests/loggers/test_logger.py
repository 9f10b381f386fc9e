"""What every logger accepts, and what it refuses by name."""

from __future__ import annotations

import contextlib
import math
from fractions import Fraction

import numpy as np
import pytest

from jaxlog.errors import LoggerError
from jaxlog.loggers import Logger, MemoryLogger, checked_metrics, checked_step
from jaxlog.storage import Block


class HasFloat:
    def __float__(self) -> float:
        return 0.5


@pytest.mark.parametrize(
    "value",
    [
        0.5,
        np.float32(0.5),
        np.float16(0.5),
        np.array(0.5),
        np.longdouble(0.5),
        Fraction(1, 2),
        HasFloat(),
    ],
)
def test_anything_that_is_one_number_is_taken(value) -> None:
    logger = MemoryLogger()
    logger.log_metrics({"a": value}, 0)
    assert logger.rows == [(0, {"a": 0.5})]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (True, 1),
        (np.True_, 1),
        (3, 3),
        (np.int8(-3), -3),
        (10**400, math.inf),
        (-(10**400), -math.inf),
    ],
)
def test_integers_are_numbers(value, number) -> None:
    logger = MemoryLogger()
    logger.log_metrics({"a": value}, 0)
    assert logger.rows == [(0, {"a": number})]


class Huge:
    def __float__(self) -> float:
        raise OverflowError

    def __gt__(self, other) -> bool:
        return True


class NoFloatAfterAll:
    def __float__(self) -> float:
        raise TypeError("not on this host")


def test_a_number_too_large_is_infinite() -> None:
    assert checked_metrics({"a": Huge()}) == {"a": math.inf}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0.5", "must be a number, but got '0.5' of type str"),
        (b"0.5", "of type bytes"),
        (None, "of type NoneType"),
        (np.zeros(1), r"must be one number, but got ndarray of shape \(1,\)"),
        (np.zeros((2, 3)), r"of shape \(2, 3\)"),
        ([0.5], "of type list"),
        (1j, "of type complex"),
        (np.array("0.5"), "got ndarray"),
        (NoFloatAfterAll(), "which is no number: not on this host"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_number_is_refused_by_its_tag(value, message) -> None:
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        value = np.array("x")
    logger = MemoryLogger()
    with pytest.raises(LoggerError, match=f"'the/tag' .*{message}"):
        logger.log_metrics({"fine": 1.0, "the/tag": value}, 0)
    assert logger.rows == []


def test_a_tag_is_a_string() -> None:
    with pytest.raises(LoggerError, match="a tag is a string, but got 3 of type int"):
        checked_metrics({"a": 1.0, 3: 1.0})  # type: ignore[dict-item]


@pytest.mark.parametrize("step", [-1, 1.0, "1", 1 << 63, np.float32(1)])
def test_a_step_is_a_natural_number(step) -> None:
    with pytest.raises(LoggerError, match="step"):
        checked_step(step, 0)


def test_a_plug_in_needs_log_metrics_only() -> None:
    class Printed(Logger):
        def __init__(self) -> None:
            self.lines = []

        def log_metrics(self, metrics, step=None) -> None:
            self.lines.append((step, dict(metrics)))

    present = np.array([[True, False], [True, True]])
    with Printed() as logger:
        logger.write_block(Block(("a", "b"), np.arange(2), np.zeros(2), np.ones((2, 2)), present))
        logger.log_hyperparams({"lr": 0.1})
        logger.flush()
    assert logger.lines == [(0, {"a": 1.0}), (1, {"a": 1.0, "b": 1.0})]
    assert (logger.name, logger.version, logger.save_dir, logger.log_dir) == ("", "", None, None)


def test_a_logger_without_log_metrics_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Logger must define log_metrics"):
        Logger().log_metrics({"a": 1.0})


@pytest.mark.parametrize(("fails", "status"), [(False, "success"), (True, "failed")])
def test_the_end_of_with_tells_how_it_went(fails, status) -> None:
    class Ended(Logger):
        def finalize(self, status: str) -> None:
            self.ended = status

    logger = Ended()
    with contextlib.suppress(KeyError), logger:
        {"a": 1}["b" if fails else "a"]
    assert logger.ended == status


def test_memory_keeps_blocks_and_counts_steps() -> None:
    logger = MemoryLogger()
    logger.log_metrics({"a": 1.0})
    logger.log_metrics({"a": 2.0})
    logger.write_block(Block.row({"b": 3.0}, 7))
    logger.write_block(Block(("a",), np.array([], np.int64), np.zeros(0), np.zeros((0, 1))))
    logger.log_metrics({"a": 4.0})
    logger.log_hyperparams({"o": {"lr": 0.1}}, {"score": 5.0})
    logger.close()
    assert logger.rows == [
        (0, {"a": 1.0}), (1, {"a": 2.0}), (7, {"b": 3.0}), (8, {"a": 4.0}), (0, {"score": 5.0}),
    ]  # fmt: skip
    assert logger.hyperparams == {"o/lr": 0.1}
    assert logger.name == "memory"


def test_memory_keeps_values_not_references() -> None:
    logger, metrics = MemoryLogger(), {"a": 1.0}
    logger.log_metrics(metrics, 0)
    metrics["a"] = 2.0
    assert logger.rows == [(0, {"a": 1.0})]
