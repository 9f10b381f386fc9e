"""Lightning's documented rules, each worked out by hand on a few batches."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlog
from tests.loop.rig import Rows, batches, logging_step, loop_of


def fit(loop: jaxlog.Loop, step: Any, *epochs: list[Any]) -> None:
    with loop:
        for epoch in loop.epochs(len(epochs)):
            for batch in loop.train(epochs[epoch]):
                step(batch)


def test_epoch_mean_weighs_by_batch_size() -> None:
    """on_epoch accumulates and reduces with the mean, weighted by the batch size."""
    loop, rows = loop_of()
    step = loop.training_step(logging_step("loss", on_epoch=True))
    fit(loop, step, batches(1, 2, 9, sizes=(3, 2, 1)), batches(4, 8, sizes=(1, 3)))
    assert rows.rows == [
        (0, {"loss_step": 1.0, "epoch": 0.0}),
        (1, {"loss_step": 2.0, "epoch": 0.0}),
        (2, {"loss_step": 9.0, "epoch": 0.0}),
        (2, {"loss_epoch": (3 + 4 + 9) / 6, "epoch": 0.0}),
        (3, {"loss_step": 4.0, "epoch": 1.0}),
        (4, {"loss_step": 8.0, "epoch": 1.0}),
        (4, {"loss_epoch": (4 + 24) / 4, "epoch": 1.0}),
    ]
    assert loop.callback_metrics == {"loss": 7.0, "loss_step": 8.0, "loss_epoch": 7.0}
    assert loop.logged_metrics == {"loss_step": 8.0, "loss_epoch": 7.0}


def test_log_every_0_writes_no_step_but_every_epoch() -> None:
    """log_every_n_steps=0 means that no training step is logged (Trainer's argument)."""
    loop, rows = loop_of(log_every_n_steps=0)
    step = loop.training_step(logging_step("loss", on_epoch=True))
    fit(loop, step, batches(1, 2), batches(3, 5))
    assert rows.rows == [
        (1, {"loss_epoch": 1.5, "epoch": 0.0}),
        (3, {"loss_epoch": 4.0, "epoch": 1.0}),
    ]
    assert loop.callback_metrics["loss_step"] == 5.0
    assert loop.logged_metrics == {"loss_epoch": 4.0}


def test_log_every_more_than_an_epoch_counts_on_over_epochs() -> None:
    """Rows are should_write when (global_step + 1) % log_every_n_steps == 0, whatever the epoch."""
    loop, rows = loop_of(log_every_n_steps=3)
    step = loop.training_step(logging_step("loss"))
    fit(loop, step, batches(1, 2), batches(3, 4), batches(5, 6))
    assert rows.rows == [
        (2, {"loss": 3.0, "epoch": 1.0}),
        (5, {"loss": 6.0, "epoch": 2.0}),
    ]


def test_validation_in_the_middle_of_an_epoch() -> None:
    """Validation logs at the step of the batch it follows; training's reduction goes on."""
    loop, rows = loop_of()
    train_step = loop.training_step(logging_step("loss", on_epoch=True))
    eval_step = loop.validation_step(logging_step("val"))
    with loop:
        for _ in loop.epochs(1):
            for i, batch in enumerate(loop.train(batches(1, 2, 3, 6))):
                train_step(batch)
                if i in {1, 3}:
                    for val_batch in loop.validate(batches(10.0 * i, 0, sizes=(1, 4))):
                        eval_step(val_batch)
    assert rows.of("loss_step") == [(0, 1.0), (1, 2.0), (2, 3.0), (3, 6.0)]
    assert rows.of("loss_epoch") == [(3, 3.0)]
    assert rows.of("val") == [(1, 2.0), (3, 6.0)]


def test_validation_before_the_step_stands_at_the_last_finished_step() -> None:
    loop, rows = loop_of()
    train_step = loop.training_step(logging_step("loss"))
    eval_step = loop.validation_step(logging_step("val"))
    with loop:
        for _ in loop.epochs(1):
            for i, batch in enumerate(loop.train(batches(1, 2, 3))):
                if i == 2:
                    for val_batch in loop.validate(batches(5)):
                        eval_step(val_batch)
                train_step(batch)
    assert rows.of("val") == [(1, 5.0)]
    assert rows.of("loss") == [(0, 1.0), (1, 2.0), (2, 3.0)]


def test_validation_twice_in_one_batch() -> None:
    loop, rows = loop_of()
    train_step = loop.training_step(logging_step("loss"))
    eval_step = loop.validation_step(logging_step("val", on_step=True, on_epoch=True))
    with loop:
        for _ in loop.epochs(1):
            for batch in loop.train(batches(7)):
                train_step(batch)
                for value in (1, 2):
                    for val_batch in loop.validate(batches(value)):
                        eval_step(val_batch)
    assert rows.of("val_epoch") == [(0, 1.0), (0, 2.0)]
    assert rows.of("val_step") == [(0, 1.0), (1, 2.0)]
    assert rows.of("loss") == [(0, 7.0)]


def three_loaders() -> list[list[np.ndarray]]:
    return [batches(1, 2, sizes=(1, 3)), batches(10), batches(5, 6, 7)]


def test_three_loaders_forked() -> None:
    """Several loaders append /dataloader_idx_i, after the fork's _step and _epoch."""
    loop, rows = loop_of()
    eval_step = loop.validation_step(logging_step("v", on_step=True, on_epoch=True))
    with loop:
        for _ in range(2):
            for batch in loop.validate(three_loaders()):
                eval_step(batch)
    assert rows.of("v_step/dataloader_idx_0") == [(0, 1.0), (1, 2.0), (2, 1.0), (3, 2.0)]
    assert rows.of("v_step/dataloader_idx_1") == [(0, 10.0), (1, 10.0)]
    assert rows.of("v_step/dataloader_idx_2")[3:] == [(3, 5.0), (4, 6.0), (5, 7.0)]
    epoch = {
        "v_epoch/dataloader_idx_0": 7 / 4,
        "v_epoch/dataloader_idx_1": 10.0,
        "v_epoch/dataloader_idx_2": 6.0,
    }
    assert [row for row in rows.rows if "epoch" in row[1]] == [(0, {**epoch, "epoch": 0.0})] * 2
    bare = {tag.replace("_epoch", ""): value for tag, value in epoch.items()}
    assert loop.callback_metrics == epoch | bare


def test_loaders_with_names() -> None:
    """Loaders that come as a dict append their names."""
    loop, rows = loop_of()
    eval_step = loop.validation_step(logging_step("v"))
    loaders = {"clean": batches(1, 3), "noisy": batches(8)}
    with loop:
        for batch in loop.validate(loaders):
            eval_step(batch)
    assert rows.rows == [(0, {"v/clean": 2.0, "v/noisy": 8.0, "epoch": 0.0})]


@pytest.mark.parametrize("loaders", [{"only": batches(1, 3)}, [batches(1, 3)], batches(1, 3)])
def test_one_loader_appends_nothing(loaders: Any) -> None:
    loop, rows = loop_of()
    eval_step = loop.validation_step(logging_step("v"))
    with loop:
        for batch in loop.validate(loaders):
            eval_step(batch)
    assert rows.rows == [(0, {"v": 2.0, "epoch": 0.0})]


def test_without_add_dataloader_idx_names_are_the_users() -> None:
    """add_dataloader_idx=False: the name stays; unique names keep loaders apart."""
    loop, rows = loop_of()

    def step(batch: Any, loader: int) -> None:
        jaxlog.log(f"v{loader}", batch[0], add_dataloader_idx=False)

    eval_step = loop.validation_step(step, static_argnums=1)
    with loop:
        for batch in loop.validate([batches(1, 3), batches(8)]):
            eval_step(batch, loop.dataloader_idx)
    assert rows.rows == [(0, {"v0": 2.0, "v1": 8.0, "epoch": 0.0})]


def test_without_add_dataloader_idx_one_name_takes_in_all_loaders() -> None:
    loop, rows = loop_of()
    eval_step = loop.validation_step(logging_step("v", add_dataloader_idx=False))
    with loop:
        for batch in loop.validate([batches(1, 3, sizes=(2, 1)), batches(8)]):
            eval_step(batch)
    assert rows.rows == [(0, {"v": 13 / 4, "epoch": 0.0})]


def test_a_users_epoch_key_stays() -> None:
    """The epoch is added to a row 'for convenience': a logged one is not overwritten."""
    loop, rows = loop_of()
    step = loop.training_step(logging_step("epoch"))
    fit(loop, step, batches(40), batches(50))
    assert rows.rows == [(0, {"epoch": 40.0}), (1, {"epoch": 50.0})]


def test_an_epoch_key_in_some_rows_leaves_the_others_theirs() -> None:
    loop, rows = loop_of()

    def step(batch: Any) -> None:
        jaxlog.log("loss", batch[0])
        jaxlog.log("epoch", 77.0, mask=batch[0] > 1)

    fit(loop, loop.training_step(step), batches(1, 2))
    assert rows.rows == [(0, {"loss": 1.0, "epoch": 0.0}), (1, {"loss": 2.0, "epoch": 77.0})]


def test_a_users_step_key_is_the_x_value() -> None:
    """A logged 'step' is the x value of its row, which then carries no epoch."""
    loop, rows = loop_of()

    def step(batch: Any) -> None:
        jaxlog.log("loss", batch[0])
        jaxlog.log("step", 100 * batch[0])

    fit(loop, loop.training_step(step), batches(1, 2))
    assert rows.rows == [(100, {"loss": 1.0}), (200, {"loss": 2.0})]
    assert loop.logged_metrics == {"loss": 2.0, "step": 200.0}


def test_a_step_key_over_the_epoch_moves_the_epoch_row() -> None:
    loop, rows = loop_of()

    def step(batch: Any) -> None:
        jaxlog.log("val", batch[0])
        jaxlog.log("step", 30.0)

    eval_step = loop.validation_step(step)
    with loop:
        for batch in loop.validate(batches(1, 2)):
            eval_step(batch)
    assert rows.rows == [(30, {"val": 1.5})]


def test_a_step_key_in_evaluation_steps_is_a_value() -> None:
    """Evaluation steps have their own count as x value."""
    loop, rows = loop_of()
    eval_step = loop.validation_step(logging_step("step", on_step=True, on_epoch=False))
    with loop:
        for batch in loop.validate(batches(30, 40)):
            eval_step(batch)
    assert rows.rows == [(0, {"step": 30.0}), (1, {"step": 40.0})]


def test_explicit_batch_sizes_are_weights() -> None:
    """batch_size= takes the place of the size found in the batch."""
    loop, rows = loop_of(log_every_n_steps=0)

    def step(batch: Any) -> None:
        jaxlog.log("of_batch", batch[0], on_epoch=True)
        jaxlog.log("of_one", batch[0], on_epoch=True, batch_size=1)
        jaxlog.log("of_value", batch[0], on_epoch=True, batch_size=batch[0])

    fit(loop, loop.training_step(step), batches(1, 4, sizes=(3, 1)))
    expected = {"of_batch_epoch": 7 / 4, "of_one_epoch": 2.5, "of_value_epoch": 17 / 5}
    assert rows.rows == [(1, {**expected, "epoch": 0.0})]


def test_with_and_without_batch_size_in_one_step() -> None:
    """Each call adds its value times its weight; the step value is their weighted mean."""
    loop, rows = loop_of()

    def step(batch: Any) -> None:
        jaxlog.log("v", batch[0], on_epoch=True)
        jaxlog.log("v", 10 * batch[0], on_epoch=True, batch_size=6)

    fit(loop, loop.training_step(step), batches(1, 2, sizes=(2, 3)))
    total = 1 * 2 + 10 * 6 + 2 * 3 + 20 * 6
    assert rows.of("v_epoch") == [(1, total / (2 + 6 + 3 + 6))]
    assert rows.of("v_step") == [(0, 62 / 8), (1, 126 / 9)]


class Starts(jaxlog.Callback):
    """Logs in every hook that opens a stage."""

    def on_train_start(self, loop: jaxlog.Loop) -> None:
        loop.log("train_start", 1.0)

    def on_train_epoch_start(self, loop: jaxlog.Loop) -> None:
        loop.log("epoch_start", 10.0 + loop.current_epoch)

    def on_validation_start(self, loop: jaxlog.Loop) -> None:
        loop.log("val_start", 2.0)

    def on_validation_epoch_start(self, loop: jaxlog.Loop) -> None:
        loop.log("val_epoch_start", 3.0)

    def on_test_start(self, loop: jaxlog.Loop) -> None:
        loop.log("test_start", 4.0)

    def on_test_epoch_start(self, loop: jaxlog.Loop) -> None:
        loop.log("test_epoch_start", 5.0)


def test_start_hooks_log_with_the_epoch_they_open() -> None:
    """Start hooks allow on_epoch only: their values stand in the epoch's row."""
    loop, rows = loop_of(callbacks=[Starts()])
    train_step = loop.training_step(logging_step("loss", on_step=False, on_epoch=True))
    eval_step = loop.validation_step(logging_step("val"))
    with loop:
        for _ in loop.epochs(2):
            for batch in loop.train(batches(1, 2)):
                train_step(batch)
            for batch in loop.validate(batches(5)):
                eval_step(batch)
        for _ in loop.test(batches(0)):
            pass
    val = {"val_start": 2.0, "val_epoch_start": 3.0, "val": 5.0}
    assert rows.rows == [
        (1, {**val, "epoch": 0.0}),
        (1, {"train_start": 1.0, "epoch_start": 10.0, "loss": 1.5, "epoch": 0.0}),
        (3, {**val, "epoch": 1.0}),
        (3, {"epoch_start": 11.0, "loss": 1.5, "epoch": 1.0}),
        (4, {"test_start": 4.0, "test_epoch_start": 5.0, "epoch": 2.0}),
    ]
    assert loop.callback_metrics == {"test_start": 4.0, "test_epoch_start": 5.0}


def test_test_with_two_loaders() -> None:
    """Test names its loaders as validation does and starts the mappings afresh."""
    loop, rows = loop_of()
    train_step = loop.training_step(logging_step("loss"))
    test_step = loop.test_step(logging_step("acc", on_step=True, on_epoch=True))
    with loop:
        for _ in loop.epochs(1):
            for batch in loop.train(batches(1, 2)):
                train_step(batch)
        for batch in loop.test([batches(1, 0), batches(1)]):
            test_step(batch)
        expected = {"acc_epoch/dataloader_idx_0": 0.5, "acc_epoch/dataloader_idx_1": 1.0}
        bare = {"acc/dataloader_idx_0": 0.5, "acc/dataloader_idx_1": 1.0}
        assert loop.callback_metrics == expected | bare
    assert rows.rows[2:] == [
        (0, {"acc_step/dataloader_idx_0": 1.0}),
        (1, {"acc_step/dataloader_idx_0": 0.0}),
        (0, {"acc_step/dataloader_idx_1": 1.0}),
        (2, {**expected, "epoch": 1.0}),
    ]


def test_validation_without_training_stands_at_step_0() -> None:
    """Outside of fit, epoch values stand at the number of finished steps: 0 before any."""
    loop, rows = loop_of()
    eval_step = loop.validation_step(logging_step("val", on_step=True, on_epoch=True))
    with loop:
        for value in (1, 2, 3):
            for batch in loop.validate(batches(value, value + 1)):
                eval_step(batch)
            assert loop.callback_metrics["val"] == value + 0.5
    assert rows.of("val_epoch") == [(0, 1.5), (0, 2.5), (0, 3.5)]
    assert [step for step, _ in rows.of("val_step")] == [0, 1, 2, 3, 4, 5]


def test_epochs_go_on_over_several_calls() -> None:
    loop, rows = loop_of(log_every_n_steps=2)
    step = loop.training_step(logging_step("loss", on_epoch=True))
    numbers = []
    with loop:
        for count in (2, 0, 1):
            for epoch in loop.epochs(count):
                numbers.append(epoch)
                for batch in loop.train(batches(epoch, epoch + 1, epoch + 2)):
                    step(batch)
        assert (loop.current_epoch, loop.global_step, loop.num_epochs) == (3, 9, None)
    assert numbers == [0, 1, 2]
    assert rows.of("loss_step") == [(1, 1.0), (3, 1.0), (5, 3.0), (7, 3.0)]
    assert rows.of("loss_epoch") == [(2, 1.0), (5, 2.0), (8, 3.0)]


def test_train_without_epochs_is_an_epoch_each() -> None:
    loop, rows = loop_of()
    train_step = loop.training_step(logging_step("loss", on_step=False, on_epoch=True))
    eval_step = loop.validation_step(logging_step("val"))
    with loop:
        for value in (1, 3):
            for batch in loop.train(batches(value, value + 1)):
                train_step(batch)
            for batch in loop.validate(batches(value)):
                eval_step(batch)
    assert rows.rows == [
        (1, {"val": 1.0, "epoch": 0.0}),
        (1, {"loss": 1.5, "epoch": 0.0}),
        (3, {"val": 3.0, "epoch": 1.0}),
        (3, {"loss": 3.5, "epoch": 1.0}),
    ]
    assert loop.current_epoch == 2


def test_an_epoch_without_training_counts() -> None:
    loop, rows = loop_of()
    eval_step = loop.validation_step(logging_step("val"))
    with loop:
        for epoch in loop.epochs(3):
            for batch in loop.validate(batches(epoch)):
                eval_step(batch)
    assert [row["epoch"] for _, row in rows.rows] == [0.0, 1.0, 2.0]
    assert loop.current_epoch == 3


def test_two_passes_of_training_in_one_epoch_are_one_epoch() -> None:
    loop, rows = loop_of(log_every_n_steps=0)
    step = loop.training_step(logging_step("loss", on_epoch=True))
    with loop:
        for _ in loop.epochs(1):
            for part in (batches(1, 2), batches(6)):
                for batch in loop.train(part):
                    step(batch)
    assert rows.rows == [(2, {"loss_epoch": 3.0, "epoch": 0.0})]


def test_a_metric_merges_its_states() -> None:
    """A metric reduces by merging, not by averaging its values: uneven batches count by element."""
    loop, rows = loop_of()

    def step(batch: Any) -> None:
        accuracy = jaxlog.Accuracy.of(predictions=batch["predictions"], labels=batch["labels"])
        jaxlog.log("accuracy", accuracy, on_step=True, on_epoch=True)

    def labelled(*right: int) -> dict[str, np.ndarray]:
        labels = np.ones(len(right), np.int32)
        return {"predictions": np.array(right, np.int32), "labels": labels}

    epochs = [[labelled(1, 1, 1, 0), labelled(0)], [labelled(1), labelled(1, 0, 0)]]
    step = loop.training_step(step)
    with loop:
        for epoch in loop.epochs(2):
            for batch in loop.train(epochs[epoch]):
                step(batch)
    assert rows.of("accuracy_step") == [
        (0, 0.75),
        (1, 0.0),
        (2, 1.0),
        (3, pytest.approx(1 / 3)),
    ]
    assert rows.of("accuracy_epoch") == [(1, 3 / 5), (3, 2 / 4)]


def test_a_key_logged_in_one_branch_is_in_the_rows_of_its_steps() -> None:
    loop, rows = loop_of()

    def step(batch: Any) -> None:
        jaxlog.log("always", batch[0])

        def branch() -> None:
            jaxlog.log("sometimes", batch[0], on_epoch=True)

        jax.lax.cond(batch[0] > 2, branch, lambda: None)

    fit(loop, loop.training_step(step), batches(1, 3, 2, 5))
    assert rows.rows == [
        (0, {"always": 1.0, "epoch": 0.0}),
        (1, {"always": 3.0, "sometimes_step": 3.0, "epoch": 0.0}),
        (2, {"always": 2.0, "epoch": 0.0}),
        (3, {"always": 5.0, "sometimes_step": 5.0, "epoch": 0.0}),
        (3, {"sometimes_epoch": 4.0, "epoch": 0.0}),
    ]


@pytest.mark.parametrize("window_steps", [1, 2, 64])
def test_a_static_argument_changes_what_is_logged(window_steps: int) -> None:
    """The schema grows; what was logged before it grew is not lost."""
    loop, rows = loop_of(window_steps=window_steps)

    def step(batch: Any, extra: bool) -> None:
        jaxlog.log("always", batch[0], on_epoch=True)
        if extra:
            jaxlog.log("extra", -batch[0], on_epoch=True)
        else:
            jaxlog.log("plain", 2 * batch[0])

    step = loop.training_step(step, static_argnames="extra")
    with loop:
        for _ in loop.epochs(1):
            for i, batch in enumerate(loop.train(batches(1, 2, 3, 4, 5))):
                step(batch, i in {2, 4})
    assert rows.of("always_step") == [(i, i + 1.0) for i in range(5)]
    assert rows.of("extra_step") == [(2, -3.0), (4, -5.0)]
    assert rows.of("plain") == [(0, 2.0), (1, 4.0), (3, 8.0)]
    assert rows.of("always_epoch") == [(4, 3.0)]
    assert rows.of("extra_epoch") == [(4, -4.0)]


def test_arrays_that_disagree_on_the_batch_size_warn_once() -> None:
    """The batch size is the first leading dimension; where arrays differ, a warning says so."""
    loop, rows = loop_of(log_every_n_steps=0)

    def step(batch: Any) -> None:
        jaxlog.log("loss", batch["x"][0], on_epoch=True)

    data = [{"x": np.ones(2), "y": np.ones(3), "scalar": np.float32(0)}] * 2
    with pytest.warns(UserWarning, match="2 and 3") as caught:
        fit(loop, loop.training_step(step), data)
    assert len(caught) == 1
    assert rows.of("loss_epoch") == [(1, 1.0)]


@pytest.mark.parametrize("options", [{}, {"on_epoch": True, "batch_size": 2}])
def test_arrays_may_disagree_where_no_weight_depends_on_it(options: dict[str, Any]) -> None:
    loop, rows = loop_of()

    def step(batch: Any) -> None:
        jaxlog.log("loss", jnp.float32(1), **options)

    step = loop.training_step(step)
    with loop:
        for batch in loop.train([{"x": np.ones(2), "y": np.ones(3)}]):
            step(batch)
    assert len(rows.rows) >= 1


def test_rows_of_several_loggers_are_the_same() -> None:
    first, second = Rows(), Rows()
    loop = jaxlog.Loop([first, second], progress_bar=False, log_every_n_steps=1)
    fit(loop, loop.training_step(logging_step("loss", on_epoch=True)), batches(1, 2))
    assert first.rows == second.rows
    assert len(first.rows) == 3
