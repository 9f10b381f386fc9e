"""`Quantiles`: a quantile of everything that was seen, within a stated relative error."""

from __future__ import annotations

import math
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxlog.errors import LogArgumentError
from jaxlog.metrics.array_namespace import array_namespace, as_float
from jaxlog.metrics.buckets import count_in, log_index
from jaxlog.metrics.declaration import state
from jaxlog.metrics.inputs import leading_mask, real_array
from jaxlog.metrics.metric import Metric

__all__ = ["Quantiles"]


class Quantiles(Metric):
    """A quantile of all values, from a sketch of fixed size that merges by addition.

    The sketch is DDSketch (Masson, Rim and Lee, 2019) with a fixed range: values of each sign fall
    into buckets whose ends grow by `(1 + relative_error) / (1 - relative_error)`. The answer lies
    within `relative_error` of the value at rank `floor(q * (count - 1))`, where that value's
    magnitude is between `least` and `greatest`; one below `least` counts as 0, one above as
    `greatest`. (float32 logarithms add about 1e-5 to the error.)

    Attributes:
        q: static; which quantile, from 0 to 1.
        relative_error: static.
        least: static; the smallest magnitude that is told from 0.
        greatest: static; the largest magnitude.
        negative: int32, shape (buckets,); values below 0, by magnitude.
        zero: int32, shape (); values around 0.
        positive: int32, shape (buckets,); values above 0, by magnitude.

    Example:
        >>> metric = Quantiles.of(jnp.arange(1.0, 101.0), q=0.9)
        >>> bool(abs(metric.compute() - 90) <= 0.01 * 90 + 1e-3)
        True
        >>> bool(abs(metric.quantile(0.5) - 50) <= 0.01 * 50 + 1e-3)
        True
    """

    q: float = 0.5
    relative_error: float = 0.01
    least: float = 1e-6
    greatest: float = 1e6
    negative: jax.Array = state(lambda c: np.zeros(_count(c), np.int32), "sum")
    zero: jax.Array = state(0, "sum")
    positive: jax.Array = state(lambda c: np.zeros(_count(c), np.int32), "sum")

    @classmethod
    def of(
        cls,
        values: Any,
        *,
        q: float = 0.5,
        mask: Any = None,
        relative_error: float = 0.01,
        least: float = 1e-6,
        greatest: float = 1e6,
    ) -> Self:
        """The sketch of one batch.

        Args:
            values: real numbers, any shape; NaN is left out.
            q: which quantile `compute` gives, from 0 to 1.
            mask: bool, the shape of `values` or its leading axes; False does not count.
            relative_error: from 0.001 to 0.5; the smaller, the more buckets.
            least: the smallest magnitude that is told from 0.
            greatest: the largest magnitude.

        Raises:
            LogArgumentError: no real numbers, or an argument out of its range.
        """
        config = {"q": q, "relative_error": relative_error, "least": least, "greatest": greatest}
        _check(**config)
        empty = cls.empty(**{name: float(value) for name, value in config.items()})
        array = as_float(real_array("Quantiles.of", "values", values))
        kept = ~jnp.isnan(array)
        if mask is not None:
            kept = kept & leading_mask("Quantiles.of", mask, array.shape, "values")
        size = jnp.abs(array)
        told = kept & (size >= jnp.asarray(least, array.dtype))
        count = _count(empty)
        index = log_index(jnp.where(told, size, jnp.ones_like(size)), least, empty._growth, count)
        return empty._with_leaves(
            {
                "negative": count_in(index, told & (array < 0), count),
                "zero": (kept & ~told).sum(dtype=jnp.int32),
                "positive": count_in(index, told & (array > 0), count),
            }
        )

    @property
    def _growth(self) -> float:
        return (1 + self.relative_error) / (1 - self.relative_error)

    def compute(self) -> Any:
        """The quantile `q`: float, shape (); NaN of no values."""
        return self.quantile(self.q)

    def quantile(self, q: float) -> Any:
        """Any quantile, from 0 to 1: float, shape (); NaN of no values."""
        xp = array_namespace(self.negative, self.zero, self.positive)
        # From the lowest value to the highest.
        parts = (self.negative[::-1], self.zero.reshape(1), self.positive)
        counts = xp.concatenate(parts)
        total = counts.sum()
        size = len(self.positive)
        # The bucket of the middle of (g**(i-1), g**i], in the sense of relative error.
        ends = self.least * self._growth ** np.arange(size)
        middles = np.minimum(2 * ends / (self._growth + 1), self.greatest)
        middles[0] = self.least
        values = xp.asarray(np.concatenate([-middles[::-1], [0.0], middles]), as_float(total).dtype)
        rank = xp.floor(q * as_float(xp.maximum(total - 1, 0 * total)))
        at = (as_float(xp.cumsum(counts)) <= rank).sum()
        at = xp.minimum(at, len(values) - 1)
        return xp.where(total > 0, values[at], xp.nan)[()]


def _check(*, q: float, relative_error: float, least: float, greatest: float) -> None:
    ranges = (
        ("q", q, "from 0 to 1", 0 <= q <= 1),
        ("relative_error", relative_error, "from 0.001 to 0.5", 0.001 <= relative_error <= 0.5),
        ("least", least, "more than 0", least > 0),
        ("greatest", greatest, "more than least", greatest > least),
    )
    wrong = [f"{name}={value!r} ({range_})" for name, value, range_, fits in ranges if not fits]
    if wrong:
        raise LogArgumentError(f"Quantiles.of: out of range: {', '.join(wrong)}")


def _count(config: Any) -> int:
    """How many buckets reach from `least` to `greatest`."""
    growth = (1 + config.relative_error) / (1 - config.relative_error)
    return math.ceil(math.log(config.greatest / config.least) / math.log(growth)) + 1
