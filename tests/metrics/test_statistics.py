"""Variance, ConfusionMatrix, AUROC, Histogram and Quantiles against numpy and scikit-learn."""

from __future__ import annotations

import functools
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import strategies as st

from jaxlog.errors import LogArgumentError
from jaxlog.metrics import AUROC, Accuracy, ConfusionMatrix, Histogram, Quantiles, Variance

few = hypothesis.settings(max_examples=30, deadline=None)
RNG = np.random.default_rng(0)


def merged(metrics: list[Any]) -> Any:
    return functools.reduce(lambda a, b: a.merge(b), metrics)


# ---- Variance -----------------------------------------------------------------------------------


def test_variance_far_from_zero_keeps_its_digits() -> None:
    x = 1e4 + RNG.normal(size=4096).astype(np.float32)
    metric = merged([Variance.of(part) for part in np.split(x, 64)])
    assert float(metric.compute()) == pytest.approx(x.astype(np.float64).var(), rel=1e-4)
    naive = np.float32((x * x).mean()) - np.float32(x.mean()) ** 2
    assert abs(naive - x.var()) > 0.1  # what sums of squares would have made of it


@few
@hypothesis.given(
    st.lists(st.lists(st.integers(-20, 20), min_size=0, max_size=5), min_size=1, max_size=6)
)
def test_variance_of_any_split(parts: list[list[int]]) -> None:
    metric = merged([Variance.of(np.array(part, np.float32), ddof=1) for part in parts])
    flat = np.array([v for part in parts for v in part], np.float64)
    wanted = flat.var(ddof=1) if len(flat) > 1 else np.nan
    assert float(metric.compute()) == pytest.approx(wanted, rel=1e-4, abs=1e-4, nan_ok=True)


def test_variance_of_equal_values_is_zero_to_the_bit() -> None:
    metric = merged([Variance.of(np.full(3, 0.1, np.float32)) for _ in range(50)])
    assert float(metric.compute()) == 0.0


def test_variance_under_a_mask() -> None:
    x = np.array([1.0, np.nan, 3.0], np.float32)
    assert float(Variance.of(x, mask=np.array([True, False, True])).compute()) == 1.0


@pytest.mark.parametrize("ddof", [-1, 0.5])
def test_variance_refuses(ddof: Any) -> None:
    with pytest.raises(LogArgumentError, match="ddof="):
        Variance.of(np.ones(2), ddof=ddof)


# ---- classification -----------------------------------------------------------------------------

labels_of = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)
SKLEARN: dict[str, Any] = {
    "precision": sklearn.metrics.precision_score,
    "recall": sklearn.metrics.recall_score,
    "f1": sklearn.metrics.f1_score,
}


@few
@hypothesis.given(labels_of)
def test_scores_are_those_of_sklearn(pairs: list[tuple[int, int]]) -> None:
    labels, guesses = np.array(pairs).T
    matrix = ConfusionMatrix.of(predictions=guesses, labels=labels, num_classes=4)
    wanted = sklearn.metrics.confusion_matrix(labels, guesses, labels=range(4))
    np.testing.assert_array_equal(matrix.counts, wanted)
    for score, oracle in SKLEARN.items():
        for average in ("macro", "weighted", "micro"):
            seen = float(getattr(matrix, score)(average=average))
            assert seen == pytest.approx(
                oracle(labels, guesses, average=average, zero_division=0), rel=1e-5, abs=1e-6
            ), (score, average)
        each = oracle(labels, guesses, average=None, labels=range(4), zero_division=0)
        np.testing.assert_allclose(getattr(matrix, score)(average=None), each, rtol=1e-5)
    accuracy = Accuracy.of(predictions=guesses, labels=labels)
    assert float(accuracy.compute()) == pytest.approx(
        sklearn.metrics.accuracy_score(labels, guesses)
    )


@pytest.mark.parametrize("score", ["f1", "precision", "recall", "accuracy"])
def test_the_score_is_what_is_logged(score: Any) -> None:
    logits = RNG.normal(size=(50, 3)).astype(np.float32)
    labels = RNG.integers(0, 3, 50)
    matrix = ConfusionMatrix.of(logits=logits, labels=labels, num_classes=3, score=score)
    guesses = logits.argmax(1)
    oracle = (
        sklearn.metrics.accuracy_score(labels, guesses)
        if score == "accuracy"
        else SKLEARN[score](labels, guesses, average="macro")
    )
    assert float(matrix.compute()) == pytest.approx(oracle, rel=1e-5)
    assert matrix.host_compute() == pytest.approx(oracle, rel=1e-12)


def test_labels_outside_the_classes_and_masked_ones_are_left_out() -> None:
    labels, guesses = np.array([0, 1, -1, 7, 1]), np.array([0, 1, 0, 1, 0])
    mask = np.array([True, True, True, True, False])
    matrix = ConfusionMatrix.of(predictions=guesses, labels=labels, num_classes=2, mask=mask)
    assert matrix.counts.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes=1"),
        ({"num_classes": 2, "score": "auc"}, "score='auc'"),
        ({"num_classes": 2, "average": None}, "average=None"),
    ],
)
def test_confusion_matrix_refuses(options: Any, message: str) -> None:
    with pytest.raises(LogArgumentError, match=message):
        ConfusionMatrix.of(predictions=np.zeros(2, int), labels=np.zeros(2, int), **options)
    with pytest.raises(LogArgumentError, match="both of logits and predictions"):
        ConfusionMatrix.of(logits=1, predictions=1, labels=np.zeros(2, int), num_classes=2)
    with pytest.raises(LogArgumentError, match="one to one"):
        ConfusionMatrix.of(predictions=np.zeros(3, int), labels=np.zeros(2, int), num_classes=2)


# ---- AUROC --------------------------------------------------------------------------------------


@few
@hypothesis.given(st.lists(st.tuples(st.integers(0, 19), st.booleans()), min_size=2, max_size=60))
def test_auroc_is_exact_where_each_bin_holds_one_score(pairs: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([(p + 0.5) / 20 for p, _ in pairs]), np.array([b for _, b in pairs])
    metric = AUROC.of(scores=scores.astype(np.float32), labels=labels, bins=20)
    seen = float(metric.compute())
    if labels.all() or not labels.any():
        assert np.isnan(seen)
    else:
        assert seen == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores), rel=1e-5)


@few
@hypothesis.given(st.integers(0, 2**31), st.integers(2, 50))
def test_auroc_is_off_by_half_the_pairs_in_one_bin_at_most(seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 200)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).astype(np.float32)
    parts = np.array_split(np.arange(200), 3)
    metric = merged([AUROC.of(scores=scores[p], labels=labels[p], bins=bins) for p in parts])
    positives, negatives = np.asarray(metric.positives), np.asarray(metric.negatives)
    together = (positives * negatives).sum() / (positives.sum() * negatives.sum())
    exact = sklearn.metrics.roc_auc_score(labels, scores)
    assert abs(float(metric.compute()) - exact) <= together / 2 + 1e-6


def test_auroc_refuses_and_leaves_out() -> None:
    scores, labels = np.array([0.1, np.nan, 2.0, 0.6]), np.array([0, 1, 1, 5])
    metric = AUROC.of(scores=scores, labels=labels, bins=10)
    assert (metric.positives.tolist()[-1], int(metric.positives.sum())) == (1, 1)
    assert int(metric.negatives.sum()) == 1
    with pytest.raises(LogArgumentError, match="bins=1"):
        AUROC.of(scores=scores, labels=labels, bins=1)
    with pytest.raises(LogArgumentError, match="one to one"):
        AUROC.of(scores=np.ones((4, 2)), labels=labels)


# ---- Histogram ----------------------------------------------------------------------------------


@few
@hypothesis.given(
    st.lists(st.floats(-100, 100, width=32, allow_subnormal=False), max_size=50)  # XLA has them 0
)
def test_histogram_counts_like_numpy(values: list[float]) -> None:
    x = np.array(values, np.float32)
    edges = Histogram.exponents(-3, 6)
    metric = Histogram.of(x, edges=edges)
    wanted = np.bincount(np.searchsorted(edges, x, side="right"), minlength=len(edges) + 1)
    np.testing.assert_array_equal(metric.counts, wanted)
    mean = float(metric.compute())
    assert mean == pytest.approx(x.mean() if len(x) else np.nan, rel=1e-3, abs=1e-3, nan_ok=True)


def test_histogram_under_a_mask_and_nan() -> None:
    x = np.array([0.5, np.nan, 2.0, 0.5], np.float32)
    metric = Histogram.of(x, edges=[0.0, 1.0], mask=np.array([True, True, True, False]))
    assert metric.counts.tolist() == [0, 1, 1]
    assert float(metric.compute()) == 1.25


@pytest.mark.parametrize("edges", [[], [1.0, 1.0], [2.0, 1.0], [0.0, np.inf]])
def test_histogram_refuses(edges: Any) -> None:
    with pytest.raises(LogArgumentError, match="increasing finite numbers"):
        Histogram.of(np.ones(2), edges=edges)
    with pytest.raises(LogArgumentError, match="low < high"):
        Histogram.exponents(3, 3)


# ---- Quantiles ----------------------------------------------------------------------------------

SMALL, LARGE = 2.0**-16, 2.0**16
told = st.floats(SMALL, LARGE, width=32) | st.floats(-LARGE, -SMALL, width=32) | st.just(0.0)


@few
@hypothesis.given(
    values=st.lists(told, min_size=1, max_size=60),
    q=st.floats(0, 1),
    relative_error=st.sampled_from([0.005, 0.02, 0.1]),
    cut=st.integers(0, 60),
)
def test_quantiles_lie_within_their_error(
    values: list[float], q: float, relative_error: float, cut: int
) -> None:
    x = np.array(values, np.float32)
    parts = [Quantiles.of(p, relative_error=relative_error) for p in (x[:cut], x[cut:])]
    sketch = parts[0].merge(parts[1])
    exact = float(np.sort(x)[int(np.floor(np.float32(q) * np.float32(len(x) - 1)))])
    slack = 1e-4 * abs(exact) + 1e-9
    for seen in (sketch.quantile(q), sketch.to_host().quantile(q)):
        assert abs(float(seen) - exact) <= relative_error * abs(exact) + slack


def test_quantiles_of_the_very_small_and_the_very_large() -> None:
    sketch = Quantiles.of(np.array([1e-9, 1e-9, 1e9, np.inf], np.float32), greatest=1e6)
    assert float(sketch.quantile(0)) == 0.0
    assert float(sketch.quantile(1)) == pytest.approx(1e6, rel=0.02)
    assert np.isnan(float(Quantiles.of(np.zeros(0, np.float32)).compute()))
    assert float(Quantiles.of(np.array([np.nan, 3.0]), q=0.0).compute()) == pytest.approx(3, 0.011)


@pytest.mark.parametrize(
    "options", [{"q": 1.5}, {"relative_error": 0.0}, {"least": 0.0}, {"greatest": 1e-9}]
)
def test_quantiles_refuse(options: Any) -> None:
    with pytest.raises(LogArgumentError, match=f"out of range: {next(iter(options))}="):
        Quantiles.of(np.ones(2), **options)


# ---- in a loop, over shards ---------------------------------------------------------------------


def test_a_step_logs_them_and_the_epoch_has_the_whole() -> None:
    import jaxlog

    x = RNG.normal(3, 2, size=(6, 64)).astype(np.float32)
    loop = jaxlog.Loop(False, progress_bar=False, window_steps=2)
    mesh = jax.make_mesh(
        (4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4]
    )
    spec = jax.sharding.PartitionSpec("d")

    def shard(x: Any) -> Any:
        every = functools.partial(jaxlog.log, sync_dist=True, on_step=True, on_epoch=True)
        every("variance", Variance.of(x))
        every("median", Quantiles.of(x))
        every("histogram", Histogram.of(x, edges=(0.0, 3.0)))
        return x

    run = jax.shard_map(shard, mesh=mesh, in_specs=spec, out_specs=spec)
    step = loop.training_step(run)
    with loop:
        for batch in loop.train(list(x)):
            step(jnp.asarray(batch))
    seen = loop.callback_metrics
    assert seen["variance_epoch"] == pytest.approx(x.astype(np.float64).var(), rel=1e-5)
    assert seen["variance_step"] == pytest.approx(x[-1].astype(np.float64).var(), rel=1e-5)
    assert seen["median_epoch"] == pytest.approx(np.median(x), rel=0.03)
    assert seen["histogram_epoch"] == pytest.approx(x.mean(), rel=1e-5)
