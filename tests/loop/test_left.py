"""Scopes that are left early, and hooks that read or drive the loop while a scope ends."""

from __future__ import annotations

from typing import Any

import pytest

import jaxlog
from jaxlog.errors import HookError
from tests.loop.rig import batches, logging_step, loop_of

READS = {
    "current_epoch": lambda loop: loop.current_epoch,
    "callback_metrics": lambda loop: loop.callback_metrics,
    "flush": lambda loop: loop.flush(),
}


class Calls:
    """A plain object as callback: does something at one hook, and counts its calls."""

    def __init__(self, hook: str, action: Any) -> None:
        self.count = 0

        def call(loop: jaxlog.Loop, *_: Any) -> None:
            self.count += 1
            action(loop)

        setattr(self, hook, call)


def train_and_leave(loop: jaxlog.Loop, step: Any) -> None:
    for _ in loop.epochs(3):
        for batch in loop.train(batches(1, 2)):
            step(batch)
        break


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_train_end", "on_fit_end"])
def test_hooks_of_a_left_fit_may_read_the_loop(read: str, hook: str) -> None:
    calls = Calls(hook, READS[read])
    loop, rows = loop_of(callbacks=[calls])
    step = loop.training_step(logging_step("loss", on_epoch=True))
    with loop:
        train_and_leave(loop, step)
        assert loop.current_epoch == 1
    assert calls.count == 1
    assert rows.of("loss_epoch") == [(1, 1.5)]


def test_an_error_in_a_hook_of_a_left_fit_is_raised_once() -> None:
    def fail(_: jaxlog.Loop) -> None:
        raise ValueError("from the hook")

    calls = Calls("on_train_epoch_end", fail)
    loop, _ = loop_of(callbacks=[calls])
    step = loop.training_step(logging_step("loss"))
    train_and_leave(loop, step)
    with pytest.raises(ValueError, match="from the hook"):
        loop.current_epoch  # noqa: B018 - the read ends what was left
    assert loop.current_epoch == 0
    loop.close()
    assert calls.count == 1


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("hook", ["on_train_end", "on_fit_end"])
def test_a_test_in_the_last_hooks_of_a_fit_starts_afresh(hook: str, implicit: bool) -> None:
    seen: dict[str, float] = {}

    def run_test(loop: jaxlog.Loop) -> None:
        for batch in loop.test(batches(5)):
            test_step(batch)
        seen.update(loop.callback_metrics)

    loop, _ = loop_of(callbacks=[Calls(hook, run_test)])
    step = loop.training_step(logging_step("loss"))
    test_step = loop.test_step(logging_step("tested"))
    with loop:
        for _ in [0] if implicit else loop.epochs(1):
            for batch in loop.train(batches(1)):
                step(batch)
    assert seen == {"tested": 5.0}


def test_more_epochs_in_the_last_hook_of_a_fit() -> None:
    def go_on(loop: jaxlog.Loop) -> None:
        if calls.count == 1:
            for _ in loop.epochs(1):
                for batch in loop.train(batches(7)):
                    step(batch)

    calls = Calls("on_fit_end", go_on)
    loop, rows = loop_of(callbacks=[calls])
    step = loop.training_step(logging_step("loss"))
    with loop:
        for _ in loop.epochs(1):
            for batch in loop.train(batches(1)):
                step(batch)
        assert loop.current_epoch == 2
    assert calls.count == 2
    assert rows.of("loss") == [(0, 1.0), (1, 7.0)]


def test_closing_in_the_last_hook_calls_it_once() -> None:
    calls = Calls("on_train_end", lambda loop: loop.close())
    loop, rows = loop_of(callbacks=[calls])
    step = loop.training_step(logging_step("loss"))
    for batch in loop.train(batches(1)):
        step(batch)
    loop.close()
    assert calls.count == 1
    assert rows.of("loss") == [(0, 1.0)]


def test_logging_in_the_last_hook_is_refused_once() -> None:
    calls = Calls("on_train_end", lambda loop: loop.log("late", 1.0))
    loop, _ = loop_of(callbacks=[calls])
    for _ in loop.train([0]):
        pass
    with pytest.raises(HookError, match="on_train_end"):
        loop.close()
    assert calls.count == 1


@pytest.mark.parametrize("phase", ["validate", "sanity_check"])
def test_a_state_is_loaded_after_a_phase_was_left(phase: str) -> None:
    loop, _ = loop_of()
    state = jaxlog.Loop(False, progress_bar=False).state_dict()
    for _ in getattr(loop, phase)(batches(1, 2)):
        break
    loop.load_state_dict({**state, "global_step": 7})
    assert loop.global_step == 7


def test_what_a_phase_logged_before_does_not_hide_newer_values() -> None:
    loop, _ = loop_of()
    step = loop.training_step(logging_step("e"))
    evaluate = loop.validation_step(logging_step("e"))
    seen = []
    with loop:
        for batch in loop.train(batches(1, 1)):
            step(batch)
            if not seen:
                for other in loop.validate(batches(5)):
                    evaluate(other)
                seen += [loop.callback_metrics["e"], loop.callback_metrics["e"]]
    assert seen == [5.0, 5.0]


def test_a_loader_that_fails_is_no_longer_the_running_one() -> None:
    class Failing(list):
        def __iter__(self):
            yield 0
            raise OSError("disk")

    loop, _ = loop_of()
    running = loop.train(Failing([0, 1, 2]))
    next(running)
    assert loop.total_batches == 3
    with pytest.raises(OSError, match="disk"):
        next(running)
    assert loop.total_batches is None
