"""`log` and `log_dict`: what user code calls, at any depth of a traced step."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Unpack

from jax.typing import ArrayLike

from jaxlog.errors import LogArgumentError
from jaxlog.logs import (
    Logged,
    LogOptions,
    Options,
    check_call,
    check_names,
    check_options,
    normalize_call,
    takes_options,
)
from jaxlog.metrics import Metric, as_metric
from jaxlog.tracing.context import current_hook, is_captured, mark_traced, silent
from jaxlog.tracing.lazy import bind_lazily
from jaxlog.tracing.primitive import log_p

__all__ = ["log", "log_dict"]


@takes_options
def log(
    name: str,
    value: Any,
    *,
    batch_size: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    **options: Unpack[LogOptions],
) -> None:
    """Records a value, from anywhere in a traced step; returns nothing.

    Works at any depth and under every JAX transform. Several values of one name in a step are
    reduced by `reduce_fx`. Outside of `capture` (and of a `Loop`'s steps) it checks its arguments
    and does nothing: the compiled program is the one without the call.

    Args:
        name: the key; a `/` groups it in TensorBoard.
        value: one real number (any dtype, shape () or one element), an array together with `mask`,
            a `jaxlog.Metric`, or a metric of CLU or metrax. Integers and bools stay exact; bfloat16
            and float16 are kept as float32. A function without arguments that returns one of these
            is computed only at the steps that a `Loop` writes (`log_every_n_steps`), and costs
            nothing at others; what it logs itself is not recorded. With `on_epoch` every step
            counts, and computes it.
        batch_size: the weight of this value in means, int or float, shape (), may be traced.
            Default: the leading dimension of the first array in the batch.
        mask: bool, of the value's shape or broadcasting with it. False elements do not count, not
            even as NaN; a mean over an array weighs by the number of True.
        **options: see `LogOptions`.

    Raises:
        LogArgumentError: a value, name or option that cannot be logged; at trace time.
        HookError: the hook around the call does not allow it; at trace time.

    Example:
        >>> import jax, jaxlog
        >>> def step(x):
        ...     jaxlog.log("loss", (x ** 2).mean(), on_epoch=True)
        ...     return x
        >>> captured = jaxlog.capture(step)
        >>> x = jax.numpy.arange(4.0)
        >>> logs, out = jax.jit(captured)(captured.init(x), x)
        >>> float(logs.compute()["loss"])
        3.5
    """
    _log(name, value, options, {"batch_size": batch_size, "mask": mask}, "log")


def _log(
    name: str,
    value: Any,
    options: Mapping[str, Any],
    weighting: Mapping[str, Any],
    function: str,
) -> None:
    place = current_hook()
    value = as_metric(value)
    if callable(as_array := getattr(value, "__jax_array__", None)):
        value = as_array()  # an nnx.Variable: a number, though it could be called too
    if not _is_thunk(value):
        checked = check_call(name, value, place, options, function=function, **weighting)
        _bind(name, value, checked, weighting)
        return
    checked = check_options(name, place, options, function=function)
    if not is_captured():
        return
    if checked.on_epoch:  # every step counts
        result = as_metric(value())
        check_call(name, result, place, options, function=function, **weighting)
        _bind(name, result, checked, weighting)
        return

    def thunk() -> Logged:
        with silent():
            result = as_metric(value())
        check_call(name, result, place, options, function=function, **weighting)
        return normalize_call(name, result, checked, **weighting)

    mark_traced(name)
    bind_lazily(thunk)


def _is_thunk(value: Any) -> bool:
    """Whether it can be called as it is."""
    if not callable(value) or isinstance(value, (type, Metric)):
        return False
    try:
        inspect.signature(value).bind()
    except (TypeError, ValueError):
        return False
    return True


def _bind(name: str, value: Any, options: Options, weighting: Mapping[str, Any]) -> None:
    if is_captured():
        mark_traced(name)
        logged = normalize_call(name, value, options, **weighting)
        log_p.bind(*logged.operands, call=logged.call)


@takes_options
def log_dict(
    mapping: Mapping[str, Any],
    *,
    batch_size: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    **options: Unpack[LogOptions],
) -> None:
    """Records several values with the same options: `log(name, value, **options)` for each.

    Args:
        mapping: names to values; not nested.
        batch_size: as in `log`.
        mask: as in `log`.
        **options: as in `log`.

    Raises:
        LogArgumentError: `mapping` is not a mapping, or holds something that cannot be logged.
        HookError: the hook around the call does not allow it.

    Example:
        >>> import jax, jaxlog
        >>> def step(x):
        ...     jaxlog.log_dict({"low": x.min(), "high": x.max()}, on_epoch=True)
        >>> captured = jaxlog.capture(step)
        >>> logs, _ = captured(captured.init(jax.numpy.ones(2)), jax.numpy.ones(2))
        >>> sorted(logs.compute())
        ['high', 'low']
    """
    if not isinstance(mapping, Mapping):
        raise LogArgumentError(
            f"log_dict({mapping!r}): takes a mapping of names to values; for one value write "
            f"jaxlog.log(name, value)"
        )
    check_names("", options, function="log_dict")  # also where the mapping is empty
    for name, value in mapping.items():
        _log(name, value, options, {"batch_size": batch_size, "mask": mask}, "log_dict")
