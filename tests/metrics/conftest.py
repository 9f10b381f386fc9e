"""The fixture `case`: every metric, with a float64 oracle; and strict promotion everywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlog.metrics import Accuracy, Last, Max, Mean, Metric, Min, Sum, state


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
