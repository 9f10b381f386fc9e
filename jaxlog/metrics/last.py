"""`Last`: the most recent value."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp

from jaxlog.errors import LogArgumentError
from jaxlog.metrics.accumulator_dtype import accumulated, scalar_of_dtype
from jaxlog.metrics.array_namespace import array_namespace, as_float
from jaxlog.metrics.declaration import state
from jaxlog.metrics.leaves import cast_leaves
from jaxlog.metrics.metric import Metric

__all__ = ["Last"]


class Last(Metric):
    """The value seen last; NaN before the first.

    Last means last in merge order: the right one of a merge, the last row under vmap, the last
    shard of a mesh axis.

    Attributes:
        dtype: name of the dtype that `value` is kept in; part of the configuration.
        value: `dtype`, shape ().
        seen: int32, shape (); 1 once a value is there, else 0.

    Example:
        >>> print(Last.of(1.0).update(2.0).compute())
        2.0
        >>> print(Last.of(1.0).merge(Last.empty()).compute())
        1.0
    """

    dtype: str = "float32"
    # merge is overridden below; "sum" only says that both are 0 in an empty metric.
    value: jax.Array = state(scalar_of_dtype, "sum")
    seen: jax.Array = state(0, "sum")

    @classmethod
    def of(cls, value: Any, *, dtype: str | None = None) -> Self:
        """The state of one value.

        Args:
            value: bool, integer or float, shape ().
            dtype: what to keep; int32 for integers and bools, float32 for floats by default.

        Raises:
            LogArgumentError: a dtype or shape that does not fit.
        """
        number, dtype = accumulated("Last.of", "value", value, dtype)
        if number.shape != ():
            raise LogArgumentError(
                f"Last.of: value has shape {number.shape}, but it takes one number; write "
                f"Last.of(value.mean()) or Last.of(value[-1])"
            )
        return cls(dtype=dtype, value=number, seen=jnp.ones((), jnp.int32))

    def merge(self, other: Any) -> Self:
        """`other` if it has seen a value, else `self`.

        Raises:
            LogArgumentError: `other` is of another class or configuration.
        """
        self._check_mergeable(other)
        mine, theirs = self._leaves(), other._leaves()
        xp = array_namespace(*mine.values(), *theirs.values())
        if xp is jnp:
            specs = self._specs()
            mine = cast_leaves(specs, mine)
            theirs = cast_leaves(specs, theirs)
        value = xp.where(theirs["seen"] > 0, theirs["value"], mine["value"])
        return self._with_leaves({"value": value, "seen": xp.maximum(mine["seen"], theirs["seen"])})

    def compute(self) -> Any:
        """The last value: float, shape (); NaN before the first."""
        xp = array_namespace(self.value, self.seen)
        return xp.where(self.seen > 0, as_float(self.value), xp.nan)[()]
