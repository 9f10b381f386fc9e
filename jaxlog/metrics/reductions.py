"""The table of reductions: how values that are summed, averaged or compared combine.

`REDUCTIONS` has one row for each `reduce_fx` of a log call and each `reduce` of a metric's state.
Everything that reduces reads it: metric states, the accumulator state of a step and the totals on
the device, and the tables and epoch values of the host.

Each row is a monoid: `combine` is associative and `identity` changes nothing, so the order in which
calls, shards, steps and windows are combined does not matter (but for the rounding of sums). A mean
is not a monoid of means. Its row adds, like that of a sum, and is `weighted`: whoever keeps a mean
keeps two sums, of value times weight and of weights, and divides once at the end.

The host works on numpy arrays and the device on JAX arrays. `combine` and `fold` choose by the type
of what they get, because numpy after the fetch must neither dispatch to a device nor compile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxlog.metrics.array_namespace import array_namespace

__all__ = ["REDUCTIONS", "Reduce", "Reduction"]

Reduce = Literal["sum", "mean", "min", "max"]


@dataclasses.dataclass(frozen=True)
class Reduction:
    """One row of the table.

    Attributes:
        name: its key in the table.
        ufunc: combines two values on the host; `ufunc.at` folds rows that share an index.
        device: combines two values on the device.
        over_axes: folds axes of one array on the device.
        collective: folds mesh axes, `(values, axis_name) -> values`.
        limit: the identity among the real numbers.
        weighted: whether what combines is a pair of sums, of value times weight and of weights.

    Example:
        >>> REDUCTIONS["min"].combine(np.float32(2), np.float32(1))
        np.float32(1.0)
        >>> REDUCTIONS["max"].identity(np.int32)
        -2147483648
    """

    name: Reduce
    ufunc: np.ufunc
    device: Callable[[Any, Any], Any]
    over_axes: Callable[..., Any]
    collective: Callable[[Any, Any], Any]
    limit: float
    weighted: bool = False

    @property
    def adds(self) -> bool:
        """Whether it is a sum, of which rounding errors can be compensated."""
        return self.limit == 0.0

    def identity(self, dtype: Any) -> int | float:
        """What changes nothing among values of `dtype`, as a Python number.

        0 for a sum; for an integer minimum the largest integer, for a float one +inf.
        """
        if not jnp.issubdtype(dtype, np.integer):  # of jnp, because numpy does not know bfloat16
            return self.limit
        if self.adds:
            return 0
        info = np.iinfo(dtype)
        return int(info.max if self.limit > 0 else info.min)

    def combine(self, a: Any, b: Any) -> Any:
        """Both together, elementwise, in their dtype."""
        return (self.ufunc if array_namespace(a, b) is np else self.device)(a, b)

    def fold(self, values: Any, axis: int | tuple[int, ...] | None = None) -> Any:
        """Everything along axes together, in the dtype of `values`; no values give the identity.

        Args:
            values: integers or floats.
            axis: the axes, or None for all.
        """
        if array_namespace(values) is np:
            initial = self.identity(values.dtype)
            return self.ufunc.reduce(values, axis=axis, dtype=values.dtype, initial=initial)
        if self.adds:
            return self.over_axes(values, axis=axis, dtype=values.dtype)
        # Only an array without elements needs the identity; else it would be one more operation.
        initial = {} if values.size else {"initial": self.identity(values.dtype)}
        return self.over_axes(values, axis=axis, **initial)


REDUCTIONS: Mapping[str, Reduction] = MappingProxyType(
    {
        row.name: row
        for row in (
            Reduction("mean", np.add, jnp.add, jnp.sum, jax.lax.psum, 0.0, weighted=True),
            Reduction("sum", np.add, jnp.add, jnp.sum, jax.lax.psum, 0.0),
            Reduction("min", np.minimum, jnp.minimum, jnp.min, jax.lax.pmin, np.inf),
            Reduction("max", np.maximum, jnp.maximum, jnp.max, jax.lax.pmax, -np.inf),
        )
    }
)
