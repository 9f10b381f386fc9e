"""Empty, short and broken-off phases; steps called too often, too seldom or in the wrong place."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlog
from jaxlog.errors import HookError, LogArgumentError, LoopError
from tests.loop.rig import batches, logging_step, loop_of


def test_an_empty_loader_is_an_epoch_without_rows() -> None:
    loop, rows = loop_of()
    train_step = loop.training_step(logging_step("loss", on_epoch=True))
    eval_step = loop.validation_step(logging_step("val"))
    with loop:
        for epoch in loop.epochs(3):
            for batch in loop.train([] if epoch == 1 else batches(epoch)):
                train_step(batch)
            for batch in loop.validate([] if epoch == 1 else batches(epoch)):
                eval_step(batch)
    assert rows.of("loss_epoch") == [(0, 0.0), (1, 2.0)]
    assert rows.of("val") == [(0, 0.0), (1, 2.0)]
    assert (loop.current_epoch, loop.global_step) == (3, 2)


def test_nothing_but_an_empty_loader() -> None:
    loop, rows = loop_of()
    with loop:
        assert list(loop.train([])) == []
        assert list(loop.validate([[], []])) == []
        assert dict(loop.callback_metrics) == {}
    assert rows.rows == []
    assert rows.closes == 1


def test_a_generator_is_a_loader() -> None:
    loop, rows = loop_of()
    step = loop.training_step(logging_step("loss"))
    with loop:
        for batch in loop.train(batch for batch in batches(1, 2)):
            assert loop.total_batches is None
            step(batch)
    assert rows.of("loss") == [(0, 1.0), (1, 2.0)]


@pytest.mark.parametrize("called", [False, True])
def test_break_in_train(called: bool) -> None:
    """A batch left before its step has run does not count; one left after it does."""
    loop, rows = loop_of()
    step = loop.training_step(logging_step("loss", on_epoch=True))
    with loop:
        for epoch in loop.epochs(2):
            for i, batch in enumerate(loop.train(batches(1, 2, 3, 4))):
                if i == 2 and epoch == 0 and not called:
                    break
                step(batch)
                if i == 2 and epoch == 0:
                    break
        steps = 3 if called else 2
        assert loop.global_step == steps + 4
    assert rows.of("loss_epoch") == [(steps - 1, 2.0 if called else 1.5), (steps + 3, 2.5)]
    assert [step for step, _ in rows.of("loss_step")] == list(range(steps + 4))


def test_break_in_validate_keeps_what_was_seen() -> None:
    loop, rows = loop_of()
    eval_step = loop.validation_step(logging_step("val", on_step=True, on_epoch=True))
    with loop:
        for _ in range(2):
            for i, batch in enumerate(loop.validate([batches(1, 2, 3, 4), batches(9)])):
                eval_step(batch)
                if i == 2:
                    break
            assert loop.callback_metrics == {
                "val/dataloader_idx_0": 2.0,
                "val_epoch/dataloader_idx_0": 2.0,
            }
    assert [step for step, _ in rows.of("val_step/dataloader_idx_0")] == list(range(6))
    assert rows.of("val_epoch/dataloader_idx_0") == [(0, 2.0), (0, 2.0)]


def test_break_out_of_validation_inside_training() -> None:
    loop, rows = loop_of()
    train_step = loop.training_step(logging_step("loss"))
    eval_step = loop.validation_step(logging_step("val"))
    with loop:
        for _ in loop.epochs(1):
            for batch in loop.train(batches(1, 2)):
                train_step(batch)
                for val_batch in loop.validate(batches(5, 7, 99)):
                    eval_step(val_batch)
                    if val_batch[0] == 7:
                        break
    assert rows.of("val") == [(0, 6.0), (1, 6.0)]
    assert rows.of("loss") == [(0, 1.0), (1, 2.0)]


def test_break_out_of_epochs_ends_the_epoch() -> None:
    loop, rows = loop_of()
    step = loop.training_step(logging_step("loss", on_epoch=True))
    with loop:
        for epoch in loop.epochs(10):
            for batch in loop.train(batches(epoch)):
                step(batch)
            if epoch == 1:
                break
        assert loop.current_epoch == 2
        assert loop.callback_metrics["loss_epoch"] == 1.0
        for _ in loop.epochs(1):
            for batch in loop.train(batches(5)):
                step(batch)
    assert rows.of("loss_epoch") == [(0, 0.0), (1, 1.0), (2, 5.0)]


@pytest.mark.parametrize("out", [None, 3, (1, {"a": [2.0]}), "text"])
def test_a_step_returns_what_its_function_returns(out: Any) -> None:
    loop, _ = loop_of()

    def step(batch: Any) -> Any:
        jaxlog.log("loss", batch[0])
        return jax.tree.map(jnp.asarray, out) if not isinstance(out, str) else {"x": batch}

    step = loop.training_step(step)
    with loop:
        for batch in loop.train(batches(1)):
            result = step(batch)
            expected = {"x": batch} if isinstance(out, str) else out
            assert jax.tree.structure(result) == jax.tree.structure(expected)
            assert jax.tree.leaves(result) == jax.tree.leaves(expected)


def test_a_step_that_logs_nothing() -> None:
    loop, rows = loop_of(window_steps=2)
    step = loop.training_step(lambda batch: batch.sum())
    with loop:
        for _ in loop.epochs(2):
            total = sum(float(step(batch)) for batch in loop.train(batches(1, 2, 3)))
            assert total == 6.0
    assert (rows.rows, loop.global_step, loop.cost().copies) == ([], 6, 0)


def test_a_step_called_twice_in_a_batch() -> None:
    """The step value is the last; both count in the epoch."""
    loop, rows = loop_of()
    step = loop.training_step(logging_step("loss", on_epoch=True))
    with loop:
        for batch in loop.train(batches(1, 3, sizes=(2, 4))):
            step(batch)
            step(batch + 1)
    assert rows.of("loss_step") == [(0, 2.0), (1, 4.0)]
    assert rows.of("loss_epoch") == [(1, (2 * (1 + 2) + 4 * (3 + 4)) / 12)]
    assert loop.global_step == 2


def test_two_steps_in_a_batch_share_its_row() -> None:
    loop, rows = loop_of()
    first = loop.training_step(logging_step("generator"))
    second = loop.training_step(logging_step("critic"))
    with loop:
        for batch in loop.train(batches(1, 2)):
            first(batch)
            second(10 * batch)
    assert rows.rows == [
        (0, {"generator": 1.0, "critic": 10.0, "epoch": 0.0}),
        (1, {"generator": 2.0, "critic": 20.0, "epoch": 0.0}),
    ]


def test_a_metric_in_a_branch_that_is_only_for_the_epoch() -> None:
    def step(batch: Any) -> None:
        metric = jaxlog.Mean.of(batch)
        jax.lax.cond(
            batch[0] > 1,
            lambda: jaxlog.log("m", metric, on_step=False, on_epoch=True),
            lambda: None,
        )

    loop, logger = loop_of()
    train_step = loop.training_step(step)
    with loop:
        for batch in loop.train(batches(1, 2, 3)):
            train_step(batch)
    assert [row for _, row in logger.rows] == [{"m": 2.5, "epoch": 0.0}]


def test_a_batch_without_its_step_counts_but_has_no_row() -> None:
    loop, rows = loop_of()
    step = loop.training_step(logging_step("loss", on_epoch=True))
    with loop:
        for i, batch in enumerate(loop.train(batches(1, 2, 3))):
            if i != 1:
                step(batch)
    assert rows.of("loss_step") == [(0, 1.0), (2, 3.0)]
    assert rows.of("loss_epoch") == [(2, 2.0)]


def test_a_step_outside_its_phase_is_refused() -> None:
    loop, rows = loop_of()
    train_step = loop.training_step(logging_step("loss"))
    eval_step = loop.validation_step(logging_step("val"))
    with loop:
        with pytest.raises(HookError, match=r"for batch in loop\.train"):
            train_step(np.ones(1))
        for batch in loop.train(batches(1)):
            with pytest.raises(HookError, match=r"for batch in loop\.validate"):
                eval_step(batch)
            train_step(batch)
        with pytest.raises(HookError):
            train_step(np.ones(1))
    with pytest.raises(HookError):
        train_step(np.ones(1))
    assert rows.of("loss") == [(0, 1.0)]


def test_a_train_step_inside_validation_inside_training_belongs_to_the_batch() -> None:
    loop, rows = loop_of()
    train_step = loop.training_step(logging_step("loss", on_epoch=True))
    with loop:
        for batch in loop.train(batches(1)):
            for val_batch in loop.validate(batches(5)):
                train_step(val_batch)
            train_step(batch)
    assert rows.of("loss_step") == [(0, 1.0)]
    assert rows.of("loss_epoch") == [(0, 3.0)]


def test_batches_without_arrays() -> None:
    loop, rows = loop_of()

    def step(batch: int) -> None:
        jaxlog.log("n", batch)
        jaxlog.log("weighed", batch, on_epoch=True, batch_size=batch)
        jaxlog.log("sum", batch, on_epoch=True, reduce_fx="sum")

    step = loop.training_step(step)
    with loop:
        for batch in loop.train([1, 3]):
            step(batch)
    assert rows.of("n") == [(0, 1.0), (1, 3.0)]
    assert rows.of("weighed_epoch") == [(1, 2.5)]
    assert rows.of("sum_epoch") == [(1, 4.0)]


@pytest.mark.parametrize("on_host", [False, True])
def test_a_mean_over_batches_without_arrays_asks_for_their_size(on_host: bool) -> None:
    loop, _ = loop_of()
    step = loop.training_step(lambda batch: jaxlog.log("n", batch, on_epoch=True))
    call = (lambda n: loop.log("n", n, on_epoch=True)) if on_host else step
    with loop:
        for batch in loop.train([1, 3]):
            with pytest.raises(LogArgumentError, match="batch_size=<number of examples>"):
                call(batch)


@pytest.mark.parametrize("window_steps", [1, 2, 64])
@pytest.mark.parametrize("reads", [1, 2])
def test_reading_in_the_middle_of_a_batch_changes_no_row(window_steps: int, reads: int) -> None:
    loop, rows = loop_of(window_steps=window_steps)
    step = loop.training_step(logging_step("loss", on_epoch=True, prog_bar=True))
    with loop:
        for _ in loop.epochs(2):
            for batch in loop.train(batches(1, 2, 3)):
                loop.log("before", 10 * batch[0])
                step(batch)
                for _ in range(reads):
                    assert loop.callback_metrics["loss_step"] == batch[0]
                    assert loop.progress_bar_metrics["loss_step"] == batch[0]
                loop.log("after", 20 * batch[0])
    assert len(rows.rows) == 8
    assert rows.rows[2] == (2, {"before": 30.0, "loss_step": 3.0, "after": 60.0, "epoch": 0.0})
    assert rows.of("loss_step") == [(i, float(i % 3 + 1)) for i in range(6)]
    assert rows.of("loss_epoch") == [(2, 2.0), (5, 2.0)]


def test_logged_metrics_have_only_what_was_written() -> None:
    loop, _ = loop_of(log_every_n_steps=2)
    step = loop.training_step(logging_step("loss"))
    seen = []
    with loop:
        for batch in loop.train(batches(1, 2, 3)):
            step(batch)
            seen.append((loop.callback_metrics["loss"], dict(loop.logged_metrics)))
    assert seen == [(1.0, {}), (2.0, {}), (3.0, {"loss": 2.0})]


def test_flush_in_the_middle_of_an_epoch() -> None:
    loop, rows = loop_of()
    step = loop.training_step(logging_step("loss", on_epoch=True))
    with loop:
        for i, batch in enumerate(loop.train(batches(1, 2, 3))):
            step(batch)
            if i == 1:
                loop.flush()
                assert rows.flushes == 1
                assert rows.of("loss_step") == [(0, 1.0)]  # the row of this batch may still grow
    assert rows.of("loss_step") == [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert rows.of("loss_epoch") == [(2, 2.0)]


def test_flush_after_validation_writes_its_row() -> None:
    loop, rows = loop_of()
    eval_step = loop.validation_step(logging_step("val"))
    with loop:
        for batch in loop.validate(batches(1, 3)):
            eval_step(batch)
        assert rows.rows == []
        loop.flush()
        assert rows.rows == [(0, {"val": 2.0, "epoch": 0.0})]
        assert loop.callback_metrics["val"] == 2.0
    assert len(rows.rows) == 1


def test_close_twice_and_use_after_close() -> None:
    loop, rows = loop_of()
    step = loop.training_step(logging_step("loss"))
    with loop:
        for batch in loop.train(batches(1)):
            step(batch)
    loop.close()
    assert rows.closes == 1
    assert loop.callback_metrics["loss"] == 1.0
    for iterator in (
        loop.train(batches(1)),
        loop.validate(batches(1)),
        loop.test(batches(1)),
        loop.epochs(1),
    ):
        with pytest.raises(LoopError, match="closed"):
            next(iterator)
    with pytest.raises(HookError):
        loop.log("loss", 1.0)


def test_close_in_the_middle_writes_what_there_is_and_stops_the_loop() -> None:
    loop, rows = loop_of()
    step = loop.training_step(logging_step("loss", on_epoch=True))
    iterator = loop.train(batches(1, 2, 3))
    for _ in range(2):
        step(next(iterator))
    loop.close()
    with pytest.raises(LoopError, match="closed"):
        next(iterator)
    assert rows.of("loss_step") == [(0, 1.0), (1, 2.0)]
    assert rows.of("loss_epoch") == [(1, 1.5)]
    assert rows.closes == 1


def test_a_phase_inside_itself_is_refused() -> None:
    loop, _ = loop_of()
    with loop:
        for _ in loop.epochs(1):
            with pytest.raises(LoopError, match=r"inside another loop\.epochs"):
                next(loop.epochs(1))
            for _ in loop.train(batches(1)):
                with pytest.raises(LoopError, match=r"loop\.train\(\.\.\.\) inside"):
                    next(loop.train(batches(1)))
                for _ in loop.validate(batches(1)):
                    with pytest.raises(LoopError, match=r"loop\.validate\(\.\.\.\) inside"):
                        next(loop.validate(batches(1)))
        for _ in loop.train(batches(1)):
            with pytest.raises(LoopError, match=r"loop\.epochs\(\.\.\.\) inside a loop\.train"):
                next(loop.epochs(1))
        assert loop.global_step == 2


def test_test_inside_training_without_epochs() -> None:
    loop, rows = loop_of()
    train_step = loop.training_step(logging_step("loss"))
    test_step = loop.test_step(logging_step("acc"))
    with loop:
        for batch in loop.train(batches(1, 2)):
            train_step(batch)
            for test_batch in loop.test(batches(batch[0])):
                test_step(test_batch)
    assert rows.of("loss") == [(0, 1.0), (1, 2.0)]
    assert rows.of("acc") == [(0, 1.0), (1, 2.0)]


@pytest.mark.parametrize(
    "options",
    [
        {"log_every_n_steps": -1},
        {"log_every_n_steps": 2.0},
        {"log_every_n_steps": True},
        {"window_steps": 0},
        {"window_steps": None},
    ],
)
def test_bad_arguments_of_loop(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(LogArgumentError, match=name):
        jaxlog.Loop(False, progress_bar=False, **options)


@pytest.mark.parametrize("count", [-1, 1.5, True, None])
def test_bad_number_of_epochs(count: Any) -> None:
    loop, _ = loop_of()
    with pytest.raises(LogArgumentError, match="count"):
        loop.epochs(count)


@pytest.mark.parametrize("phase", ["train", "validate", "test"])
def test_batches_that_cannot_be_iterated(phase: str) -> None:
    loop, _ = loop_of()
    with pytest.raises(LoopError, match="not an iterable of batches"):
        getattr(loop, phase)(3)


def test_without_logger() -> None:
    loop = jaxlog.Loop(False, progress_bar=False)
    step = loop.training_step(logging_step("loss"))
    with loop:
        for batch in loop.train(batches(1)):
            step(batch)
    assert loop.callback_metrics == {"loss": 1.0}
