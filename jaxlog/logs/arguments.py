"""The arguments of a log call, checked at trace time and brought into one form.

`log`, `log_dict`, `Logs.log` and the host's `Loop.log` all pass through `check_call`; those that
take traced values go on to `lower_call`.
"""

from __future__ import annotations

import builtins
import dataclasses
import math
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlog.errors import LogArgumentError
from jaxlog.logs.cells import strong
from jaxlog.logs.hooks import Hook, resolve_flags
from jaxlog.logs.schema import Entry, LeafSpec, Options, Role, scalar_roles
from jaxlog.metrics import Metric

__all__ = ["LogCall", "Logged", "check_call", "check_options", "entry_of", "lower_call"]

_REDUCTIONS = {"mean": "mean", "avg": "mean", "sum": "sum", "min": "min", "max": "max"}
_FUNCTIONS: tuple[tuple[object, str], ...] = tuple(
    (getattr(module, name), name)
    for module in (jnp, np, builtins)
    for name in ("mean", "sum", "min", "max")
    if hasattr(module, name)
)


@dataclasses.dataclass(frozen=True)
class LogCall:
    """The static half of one log call, hashable: the parameters of the log primitive."""

    name: str
    options: Options
    dtype: str
    weighted: bool
    masked: bool
    metric: Any = None
    leaves: tuple[LeafSpec, ...] = ()

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank of each operand where no transform has added batch axes."""
        if self.metric is not None:
            return tuple(len(leaf.shape) for leaf in self.leaves)
        return (0,) * (1 + self.weighted + self.masked)


@dataclasses.dataclass(frozen=True)
class Logged:
    """One checked log call: its static half and its values."""

    call: LogCall
    value: Any
    weight: jax.Array | None = None
    mask: jax.Array | None = None

    @property
    def operands(self) -> list[Any]:
        """The arrays that the log primitive binds."""
        if self.call.metric is not None:
            return jax.tree.leaves(self.value)
        return [x for x in (self.value, self.weight, self.mask) if x is not None]


def entry_of(call: LogCall, *, repeated: bool, optional: bool) -> Entry:
    """The schema entry that a call needs.

    Args:
        call: the call.
        repeated: whether a step may log it more than once.
        optional: whether a step may log it not at all.
    """
    optional = optional or call.masked
    if call.metric is not None:
        roles = (Role("units", "int32"),) if optional else ()
        return Entry(call.name, call.options, roles, call.metric, call.leaves)
    roles = scalar_roles(
        call.options.reduce_fx,
        call.dtype,
        weighting="explicit" if call.weighted else "batch",
        repeated=repeated,
        optional=optional,
    )
    return Entry(call.name, call.options, roles)


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


def lower_call(
    name: str, value: Any, options: Options, *, batch_size: Any = None, mask: Any = None
) -> Logged:
    """The arrays of a log call that `check_call` let pass."""
    if isinstance(value, Metric):
        return _lower_metric(name, value, options)
    number = _as_array(value)
    weight = None if batch_size is None else _as_weight(batch_size)
    present = None if mask is None else jnp.asarray(mask)
    if present is None:
        number = number.reshape(())
    elif number.ndim or present.ndim:
        number, weight, present = _fold_masked(number, present, options.reduce_fx)
    if options.reduce_fx != "mean":
        weight = None
    call = LogCall(name, options, str(number.dtype), weight is not None, present is not None)
    return Logged(call, number, weight, present)


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
            raise LogArgumentError(f"log({name!r}, ..., {option}={given!r}): takes True or False")
    if add_dataloader_idx and "/dataloader_idx_" in name:
        raise LogArgumentError(
            f"log({name!r}, ...): '/dataloader_idx_' is what jaxlog appends when there are several "
            f"loaders; leave it out of the name, or write add_dataloader_idx=False"
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
    if isinstance(group, list):
        group = tuple(tuple(part) if isinstance(part, list) else part for part in group)
    if group is None or isinstance(group, (str, tuple)):
        return group
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
    shape = jax.eval_shape(lambda m: m.compute(), metric).shape
    if shape != ():
        raise LogArgumentError(
            f"log({name!r}, {type(metric).__name__}): its compute() has shape {shape}, not (); "
            f"return one number, or log its parts by name"
        )


def _check_number(name: str, value: Any, *, allow_axes: bool) -> None:
    _refuse_other_types(name, value)
    dtype = jnp.result_type(value)
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise LogArgumentError(
            f"log({name!r}, value of dtype {dtype}): only real numbers can be logged; log its "
            f"parts, e.g. jnp.abs(value)"
        )
    shape = jnp.shape(value)
    if math.prod(shape) != 1 and not allow_axes:
        raise LogArgumentError(
            f"log({name!r}, value of shape {shape}): a logged value is one number; log "
            f"value.mean(), or give mask= to average an array, or log a jaxlog.Metric"
        )


def _refuse_other_types(name: str, value: Any) -> None:
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind not in "biufcV":
        raise LogArgumentError(
            f"log({name!r}, value of dtype {value.dtype}): only real numbers can be logged"
        )
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        raise LogArgumentError(f"log({name!r}, <random key>): a key is no number")
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
    _refuse_other_types(f"{name}, batch_size", batch_size)
    is_static = isinstance(batch_size, (int, float, np.generic))
    if jnp.shape(batch_size) != () or (is_static and not float(batch_size) >= 0):
        raise LogArgumentError(
            f"log({name!r}, ..., batch_size={batch_size!r}): takes one number, not negative"
        )
    if mask is not None and jnp.shape(mask) != ():
        raise LogArgumentError(
            f"log({name!r}, ..., batch_size=..., mask of shape {jnp.shape(mask)}): an array's mask "
            f"already is its weight (the count of True); leave batch_size out"
        )


def _check_mask(name: str, mask: Any, value: Any) -> None:
    dtype = jnp.result_type(mask)
    if not jnp.issubdtype(dtype, jnp.bool_):
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


def _lower_metric(name: str, metric: Metric, options: Options) -> Logged:
    leaves, treedef = jax.tree.flatten(metric)
    arrays = [jnp.asarray(leaf) for leaf in leaves]
    specs = tuple(LeafSpec(leaf.shape, str(leaf.dtype)) for leaf in arrays)
    arrays = [strong(leaf, spec.dtype) for leaf, spec in zip(arrays, specs, strict=True)]
    call = LogCall(name, options, "", weighted=False, masked=False, metric=treedef, leaves=specs)
    return Logged(call, jax.tree.unflatten(treedef, arrays))


def _as_array(value: Any) -> jax.Array:
    if isinstance(value, int) and not isinstance(value, bool):
        return _as_integer(value)
    array = jnp.asarray(value)
    return strong(array, _stored_dtype(array.dtype))


def _as_integer(value: int) -> jax.Array:
    """A Python int: exact where the widest integer of this process holds it."""
    info = np.iinfo(jnp.int64 if jax.config.read("jax_enable_x64") else jnp.int32)
    if info.min <= value <= info.max:
        return jnp.asarray(value, info.dtype)
    return jnp.asarray(float(value), jnp.float32)


def _stored_dtype(dtype: Any) -> str:
    """The dtype of 32 or 64 bits that holds every value of `dtype` exactly."""
    dtype = np.dtype(dtype)
    if dtype in (np.int64, np.uint64, np.float64, np.uint32):
        return str(dtype)
    return "float32" if jnp.issubdtype(dtype, jnp.floating) else "int32"


def _as_weight(batch_size: Any) -> jax.Array:
    weight = jnp.asarray(batch_size)
    return strong(weight, "float64" if weight.dtype.itemsize == 8 else "float32")


def _fold_masked(
    value: jax.Array, mask: jax.Array, reduce_fx: str
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    """An array under its mask as one value, its weight, and whether there was any element."""
    shape = np.broadcast_shapes(mask.shape, value.shape)
    mask = jnp.broadcast_to(mask, shape)
    value = jnp.broadcast_to(value, shape)
    present = mask.any()
    if reduce_fx == "mean":
        count = mask.sum(dtype="float32")
        total = jnp.where(mask, strong(value, "float32"), jnp.float32(0)).sum()
        return total / jnp.maximum(count, jnp.float32(1)), count, present
    if reduce_fx == "sum":
        return jnp.sum(value, where=mask, dtype=value.dtype), None, present
    floating = jnp.issubdtype(value.dtype, jnp.floating)
    info = None if floating else jnp.iinfo(value.dtype)
    if reduce_fx == "min":
        greatest = jnp.inf if info is None else info.max
        return jnp.min(value, where=mask, initial=greatest), None, present
    least = -jnp.inf if info is None else info.min
    return jnp.max(value, where=mask, initial=least), None, present
