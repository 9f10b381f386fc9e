"""`merge` is a monoid: identity, associativity, and any split of the data gives one answer."""

from __future__ import annotations

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxlog.metrics import Max, Mean, Metric, Min, Sum, state

# Batches of one length keep compiled shapes few; quarters are exact in float32.
quarters = st.integers(-40, 40).map(lambda n: n / 4)
batch = st.lists(quarters, min_size=3, max_size=3)
few = hypothesis.settings(max_examples=25, deadline=None)


def array(values):
    return jnp.asarray(np.array(values, np.float32))


def assert_close(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)


@few
@hypothesis.given(values=batch)
def test_empty_is_the_identity_exactly(case, values):
    metric = case.of(array(values))
    for got in (metric.merge(case.empty()), case.empty().merge(metric)):
        jax.tree.map(np.testing.assert_array_equal, got, metric)
    host = metric.to_host()
    for got in (host.merge(case.empty().to_host()), case.empty().to_host().merge(host)):
        jax.tree.map(np.testing.assert_array_equal, got, host)


@few
@hypothesis.given(batches=st.tuples(batch, batch, batch))
def test_merge_is_associative(case, batches):
    a, b, c = (case.of(array(values)) for values in batches)
    assert_close(a.merge(b).merge(c), a.merge(b.merge(c)))


@few
@hypothesis.given(batches=st.lists(batch, min_size=1, max_size=5), cut=st.integers(0, 5))
def test_any_split_gives_the_oracle(case, batches, cut):
    want = case.oracle(np.array(batches, np.float64).reshape(-1))
    metrics = [case.of(array(values)) for values in batches]
    windows = [
        functools.reduce(lambda a, b: a.merge(b), part, case.empty())
        for part in (metrics[:cut], metrics[cut:])
    ]
    on_device = windows[0].merge(windows[1])
    np.testing.assert_allclose(float(on_device.compute()), want, rtol=1e-5, atol=1e-5)
    on_host = windows[0].host_merge(windows[1])
    np.testing.assert_allclose(on_host.host_compute(), want, rtol=1e-5, atol=1e-5)


@few
@hypothesis.given(
    values=st.lists(st.one_of(quarters, st.just(np.nan), st.just(np.inf)), min_size=4, max_size=4),
    mask=st.lists(st.booleans(), min_size=4, max_size=4),
)
@pytest.mark.parametrize(
    ("metric", "oracle"),
    [
        (Mean, lambda x: x.mean() if x.size else np.nan),
        (Sum, np.sum),
        (Min, lambda x: x.min(initial=np.inf)),
        (Max, lambda x: x.max(initial=-np.inf)),
    ],
)
def test_a_mask_leaves_values_out_as_if_never_seen(metric, oracle, values, mask):
    got = metric.of(array(values), mask=jnp.array(mask)).compute()
    np.testing.assert_allclose(got, oracle(np.array(values)[np.array(mask)]), rtol=1e-6)


class Average(Metric):
    value: jax.Array = state(0.0, "mean")

    @classmethod
    def of(cls, x):
        return cls(value=x)

    def compute(self):
        return self.value


@few
@hypothesis.given(
    values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=6),
    cut=st.integers(0, 6),
)
def test_mean_states_count_each_batch_once(values, cut):
    exact = np.mean(np.array(values, np.float64))
    scale = np.abs(values).max() + 1.0
    merged = [
        functools.reduce(lambda a, b: a.merge(b), map(Average.of, part), Average.empty())
        for part in (values[:cut], values[cut:])
    ]
    for metric in (
        merged[0].merge(merged[1]),
        jax.vmap(Average.of)(array(values)).reduce_axes(1),
    ):
        np.testing.assert_allclose(float(metric.compute()) / scale, exact / scale, atol=1e-6)
        assert metric.value.dtype == jnp.float32
    on_host = merged[0].host_merge(merged[1]).host_compute()
    np.testing.assert_allclose(on_host / scale, exact / scale, atol=1e-6)


def test_an_infinite_mean_stays_infinite():
    merged = Average.of(jnp.inf).merge(Average.empty()).merge(Average.of(1.0))
    assert float(merged.compute()) == np.inf
    assert float(Average.of(3e38).merge(Average.of(3e38)).compute()) == np.float32(3e38)
