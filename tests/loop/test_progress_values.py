"""Values for progress bars: whatever has arrived, and never a wait."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

import jaxlog
from jaxlog.loop import Fetcher, ProgressValues
from jaxlog.windows import Settings
from tests.loop.rig import batches, logging_step, loop_of


class Row:
    """A packed row on its way from the device."""

    is_fully_addressable = True

    def __init__(self, row: Any) -> None:
        self.row = np.asarray(row)
        self.arrived = False
        self.asked = 0
        self.read = 0

    def is_ready(self) -> bool:
        self.asked += 1
        return self.arrived

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        assert self.arrived, "read before it arrived: this would have waited"
        self.read += 1
        return np.array(self.row, dtype)


@dataclasses.dataclass
class Running:
    """A recorder in a batch with one step."""

    steps: list[Any]
    in_batch: bool = True
    window: Any = None


@dataclasses.dataclass
class Step:
    """A step that has logged."""

    schema: Any
    last_row: Any

    @property
    def last_rows(self) -> Any:
        return self.last_row, None


@pytest.fixture
def step() -> Step:
    """A step whose last row has logged loss=3, not read by anyone."""
    loop, _ = loop_of()
    step = loop.training_step(logging_step("loss", prog_bar=True, on_epoch=True))
    with loop:
        for batch in loop.train(batches(3)):
            step(batch)
    return Step(step.schema, Row(step.last_rows[0]))


def values_of(step: Step) -> ProgressValues:
    recorders: Any = {"train": Running([step])}
    return ProgressValues(recorders, Fetcher([], Settings()))


def test_a_row_that_has_not_arrived_is_not_read(step: Step) -> None:
    values = values_of(step)
    for _ in range(3):
        assert values.latest() == {}
    assert step.last_row.read == 0


def test_a_row_is_read_once_it_has_arrived(step: Step) -> None:
    values = values_of(step)
    values.latest()
    step.last_row.arrived = True
    assert values.latest() == {"loss_step": 3.0}


def test_one_row_flies_at_a_time(step: Step) -> None:
    values = values_of(step)
    first = step.last_row
    values.latest()
    step.last_row = Row(first.row)
    values.latest()
    assert (first.asked, step.last_row.asked) == (1, 0)
    first.arrived = True
    assert values.latest() == {"loss_step": 3.0}
    values.latest()
    assert (first.asked, step.last_row.asked) == (2, 1)


def test_the_last_value_stays_while_the_next_flies(step: Step) -> None:
    values = values_of(step)
    values.latest()
    step.last_row.arrived = True
    values.latest()
    step.last_row = Row(step.last_row.row)
    assert values.latest() == {"loss_step": 3.0}


def test_outside_of_batches_nothing_takes_off(step: Step) -> None:
    recorders: Any = {"train": Running([step], in_batch=False)}
    values = ProgressValues(recorders, Fetcher([], Settings()))
    step.last_row.arrived = True
    assert values.latest() == values.latest() == {}
    assert step.last_row.asked == 0


def test_what_is_not_for_the_bar_does_not_take_off() -> None:
    loop, _ = loop_of()
    train_step = loop.training_step(logging_step("loss", on_epoch=True))
    with loop:
        for batch in loop.train(batches(1, 2)):
            train_step(batch)
            assert loop.progress_values() == {}
    assert loop.cost().copies == 1


def test_in_a_loop_it_shows_a_recent_value() -> None:
    loop, rows = loop_of()
    train_step = loop.training_step(logging_step("loss", prog_bar=True, on_epoch=True))
    seen = []
    with loop:
        for batch in loop.train(batches(1, 2, 3)):
            train_step(batch)
            jax.block_until_ready(train_step.last_rows)
            seen.append(dict(loop.progress_values()))
        loop.flush()
        assert loop.progress_values() == {"loss_step": 3.0, "loss_epoch": 2.0}
    assert seen == [{}, {"loss_step": 1.0}, {"loss_step": 2.0}]
    assert len(rows.rows) == 4


def test_a_value_not_logged_in_the_last_step_is_not_made_up() -> None:
    def step(batch: Any) -> None:
        jaxlog.log("loss", batch[0], prog_bar=True, mask=batch[0] > 1)

    loop, _ = loop_of()
    train_step = loop.training_step(step)
    with loop:
        for batch in loop.train(batches(1, 1, 1)):
            train_step(batch)
            jax.block_until_ready(train_step.last_rows)
            assert loop.progress_values() == {}


def test_validation_shows_its_own_under_its_loaders_name() -> None:
    loop, _ = loop_of()
    eval_step = loop.validation_step(logging_step("v", prog_bar=True, on_step=True, on_epoch=False))
    seen: dict[str, float] = {}
    with loop:
        for batch in loop.validate([batches(1, 2, 2), batches(3, 4, 4)]):
            eval_step(batch)
            jax.block_until_ready(eval_step.last_rows)
            seen.update(loop.progress_values())
    assert set(seen) == {"v/dataloader_idx_0", "v/dataloader_idx_1"}
