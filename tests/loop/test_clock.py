"""The loop's clock: rows carry it, an old window is fetched, compiling is not counted."""

from __future__ import annotations

from typing import Any

import pytest

import jaxlog
from jaxlog.errors import LogArgumentError
from tests.loop.rig import batches, logging_step, loop_of


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_rows_carry_the_time_of_the_clock() -> None:
    clock = Clock()
    memory = jaxlog.MemoryLogger()
    loop = jaxlog.Loop(memory, log_every_n_steps=1, progress_bar=False, clock=clock)
    times = []
    memory.write_block = lambda block: times.extend(block.wall_times.tolist())
    step = loop.training_step(logging_step("loss"))
    with loop:
        for batch in loop.train(batches(1, 2)):
            step(batch)
            clock.now += 1
    assert times == [1000.0, 1001.0]


def test_a_window_is_fetched_when_it_is_old() -> None:
    clock = Clock()
    loop, _ = loop_of(window_secs=5.0, clock=clock)
    step = loop.training_step(logging_step("loss"))
    windows = []
    with loop:
        for batch in loop.train(batches(*range(12))):
            step(batch)
            clock.now += 2
            windows.append(loop.cost().copies)
    # Compiled in the first batch: the window's time begins after it.
    assert windows[:8] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_compiling_does_not_make_a_window_old() -> None:
    clock = Clock()

    def slow_to_trace(batch: Any) -> None:
        clock.now += 100  # runs while JAX traces the step, and only then
        jaxlog.log("loss", batch.mean())

    loop, _ = loop_of(window_secs=5.0, clock=clock)
    step = loop.training_step(slow_to_trace)
    with loop:
        for batch in loop.train(batches(1, 2, 3, 4, 5, 6, sizes=[1, 1, 1, 2, 2, 2])):
            step(batch)
            assert loop.cost().copies == 0
    assert clock.now == 1200.0  # traced for each of the two shapes
    assert loop.cost().copies == 1


def test_a_clock_is_a_function() -> None:
    with pytest.raises(LogArgumentError, match="clock=3"):
        jaxlog.Loop(False, clock=3)  # type: ignore[arg-type]
