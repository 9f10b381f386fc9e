"""The fixture `case`: every metric, with a float64 oracle; and strict promotion everywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlog.metrics import (
    AUROC,
    Accuracy,
    ConfusionMatrix,
    Histogram,
    Last,
    Max,
    Mean,
    Metric,
    Min,
    Quantiles,
    Sum,
    Variance,
    state,
)


class Everything(Metric):
    """A user's metric: vector states sized by configuration, one state of each reduction."""

    num_classes: int = 3
    counts: jax.Array = state(lambda c: np.zeros(c.num_classes, np.int32), "sum")
    average: jax.Array = state(np.zeros(2, np.float32), "mean")
    lowest: jax.Array = state(0, "min")
    highest: jax.Array = state(0.0, reduce="max")

    @classmethod
    def of(cls, x: jax.Array, *, num_classes: int = 3) -> Self:
        classes = jnp.floor(jnp.abs(x)).astype(jnp.int32) % num_classes
        return cls(
            num_classes=num_classes,
            counts=(classes[:, None] == jnp.arange(num_classes, dtype=jnp.int32)[None]).sum(0),
            average=jnp.stack([x.mean(), jnp.abs(x).mean()]),
            lowest=classes.min(),
            highest=x.max(),
        )

    def compute(self) -> Any:
        seen, lowest = (x.astype(self.average.dtype) for x in (self.counts.sum(), self.lowest))
        return seen * self.average[1] + lowest + self.highest


@dataclasses.dataclass(frozen=True)
class Case:
    """`of` builds the metric from one batch; `oracle` gives the number for all of them."""

    name: str
    empty: Callable[[], Metric]
    of: Callable[[jax.Array], Metric]
    oracle: Callable[[np.ndarray], float]

    def __str__(self) -> str:
        return self.name


def _accuracy(x: jax.Array) -> Metric:
    return Accuracy.of(predictions=x.astype(jnp.int32), labels=jnp.zeros(x.shape, jnp.int32))


def _masked_mean(x: jax.Array) -> Metric:
    padded = jnp.concatenate([x, jnp.full_like(x, jnp.nan)])
    return Mean.of(padded, mask=jnp.arange(padded.size) < x.size)


EDGES = (-5.0, -0.5, 0.0, 0.5, 5.0)


def _confusion(x: jax.Array) -> Metric:
    size = jnp.abs(x).astype(jnp.int32)
    return ConfusionMatrix.of(
        predictions=size % 3, labels=size % 2, num_classes=3, score="accuracy"
    )


def _auroc(x: jax.Array) -> Metric:
    # A positive and a negative example each, so that no batch is without one.
    scores = jnp.stack([jnp.abs(x), jnp.abs(x) * 0.5]) / 16.0
    return AUROC.of(scores=scores, labels=jnp.stack([jnp.ones_like(x), 0.0 * x]) > 0, bins=64)


def _auroc_oracle(x: np.ndarray) -> float:
    high, low = (np.clip(np.floor(64 * np.abs(x) * f / 16), 0, 63) for f in (1.0, 0.5))
    above = (high[:, None] > low[None]).mean()
    return float(above + (high[:, None] == low[None]).mean() / 2)


def _everything(x: np.ndarray) -> float:
    classes = np.floor(np.abs(x)).astype(int) % 5
    return x.size * np.abs(x).mean() + classes.min() + x.max()


CASES = [
    Case("mean", Mean.empty, Mean.of, lambda x: x.mean()),
    Case("masked mean", Mean.empty, _masked_mean, lambda x: x.mean()),
    Case(
        "weighted mean",
        Mean.empty,
        lambda x: Mean.of(x, weights=jnp.abs(x) + 1.0),
        lambda x: np.average(x, weights=np.abs(x) + 1.0),
    ),
    Case("sum", Sum.empty, Sum.of, lambda x: x.sum()),
    Case(
        "integer sum",
        lambda: Sum.empty(dtype="int32"),
        lambda x: Sum.of(x.astype(jnp.int32)),
        lambda x: np.trunc(x).sum(),
    ),
    Case("min", Min.empty, Min.of, lambda x: x.min()),
    Case("max", Max.empty, Max.of, lambda x: x.max()),
    Case(
        "integer max",
        lambda: Max.empty(dtype="int32"),
        lambda x: Max.of(x.astype(jnp.int32)),
        lambda x: np.trunc(x).max(),
    ),
    Case("last", Last.empty, lambda x: Last.of(x[-1]), lambda x: x[-1]),
    Case("variance", Variance.empty, Variance.of, lambda x: x.var()),
    Case(
        "standard deviation",
        lambda: Variance.empty(ddof=1, std=True),
        lambda x: Variance.of(x, ddof=1, std=True),
        lambda x: x.std(ddof=1),
    ),
    Case(
        "histogram",
        lambda: Histogram.empty(edges=EDGES),
        lambda x: Histogram.of(x, edges=EDGES),
        lambda x: x.mean(),
    ),
    Case(
        "confusion matrix",
        lambda: ConfusionMatrix.empty(num_classes=3, score="accuracy"),
        _confusion,
        lambda x: (np.abs(x).astype(int) % 3 == np.abs(x).astype(int) % 2).mean(),
    ),
    Case("auroc", lambda: AUROC.empty(bins=64), _auroc, _auroc_oracle),
    Case(
        "quantiles",
        lambda: Quantiles.empty(q=1.0, relative_error=0.05),
        lambda x: Quantiles.of(jnp.round(x) * 0 + 1.0, q=1.0, relative_error=0.05),
        lambda x: float(Quantiles.of(np.float32(1), relative_error=0.05).to_host().quantile(1.0)),
    ),
    Case("accuracy", Accuracy.empty, _accuracy, lambda x: (np.trunc(x) == 0).mean()),
    Case(
        "everything",
        lambda: Everything.empty(num_classes=5),
        lambda x: Everything.of(x, num_classes=5),
        _everything,
    ),
]


@pytest.fixture(params=CASES, ids=str, scope="session")
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(autouse=True)
def strict_promotion() -> Iterator[None]:
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
