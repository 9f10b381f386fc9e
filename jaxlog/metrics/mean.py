"""`Mean`: a weighted mean kept as numerator and denominator, divided once at the end."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp

from jaxlog.metrics.array_namespace import array_namespace
from jaxlog.metrics.declaration import state
from jaxlog.metrics.inputs import broadcast_leading, leading_mask, real_array
from jaxlog.metrics.metric import Metric

__all__ = ["Mean"]


class Mean(Metric):
    """The mean of all values seen, weighted; NaN before the first.

    Attributes:
        total: float32, shape (); the sum of weight times value.
        weight: float32, shape (); the sum of weights.

    Example:
        >>> metric = Mean.of(jnp.array([1.0, 2.0])).update(jnp.array([6.0]))
        >>> print(metric.compute())
        3.0
        >>> print(Mean.of(jnp.array([1.0, jnp.nan]), mask=jnp.array([True, False])).compute())
        1.0
    """

    total: jax.Array = state(0.0, "sum")
    weight: jax.Array = state(0.0, "sum")

    @classmethod
    def of(cls, values: Any, *, weights: Any = None, mask: Any = None) -> Self:
        """The weighted sum of one batch and the sum of its weights.

        Args:
            values: bool, integer or float, any shape; summed in float32.
            weights: at least 0, the shape of `values` or its leading axes; 1 by default. A NaN
                under weight 0 still counts: leave it out by `mask`.
            mask: bool, the shape of `values` or its leading axes. Where False a value is left out,
                whatever it is.

        Raises:
            LogArgumentError: a dtype or shape that does not fit.
        """
        numbers = real_array("Mean.of", "values", values).astype(jnp.float32)
        if weights is None:
            each = jnp.ones(numbers.shape, jnp.float32)
        else:
            given = real_array("Mean.of", "weights", weights).astype(jnp.float32)
            each = broadcast_leading("Mean.of", "weights", given, numbers.shape, "values")
        terms = numbers * each
        if mask is not None:
            # where, not a product: NaN times 0 is NaN, and padding often holds NaN.
            kept = leading_mask("Mean.of", mask, numbers.shape, "values")
            terms, each = jnp.where(kept, terms, 0.0), jnp.where(kept, each, 0.0)
        return cls(total=terms.sum(), weight=each.sum())

    def compute(self) -> Any:
        """total / weight: float, shape (); NaN while the weight is 0."""
        xp = array_namespace(self.total, self.weight)
        safe = xp.where(self.weight == 0, xp.ones_like(self.weight), self.weight)
        return xp.where(self.weight == 0, xp.nan, self.total / safe)[()]
