"""The arguments of a log call, checked at trace time; nothing is computed.

`log`, `log_dict`, `Logs.log` and the host's `Loop.log` all pass through `check_call`; those that
take traced values go on to `lowering.normalize_call`.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlog.errors import LogArgumentError
from jaxlog.logs.hooks import Hook, resolve_flags
from jaxlog.logs.schema import Options
from jaxlog.metrics import Metric

__all__ = ["NAN_POLICIES", "check_call", "check_options"]

NAN_POLICIES = ("keep", "skip", "raise")

_BEYOND_FLOAT = 2**1024
_REDUCTIONS = {"mean": "mean", "avg": "mean", "sum": "sum", "min": "min", "max": "max"}
_FUNCTIONS: tuple[tuple[object, str], ...] = tuple(
    (getattr(module, name), name)
    for module in (jnp, np, builtins)
    for name in ("mean", "sum", "min", "max")
    if hasattr(module, name)
)


def check_call(
    name: str,
    value: Any,
    hook: Hook,
    *,
    batch_size: Any = None,
    mask: Any = None,
    **options: Any,
) -> Options:
    """The options of a log call with every argument checked; computes nothing.

    Args:
        name: the key.
        value: a number, an array of one element, an array with a `mask`, or a `Metric`.
        hook: where the call stands.
        batch_size: explicit weight, int or float, shape (), may be traced.
        mask: bool array that `value` broadcasts with; False elements do not count.
        **options: as `check_options` takes them.

    Raises:
        LogArgumentError: the first argument that is wrong, with what to write instead.
        HookError: the hook forbids the call.
    """
    checked = check_options(name, hook, **options)
    if isinstance(value, Metric):
        _check_metric(name, value, checked, mask)
        return checked
    _check_number(name, value, allow_axes=mask is not None)
    if batch_size is not None:
        _check_weight(name, batch_size, mask)
    if mask is not None:
        _check_mask(name, mask, value)
    return checked


def check_options(
    name: object,
    hook: Hook,
    *,
    prog_bar: bool = False,
    logger: bool = True,
    on_step: bool | None = None,
    on_epoch: bool | None = None,
    reduce_fx: Any = "mean",
    enable_graph: bool = False,
    sync_dist: bool = False,
    sync_dist_group: Any = None,
    add_dataloader_idx: bool = True,
    rank_zero_only: bool = False,
    nan_policy: str | None = None,
) -> Options:
    """The options of a call with Lightning's defaults filled in.

    Raises:
        LogArgumentError: a name or an option that cannot be.
        HookError: the hook forbids the call.
    """
    if not isinstance(name, str) or not name:
        raise LogArgumentError(
            f"log(name={name!r}, ...): the name must be a non-empty string, such as 'train/loss'"
        )
    flags = {
        "prog_bar": prog_bar,
        "logger": logger,
        "enable_graph": enable_graph,
        "sync_dist": sync_dist,
        "add_dataloader_idx": add_dataloader_idx,
        "rank_zero_only": rank_zero_only,
    }
    for option, given in flags.items():
        if not isinstance(given, bool):
            raise LogArgumentError(
                f"log({name!r}, ..., {option}={given!r}): takes True or False; "
                f"a traced value cannot decide what becomes of a log"
            )
    if add_dataloader_idx and "/dataloader_idx_" in name:
        raise LogArgumentError(
            f"log({name!r}, ...): '/dataloader_idx_' is what jaxlog appends when there are several "
            f"loaders; leave it out of the name, or write add_dataloader_idx=False"
        )
    if nan_policy is not None and nan_policy not in NAN_POLICIES:
        raise LogArgumentError(
            f"log({name!r}, ..., nan_policy={nan_policy!r}): takes 'keep', 'skip' or 'raise'"
        )
    step, epoch = resolve_flags(name, hook, on_step=on_step, on_epoch=on_epoch)
    return Options(
        hook=hook.name,
        on_step=step,
        on_epoch=epoch,
        prog_bar=prog_bar,
        logger=logger,
        reduce_fx=_reduction(name, reduce_fx),
        enable_graph=enable_graph,
        sync_dist=sync_dist,
        sync_dist_group=_group(name, sync_dist_group),
        add_dataloader_idx=add_dataloader_idx,
        rank_zero_only=rank_zero_only,
        nan_policy=nan_policy,
    )


def _reduction(name: str, reduce_fx: Any) -> str:
    if isinstance(reduce_fx, str) and reduce_fx in _REDUCTIONS:
        return _REDUCTIONS[reduce_fx]
    for function, reduction in _FUNCTIONS:
        if reduce_fx is function:
            return reduction
    raise LogArgumentError(
        f"log({name!r}, ..., reduce_fx={reduce_fx!r}): takes 'mean', 'sum', 'min' or 'max' (or "
        f"jnp.mean, jnp.sum, jnp.min, jnp.max); for anything else log a jaxlog.Metric"
    )


def _group(name: str, group: Any) -> Hashable:
    if group is None or isinstance(group, str):
        return group
    if isinstance(group, (list, tuple)):
        frozen = tuple(tuple(part) if isinstance(part, (list, tuple)) else part for part in group)
        members = [m for part in frozen for m in (part if isinstance(part, tuple) else (part,))]
        if all(isinstance(member, (str, int)) for member in members):
            return frozen
    raise LogArgumentError(
        f"log({name!r}, ..., sync_dist_group={group!r}): takes a mesh axis name, a tuple of them, "
        f"or axis_index_groups such as [[0, 1], [2, 3]]"
    )


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
            f"log({name!r}, <random key>): a key is no number; log what is drawn with it, e.g. "
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
            f"log({name!r}, ..., batch_size={batch_size!r}): takes a number of examples, no bool; "
            f"to say whether the value counts, write mask="
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
