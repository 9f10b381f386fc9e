"""`Min` and `Max`: the smallest and the largest value seen."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxlog.metrics.accumulator_dtype import accumulated, scalar_of_dtype
from jaxlog.metrics.array_namespace import array_namespace, as_float
from jaxlog.metrics.declaration import state
from jaxlog.metrics.inputs import leading_mask
from jaxlog.metrics.metric import Metric
from jaxlog.metrics.reductions import REDUCTIONS, Reduce

__all__ = ["Max", "Min"]


class Min(Metric):
    """The smallest value seen; +inf before the first. A NaN makes it NaN.

    Attributes:
        dtype: name of the dtype that `value` is kept in; part of the configuration.
        value: `dtype`, shape ().

    Example:
        >>> print(Min.of(jnp.array([3.0, 2.0])).update(jnp.array([5.0])).compute())
        2.0
        >>> print(Min.empty().compute())
        inf
    """

    dtype: str = "float32"
    value: jax.Array = state(scalar_of_dtype, "min")

    @classmethod
    def of(cls, values: Any, *, mask: Any = None, dtype: str | None = None) -> Self:
        """The smallest value of one batch; the neutral element if the batch has none.

        Args:
            values: bool, integer or float, any shape.
            mask: bool, the shape of `values` or its leading axes. Where False a value is left out,
                whatever it is.
            dtype: what to keep; int32 for integers and bools, float32 for floats by default.

        Raises:
            LogArgumentError: a dtype or shape that does not fit.
        """
        numbers, dtype = _kept_values("Min.of", values, mask, dtype, "min")
        return cls(dtype=dtype, value=REDUCTIONS["min"].fold(numbers))

    def compute(self) -> Any:
        """The minimum: float, shape (). An integer state at its dtype's most counts as empty."""
        return _number_or_infinity(self.value, self.dtype, "min")


class Max(Metric):
    """The largest value seen; -inf before the first. A NaN makes it NaN.

    Attributes:
        dtype: name of the dtype that `value` is kept in; part of the configuration.
        value: `dtype`, shape ().

    Example:
        >>> print(Max.of(jnp.array([3.0, 2.0])).update(jnp.array([5.0])).compute())
        5.0
        >>> print(Max.empty().compute())
        -inf
    """

    dtype: str = "float32"
    value: jax.Array = state(scalar_of_dtype, "max")

    @classmethod
    def of(cls, values: Any, *, mask: Any = None, dtype: str | None = None) -> Self:
        """The largest value of one batch; the neutral element if the batch has none.

        Args:
            values: bool, integer or float, any shape.
            mask: bool, the shape of `values` or its leading axes. Where False a value is left out,
                whatever it is.
            dtype: what to keep; int32 for integers and bools, float32 for floats by default.

        Raises:
            LogArgumentError: a dtype or shape that does not fit.
        """
        numbers, dtype = _kept_values("Max.of", values, mask, dtype, "max")
        return cls(dtype=dtype, value=REDUCTIONS["max"].fold(numbers))

    def compute(self) -> Any:
        """The maximum: float, shape (). An integer state at its dtype's least counts as empty."""
        return _number_or_infinity(self.value, self.dtype, "max")


def _kept_values(
    where: str, values: Any, mask: Any, dtype: str | None, reduce: Reduce
) -> tuple[jax.Array, str]:
    """The values, the neutral element in place of the masked ones, and the name of their dtype."""
    numbers, name = accumulated(where, "values", values, dtype)
    if mask is not None:
        kept = leading_mask(where, mask, numbers.shape, "values")
        neutral = REDUCTIONS[reduce].identity(numbers.dtype)
        numbers = jnp.where(kept, numbers, jnp.full_like(numbers, neutral))
    return numbers, name


def _number_or_infinity(value: Any, dtype: str, reduce: Reduce) -> Any:
    """`value` as a float, and infinity in place of an integer neutral element."""
    if np.dtype(dtype).kind == "f":
        return as_float(value)
    # The declared dtype's neutral element, also when the host has promoted the leaf to 64 bits.
    neutral = REDUCTIONS[reduce].identity(np.dtype(dtype))
    infinity = REDUCTIONS[reduce].limit
    return array_namespace(value).where(value == neutral, infinity, as_float(value))[()]
