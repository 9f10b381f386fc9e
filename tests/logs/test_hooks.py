"""The table of hooks row by row, as a traced step sees it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxlog import capture, hook, log
from jaxlog.errors import HookError, JaxlogError, LogArgumentError
from jaxlog.logs import HOOKS

X = jnp.arange(4, dtype=jnp.float32)

# Written out, not taken from the code: this is the documented contract.
STEP = {
    "training_step", "on_train_batch_start", "on_train_batch_end", "on_before_backward", "backward",
    "on_after_backward", "on_before_optimizer_step", "optimizer_step",
    "configure_gradient_clipping", "clip_gradients", "on_before_zero_grad", "optimizer_zero_grad",
}  # fmt: skip
EVALUATION = {
    "validation_step", "on_validation_batch_start", "on_validation_batch_end",
    "test_step", "on_test_batch_start", "on_test_batch_end",
}  # fmt: skip
EPOCH = {
    "on_train_start", "on_train_epoch_start", "on_train_epoch_end",
    "on_validation_start", "on_validation_epoch_start", "on_validation_epoch_end",
    "on_test_start", "on_test_epoch_start", "on_test_epoch_end",
}  # fmt: skip
FORBIDDEN = {
    "predict_step", "on_predict_start", "on_predict_end", "on_predict_epoch_start",
    "on_predict_epoch_end", "on_predict_batch_start", "on_predict_batch_end", "on_fit_start",
    "on_fit_end", "on_sanity_check_start", "on_sanity_check_end", "on_train_end",
    "on_validation_end", "on_test_end", "setup", "teardown", "on_save_checkpoint",
    "on_load_checkpoint", "lr_scheduler_step",
}  # fmt: skip
FLAGS = (None, True, False)


def flags_in(place: str, *, by_capture: bool, **options: Any) -> tuple[bool, bool]:
    """`(on_step, on_epoch)` of a log call in that hook."""

    def step(x):
        if by_capture:
            log("v", x.sum(), **options)
        else:
            with hook(place):
                log("v", x.sum(), **options)

    captured = capture(step, hook=place) if by_capture else capture(step)
    (spec,) = captured.init(X).schema
    assert spec.options.hook == place
    return spec.options.on_step, spec.options.on_epoch


def expected(place: str, on_step: Any, on_epoch: Any) -> tuple[bool, bool] | type[JaxlogError]:
    """What the table says."""
    if place in FORBIDDEN:
        return HookError
    defaults = (True, False) if place in STEP else (False, True)
    step = defaults[0] if on_step is None else on_step
    epoch = defaults[1] if on_epoch is None else on_epoch
    if place in EPOCH and step:
        return HookError
    return (step, epoch) if step or epoch else LogArgumentError


def test_the_table_is_whole() -> None:
    assert set(HOOKS) == STEP | EVALUATION | EPOCH | FORBIDDEN
    assert (len(STEP), len(EVALUATION), len(EPOCH), len(FORBIDDEN)) == (12, 6, 9, 19)


@pytest.mark.parametrize("by_capture", [True, False], ids=["capture(hook=)", "with hook()"])
@pytest.mark.parametrize("place", sorted(STEP | EVALUATION | EPOCH | FORBIDDEN))
def test_every_row(place: str, by_capture: bool) -> None:
    for on_step in FLAGS:
        for on_epoch in FLAGS:
            options = {"on_step": on_step, "on_epoch": on_epoch}
            want = expected(place, on_step, on_epoch)
            if isinstance(want, tuple):
                assert flags_in(place, by_capture=by_capture, **options) == want
                continue
            with pytest.raises(want, match=place):
                flags_in(place, by_capture=by_capture, **options)


def test_flags_left_out_are_the_defaults() -> None:
    assert flags_in("training_step", by_capture=True) == (True, False)
    assert flags_in("validation_step", by_capture=True) == (False, True)
    assert flags_in("on_train_epoch_end", by_capture=True) == (False, True)


def test_a_step_value_in_an_epoch_hook_says_why_not() -> None:
    match = (
        r"'v', \.\.\., on_step=True.*'on_train_epoch_end', which runs once an epoch.*on_step out"
    )
    with pytest.raises(HookError, match=match):
        flags_in("on_train_epoch_end", by_capture=True, on_step=True)


def test_hooks_nest_and_end() -> None:
    def step(x):
        with hook("on_after_backward"):
            with hook("on_before_optimizer_step"):
                log("inner", x.sum())
            log("outer", x.sum())
        log("after", x.sum())

    schema = capture(step).init(X).schema
    assert {spec.name: spec.options.hook for spec in schema} == {
        "inner": "on_before_optimizer_step",
        "outer": "on_after_backward",
        "after": "training_step",
    }


def test_a_hook_is_left_when_its_body_fails() -> None:
    def step(x):
        with pytest.raises(KeyError), hook("on_after_backward"):
            raise KeyError
        log("v", x.sum())

    (spec,) = capture(step).init(X).schema
    assert spec.options.hook == "training_step"


def test_a_cached_inner_jit_takes_the_hook_of_each_call() -> None:
    @jax.jit
    def norm(x):
        log("norm", x.sum())
        return x

    def step(x):
        with hook("validation_step"):
            return norm(x)

    train, validate = capture(norm), capture(step)
    hooks = [c.init(X).schema.specs[0].options.hook for c in (train, validate, train)]
    assert hooks == ["training_step", "validation_step", "training_step"]


@pytest.mark.parametrize(
    ("name", "near"), [("train_step", "training_step"), ("on_epoch_end", "epoch_end"), (3, "train")]
)
def test_a_mistyped_hook_lists_close_ones(name: Any, near: str) -> None:
    match = rf"hook={name!r} is not a hook; did you mean .*{near}"
    with pytest.raises(HookError, match=match), hook(name):
        pass
