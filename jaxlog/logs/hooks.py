"""The table of hooks: the hook in which a value is logged decides its defaults, as in Lightning."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Iterable, Mapping

from jaxlog.errors import HookError, LogArgumentError

__all__ = ["HOOKS", "Hook", "find_hook", "resolve_flags"]


@dataclasses.dataclass(frozen=True)
class Hook:
    """One row of the table: the defaults of a log call in this hook.

    Attributes:
        name: the hook's name, as in Lightning.
        stage: `"train"`, `"validate"`, `"test"`, or None if the hook belongs to no phase.
        on_step: default of the `on_step` option.
        on_epoch: default of the `on_epoch` option.
        steps: whether per-step values may be logged here.
        allowed: whether logging is allowed here at all.

    Example:
        >>> HOOKS["validation_step"].on_epoch
        True
    """

    name: str
    stage: str | None
    on_step: bool
    on_epoch: bool
    steps: bool
    allowed: bool


def _rows(stage: str | None, names: Iterable[str], kind: str) -> dict[str, Hook]:
    on_step, on_epoch, steps, allowed = {
        "step": (True, False, True, True),
        "evaluation": (False, True, True, True),
        "epoch": (False, True, False, True),
        "forbidden": (False, False, False, False),
    }[kind]
    return {name: Hook(name, stage, on_step, on_epoch, steps, allowed) for name in names}


def _edges(stage: str) -> list[str]:
    return [f"on_{stage}_start", f"on_{stage}_epoch_start", f"on_{stage}_epoch_end"]


_TRAIN_STEP_HOOKS = (
    "training_step",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_backward",
    "backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "optimizer_step",
    "configure_gradient_clipping",
    "clip_gradients",
    "on_before_zero_grad",
    "optimizer_zero_grad",
)
_FORBIDDEN_HOOKS = (
    "setup",
    "teardown",
    "on_fit_start",
    "on_fit_end",
    "on_sanity_check_start",
    "on_sanity_check_end",
    "on_train_end",
    "on_validation_end",
    "on_test_end",
    "predict_step",
    "on_predict_start",
    "on_predict_end",
    "on_predict_epoch_start",
    "on_predict_epoch_end",
    "on_predict_batch_start",
    "on_predict_batch_end",
    "on_save_checkpoint",
    "on_load_checkpoint",
    "lr_scheduler_step",
)
_VALIDATION_STEP_HOOKS = ("validation_step", "on_validation_batch_start", "on_validation_batch_end")
_TEST_STEP_HOOKS = ("test_step", "on_test_batch_start", "on_test_batch_end")

HOOKS: Mapping[str, Hook] = types.MappingProxyType(
    _rows("train", _TRAIN_STEP_HOOKS, "step")
    | _rows("train", _edges("train"), "epoch")
    | _rows("validate", _VALIDATION_STEP_HOOKS, "evaluation")
    | _rows("validate", _edges("validation"), "epoch")
    | _rows("test", _TEST_STEP_HOOKS, "evaluation")
    | _rows("test", _edges("test"), "epoch")
    | _rows(None, _FORBIDDEN_HOOKS, "forbidden")
)


def find_hook(name: object) -> Hook:
    """The row of the table for a hook's name.

    Args:
        name: a hook name such as `"training_step"`.

    Raises:
        HookError: no such hook; the message lists close names.

    Example:
        >>> find_hook("on_train_epoch_end").steps
        False
    """
    found = HOOKS.get(name) if isinstance(name, str) else None
    if found is None:
        near = difflib.get_close_matches(str(name), HOOKS, n=3) or ["training_step"]
        raise HookError(
            f"hook={name!r} is not a hook; did you mean {' or '.join(map(repr, near))}?"
        )
    return found


def resolve_flags(
    name: str, hook: Hook, *, on_step: bool | None, on_epoch: bool | None
) -> tuple[bool, bool]:
    """`(on_step, on_epoch)` with the hook's defaults filled in.

    Args:
        name: the logged name, for messages.
        hook: the hook in which the call was made.
        on_step: the option as given; None takes the default.
        on_epoch: the option as given; None takes the default.

    Raises:
        HookError: the hook forbids logging, or per-step values.
        LogArgumentError: a flag is not a bool, or both are False.

    Example:
        >>> resolve_flags("loss", HOOKS["training_step"], on_step=None, on_epoch=True)
        (True, True)
    """
    for option, given in (("on_step", on_step), ("on_epoch", on_epoch)):
        if given is not None and not isinstance(given, bool):
            raise LogArgumentError(
                f"log({name!r}, ..., {option}={given!r}): {option} takes True, False or None; "
                f"a traced value cannot decide what is logged"
            )
    if not hook.allowed:
        raise HookError(
            f"log({name!r}, ...) is called in {hook.name!r}, where nothing can be logged; "
            f"log from a step or from an epoch hook, e.g. with jaxlog.hook('training_step'): ..."
        )
    step = hook.on_step if on_step is None else on_step
    epoch = hook.on_epoch if on_epoch is None else on_epoch
    if step and not hook.steps:
        raise HookError(
            f"log({name!r}, ..., on_step=True) is called in {hook.name!r}, which runs once an "
            f"epoch and has no steps; leave on_step out"
        )
    if not step and not epoch:
        raise LogArgumentError(
            f"log({name!r}, ...) in {hook.name!r} has on_step=False and on_epoch=False, which logs "
            f"nothing; write log({name!r}, ..., on_epoch=True), or remove the call"
        )
    return step, epoch
