"""Hooks: their order, what each may log, and how the host logs in them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlog
from jaxlog.errors import HookError, LogArgumentError, SchemaError
from jaxlog.loop.callbacks import HOST_HOOKS
from tests.loop.rig import batches, logging_step, loop_of


def recorder(fired: list[str]) -> Any:
    """A plain object with every host hook, which notes `hook` and `hook batch_idx`."""

    def noting(hook: str) -> Any:
        def note(self: Any, loop: jaxlog.Loop, *args: Any) -> None:
            indices = [str(arg) for arg in args if isinstance(arg, int)]
            fired.append(" ".join([hook, *indices]))

        return note

    return type("Noting", (), {hook: noting(hook) for hook in HOST_HOOKS})()


VALIDATION = [
    "on_validation_start",
    "on_validation_epoch_start",
    "on_validation_batch_start 0 0",
    "on_validation_batch_end 0 0",
    "on_validation_batch_start 1 0",
    "on_validation_batch_end 1 0",
    "on_validation_batch_start 0 1",
    "on_validation_batch_end 0 1",
    "on_validation_epoch_end",
    "on_validation_end",
]
EPOCH = [
    "on_train_epoch_start",
    "on_train_batch_start 0",
    "on_train_batch_end 0",
    "on_train_batch_start 1",
    "on_train_batch_end 1",
    *VALIDATION,
    "on_train_epoch_end",
]


def test_the_order_of_two_epochs_with_validation_and_test() -> None:
    fired: list[str] = []
    loop, _ = loop_of(callbacks=[recorder(fired)])
    with loop:
        for _ in loop.epochs(2):
            for _ in loop.train(batches(1, 2)):
                pass
            for _ in loop.validate([batches(1, 2), batches(3)]):
                pass
        for _ in loop.test(batches(1)):
            pass
    assert fired == [
        "setup",
        "on_fit_start",
        "on_train_start",
        *EPOCH,
        *EPOCH,
        "on_train_end",
        "on_fit_end",
        "on_test_start",
        "on_test_epoch_start",
        "on_test_batch_start 0 0",
        "on_test_batch_end 0 0",
        "on_test_epoch_end",
        "on_test_end",
        "teardown",
    ]


def test_the_order_without_epochs() -> None:
    fired: list[str] = []
    loop, _ = loop_of(callbacks=[recorder(fired)])
    with loop:
        for _ in range(2):
            for _ in loop.train(batches(1, 2)):
                pass
            for _ in loop.validate([batches(1, 2), batches(3)]):
                pass
    fit = ["on_fit_start", "on_train_start", *EPOCH, *EPOCH, "on_train_end", "on_fit_end"]
    assert fired == ["setup", *fit, "teardown"]


def test_the_order_when_validation_is_left_by_break() -> None:
    fired: list[str] = []
    loop, _ = loop_of(callbacks=[recorder(fired)])
    with loop:
        for _ in loop.epochs(1):
            for _ in loop.train(batches(1)):
                for _ in loop.validate(batches(1, 2)):
                    break
            break
    assert fired[3:] == [
        "on_train_epoch_start",
        "on_train_batch_start 0",
        "on_validation_start",
        "on_validation_epoch_start",
        "on_validation_batch_start 0 0",
        "on_validation_epoch_end",
        "on_validation_end",
        "on_train_batch_end 0",
        "on_train_epoch_end",
        "on_train_end",
        "on_fit_end",
        "teardown",
    ]


def test_every_method_of_callback_is_a_hook_that_fires() -> None:
    fired: list[str] = []
    loop, _ = loop_of(callbacks=[recorder(fired)])

    with pytest.raises(KeyError):
        run_through(loop)
    assert {name.split()[0] for name in fired} == set(HOST_HOOKS)


def test_batch_hooks_see_batches_and_outputs() -> None:
    seen: list[Any] = []

    class Seeing(jaxlog.Callback):
        def on_train_batch_end(self, loop, outputs, batch, batch_idx) -> None:
            seen.append((float(outputs), float(batch[0]), batch_idx, loop.global_step))

        def on_validation_batch_end(self, loop, outputs, batch, batch_idx, dataloader_idx) -> None:
            seen.append((outputs, batch_idx, dataloader_idx, loop.dataloader_idx))

    loop, _ = loop_of(callbacks=[Seeing()])
    step = loop.training_step(lambda batch: 10 * batch[0])
    with loop:
        for batch in loop.train(batches(1, 2)):
            step(batch)
        for _ in loop.validate([batches(1), batches(1)]):
            assert loop.total_batches == 1
    assert seen == [(10.0, 1.0, 0, 0), (20.0, 2.0, 1, 1), (None, 0, 0, 0), (None, 0, 1, 1)]


STEP, EVALUATION, EPOCHS, FORBIDDEN = "step", "evaluation", "epoch", "forbidden"
TABLE = {
    "setup": FORBIDDEN,
    "teardown": FORBIDDEN,
    "on_sanity_check_start": FORBIDDEN,
    "on_sanity_check_end": FORBIDDEN,
    "on_exception": FORBIDDEN,
    "on_fit_start": FORBIDDEN,
    "on_fit_end": FORBIDDEN,
    "on_train_start": EPOCHS,
    "on_train_end": FORBIDDEN,
    "on_train_epoch_start": EPOCHS,
    "on_train_epoch_end": EPOCHS,
    "on_train_batch_start": STEP,
    "on_train_batch_end": STEP,
    "on_validation_start": EPOCHS,
    "on_validation_end": FORBIDDEN,
    "on_validation_epoch_start": EPOCHS,
    "on_validation_epoch_end": EPOCHS,
    "on_validation_batch_start": EVALUATION,
    "on_validation_batch_end": EVALUATION,
    "on_test_start": EPOCHS,
    "on_test_end": FORBIDDEN,
    "on_test_epoch_start": EPOCHS,
    "on_test_epoch_end": EPOCHS,
    "on_test_batch_start": EVALUATION,
    "on_test_batch_end": EVALUATION,
}
FLAGS = (None, False, True)


def test_the_table_has_every_host_hook() -> None:
    assert set(TABLE) == set(HOST_HOOKS)


def run_through(loop: jaxlog.Loop) -> None:
    """One batch in each stage, then an error: every hook fires once."""
    with loop:
        for _ in loop.sanity_check(batches(1)):
            pass
        for _ in loop.epochs(1):
            for _ in loop.train(batches(1)):
                pass
            for _ in loop.validate(batches(1)):
                pass
        for _ in loop.test(batches(1)):
            pass
        raise KeyError


def outcome(
    kind: str, on_step: bool | None, on_epoch: bool | None
) -> tuple[set[str], list[type[Exception]]]:
    """The tags that a call in such a hook leaves, and its errors."""
    if kind == FORBIDDEN:
        return set(), [HookError]
    step = (kind == STEP) if on_step is None else on_step
    epoch = (kind != STEP) if on_epoch is None else on_epoch
    if kind == EPOCHS and step:
        return set(), [HookError]
    if not (step or epoch):
        return set(), [LogArgumentError]
    return ({"v_step", "v_epoch"} if step and epoch else {"v"}), []


@pytest.mark.parametrize("on_step", FLAGS)
@pytest.mark.parametrize("on_epoch", FLAGS)
@pytest.mark.parametrize("hook", TABLE)
def test_the_table_row_by_row(hook: str, on_step: bool | None, on_epoch: bool | None) -> None:
    caught: list[type[Exception]] = []

    def log(self: Any, loop: jaxlog.Loop, *args: Any) -> None:
        try:
            loop.log("v", 3.0, on_step=on_step, on_epoch=on_epoch)
        except (HookError, LogArgumentError) as error:
            caught.append(type(error))

    loop, rows = loop_of(callbacks=[type("Logging", (), {hook: log})()])
    with pytest.raises(KeyError):
        run_through(loop)
    tags = {tag for tag, _, value in rows.events() if value == 3.0}
    assert {tag for tag, _, _ in rows.events()} <= {"epoch", *tags}
    assert (tags, caught) == outcome(TABLE[hook], on_step, on_epoch)


def test_loop_log_takes_the_defaults_of_the_running_phase() -> None:
    loop, rows = loop_of()
    with loop:
        for _ in loop.epochs(1):
            for batch in loop.train(batches(1, 2, sizes=(1, 3))):
                loop.log("train", batch[0])
                loop.log("both", batch[0], on_epoch=True)
            for batch in loop.validate(batches(1, 2, sizes=(1, 3))):
                loop.log("val", batch[0])
                loop.log("weighed", batch[0], batch_size=1)
    assert rows.of("train") == [(0, 1.0), (1, 2.0)]
    assert rows.of("both_epoch") == [(1, 7 / 4)]
    assert rows.of("val") == [(1, 7 / 4)]
    assert rows.of("weighed") == [(1, 1.5)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: 2,
        lambda: 2.0,
        lambda: np.float32(2),
        lambda: np.array([2.0]),
        lambda: jnp.array(2),
        lambda: jnp.array([[2.0]], jnp.bfloat16),
        lambda: jaxlog.Mean.of(jnp.array([1.0, 3.0])),
    ],
    ids=["int", "float", "float32", "array", "jax", "bfloat16", "metric"],
)
def test_loop_log_takes_numbers_arrays_and_metrics(make: Any) -> None:
    value = make()
    loop, rows = loop_of()
    with loop:
        for _ in loop.train(batches(1)):
            loop.log("value", value, on_epoch=True)
    assert rows.of("value_step") == [(0, 2.0)]
    assert rows.of("value_epoch") == [(0, 2.0)]


def test_a_hook_after_its_phase_lands_in_the_same_row() -> None:
    loop, rows = loop_of()
    train_step = loop.training_step(logging_step("loss", on_step=False, on_epoch=True))
    eval_step = loop.validation_step(logging_step("val"))
    with loop:
        for epoch in loop.epochs(2):
            for batch in loop.train(batches(1)):
                train_step(batch)
            with loop.hook("on_train_epoch_end"):
                loop.log("early", epoch)
            for batch in loop.validate(batches(2)):
                eval_step(batch)
            with loop.hook("on_validation_epoch_end"):
                loop.log("best", -epoch)
            with loop.hook("on_train_epoch_end"):
                loop.log("late", 10 * epoch)
            assert loop.callback_metrics["best"] == -epoch
            assert loop.callback_metrics["late"] == 10 * epoch
    assert rows.rows == [
        (0, {"val": 2.0, "best": 0.0, "epoch": 0.0}),
        (0, {"loss": 1.0, "early": 0.0, "late": 0.0, "epoch": 0.0}),
        (1, {"val": 2.0, "best": -1.0, "epoch": 1.0}),
        (1, {"loss": 1.0, "early": 1.0, "late": 10.0, "epoch": 1.0}),
    ]


def test_a_hook_where_its_phase_is_not() -> None:
    loop, _ = loop_of()
    with loop:
        hook = loop.hook("on_validation_epoch_end")
        with hook, pytest.raises(HookError, match="no validate phase is running"):
            loop.log("v", 1.0)
        for _ in loop.train(batches(1)):
            with loop.hook("test_step"), pytest.raises(HookError, match="no test batch"):
                loop.log("v", 1.0)
        with pytest.raises(HookError, match="outside of any phase"):
            loop.log("v", 1.0)
        with pytest.raises(HookError, match="is not a hook"), loop.hook("on_train_epoch_ends"):
            pass


def test_a_hook_ends_with_its_block() -> None:
    loop, rows = loop_of()
    with loop:
        for _ in loop.train(batches(1)):
            with loop.hook("on_train_epoch_end"):
                with loop.hook("training_step"):
                    loop.log("inner", 1.0)
                loop.log("outer", 2.0)
            loop.log("after", 3.0)
    assert rows.rows == [
        (0, {"inner": 1.0, "after": 3.0, "epoch": 0.0}),
        (0, {"outer": 2.0, "epoch": 0.0}),
    ]


def test_one_key_from_the_host_and_from_a_step() -> None:
    loop, rows = loop_of()
    step = loop.training_step(logging_step("loss", on_epoch=True))
    with loop:
        for batch in loop.train(batches(1, 3)):
            step(batch)
            with pytest.raises(SchemaError, match="on_epoch=True and on_epoch=False"):
                loop.log("loss", 1.0)
            with loop.hook("on_train_batch_end"), pytest.raises(SchemaError, match="two hooks"):
                loop.log("loss", 1.0, on_epoch=True)
            loop.log("loss", batch[0] + 1, on_epoch=True)
    assert rows.of("loss_step") == [(0, 2.0), (1, 4.0)]
    assert rows.of("loss_epoch") == [(1, 2.5)]


def test_one_key_from_a_step_after_the_host() -> None:
    loop, _ = loop_of()
    step = loop.training_step(logging_step("loss", prog_bar=True))
    with loop:
        for batch in loop.train(batches(1)):
            loop.log("loss", 1.0)
            with pytest.raises(SchemaError, match="prog_bar"):
                step(batch)


def test_one_key_may_differ_between_stages() -> None:
    loop, rows = loop_of()
    train_step = loop.training_step(logging_step("loss"))
    eval_step = loop.validation_step(logging_step("loss"))
    with loop:
        for _ in loop.epochs(1):
            for batch in loop.train(batches(1)):
                train_step(batch)
            for batch in loop.validate(batches(2)):
                eval_step(batch)
    assert rows.of("loss") == [(0, 1.0), (0, 2.0)]


def test_hooks_inside_the_step() -> None:
    """A traced hook's defaults hold for the calls in its block."""
    loop, rows = loop_of()

    def step(batch: jax.Array) -> None:
        jaxlog.log("loss", batch[0])
        with jaxlog.hook("on_before_optimizer_step"):
            jaxlog.log("norm", 2 * batch[0])

    step = loop.training_step(step)
    with loop:
        for batch in loop.train(batches(1)):
            step(batch)
    assert rows.rows == [(0, {"loss": 1.0, "norm": 2.0, "epoch": 0.0})]


def test_a_callback_reads_the_epochs_values_and_logs_its_own() -> None:
    class Best(jaxlog.Callback):
        best = float("inf")

        def on_validation_epoch_end(self, loop: jaxlog.Loop) -> None:
            self.best = min(self.best, loop.callback_metrics["val"])
            loop.log("best", self.best)

    loop, rows = loop_of(callbacks=[Best()])
    eval_step = loop.validation_step(logging_step("val"))
    with loop:
        for value in (3, 1, 2):
            for batch in loop.validate(batches(value)):
                eval_step(batch)
            assert loop.callback_metrics["best"] == (3.0 if value == 3 else 1.0)
    assert rows.of("best") == [(0, 3.0), (0, 1.0), (0, 1.0)]
