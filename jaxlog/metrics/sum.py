"""`Sum`: the running total of values or counts."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp

from jaxlog.metrics.accumulator_dtype import accumulated, scalar_of_dtype
from jaxlog.metrics.array_namespace import as_float
from jaxlog.metrics.declaration import state
from jaxlog.metrics.inputs import leading_mask
from jaxlog.metrics.metric import Metric

__all__ = ["Sum"]


class Sum(Metric):
    """The sum of all values seen; 0 before the first.

    An int32 total wraps beyond 2**31 - 1 within one window on the device; the host adds windows in
    64 bits.

    Attributes:
        dtype: name of the dtype that `total` is kept in; part of the configuration.
        total: `dtype`, shape ().

    Example:
        >>> tokens = Sum.of(jnp.array([3, 4])).update(jnp.array([5]))
        >>> tokens
        Sum(dtype='int32', total=12)
        >>> print(Sum.of(jnp.array([0.5, jnp.nan]), mask=jnp.array([True, False])).compute())
        0.5
    """

    dtype: str = "float32"
    total: jax.Array = state(scalar_of_dtype, "sum")

    @classmethod
    def of(cls, values: Any, *, mask: Any = None, dtype: str | None = None) -> Self:
        """The sum of one batch.

        Args:
            values: bool, integer or float, any shape.
            mask: bool, the shape of `values` or its leading axes. Where False a value is left out,
                whatever it is.
            dtype: what to add in; int32 for integers and bools, float32 for floats by default.

        Raises:
            LogArgumentError: a dtype or shape that does not fit.
        """
        numbers, dtype = accumulated("Sum.of", "values", values, dtype)
        if mask is not None:
            kept = leading_mask("Sum.of", mask, numbers.shape, "values")
            numbers = jnp.where(kept, numbers, jnp.zeros_like(numbers))
        return cls(dtype=dtype, total=numbers.sum(dtype=numbers.dtype))

    def compute(self) -> Any:
        """The total in its own dtype, shape (); float64 of it on the host."""
        return self.total if isinstance(self.total, jax.Array) else as_float(self.total)
