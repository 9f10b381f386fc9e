"""`ConfusionMatrix`: counts of labels by predictions, and precision, recall and F1 from them."""

from __future__ import annotations

from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxlog.errors import LogArgumentError
from jaxlog.metrics.accuracy import checked_labels, guesses_of
from jaxlog.metrics.array_namespace import array_namespace, as_float
from jaxlog.metrics.declaration import state
from jaxlog.metrics.inputs import leading_mask
from jaxlog.metrics.metric import Metric

__all__ = ["ConfusionMatrix"]

_SCORES = ("f1", "precision", "recall", "accuracy")
_AVERAGES = ("macro", "weighted", "micro")


class ConfusionMatrix(Metric):
    """Counts of (label, prediction), and one score of them.

    A class that never occurs, neither as label nor as prediction, has no part in a macro average;
    a score that divides by zero is 0, as in scikit-learn.

    Attributes:
        num_classes: static; the classes are 0 to `num_classes - 1`.
        score: static; what `compute` gives: `"f1"`, `"precision"`, `"recall"` or `"accuracy"`.
        average: static; over classes: `"macro"`, `"weighted"` by how often each is a label, or
            `"micro"` over all examples.
        counts: int32, shape (num_classes, num_classes); row by label, column by prediction.

    Example:
        >>> labels, predictions = jnp.array([0, 1, 1, 2]), jnp.array([0, 1, 2, 2])
        >>> matrix = ConfusionMatrix.of(predictions=predictions, labels=labels, num_classes=3)
        >>> matrix.counts.tolist()
        [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
        >>> print(round(float(matrix.compute()), 4), matrix.precision(average=None))
        0.7778 [1.  1.  0.5]
    """

    num_classes: int
    score: str = "f1"
    average: str = "macro"
    counts: jax.Array = state(lambda c: np.zeros((c.num_classes,) * 2, np.int32), "sum")

    @classmethod
    def of(
        cls,
        *,
        logits: Any = None,
        predictions: Any = None,
        labels: Any,
        num_classes: int,
        mask: Any = None,
        score: Literal["f1", "precision", "recall", "accuracy"] = "f1",
        average: Literal["macro", "weighted", "micro"] = "macro",
    ) -> Self:
        """The counts of one batch; give either `logits` or `predictions`.

        Args:
            logits: float, shape [..., classes].
            predictions: integer, shape [...].
            labels: integer, shape [...]; what lies outside the classes is left out.
            num_classes: how many classes there are.
            mask: bool, the shape of `labels` or its leading axes. Where False a label is left out.
            score: what `compute` gives.
            average: how it averages over classes.

        Raises:
            LogArgumentError: a dtype or shape that does not fit, both or neither of `logits` and
                `predictions`, or an unknown score or average.
        """
        _check("score", score, _SCORES)
        _check("average", average, _AVERAGES)
        if not isinstance(num_classes, int) or num_classes < 2:
            raise LogArgumentError(
                f"ConfusionMatrix.of: num_classes={num_classes!r}; write how many classes there "
                f"are, 2 or more"
            )
        labels = checked_labels("ConfusionMatrix.of", labels)
        guesses = guesses_of("ConfusionMatrix.of", logits, predictions, labels)
        kept = (labels >= 0) & (labels < num_classes) & (guesses >= 0) & (guesses < num_classes)
        if mask is not None:
            kept = kept & leading_mask("ConfusionMatrix.of", mask, labels.shape, "labels")
        cells = (labels * num_classes + guesses).reshape(-1)
        cells = jnp.where(kept.reshape(-1), cells, jnp.full_like(cells, num_classes**2))
        counts = jnp.bincount(cells, length=num_classes**2 + 1)[:-1].astype(jnp.int32)
        shaped = counts.reshape(num_classes, num_classes)
        return cls(num_classes=num_classes, score=score, average=average, counts=shaped)

    def compute(self) -> Any:
        """The score: float, shape (), from 0 to 1; NaN of no examples."""
        if self.score == "accuracy":
            xp, hits, labels, _ = self._parts()
            total = labels.sum()
            return xp.where(total > 0, hits.sum() / xp.where(total > 0, total, 1.0), xp.nan)[()]
        return getattr(self, self.score)(average=self.average)

    def precision(self, *, average: str | None = "macro") -> Any:
        """How many predictions of a class were right: float, shape (), or (num_classes,)."""
        return self._ratio("precision", average)

    def recall(self, *, average: str | None = "macro") -> Any:
        """How many labels of a class were found: float, shape (), or (num_classes,)."""
        return self._ratio("recall", average)

    def f1(self, *, average: str | None = "macro") -> Any:
        """The harmonic mean of precision and recall: float, shape (), or (num_classes,)."""
        return self._ratio("f1", average)

    def _parts(self) -> tuple[Any, Any, Any, Any]:
        xp, counts = array_namespace(self.counts), as_float(self.counts)
        return xp, xp.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)

    def _ratio(self, score: str, average: str | None) -> Any:
        if average is not None:
            _check("average", average, _AVERAGES)
        xp, hits, labels, guesses = self._parts()
        below = {"precision": guesses, "recall": labels, "f1": (labels + guesses) / 2}[score]
        if average == "micro":
            hits, below = hits.sum(), below.sum()
            return xp.where(below > 0, hits / xp.where(below > 0, below, 1.0), xp.nan)[()]
        each = xp.where(below > 0, hits / xp.where(below > 0, below, 1.0), 0.0)
        if average is None:
            return each
        occurs = as_float(((labels + guesses) > 0).astype(np.int32))
        weights = labels if average == "weighted" else occurs
        total = weights.sum()
        mean = (each * weights).sum() / xp.where(total > 0, total, 1.0)
        return xp.where(total > 0, mean, xp.nan)[()]


def _check(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise LogArgumentError(
            f"ConfusionMatrix: {name}={value!r} is not one of {', '.join(map(repr, known))}"
        )
