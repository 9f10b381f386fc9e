"""`loop.cost()` counts what crossed and where the time went, and costs nothing to ask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jaxlog
from tests.counting import counted_compiles
from tests.loop.rig import batches, logging_step, loop_of


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_nothing_has_cost_nothing() -> None:
    loop, _ = loop_of()
    assert loop.cost() == jaxlog.Cost()
    assert loop.cost().blocked_secs == 0.0


def test_counts_are_those_of_what_was_logged() -> None:
    loop, rows = loop_of(window_steps=4, window_secs=1e9)

    @loop.training_step
    def step(batch: Any) -> None:
        jaxlog.log("always", batch[0])
        jaxlog.log("rarely", batch[0], mask=batch[0] == 2)

    with loop:
        for batch in loop.train(batches(*range(10))):
            step(batch)
    cost = loop.cost()
    assert (cost.windows, cost.copies) == (3, 3)
    assert cost.rows == len(rows.rows) == 10
    assert cost.scalars == sum(len(row) for _, row in rows.rows) == 10 + 1 + 10  # and epochs
    assert cost.bytes == 3 * 4 * 4 * 3  # windows of four rows of three words
    assert cost.pending == 0


def test_time_is_told_by_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)

    class SlowToArrive:
        """An image that is read in five seconds."""

        def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
            clock.now += 5.0
            return np.zeros((2, 2))

    class Slow(jaxlog.MemoryLogger):
        def write_block(self, block: Any) -> None:
            clock.now += 3.0
            super().write_block(block)

    loop = jaxlog.Loop(Slow(), log_every_n_steps=1, progress_bar=False, window_steps=2)
    step = loop.training_step(logging_step("loss"))
    with loop:
        for batch in loop.train(batches(1, 2, 3, 4)):
            step(batch)
            if batch[0] in {2, 4}:  # the last of their windows
                loop.log_image("picture", SlowToArrive())
    cost = loop.cost()
    assert (cost.fetch_secs, cost.reduce_secs, cost.write_secs) == (10.0, 0.0, 6.0)
    assert loop.blocked_secs == cost.blocked_secs == 16.0


def test_asking_fetches_and_compiles_nothing() -> None:
    loop, rows = loop_of(window_secs=1e9)
    step = loop.training_step(logging_step("loss"))
    with loop:
        for batch in loop.train(batches(1, 2, 3)):
            step(batch)
            with counted_compiles() as compiles:
                assert loop.cost().copies == 0
            assert not compiles
            assert not rows.rows
    assert loop.cost().copies == 1


def test_what_a_logger_has_not_stored_is_pending(tmp_path) -> None:
    logger = jaxlog.TensorBoardLogger(tmp_path, max_queue=10**6, flush_secs=1e6)
    loop = jaxlog.Loop(logger, log_every_n_steps=1, progress_bar=False, window_steps=2)
    step = loop.training_step(logging_step("loss"))
    with loop:
        for i, batch in enumerate(loop.train(batches(*range(7)))):
            step(batch)
            # A window of two rows, a value and the epoch each, is handed over one window late.
            assert loop.cost().pending == 4 * max(0, i // 2 - 1)
        loop.flush()
        assert loop.cost().pending == 0


def test_loggers_of_lanes(tmp_path) -> None:
    logger = jaxlog.TensorBoardLogger(tmp_path, max_queue=10**6, flush_secs=1e6)
    loop = jaxlog.Loop(
        [logger, jaxlog.MemoryLogger()],
        lanes=2, log_every_n_steps=1, progress_bar=False, window_steps=1,
    )  # fmt: skip
    step = loop.training_step(logging_step("loss"), in_axes=None)
    with loop:
        for batch in loop.train(batches(1, 2, 3)):
            step(batch)
        assert loop.cost().pending > 0
        loop.flush()
        assert loop.cost().pending == 0
