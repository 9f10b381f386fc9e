"""Interrupted and resumed, a run logs what it would have logged in one piece."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import jax
import numpy as np
import pytest

import jaxlog
from jaxlog.errors import LoopError
from tests.loop.rig import Rows, batches, loop_of

EPOCHS = [batches(1, 5, 2, 9, sizes=(3, 1, 2, 2)), batches(4, 4, 8, 0, sizes=(1, 1, 3, 2))]
VAL = batches(6, 7, sizes=(2, 1))


def step(batch: Any) -> None:
    jaxlog.log("loss", batch[0], on_epoch=True)
    jaxlog.log("mean", jaxlog.Mean.of(batch), on_epoch=True)
    for reduce_fx in ("sum", "min", "max"):
        jaxlog.log(reduce_fx, batch[0], on_step=False, on_epoch=True, reduce_fx=reduce_fx)


def val_step(batch: Any) -> None:
    jaxlog.log("val", batch[0], on_step=True, on_epoch=True)


class Interruption(Exception):  # noqa: N818 - not an error of the test
    """Stops a run."""

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.state = state


def run(loop: jaxlog.Loop, *, skip: int = 0, stop: int = -1, how: str = "body") -> None:
    """Trains the epochs that are left, the first one without its first `skip` batches.

    Args:
        loop: the loop.
        skip: batches of the first epoch that were seen before.
        stop: index of the batch, over all epochs, after whose step the run is interrupted.
        how: where its state is taken: in the body, or after a break.
    """
    train_step, eval_step = loop.training_step(step), loop.validation_step(val_step)
    with loop:
        for epoch in loop.epochs(len(EPOCHS) - loop.current_epoch):
            for batch in loop.train(EPOCHS[epoch][skip:]):
                train_step(batch)
                if loop.global_step == stop:
                    if how == "break":
                        break
                    raise Interruption(loop.state_dict())
            skip = 0
            if loop.global_step == stop + 1 and how == "break":
                raise Interruption(loop.state_dict())
            for batch in loop.validate(VAL):
                eval_step(batch)


@pytest.fixture(scope="module")
def whole() -> Rows:
    loop, rows = loop_of()
    run(loop)
    return rows


@pytest.mark.parametrize("window_steps", [1, 3, 64])
@pytest.mark.parametrize("stop", [0, 2, 4, 5])
@pytest.mark.parametrize("how", ["body", "break"])
def test_resumed_in_the_middle_of_an_epoch(
    whole: Rows, stop: int, how: str, window_steps: int
) -> None:
    first, before = loop_of(window_steps=window_steps)
    with pytest.raises(Interruption) as caught:
        run(first, stop=stop, how=how)
    state = pickle.loads(pickle.dumps(caught.value.state))
    assert (state["global_step"], state["current_epoch"]) == (stop + 1, stop // 4)
    second, after = loop_of(window_steps=window_steps)
    second.load_state_dict(state)
    run(second, skip=(stop + 1) % 4)
    for tag in ("loss_step", "mean_step", "val_step"):
        assert before.of(tag) + after.of(tag) == whole.of(tag)
    for tag in ("loss_epoch", "mean_epoch", "sum", "min", "max", "val_epoch"):
        # What was under way when the first run ended is written by both, whole by the second.
        assert after.of(tag) == whole.of(tag)[stop // 4 :]
    assert second.global_step == 8


def test_the_state_is_a_snapshot() -> None:
    loop, _ = loop_of()
    train_step = loop.training_step(step)
    states = []
    with loop:
        for batch in loop.train(EPOCHS[0]):
            train_step(batch)
            state = loop.state_dict()
            states.append((state, copy.deepcopy(state)))
    for i, (state, kept) in enumerate(states):
        assert jax.tree.all(jax.tree.map(np.array_equal, state, kept))
        assert kept["global_step"] == i + 1


def test_a_state_is_taken_over_once() -> None:
    first, _ = loop_of()
    with pytest.raises(Interruption) as caught:
        run(first, stop=1)
    second, rows = loop_of()
    second.load_state_dict(caught.value.state)
    run(second, skip=2)
    assert rows.of("sum") == [(3, 17.0), (7, 16.0)]


def test_the_state_before_anything_has_run() -> None:
    first, _ = loop_of()
    second, rows = loop_of()
    second.load_state_dict(first.state_dict())
    run(second)
    assert len(rows.of("loss_step")) == 8


@pytest.mark.parametrize("state", [{}, {"global_step": 1}, {"format": 99}])
def test_a_state_of_something_else(state: dict[str, Any]) -> None:
    loop, _ = loop_of()
    with pytest.raises(LoopError, match=r"loop\.state_dict\(\)"):
        loop.load_state_dict(state)


def test_loading_inside_a_phase() -> None:
    loop, _ = loop_of()
    state = loop.state_dict()
    with loop:
        for _ in loop.train(EPOCHS[0]):
            with pytest.raises(LoopError, match=r"load before loop\.epochs"):
                loop.load_state_dict(state)
