"""The laws hold of what ships and of what CLU and metrax ship; a broken metric breaks its law."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlog
from jaxlog.errors import LogArgumentError
from jaxlog.metrics import Foreign, as_metric
from jaxlog.testing import MetricLaws

RNG = np.random.default_rng(0)
X = [jnp.asarray(RNG.normal(2, 1, 6).astype(np.float32)) for _ in range(4)]
LABELS = [jnp.asarray(RNG.integers(0, 3, 6)) for _ in range(4)]
GUESSES = [jnp.asarray(RNG.integers(0, 3, 6)) for _ in range(4)]


def _foreign(module: str, make: Callable[[Any, Any, Any], Any]) -> Callable[[], list[Any]]:
    def states() -> list[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of their own dependencies
            library = pytest.importorskip(module)
        return [as_metric(make(library, x, y)) for x, y in zip(X, LABELS, strict=True)]

    return states


MADE: dict[str, Callable[[], Sequence[Any]]] = {
    "Mean": lambda: [jaxlog.Mean.of(x, weights=jnp.abs(x)) for x in X],
    "Sum": lambda: [jaxlog.Sum.of(x) for x in X],
    "Min": lambda: [jaxlog.Min.of(x) for x in X],
    "Max": lambda: [jaxlog.Max.of(x) for x in X],
    "Last": lambda: [jaxlog.Last.of(x[0]) for x in X],
    "Variance": lambda: [jaxlog.Variance.of(x) for x in X],
    "Accuracy": lambda: [
        jaxlog.Accuracy.of(predictions=g, labels=y) for g, y in zip(GUESSES, LABELS, strict=True)
    ],
    "ConfusionMatrix": lambda: [
        jaxlog.ConfusionMatrix.of(predictions=g, labels=y, num_classes=3)
        for g, y in zip(GUESSES, LABELS, strict=True)
    ],
    "AUROC": lambda: [
        jaxlog.AUROC.of(scores=x / 8, labels=y > 0, bins=16) for x, y in zip(X, LABELS, strict=True)
    ],
    "Histogram": lambda: [jaxlog.Histogram.of(x, edges=(0.0, 1.0, 2.0)) for x in X],
    "Quantiles": lambda: [jaxlog.Quantiles.of(x, relative_error=0.05) for x in X],
    "clu Average": _foreign("clu.metrics", lambda m, x, _: m.Average.from_model_output(x)),
    "clu Accuracy": _foreign(
        "clu.metrics",
        lambda m, x, y: m.Accuracy.from_model_output(
            logits=jnp.stack([x, -x, x * x], axis=1), labels=y
        ),
    ),
    "metrax MSE": _foreign(
        "metrax", lambda m, x, y: m.MSE.from_model_output(x, y.astype(jnp.float32))
    ),
    "metrax RSQUARED": _foreign(
        "metrax", lambda m, x, y: m.RSQUARED.from_model_output(x, y.astype(jnp.float32))
    ),
}


@pytest.mark.parametrize("name", MADE)
class TestWhatShips(MetricLaws):
    name: str

    @pytest.fixture(autouse=True)
    def _named(self, name: str) -> None:
        self.name = name

    def states(self) -> Sequence[Any]:
        return MADE[self.name]()


for _law in [law for law in vars(MetricLaws) if law.startswith("test_")]:

    def _run(self: Any, name: str, _law: str = _law) -> None:
        del name
        getattr(MetricLaws, _law)(self)

    setattr(TestWhatShips, _law, _run)


# ---- laws that can fail -------------------------------------------------------------------------


class Drifting(jaxlog.Metric):
    """Averages averages: neither associative nor with an identity."""

    value: jax.Array = jaxlog.state(0.0, reduce="sum")

    @classmethod
    def of(cls, x: Any) -> Drifting:
        return cls(value=x.mean())

    def merge(self, other: Any) -> Drifting:
        return Drifting(value=(self.value + other.value) / 2)

    def compute(self) -> Any:
        return self.value


class Vector(jaxlog.Metric):
    """Computes two numbers."""

    total: jax.Array = jaxlog.state(np.zeros(2), reduce="sum")

    @classmethod
    def of(cls, x: Any) -> Vector:
        return cls(total=jnp.stack([x.sum(), x.max()]))

    def compute(self) -> Any:
        return self.total


def laws_of(cls: Any) -> MetricLaws:
    class Laws(MetricLaws):
        def states(self) -> Sequence[Any]:
            return [cls.of(x) for x in X]

    return Laws()


@pytest.mark.parametrize(
    "law", ["empty_is_the_identity", "merge_is_associative", "any_split_gives_one_answer"]
)
def test_a_metric_that_drifts_breaks_the_law(law: str) -> None:
    with pytest.raises(AssertionError):
        getattr(laws_of(Drifting), f"test_{law}")()


def test_a_metric_of_two_numbers_breaks_the_law() -> None:
    with pytest.raises(AssertionError, match=r"shape \(2,\)"):
        laws_of(Vector).test_compute_gives_one_number()


def test_states_have_to_be_given() -> None:
    with pytest.raises(NotImplementedError, match="states"):
        MetricLaws().test_merge_is_associative()


# ---- metrics of others, logged ------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MADE if " " in name])
def test_metrics_of_others_are_logged_as_they_are(name: str) -> None:
    states = MADE[name]()
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *[state.inner for state in states])

    def step(i: Any) -> None:
        one = jax.tree.map(lambda x: x[i], stacked)
        jaxlog.log("m", one, on_epoch=True)
        jax.lax.cond(i > 1, lambda: jaxlog.log("some", one), lambda: None)

    logger = jaxlog.MemoryLogger()
    loop = jaxlog.Loop(logger, log_every_n_steps=1, progress_bar=False, window_steps=2)
    train = loop.training_step(step)
    with loop:
        for i in loop.train([np.int32(i) for i in range(4)]):
            train(i)
    whole = float(
        states[0]
        .inner.merge(states[1].inner)
        .merge(states[2].inner)
        .merge(states[3].inner)
        .compute()
    )
    assert loop.callback_metrics["m_epoch"] == pytest.approx(whole, rel=1e-5)
    seen = [row["m_step"] for _, row in logger.rows if "m_step" in row]
    assert seen == pytest.approx([float(state.compute()) for state in states], rel=1e-5)
    assert [at for at, row in logger.rows if "some" in row] == [2, 3]


class NoEmpty:
    def merge(self, other: Any) -> Any:
        return self

    def compute(self) -> float:
        return 1.0


def test_what_cannot_be_logged() -> None:
    with pytest.raises(LogArgumentError, match=r"no class method empty\(\)"):
        jaxlog.log("m", NoEmpty())
    clu = pytest.importorskip("clu.metrics")
    a, b = (as_metric(clu.Average.from_model_output(x)) for x in X[:2])
    assert isinstance(a, Foreign)
    assert "Average" in repr(a)
    with pytest.raises(LogArgumentError, match="under two names"):
        a.merge(as_metric(clu.Std.from_model_output(X[0])))
    assert float(b.compute()) == pytest.approx(float(X[1].mean()), rel=1e-6)
    collection = clu.Collection.create(a=clu.Average).empty()
    with pytest.raises(LogArgumentError, match="gives a dict"):
        jaxlog.log("m", collection)
