"""Errors: what was logged before reaches the loggers, and the error passes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import jaxlog
from jaxlog.errors import LoopError
from tests.loop.rig import Failing, Rows, batches, logging_step, loop_of


class Hooks(jaxlog.Callback):
    """Notes the hooks that run, and raises in one of them."""

    def __init__(self, raising: str = "") -> None:
        self.raising = raising
        self.fired: list[str] = []

    def _note(self, hook: str) -> None:
        self.fired.append(hook)
        if hook == self.raising:
            raise ValueError(f"from {hook}")

    def on_exception(self, loop: jaxlog.Loop, exception: BaseException) -> None:
        self._note(f"on_exception {type(exception).__name__}")

    def teardown(self, loop: jaxlog.Loop) -> None:
        self._note("teardown")

    def on_train_batch_start(self, loop: jaxlog.Loop, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            self._note("on_train_batch_start")

    def on_train_batch_end(
        self, loop: jaxlog.Loop, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 1:
            self._note("on_train_batch_end")

    def on_train_epoch_end(self, loop: jaxlog.Loop) -> None:
        self._note("on_train_epoch_end")

    def on_validation_epoch_end(self, loop: jaxlog.Loop) -> None:
        self._note("on_validation_epoch_end")

    def on_train_end(self, loop: jaxlog.Loop) -> None:
        self._note("on_train_end")


def one_epoch(loop: jaxlog.Loop, *, at: str = "", data: Any = None) -> None:
    """Trains on 1, 2, 3 and validates on 5, 7; raises KeyError("at <at>") in the body it names."""
    train_step = loop.training_step(logging_step("loss", on_epoch=True))
    eval_step = loop.validation_step(logging_step("val", on_step=True, on_epoch=True))
    with loop:
        for _ in loop.epochs(1):
            for i, batch in enumerate(loop.train(batches(1, 2, 3) if data is None else data)):
                train_step(batch)
                if at == "train" and i == 1:
                    raise KeyError("at train")
                if at == "nested":
                    for val_batch in loop.validate(batches(5, 7)):
                        eval_step(val_batch)
                        raise KeyError("at nested")
            for val_batch in loop.validate(batches(5, 7)):
                eval_step(val_batch)
                if at == "validate":
                    raise KeyError("at validate")
            if at == "epoch":
                raise KeyError("at epoch")


LOGGED = {
    "train": {"loss_step": [(0, 1.0), (1, 2.0)], "loss_epoch": [(1, 1.5)], "val_epoch": []},
    "nested": {
        "loss_step": [(0, 1.0)],
        "loss_epoch": [(0, 1.0)],
        "val_step": [(0, 5.0)],
        "val_epoch": [(0, 5.0)],
    },
    "validate": {
        "loss_step": [(0, 1.0), (1, 2.0), (2, 3.0)],
        "loss_epoch": [(2, 2.0)],
        "val_step": [(0, 5.0)],
        "val_epoch": [(2, 5.0)],
    },
    "epoch": {"loss_epoch": [(2, 2.0)], "val_step": [(0, 5.0), (1, 7.0)], "val_epoch": [(2, 6.0)]},
}


@pytest.mark.parametrize("window_steps", [1, 2, 64])
@pytest.mark.parametrize("at", LOGGED)
def test_an_error_in_the_body(at: str, window_steps: int) -> None:
    hooks = Hooks()
    loop, rows = loop_of(callbacks=[hooks], window_steps=window_steps)
    with pytest.raises(KeyError, match=f"at {at}") as caught:
        one_epoch(loop, at=at)
    assert {tag: rows.of(tag) for tag in LOGGED[at]} == LOGGED[at]
    assert rows.closes == 1
    assert not hasattr(caught.value, "__notes__")
    # No last hook of a phase runs once the error has happened.
    noted = [hook for hook in hooks.fired if "batch" not in hook]
    before = ["on_validation_epoch_end"] if at == "epoch" else []
    assert noted == [*before, "on_exception KeyError", "teardown"]


def test_an_error_in_the_loader() -> None:
    def loader() -> Iterator[np.ndarray]:
        yield from batches(1, 2)
        raise OSError("no more data")

    hooks = Hooks()
    loop, rows = loop_of(callbacks=[hooks])
    with pytest.raises(OSError, match="no more data"):
        one_epoch(loop, data=loader())
    assert rows.of("loss_step") == [(0, 1.0), (1, 2.0)]
    assert rows.of("loss_epoch") == [(1, 1.5)]
    assert hooks.fired[-2:] == ["on_exception OSError", "teardown"]
    assert "on_train_epoch_end" not in hooks.fired


@pytest.mark.parametrize(
    ("hook", "steps"),
    [
        ("on_train_batch_start", 1),
        ("on_train_batch_end", 2),
        ("on_validation_epoch_end", 3),
        ("on_train_epoch_end", 3),
        ("on_train_end", 3),
    ],
)
def test_an_error_in_a_callback(hook: str, steps: int) -> None:
    hooks = Hooks(raising=hook)
    loop, rows = loop_of(callbacks=[hooks])
    with pytest.raises(ValueError, match=f"from {hook}"):
        one_epoch(loop)
    assert [step for step, _ in rows.of("loss_step")] == list(range(steps))
    assert rows.of("loss_epoch") == [(max(steps - 1, 0), (steps + 1) / 2)]
    assert rows.closes == 1
    assert hooks.fired[-2:] == ["on_exception ValueError", "teardown"]


@pytest.mark.parametrize("hook", ["on_exception KeyError", "teardown"])
def test_an_error_while_an_error_passes_is_a_note(hook: str) -> None:
    loop, rows = loop_of(callbacks=[Hooks(raising=hook)])
    with pytest.raises(KeyError, match="at train") as caught:
        one_epoch(loop, at="train")
    (note,) = caught.value.__notes__
    assert f"ValueError: from {hook}" in note
    assert rows.of("loss_step") == [(0, 1.0), (1, 2.0)]
    assert rows.closes == 1


class Outside(BaseException):
    """No Exception, as KeyboardInterrupt is none."""


def test_what_is_no_exception_passes_too() -> None:
    loop, rows = loop_of()
    step = loop.training_step(logging_step("loss"))

    def interrupted() -> None:
        with loop:
            for batch in loop.train(batches(1, 2)):
                step(batch)
                raise Outside

    with pytest.raises(Outside):
        interrupted()
    assert rows.of("loss") == [(0, 1.0)]
    assert rows.closes == 1


def test_an_error_in_a_hook_after_break_is_not_swallowed() -> None:
    """Python drops errors while it closes a generator, so the hook runs at the next move."""
    loop, rows = loop_of(callbacks=[Hooks(raising="on_validation_epoch_end")])
    eval_step = loop.validation_step(logging_step("val"))
    for batch in loop.validate(batches(1, 2)):
        eval_step(batch)
        break
    with pytest.raises(ValueError, match="from on_validation_epoch_end"):
        loop.close()
    assert rows.rows == [(0, {"val": 1.0, "epoch": 0.0})]
    assert rows.closes == 1


@pytest.mark.parametrize("window_steps", [1, 2, 64])
@pytest.mark.parametrize("first", [True, False])
def test_a_failing_logger_stops_no_other(window_steps: int, first: bool) -> None:
    rows = Rows()
    loop = jaxlog.Loop(
        [Failing(), rows] if first else [rows, Failing()],
        progress_bar=False,
        log_every_n_steps=1,
        window_steps=window_steps,
    )
    with pytest.raises(OSError, match="disk full"):
        one_epoch(loop)
    seen = len(rows.of("loss_step"))
    assert seen == {1: 2, 2: 3, 64: 3}[window_steps]
    assert rows.of("loss_epoch") == [(seen - 1, (seen + 1) / 2)]
    assert rows.closes == 1


def test_a_failing_logger_surfaces_at_flush_and_close() -> None:
    rows = Rows()
    loop = jaxlog.Loop([Failing(), rows], progress_bar=False, log_every_n_steps=1)
    step = loop.training_step(logging_step("loss"))
    for batch in loop.train(batches(1, 2)):
        step(batch)
    with pytest.raises(OSError, match="disk full"):
        loop.flush()
    for batch in loop.train(batches(3)):
        step(batch)
    with pytest.raises(OSError, match="disk full"):
        loop.close()
    assert rows.of("loss") == [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert rows.closes == 1
    loop.close()
    assert rows.closes == 1


def test_teardown_runs_though_a_logger_fails() -> None:
    hooks = Hooks()
    loop = jaxlog.Loop(Failing(), progress_bar=False, log_every_n_steps=1, callbacks=[hooks])
    with pytest.raises(OSError, match="disk full") as caught:
        one_epoch(loop)
    assert hooks.fired[-1] == "teardown"
    assert any("disk full" in note for note in getattr(caught.value, "__notes__", ["disk full"]))


def test_a_step_that_fails_leaves_the_loop_usable() -> None:
    loop, rows = loop_of()

    def step(batch: Any, *, fails: bool) -> None:
        jaxlog.log("loss", batch[0], on_epoch=True)
        if fails:
            raise LoopError("in the trace")

    step = loop.training_step(step, static_argnames="fails")
    with loop:
        for i, batch in enumerate(loop.train(batches(1, 2, 3))):
            if i == 1:
                with pytest.raises(LoopError, match="in the trace"):
                    step(batch, fails=True)
            else:
                step(batch, fails=False)
    assert rows.of("loss_step") == [(0, 1.0), (2, 3.0)]
    assert rows.of("loss_epoch") == [(2, 2.0)]
