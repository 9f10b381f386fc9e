"""`AUROC`: how often a positive scores above a negative, from binned scores."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxlog.errors import LogArgumentError
from jaxlog.metrics.accuracy import checked_labels
from jaxlog.metrics.array_namespace import array_namespace, as_float
from jaxlog.metrics.declaration import state
from jaxlog.metrics.inputs import leading_mask, real_array
from jaxlog.metrics.metric import Metric

__all__ = ["AUROC"]


class AUROC(Metric):
    """The area under the ROC curve: the share of (positive, negative) pairs in the right order.

    Scores fall into bins of equal width; a pair in one bin counts half, as a tie does. So the value
    is off by at most half the share of pairs that fall into one bin, and exact where every bin
    holds one distinct score. (Mann and Whitney, 1947; ties as Hanley and McNeil, 1982.)

    Attributes:
        bins: static; how many.
        positives: int32, shape (bins,); examples with label 1, from low scores to high.
        negatives: int32, shape (bins,); examples with label 0.

    Example:
        >>> scores, labels = jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1])
        >>> print(AUROC.of(scores=scores, labels=labels).compute())
        0.75
    """

    bins: int = 1000
    positives: jax.Array = state(lambda c: np.zeros(c.bins, np.int32), "sum")
    negatives: jax.Array = state(lambda c: np.zeros(c.bins, np.int32), "sum")

    @classmethod
    def of(cls, *, scores: Any, labels: Any, mask: Any = None, bins: int = 1000) -> Self:
        """The counts of one batch.

        Args:
            scores: float, shape [...]; probabilities of label 1, from 0 to 1. What lies outside
                falls into the first or the last bin; NaN is left out.
            labels: integer or bool, the shape of `scores`; 0 or 1, others are left out.
            mask: bool, the shape of `labels` or its leading axes. Where False an example is left
                out.
            bins: how many bins from 0 to 1.

        Raises:
            LogArgumentError: shapes or dtypes that do not fit, or fewer than two bins.
        """
        if not isinstance(bins, int) or bins < 2:
            raise LogArgumentError(f"AUROC.of: bins={bins!r}; write an int of 2 or more")
        values = as_float(real_array("AUROC.of", "scores", scores))
        labels = checked_labels("AUROC.of", labels)
        if values.shape != labels.shape:
            raise LogArgumentError(
                f"AUROC.of: scores has shape {values.shape} and labels has shape {labels.shape}, "
                f"but they go one to one; of two classes pass the scores of the second: "
                f"scores=probabilities[..., 1]"
            )
        kept = ~jnp.isnan(values)
        if mask is not None:
            kept = kept & leading_mask("AUROC.of", mask, labels.shape, "labels")
        scaled = jnp.where(kept, values, jnp.zeros_like(values)) * bins
        index = jnp.clip(jnp.floor(scaled), 0, bins - 1).astype(jnp.int32)

        def count(wanted: int) -> jax.Array:
            chosen = jnp.where(kept & (labels == wanted), index, jnp.full_like(index, bins))
            return jnp.bincount(chosen.reshape(-1), length=bins + 1)[:-1].astype(jnp.int32)

        return cls(bins=bins, positives=count(1), negatives=count(0))

    def compute(self) -> Any:
        """The area: float, shape (), from 0 to 1; NaN without a positive or without a negative."""
        xp = array_namespace(self.positives, self.negatives)
        positives, negatives = as_float(self.positives), as_float(self.negatives)
        pairs = positives.sum() * negatives.sum()
        below = xp.cumsum(negatives) - negatives
        right = (positives * (below + negatives / 2)).sum()
        return xp.where(pairs > 0, right / xp.where(pairs > 0, pairs, 1.0), xp.nan)[()]
