"""`Histogram`: how many values fall into each bucket, counted on the device."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxlog.errors import LogArgumentError
from jaxlog.metrics.array_namespace import array_namespace, as_float
from jaxlog.metrics.declaration import state
from jaxlog.metrics.inputs import leading_mask, real_array
from jaxlog.metrics.metric import Metric

__all__ = ["Histogram"]


class Histogram(Metric):
    """Counts of values between fixed edges. As a logged number it is their mean.

    A `Loop` also hands the counts to loggers, for TensorBoard's Histograms: those of an epoch, and
    with `on_step=True` those of all the steps since the loop last wrote.

    Attributes:
        edges: static; increasing. Bucket 0 lies below the first, bucket i between edge `i - 1`
            (within) and edge `i` (without), the last above the last edge.
        counts: int32, shape (len(edges) + 1,).
        total: float32, shape (); the sum of the values.

    Example:
        >>> metric = Histogram.of(jnp.array([-1.0, 0.5, 0.7, 2.0]), edges=(0.0, 1.0))
        >>> metric.counts.tolist(), float(metric.compute())
        ([1, 2, 1], 0.550000011920929)
        >>> Histogram.exponents(-2, 1)
        (-2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0)
    """

    edges: tuple[float, ...]
    counts: jax.Array = state(lambda c: np.zeros(len(c.edges) + 1, np.int32), "sum")
    total: jax.Array = state(0.0, "sum")

    @staticmethod
    def exponents(low: int, high: int) -> tuple[float, ...]:
        """Edges at the powers of two from `2**low` to `2**high`, of both signs, and at 0.

        Raises:
            LogArgumentError: `low` is not below `high`, or they leave the range of float32.
        """
        if not -126 <= low < high <= 127:
            raise LogArgumentError(
                f"Histogram.exponents({low}, {high}): write low < high, from -126 to 127"
            )
        powers = [math.ldexp(1.0, exponent) for exponent in range(low, high + 1)]
        return (*(-power for power in reversed(powers)), 0.0, *powers)

    @classmethod
    def of(cls, values: Any, *, edges: Sequence[float], mask: Any = None) -> Self:
        """The counts of one batch.

        Args:
            values: real numbers, any shape; NaN is left out, and XLA takes subnormal numbers, those
                smaller than 1.2e-38, for 0.
            edges: increasing finite numbers, at least one; `Histogram.exponents(-20, 20)` for
                values of unknown size, `np.linspace(0, 1, 51)` for known ones.
            mask: bool, the shape of `values` or its leading axes; False does not count.

        Raises:
            LogArgumentError: no real numbers, or edges that do not increase.
        """
        fixed = tuple(float(edge) for edge in np.asarray(edges).ravel())
        increasing = all(a < b for a, b in itertools.pairwise(fixed))
        if not fixed or not increasing or not all(map(math.isfinite, fixed)):
            raise LogArgumentError(
                f"Histogram.of: edges={edges!r}; write increasing finite numbers, for instance "
                f"edges=np.linspace(0, 1, 51), or edges=Histogram.exponents(-20, 20)"
            )
        array = as_float(real_array("Histogram.of", "values", values))
        kept = ~jnp.isnan(array)
        if mask is not None:
            kept = kept & leading_mask("Histogram.of", mask, array.shape, "values")
        borders = jnp.asarray(np.asarray(fixed), array.dtype)
        # The bisection unrolled is one elementwise kernel: on a CPU twice as fast as a loop.
        index = jnp.searchsorted(
            borders, array.reshape(-1), side="right", method="scan_unrolled"
        ).astype(jnp.int32)
        size = len(fixed) + 1
        chosen = jnp.where(kept.reshape(-1), index, jnp.full_like(index, size))
        counts = jnp.bincount(chosen, length=size + 1)[:-1].astype(jnp.int32)
        total = jnp.where(kept, array, jnp.zeros_like(array)).sum()
        return cls(edges=fixed, counts=counts, total=total)

    def buckets(self) -> tuple[Any, Any]:
        """`(edges, counts)`; a metric that has this method is shown as a histogram."""
        return np.asarray(self.edges), self.counts

    def compute(self) -> Any:
        """The mean of the values: float, shape (); NaN of none."""
        xp = array_namespace(self.counts, self.total)
        count = as_float(self.counts.sum())
        return xp.where(count > 0, as_float(self.total) / xp.where(count > 0, count, 1.0), xp.nan)[
            ()
        ]
