"""Any object with `log_metrics` is a logger; what it lacks has the default of `Logger`."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from jaxlog.errors import LoggerError
from jaxlog.loggers import Logger, LoggerLike, MemoryLogger, adapt
from jaxlog.storage import Block


class Plain:
    """Has the one thing that is needed."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def log_metrics(self, metrics: Any, step: Any) -> None:
        self.calls.append((step, dict(metrics)))


class Full(Plain):
    """Has everything, and notes what is called."""

    name, version, save_dir, log_dir, pending = "experiment", 3, "logs", "logs/3", 7

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *args, **options: self.calls.append((method, args, options))


def test_a_logger_is_taken_as_it_is() -> None:
    logger = MemoryLogger()
    assert adapt(logger) is logger


def test_a_plain_object_gets_rows() -> None:
    plain = Plain()
    logger = adapt(plain)
    assert isinstance(logger, Logger)
    present = np.array([[True, False], [True, True]])
    logger.write_block(Block(("a", "b"), np.arange(2), np.zeros(2), np.ones((2, 2)), present))
    assert plain.calls == [(0, {"a": 1.0}), (1, {"a": 1.0, "b": 1.0})]


def test_what_a_plain_object_lacks_does_nothing() -> None:
    plain = Plain()
    logger = adapt(plain)
    logger.log_histogram("h", [1.0], 0)
    logger.log_image("i", np.zeros((2, 2)), 0)
    logger.log_text("t", "text", 0)
    logger.log_audio("a", np.zeros(2), 0, sample_rate=8000)
    logger.log_hyperparams({"lr": 0.1})
    logger.flush()
    logger.finalize("success")
    logger.close()
    assert plain.calls == []
    assert (logger.pending, logger.for_lane("slow")) == (0, None)
    assert (logger.name, logger.version, logger.save_dir, logger.log_dir) == ("", "", None, None)


@pytest.mark.parametrize(
    ("method", "args", "options"),
    [
        ("write_block", (Block.row({"a": 1.0}, 0, 0.0),), {}),
        ("log_hyperparams", ({"lr": 0.1},), {}),
        ("log_histogram", ("h", [1], 0), {"edges": None}),
        ("log_image", ("i", [1], 0), {"dataformats": None}),
        ("log_text", ("t", "text", 0), {}),
        ("log_audio", ("a", [1], 0), {"sample_rate": 8000}),
        ("flush", (), {}),
        ("close", (), {}),
        ("finalize", ("failed",), {}),
    ],
)
def test_what_a_plain_object_has_is_called_with_the_same_arguments(method, args, options) -> None:
    full = Full()
    getattr(adapt(full), method)(*args, **options)
    assert full.calls == [(method, args, options)]


def test_what_a_plain_object_says_of_itself_is_kept() -> None:
    logger = adapt(Full())
    assert (logger.name, logger.version) == ("experiment", 3)
    assert (logger.save_dir, logger.log_dir, logger.pending) == ("logs", "logs/3", 7)


def test_without_finalize_it_is_closed() -> None:
    class Closes(Plain):
        def close(self) -> None:
            self.calls.append("closed")

    plain = Closes()
    adapt(plain).finalize("failed")
    assert plain.calls == ["closed"]


@pytest.mark.parametrize("pending", [None, "many", lambda: 3])
def test_a_pending_that_is_no_count_is_0(pending) -> None:
    plain: Any = Plain()
    plain.pending = pending
    assert adapt(plain).pending == 0


def test_the_logger_of_a_lane_is_adapted_too() -> None:
    class WithLanes(Plain):
        def for_lane(self, lane: str) -> Plain:
            self.calls.append(lane)
            return Plain()

    plain = WithLanes()
    lane = adapt(plain).for_lane("slow")
    assert isinstance(lane, Logger)
    assert plain.calls == ["slow"]
    lane.flush()


class NoLogMetrics(Logger):
    pass


class NotCallable:
    log_metrics = "loss"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (object(), r"loggers\[1\] of type object has no method log_metrics.*define log_metrics"),
        (print, "has no method log_metrics"),
        (None, "of type NoneType has no method log_metrics"),
        (NotCallable(), "of type NotCallable has no method log_metrics"),
        (NoLogMetrics(), "of type NoLogMetrics has no method log_metrics"),
        (MemoryLogger, r"is the class MemoryLogger, not a logger; write MemoryLogger\(\.\.\.\)"),
        ("logs", r"is the string 'logs', not a logger; write TensorBoardLogger\('logs'\)"),
    ],
)
def test_what_is_no_logger_is_refused_at_once(wrong, message) -> None:
    with pytest.raises(LoggerError, match=message):
        adapt(wrong, argument="loggers[1]")


def test_a_plain_object_needs_a_step() -> None:
    with pytest.raises(LoggerError, match="Plain does not count steps"):
        adapt(Plain()).log_metrics({"a": 1.0})


def test_every_method_of_the_family_has_a_default_in_logger() -> None:
    from jaxlog.loggers import protocol

    family = [getattr(protocol, name) for name in protocol.__all__ if name != "adapt"]
    members = {name for part in family for name in vars(part) if not name.startswith("_")}
    assert members <= set(dir(Logger))
    public = {name for name in vars(Logger) if not name.startswith("_")}
    assert public - members == {"name", "version", "save_dir", "log_dir"}
    assert LoggerLike in family
    assert all(inspect.getdoc(part) for part in family)
