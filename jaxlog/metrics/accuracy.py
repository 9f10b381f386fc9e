"""`Accuracy`: the share of right predictions, kept as two integer counts."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxlog.errors import LogArgumentError
from jaxlog.metrics.array_namespace import array_namespace, as_float
from jaxlog.metrics.declaration import state
from jaxlog.metrics.inputs import leading_mask, real_array
from jaxlog.metrics.metric import Metric

__all__ = ["Accuracy"]


class Accuracy(Metric):
    """The share of labels that were predicted, from 0 to 1; NaN before the first label.

    Attributes:
        correct: int32, shape (); labels predicted.
        total: int32, shape (); labels seen.

    Example:
        >>> logits = jnp.array([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [1.0, 0.0]])
        >>> metric = Accuracy.of(logits=logits, labels=jnp.array([0, 1, 1, 0]))
        >>> metric
        Accuracy(correct=3, total=4)
        >>> print(metric.compute())
        0.75
    """

    correct: jax.Array = state(0, "sum")
    total: jax.Array = state(0, "sum")

    @classmethod
    def of(
        cls,
        *,
        logits: Any = None,
        predictions: Any = None,
        labels: Any,
        mask: Any = None,
        top_k: int = 1,
        ignore_index: int | None = None,
    ) -> Self:
        """The counts of one batch; give either `logits` or `predictions`.

        Args:
            logits: float, shape [..., classes]; logits or probabilities. Of equal ones the lowest
                class wins, as in `jnp.argmax`.
            predictions: integer, shape [...].
            labels: integer, shape [...]; a label outside the classes counts as wrong.
            mask: bool, the shape of `labels` or its leading axes. Where False a label is left out.
            top_k: from 1 to classes; a label counts as predicted when it is among the `top_k`
                largest logits.
            ignore_index: labels equal to it are left out.

        Raises:
            LogArgumentError: a dtype or shape that does not fit, both or neither of `logits` and
                `predictions`, or a `top_k` out of range.
        """
        labels = checked_labels("Accuracy.of", labels)
        _check_either("Accuracy.of", logits, predictions)
        if logits is not None:
            hits = _hits_of_logits(logits, labels, top_k)
        else:
            hits = _hits_of_predictions(predictions, labels, top_k)
        kept = jnp.ones(labels.shape, jnp.bool_)
        if mask is not None:
            kept = leading_mask("Accuracy.of", mask, labels.shape, "labels")
        if ignore_index is not None:
            kept = kept & (labels != ignore_index)
        return cls(correct=(hits & kept).sum(dtype=jnp.int32), total=kept.sum(dtype=jnp.int32))

    def compute(self) -> Any:
        """correct / total: float, shape (), from 0 to 1; NaN while total is 0."""
        xp = array_namespace(self.correct, self.total)
        correct, total = as_float(self.correct), as_float(self.total)
        return xp.where(total > 0, correct / xp.where(total > 0, total, 1.0), xp.nan)[()]


def checked_labels(where: str, labels: Any) -> jax.Array:
    """Labels as integers.

    Raises:
        LogArgumentError: they are none.
    """
    return _class_indices(where, "labels", labels)


def guesses_of(where: str, logits: Any, predictions: Any, labels: jax.Array) -> jax.Array:
    """The predicted classes: integers of the shape of `labels`.

    Raises:
        LogArgumentError: both or neither are given, or they do not fit the labels.
    """
    _check_either(where, logits, predictions)
    if logits is not None:
        logits = real_array(where, "logits", logits)
        _check_logits(where, logits, labels)
        return logits.argmax(-1).astype(labels.dtype)
    predictions = _class_indices(where, "predictions", predictions)
    _check_one_to_one(where, predictions, labels)
    return predictions.astype(labels.dtype)


def _check_either(where: str, logits: Any, predictions: Any) -> None:
    if (logits is None) == (predictions is None):
        raise LogArgumentError(
            f"{where}: got {'neither' if logits is None else 'both'} of logits and "
            f"predictions; write {where}(logits=logits, labels=labels) for class scores "
            f"or {where}(predictions=classes, labels=labels) for class indices"
        )


def _class_indices(where: str, name: str, value: Any) -> jax.Array:
    array = real_array(where, name, value)
    if not (array.dtype == jnp.bool_ or jnp.issubdtype(array.dtype, np.integer)):
        cause, fix = (
            ("one-hot or soft labels", "labels=labels.argmax(-1)")
            if name == "labels"
            else ("logits or probabilities", "logits=predictions instead")
        )
        raise LogArgumentError(
            f"{where}: {name} has dtype {array.dtype} and shape {array.shape}, but class "
            f"indices are integers; if these are {cause}, write {fix}"
        )
    return array.astype(jnp.int32) if array.dtype == jnp.bool_ else array


def _hits_of_logits(logits: Any, labels: jax.Array, top_k: int) -> jax.Array:
    """Whether each label is among the `top_k` largest logits: bool, the labels' shape."""
    logits = real_array("Accuracy.of", "logits", logits)
    _check_logits("Accuracy.of", logits, labels)
    classes = logits.shape[-1]
    if not 1 <= top_k <= classes:
        raise LogArgumentError(
            f"Accuracy.of: top_k={top_k}, but logits of shape {logits.shape} have {classes} "
            f"classes; write a top_k from 1 to {classes}"
        )
    if top_k == 1:
        return logits.argmax(-1) == labels.astype(jnp.int32)
    guesses = jax.lax.top_k(logits, top_k)[1]
    return (guesses == labels.astype(guesses.dtype)[..., None]).any(-1)


def _check_logits(where: str, logits: jax.Array, labels: jax.Array) -> None:
    if not jnp.issubdtype(logits.dtype, np.floating):
        raise LogArgumentError(
            f"{where}: logits has dtype {logits.dtype}, but logits are floats; if these are "
            f"class indices, write predictions=logits"
        )
    if logits.shape[:-1] == labels.shape and logits.ndim > 0:
        if logits.shape[-1] > 1:
            return
        raise LogArgumentError(
            f"{where}: logits has shape {logits.shape}, a single class, which is always the "
            f"largest; for a binary logit write predictions=logits[..., 0] > 0"
        )
    if logits.shape == labels.shape:
        cause = "if the labels are one-hot, write labels=labels.argmax(-1)"
    elif labels.shape == (*logits.shape[:-1], 1):
        cause = "the labels have an axis of length 1 too many; write labels=labels[..., 0]"
    else:
        cause = "check that both come from the same batch and that classes are the last axis"
    raise LogArgumentError(
        f"{where}: logits has shape {logits.shape} and labels has shape {labels.shape}, but "
        f"labels take the shape of logits without its last axis, {logits.shape[:-1]}; {cause}"
    )


def _hits_of_predictions(predictions: Any, labels: jax.Array, top_k: int) -> jax.Array:
    """Whether each label was predicted: bool, the labels' shape."""
    predictions = _class_indices("Accuracy.of", "predictions", predictions)
    if top_k != 1:
        raise LogArgumentError(
            f"Accuracy.of: top_k={top_k} needs the scores of all classes, but got predictions; "
            f"write logits=scores"
        )
    _check_one_to_one("Accuracy.of", predictions, labels)
    # numpy's rule, since jax's refuses to mix integer dtypes under strict promotion.
    wide = np.promote_types(predictions.dtype, labels.dtype)
    common = jax.dtypes.canonicalize_dtype(wide)
    return predictions.astype(common) == labels.astype(common)


def _check_one_to_one(where: str, predictions: jax.Array, labels: jax.Array) -> None:
    if predictions.shape != labels.shape:
        raise LogArgumentError(
            f"{where}: predictions has shape {predictions.shape} and labels has shape "
            f"{labels.shape}, but they go one to one; if predictions hold scores per class, write "
            f"logits=predictions"
        )
