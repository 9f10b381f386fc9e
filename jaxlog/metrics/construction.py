"""How a `Metric` subclass becomes a frozen dataclass pytree, and how its leaves are checked.

The classes are not registered with `jax.tree_util.register_dataclass`, because its unflatten calls
the constructor. The constructor checks and casts the leaves, whereas unflattening must accept
anything: tracers with mapped axes, shape structs, partition specs.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxlog.errors import LogArgumentError
from jaxlog.metrics.array_namespace import fits, host_dtype
from jaxlog.metrics.declaration import (
    OMITTED,
    StateDeclaration,
    StateSpec,
    declaration_of,
    state,
)
from jaxlog.metrics.leaves import MEAN_WEIGHT, cast_leaf


def register_metric(
    cls: type, root: type
) -> tuple[Mapping[str, StateDeclaration], tuple[str, ...]]:
    """The states and configuration names of `cls`, now a frozen dataclass and a pytree node."""
    _add_mean_weight(cls)
    dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)(cls)
    declarations, config_names = {}, []
    for field in dataclasses.fields(cls):
        declaration = declaration_of(field)
        if hasattr(root, field.name):
            raise LogArgumentError(
                f"{cls.__name__}: the field {field.name!r} hides Metric.{field.name}; rename it"
            )
        if declaration is None:
            config_names.append(field.name)
            continue
        declarations[field.name] = declaration
        if not callable(declaration.default):
            declaration.resolve(field.name, {})  # a bad default fails here, not at the first log
    _register_pytree(cls, tuple(declarations), tuple(config_names))
    return declarations, tuple(config_names)


def _add_mean_weight(cls: type) -> None:
    """Adds the hidden leaf that makes "mean" a monoid, if a field of the class needs it."""
    own = [declaration_of(v) for v in vars(cls).values() if isinstance(v, dataclasses.Field)]
    has_mean = any(d is not None and d.reduce == "mean" for d in own)
    if has_mean and not hasattr(cls, MEAN_WEIGHT):
        cls.__annotations__ = {**inspect.get_annotations(cls), MEAN_WEIGHT: "jax.Array"}
        setattr(cls, MEAN_WEIGHT, state(0.0, "sum"))


def _register_pytree(cls: type, leaf_names: tuple[str, ...], config_names: tuple[str, ...]) -> None:
    keys = tuple(jax.tree_util.GetAttrKey(name) for name in leaf_names)

    def flatten(metric: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        config = tuple(getattr(metric, name) for name in config_names)
        return tuple(getattr(metric, name) for name in leaf_names), config

    def flatten_with_keys(metric: Any) -> tuple[tuple[tuple[Any, Any], ...], tuple[Any, ...]]:
        leaves, config = flatten(metric)
        return tuple(zip(keys, leaves, strict=True)), config

    def unflatten(config: tuple[Any, ...], leaves: Any) -> Any:
        metric = object.__new__(cls)
        for names, values in ((config_names, config), (leaf_names, leaves)):
            for name, value in zip(names, values, strict=True):
                object.__setattr__(metric, name, value)
        return metric

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


def check_config(cls: type, config: Mapping[str, Any]) -> None:
    """Refuses configuration that cannot be hashed, mostly arrays declared without `state`."""
    for name, value in config.items():
        try:
            hash(value)
        except TypeError:
            raise LogArgumentError(
                f"{cls.__name__}: {name}={value!r} is static configuration and must be hashable; "
                f"if it is an array, declare it as {name}: jax.Array = state(0.0, reduce='sum')"
            ) from None


def check_config_names(cls: type, config: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuses names that are not configuration fields, and a missing field without a default."""
    listed = ", ".join(known) or "none"
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise LogArgumentError(
            f"{cls.__name__}.empty: got {', '.join(unknown)}, but the configuration fields of "
            f"{cls.__name__} are: {listed}; to start from a batch write {cls.__name__}.of(...)"
        )
    unset = dataclasses.MISSING
    required = {
        field.name
        for field in dataclasses.fields(cls)
        if field.default is unset and field.default_factory is unset
    }
    missing = [name for name in known if name in required and name not in config]
    if missing:
        raise LogArgumentError(
            f"{cls.__name__}.empty: {', '.join(missing)} has no default; write "
            f"{cls.__name__}.empty({', '.join(f'{name}=...' for name in missing)})"
        )


def settle_leaf(
    cls: type, name: str, spec: StateSpec, value: Any, default: float, *, on_host: bool
) -> Any:
    """A constructor argument as the leaf to store: of declared shape and dtype, strongly typed."""
    if value is OMITTED:
        if on_host:
            return np.full(spec.shape, default, host_dtype(spec.dtype))
        return jnp.full(spec.shape, default, spec.dtype)
    dtype = _dtype_of(cls, name, value)
    if np.shape(value) != spec.shape:
        raise LogArgumentError(
            f"{cls.__name__}: {name} has shape {np.shape(value)}, but its state was declared with "
            f"shape {spec.shape}; reduce the batch to that shape in of(), for instance with .sum()"
        )
    is_float = jnp.issubdtype(dtype, np.floating)
    if is_float and jnp.issubdtype(spec.dtype, np.integer):
        raise LogArgumentError(
            f"{cls.__name__}: {name} has dtype {dtype}, but its state was declared "
            f"as {spec.dtype}, which would cut off the fraction; declare "
            f"{name} = state(0.0, {spec.reduce!r})"
        )
    if on_host and dtype == host_dtype(spec.dtype):
        return value
    if not isinstance(value, jax.Array) and not fits(value, spec.dtype):
        raise LogArgumentError(
            f"{cls.__name__}: {name}={value!r} does not fit {spec.dtype}; declare "
            f"{name} = state(0.0, {spec.reduce!r}), or count in smaller steps"
        )
    return cast_leaf(value, spec.dtype)


def _dtype_of(cls: type, name: str, value: Any) -> np.dtype:
    try:
        dtype = np.dtype(value.dtype) if hasattr(value, "dtype") else np.asarray(value).dtype
        kinds = (np.bool_, np.integer, np.floating)
        if any(jnp.issubdtype(dtype, kind) for kind in kinds):
            return dtype
    except (TypeError, ValueError):
        pass  # ragged lists and PRNG keys are refused below, like all that is not a number
    raise LogArgumentError(
        f"{cls.__name__}: {name} got {type(value).__name__} {value!r}, which is not a real "
        f"number or array of them; convert it in of(), for instance with jnp.asarray"
    )


def show_value(value: Any) -> str:
    """A scalar as its number, a bigger array or a tracer as `float32[3,4]`, the rest as repr."""
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        return repr(value)
    if value.shape == () and not isinstance(value, (Tracer, jax.ShapeDtypeStruct)):
        return str(value)
    return f"{value.dtype}[{','.join(map(str, value.shape))}]"
