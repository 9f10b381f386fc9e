"""`Variance`: how far values spread around their mean."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp

from jaxlog.errors import LogArgumentError
from jaxlog.metrics.array_namespace import array_namespace, as_float
from jaxlog.metrics.declaration import state
from jaxlog.metrics.inputs import leading_mask, real_array
from jaxlog.metrics.metric import Metric

__all__ = ["Variance"]


class Variance(Metric):
    """The variance of all values, or their standard deviation.

    States merge by the pairwise update of Chan, Golub and LeVeque (1983), which keeps its digits
    where the difference of two large sums would lose them all.

    Attributes:
        ddof: static; 0 divides by the count, 1 by one less.
        std: static; whether `compute` gives the square root.
        count: float32, shape (); values seen.
        mean: float32, shape (); their mean.
        deviation: float32, shape (); the sum of squared distances from it.

    Example:
        >>> print(Variance.of(jnp.array([1.0, 2.0, 3.0, 4.0])).compute())
        1.25
        >>> print(Variance.of(jnp.array([1.0, 3.0]), ddof=1, std=True).compute())
        1.4142135
    """

    ddof: int = 0
    std: bool = False
    count: jax.Array = state(0.0, reduce="sum")
    mean: jax.Array = state(0.0, reduce="sum")
    deviation: jax.Array = state(0.0, reduce="sum")

    @classmethod
    def of(cls, values: Any, *, mask: Any = None, ddof: int = 0, std: bool = False) -> Self:
        """The state of one batch.

        Args:
            values: real numbers, any shape.
            mask: bool, the shape of `values` or its leading axes; False does not count.
            ddof: 0 for the variance of what was seen, 1 for an estimate of where it came from.
            std: whether to give the standard deviation.

        Raises:
            LogArgumentError: no real numbers, a mask that does not fit, or a negative `ddof`.
        """
        if not isinstance(ddof, int) or ddof < 0:
            raise LogArgumentError(f"Variance.of: ddof={ddof!r}; write ddof=0 or ddof=1")
        array = as_float(real_array("Variance.of", "values", values))
        kept = jnp.ones(array.shape, jnp.bool_)
        if mask is not None:
            kept = leading_mask("Variance.of", mask, array.shape, "values")
        count = kept.sum(dtype=array.dtype)
        some = jnp.maximum(count, jnp.ones_like(count))
        zero = jnp.zeros_like(array)
        mean = jnp.where(kept, array, zero).sum() / some
        deviation = jnp.where(kept, jnp.square(array - mean), zero).sum()
        return cls(ddof=ddof, std=std, count=count, mean=mean, deviation=deviation)

    def merge(self, other: Any) -> Self:
        """The state of both.

        Raises:
            LogArgumentError: `other` is of another class or configuration.
        """
        self._check_mergeable(other)
        leaves = (*self._leaves().values(), *other._leaves().values())
        xp = array_namespace(*leaves)
        count = self.count + other.count
        some = xp.where(count > 0, count, xp.ones_like(count))
        share = other.count / some
        apart = other.mean - self.mean
        # Equal means stay to the bit, and an empty side changes nothing.
        mean = xp.where(other.count > 0, self.mean + apart * share, self.mean)
        mean = xp.where(self.count > 0, mean, other.mean)
        between = apart * apart * self.count * share
        between = xp.where((self.count > 0) & (other.count > 0), between, xp.zeros_like(between))
        deviation = self.deviation + other.deviation + between
        return self._with_leaves({"count": count, "mean": mean, "deviation": deviation})

    def compute(self) -> Any:
        """The variance or its root: float, shape (); NaN for `ddof` values or fewer."""
        xp = array_namespace(*self._leaves().values())
        deviation, free = as_float(self.deviation), as_float(self.count) - self.ddof
        variance = xp.where(free > 0, deviation / xp.where(free > 0, free, 1.0), xp.nan)
        return (xp.sqrt(variance) if self.std else variance)[()]
