"""The declaration of a metric's fields: `state(default, reduce)`, and the spec it resolves to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlog.errors import LogArgumentError
from jaxlog.metrics.array_namespace import host_dtype
from jaxlog.metrics.reductions import REDUCTIONS, Reduce

__all__ = ["StateDeclaration", "StateSpec", "state"]

_METADATA_KEY = "jaxlog.state"


class _Omitted:
    """The value of a constructor argument that the caller left out."""

    def __repr__(self) -> str:
        return "<neutral element>"


OMITTED: Any = _Omitted()


@dataclasses.dataclass(frozen=True)
class StateSpec:
    """The shape, dtype, reduction and neutral element of one leaf."""

    shape: tuple[int, ...]
    dtype: np.dtype
    reduce: Reduce
    neutral: int | float

    def on_host(self) -> StateSpec:
        """The same in 64 bits; the neutral element stays the declared dtype's."""
        return dataclasses.replace(self, dtype=host_dtype(self.dtype))


@dataclasses.dataclass(frozen=True)
class StateDeclaration:
    """The arguments of `state`; `resolve` makes a `StateSpec` of them for one configuration."""

    default: Any
    reduce: Reduce

    def resolve(self, name: str, config: Mapping[str, Any]) -> StateSpec:
        """The spec of field `name` under `config`, with the dtype this process can hold."""
        default = self.default
        if callable(default):
            default = default(SimpleNamespace(**config))
        return _spec_of(name, default, self.reduce)


def _spec_of(name: str, default: Any, reduce: Reduce) -> StateSpec:
    template = np.asarray(default)
    if not isinstance(default, (np.generic, np.ndarray, jax.Array)):
        # Python numbers get 32 bits on every platform and in x64 mode: a leaf whose dtype depends
        # on a global flag would change the scan carry when someone flips it.
        narrow = {"i": np.int32, "f": np.float32}.get(template.dtype.kind)
        template = template if narrow is None else template.astype(narrow)
    number = jnp.issubdtype(template.dtype, np.integer) or jnp.issubdtype(
        template.dtype, np.floating
    )
    if not number:
        raise LogArgumentError(
            f"state: the default of {name!r} has dtype {template.dtype}, but a state holds "
            f"integers or floats; count with integers instead: "
            f"{name}: jax.Array = state(0, reduce={reduce!r})"
        )
    if reduce == "mean" and jnp.issubdtype(template.dtype, np.integer):
        raise LogArgumentError(
            f"state: {name!r} is an integer ({template.dtype}) with reduce='mean', but a mean is "
            f"rarely an integer; write {name}: jax.Array = state(0.0, reduce='mean')"
        )
    # np.zeros(n) is 64 bits wide, but without x64 the device holds 32, and the spec must say what
    # the device will hold.
    dtype = np.dtype(jax.dtypes.canonicalize_dtype(template.dtype))
    spec = StateSpec(template.shape, dtype, reduce, REDUCTIONS[reduce].identity(dtype))
    if not np.all((template == 0) | (template.astype(dtype) == spec.neutral)):
        raise LogArgumentError(
            f"state: the default of {name!r} is {default!r}, but a default fixes only shape and "
            f"dtype: every state starts at the neutral element of reduce={reduce!r} "
            f"({spec.neutral}), so that an empty metric merges into nothing; write 0 or "
            f"{spec.neutral}, and add the offset in compute()"
        )
    return spec


def state(default: Any | Callable[[Any], Any], reduce: Reduce) -> Any:
    """A metric field that is an array, merged by `reduce`.

    Args:
        default: fixes shape and dtype; zeros, or the neutral element of `reduce`. A Python float
            means float32, a Python int int32, an array its own dtype. A function of the metric's
            configuration gives a shape that depends on it.
        reduce: `"sum"`, `"mean"` (of the batches' values, each batch counting once), `"min"` or
            `"max"`.

    Returns:
        a dataclass field; annotate it as `jax.Array`.

    Raises:
        LogArgumentError: `reduce` is not one of the four.

    Example:
        >>> from jaxlog.metrics import Metric
        >>> class ClassCounts(Metric):
        ...     num_classes: int = 3
        ...     counts: jax.Array = state(lambda c: np.zeros(c.num_classes, np.int32), "sum")
        >>> ClassCounts.empty(num_classes=2).counts.tolist()
        [0, 0]
    """
    if reduce not in REDUCTIONS:
        raise LogArgumentError(
            f"state: reduce={reduce!r} is not one of {', '.join(map(repr, REDUCTIONS))}; for any "
            f"other rule override merge(self, other) in the metric"
        )
    declaration = StateDeclaration(default, reduce)
    return dataclasses.field(default=OMITTED, metadata={_METADATA_KEY: declaration})


def declaration_of(field: dataclasses.Field[Any]) -> StateDeclaration | None:
    """The declaration behind a dataclass field, or None for static configuration."""
    return field.metadata.get(_METADATA_KEY)
