"""The arguments of a log call, checked at trace time; nothing is computed.

`log`, `log_dict`, `log_gradient`, `Logs.log` and the host's `Loop.log` all pass through
`check_call`. All but `Loop.log` then pass the value to `normalize.normalize_call`, which makes
arrays of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlog.errors import LogArgumentError
from jaxlog.logs.hooks import Hook
from jaxlog.logs.options import Options, check_options
from jaxlog.metrics import Metric

__all__ = ["check_call"]

_BEYOND_FLOAT = 2**1024


def check_call(
    name: str,
    value: Any,
    hook: Hook,
    options: Mapping[str, Any],
    *,
    batch_size: Any = None,
    mask: Any = None,
    function: str = "log",
) -> Options:
    """The options of a log call with every argument checked; computes nothing.

    Args:
        name: the key.
        value: a number, an array of one element, an array with a `mask`, or a `Metric`.
        hook: the hook in which the call was made.
        options: the `LogOptions` as given.
        batch_size: explicit weight, int or float, shape (), may be traced.
        mask: bool array that `value` broadcasts with; False elements do not count.
        function: which of `options.CALL_ARGUMENTS` was called, for messages.

    Raises:
        LogArgumentError: the first argument that is wrong, with what to write instead.
        HookError: the hook forbids the call.
    """
    checked = check_options(name, hook, options, function=function)
    if isinstance(value, Metric):
        _check_metric(name, value, checked, mask)
        return checked
    _check_number(name, value, allow_axes=mask is not None)
    if batch_size is not None:
        _check_weight(name, batch_size, mask)
    if mask is not None:
        _check_mask(name, mask, value)
    return checked


def _check_metric(name: str, metric: Metric, options: Options, mask: Any) -> None:
    if mask is not None:
        raise LogArgumentError(
            f"log({name!r}, <metric>, mask=...): give the mask to the metric: "
            f"{type(metric).__name__}.of(..., mask=mask)"
        )
    if options.reduce_fx != "mean":
        raise LogArgumentError(
            f"log({name!r}, <metric>, reduce_fx={options.reduce_fx!r}): a metric knows how it "
            f"reduces; leave reduce_fx out"
        )
    if not jax.tree.leaves(metric):
        raise LogArgumentError(
            f"log({name!r}, {type(metric).__name__}): it holds no array to reduce; "
            f"give it a field jaxlog.state(...), or log its number"
        )
    result = jax.eval_shape(lambda m: m.compute(), metric)
    shape = getattr(result, "shape", None)
    if shape != ():
        what = f"gives a {type(result).__name__}" if shape is None else f"has shape {shape}"
        raise LogArgumentError(
            f"log({name!r}, {type(metric).__name__}): its compute() {what}, not one number of "
            f"shape (); return one number, or log its parts by name"
        )


def _check_number(name: str, value: Any, *, allow_axes: bool) -> None:
    _refuse_other_types(name, value)
    if not _is_real(value):
        raise LogArgumentError(
            f"log({name!r}, value of dtype {jnp.result_type(value)}): only real numbers can be "
            f"logged; log its parts, e.g. jnp.abs(value)"
        )
    shape = jnp.shape(value)
    if math.prod(shape) != 1 and not allow_axes:
        raise LogArgumentError(
            f"log({name!r}, value of shape {shape}): a logged value is one number; log "
            f"value.mean(), or give mask= to average an array, or log a jaxlog.Metric"
        )


def _is_real(value: Any) -> bool:
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind not in "biufV":
        return False
    dtype = jnp.result_type(value)
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def _refuse_other_types(name: str, value: Any) -> None:
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind not in "biufcV":
        raise LogArgumentError(
            f"log({name!r}, value of dtype {value.dtype}): only real numbers can be logged; "
            f"log the number it stands for, as float(value)"
        )
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        raise LogArgumentError(
            f"log({name!r}, <random key>): a key is not a number; log what is drawn with it, e.g. "
            f"jax.random.normal(key)"
        )
    if isinstance(value, int) and abs(value) >= _BEYOND_FLOAT:
        raise LogArgumentError(
            f"log({name!r}, <an int of {value.bit_length()} bits>): no float is that large; log "
            f"math.log(value)"
        )
    if isinstance(value, (bool, int, float, complex, np.ndarray, np.generic, jax.Array)):
        return
    hint = "log one number"
    if isinstance(value, Mapping):
        hint = (
            "write jaxlog.log_dict(mapping) for a flat mapping of names to numbers, and flatten "
            "nested ones first"
        )
    elif value is None:
        hint = "did the function that computes it forget to return?"
    elif callable(value):
        hint = "call it: log(name, f(x))"
    elif isinstance(value, (list, tuple)):
        hint = "log jnp.mean(jnp.asarray(values)), or each under its own name"
    raise LogArgumentError(
        f"log({name!r}, {value!r}): a value of type {type(value).__name__} cannot be logged; {hint}"
    )


def _check_weight(name: str, batch_size: Any, mask: Any) -> None:
    kinds = (bool, int, float, np.ndarray, np.generic, jax.Array)
    real = isinstance(batch_size, kinds) and _is_real(batch_size)
    if real and jnp.issubdtype(jnp.result_type(batch_size), jnp.bool_):
        raise LogArgumentError(
            f"log({name!r}, ..., batch_size={batch_size!r}): takes a number of examples, not a "
            f"bool; to say whether the value counts, write mask="
        )
    is_static = isinstance(batch_size, (int, float, np.generic))
    if not real or jnp.shape(batch_size) or (is_static and not float(batch_size) >= 0):
        raise LogArgumentError(
            f"log({name!r}, ..., batch_size={batch_size!r}): takes one number, not negative; "
            f"leave it out to weigh by the leading dimension of the batch"
        )
    if mask is not None and jnp.shape(mask) != ():
        raise LogArgumentError(
            f"log({name!r}, ..., batch_size=..., mask of shape {jnp.shape(mask)}): an array's mask "
            f"already is its weight (the count of True); leave batch_size out"
        )


def _check_mask(name: str, mask: Any, value: Any) -> None:
    if not isinstance(mask, (bool, int, float, np.ndarray, np.generic, jax.Array)):
        raise LogArgumentError(
            f"log({name!r}, ..., mask={mask!r}): takes a bool array, such as mask=labels != 0"
        )
    dtype = getattr(mask, "dtype", type(mask).__name__)
    if dtype not in (bool, "bool"):
        raise LogArgumentError(
            f"log({name!r}, ..., mask of dtype {dtype}): takes bool; write mask=mask != 0"
        )
    shape, of_mask = jnp.shape(value), jnp.shape(mask)
    try:
        np.broadcast_shapes(of_mask, shape)
    except ValueError:
        raise LogArgumentError(
            f"log({name!r}, value of shape {shape}, mask of shape {of_mask}): the two do not "
            f"broadcast; the mask says for each element whether it counts"
        ) from None
