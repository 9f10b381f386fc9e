"""A checked log call as a static half and arrays, ready to be bound or accumulated.

`normalize_call` brings the accepted forms of a value (Python numbers, numpy and JAX arrays of any
dtype, an array under a mask) to one: a scalar of 32 or 64 bits with an optional weight and an
optional mask, or the leaves of a metric. Integers keep all their bits.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxlog.logs.accumulator_state import strong
from jaxlog.logs.fields import Field, scalar_fields
from jaxlog.logs.options import Options
from jaxlog.logs.reduce import Reduction
from jaxlog.logs.schema import KeySpec, LeafSpec
from jaxlog.metrics import Metric

__all__ = ["LogCall", "Logged", "normalize_call", "spec_of"]


@dataclasses.dataclass(frozen=True)
class LogCall:
    """The static half of one log call, hashable: the parameters of the log primitive.

    Attributes:
        name: the key.
        options: its options, defaults filled in.
        dtype: of the value; empty for a metric.
        weighted: whether it has an explicit weight.
        masked: whether it has a mask.
        constant: whether the value is known while tracing, such as the local count `x.size`. Under
            shard_map JAX treats it as equal on all shards, although each shard logs its own.
        metric: tree structure of a metric's state.
        leaves: shapes and dtypes of its leaves.
        lazy: whether it is evaluated only at steps that are written.
    """

    name: str
    options: Options
    dtype: str
    weighted: bool
    masked: bool
    constant: bool
    metric: Any = None
    leaves: tuple[LeafSpec, ...] = ()
    lazy: bool = False

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


def spec_of(call: LogCall, *, repeated: bool, optional: bool) -> KeySpec:
    """The schema spec that a call needs.

    Args:
        call: the call.
        repeated: whether a step may log it more than once.
        optional: whether a step may not log it at all.
    """
    optional = optional or call.masked
    if call.metric is not None:
        fields = (Field("units", "int32"),) if optional else ()
        return KeySpec(call.name, call.options, fields, call.metric, call.leaves, lazy=call.lazy)
    fields = scalar_fields(
        call.options.reduce_fx,
        call.dtype,
        weighting="explicit" if call.weighted else "batch",
        repeated=repeated,
        optional=optional,
    )
    return KeySpec(call.name, call.options, fields, lazy=call.lazy)


def normalize_call(
    name: str, value: Any, options: Options, *, batch_size: Any = None, mask: Any = None
) -> Logged:
    """The arrays of a log call that `check_call` accepted."""
    constant = not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))
    if isinstance(value, Metric):
        return _normalize_metric(name, value, options, constant=constant)
    number = _as_array(value)
    weight = None if batch_size is None else _as_weight(batch_size)
    present = None if mask is None else jnp.asarray(mask)
    if present is None:
        number = number.reshape(())
    elif number.ndim or present.ndim:
        number, weight, present = _fold_masked(number, present, options.reduction)
    if not options.reduction.weighted:
        weight = None
    dtype, weighted, masked = str(number.dtype), weight is not None, present is not None
    call = LogCall(name, options, dtype, weighted=weighted, masked=masked, constant=constant)
    return Logged(call, number, weight, present)


def _normalize_metric(name: str, metric: Metric, options: Options, *, constant: bool) -> Logged:
    leaves, treedef = jax.tree.flatten(metric)
    arrays = [jnp.asarray(leaf) for leaf in leaves]
    specs = tuple(LeafSpec(leaf.shape, str(leaf.dtype)) for leaf in arrays)
    arrays = [strong(leaf, spec.dtype) for leaf, spec in zip(arrays, specs, strict=True)]
    call = LogCall(
        name,
        options,
        "",
        weighted=False,
        masked=False,
        constant=constant,
        metric=treedef,
        leaves=specs,
    )
    return Logged(call, jax.tree.unflatten(treedef, arrays))


def _as_array(value: Any) -> jax.Array:
    array = jnp.asarray(_held(value) if isinstance(value, (int, np.ndarray, np.generic)) else value)
    return strong(array, _stored_dtype(array.dtype))


def _held(value: Any) -> Any:
    """A host value in a dtype that JAX holds; an integer that is too wide for it becomes a float.

    With x64 off, `jnp.asarray` would cut off the upper half of an int64 without a word.
    """
    host = np.asarray(value)
    if host.dtype.kind not in "iuO" or (host.dtype.kind != "O" and host.dtype.itemsize < 8):
        return value
    wide = bool(jax.config.read("jax_enable_x64"))
    if wide and host.dtype == np.uint64:
        return host
    info = np.iinfo(np.int64 if wide else np.int32)
    if not host.size or (info.min <= host.min() and host.max() <= info.max):
        return host.astype(info.dtype)
    with np.errstate(over="ignore"):
        return host.astype(np.float64 if wide else np.float32)


def _stored_dtype(dtype: Any) -> str:
    """The dtype of 32 or 64 bits that holds every value of `dtype` exactly."""
    dtype = np.dtype(dtype)
    if dtype in (np.int64, np.uint64, np.float64, np.uint32):
        return str(dtype)
    return "float32" if jnp.issubdtype(dtype, jnp.floating) else "int32"


def _as_weight(batch_size: Any) -> jax.Array:
    weight = _as_array(batch_size)
    return strong(weight, "float64" if weight.dtype.itemsize == 8 else "float32")


def _fold_masked(
    value: jax.Array, mask: jax.Array, reduction: Reduction
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    """An array under its mask as one value, its weight, and whether the mask keeps any element."""
    shape = np.broadcast_shapes(mask.shape, value.shape)
    mask = jnp.broadcast_to(mask, shape)
    value = jnp.broadcast_to(value, shape)
    present = mask.any()
    if reduction.weighted:
        dtype = "float64" if value.dtype.itemsize == 8 else "float32"
        count = mask.sum(dtype=dtype)
        total = jnp.sum(strong(value, dtype), where=mask)
        return total / jnp.maximum(count, jnp.ones((), dtype)), count, present
    nothing = jnp.full((), reduction.identity(value.dtype), value.dtype)
    return reduction.fold(jnp.where(mask, value, nothing)), None, present
