"""After the fetch: exact 64-bit merging in plain numpy, and compute under 64 bits."""

from __future__ import annotations

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive

from jaxlog.errors import LogArgumentError
from jaxlog.metrics import Accuracy, Last, Max, Mean, Metric, Min, Sum, state

SHIPPED = [
    Mean.of(np.float32(2.0)),
    Sum.of(np.float32(2.0)),
    Sum.of(2),
    Min.of(np.float32(2.0)),
    Min.of(2),
    Max.of(np.float32(2.0)),
    Last.of(np.float32(2.0)),
    Last.of(2),
    Accuracy.of(predictions=jnp.array([1]), labels=jnp.array([1])),
]


@pytest.mark.parametrize("metric", SHIPPED, ids=repr)
def test_shipped_metrics_merge_and_compute_without_jax(metric):
    host = jax.device_get(metric).to_host()
    assert all(isinstance(x, np.ndarray) and x.dtype.itemsize == 8 for x in jax.tree.leaves(host))

    def refuse(*args, **kwargs):
        raise AssertionError("a JAX operation ran on the host path")

    # Every JAX operation, compiled or not, binds a primitive.
    with mock.patch.object(Primitive, "bind", refuse):
        merged = host.merge(host)
        number = merged.compute()
        folded = jax.tree.map(lambda a, b: np.stack([a, b]), merged, host).reduce_axes(1)
        dropped = host.where(present=False)
    for result in (merged, folded, dropped):
        assert [x.dtype for x in jax.tree.leaves(result)] == [
            x.dtype for x in jax.tree.leaves(host)
        ]
        assert all(isinstance(x, np.ndarray | np.generic) for x in jax.tree.leaves(result))
    assert isinstance(number, np.float64)
    assert number == float(metric.merge(metric).compute())


@pytest.mark.parametrize("metric", SHIPPED, ids=repr)
def test_host_compute_is_a_python_float(metric):
    number = metric.host_compute()
    assert type(number) is float
    assert number == float(metric.compute())


def test_counts_stay_exact_beyond_2_to_the_24_and_the_31():
    window = Sum.of(2**31 - 1)
    total = window.to_host()
    for _ in range(4):
        total = total.host_merge(window)
    assert total.host_compute() == 5 * (2**31 - 1)

    seen = Accuracy(correct=2**24, total=2**24 + 1).to_host()  # pyright: ignore[reportArgumentType]
    more = seen.host_merge(seen).host_merge(seen)
    assert more.total == 3 * (2**24 + 1)
    assert more.host_compute() == 2**24 / (2**24 + 1)

    tokens = Mean(total=2.0**24, weight=2.0**24).to_host()  # pyright: ignore[reportArgumentType]
    tokens = tokens.merge(Mean.of(jnp.zeros(())).to_host())
    assert tokens.weight == 2**24 + 1


def test_an_integer_neutral_element_stays_neutral_after_promotion():
    empty = Min.empty(dtype="int32")
    assert empty.host_compute() == np.inf
    assert empty.host_merge(Min.of(7)).host_compute() == 7.0
    assert empty.host_merge(empty).host_compute() == np.inf
    assert Max.empty(dtype="int32").host_merge(Max.of(-7)).host_compute() == -7.0


def test_half_precision_leaves_are_promoted():
    class Half(Metric):
        value: jax.Array = state(jnp.zeros((), jnp.bfloat16), "max")

        @classmethod
        def of(cls, x):
            return cls(value=x)

        def compute(self):
            return self.value

    metric = Half.of(1.5)
    assert metric.value.dtype == jnp.bfloat16
    assert metric.merge(Half.empty()).value.dtype == jnp.bfloat16
    assert metric.to_host().value.dtype == np.float64
    assert metric.host_compute() == 1.5


class UsesJax(Metric):
    """Written with jax.numpy throughout, merge included, as users do."""

    count: jax.Array = state(0, "sum")

    @classmethod
    def of(cls, n):
        return cls(count=n)

    def merge(self, other):
        return type(self)(count=jnp.add(self.count, other.count))

    def compute(self):
        where = jnp.asarray(self.count).devices()
        assert {device.platform for device in where} == {"cpu"}
        return jnp.sqrt(jnp.square(self.count).astype(float))


def test_a_metric_written_in_jax_numpy_computes_and_merges_in_64_bits():
    total = UsesJax.of(2**31 - 1).host_merge(UsesJax.of(2**31 - 1))
    assert isinstance(total.count, np.ndarray)
    assert total.count == 2**32 - 2
    with jax.numpy_dtype_promotion("standard"):
        assert UsesJax.of(2**29 + 1).host_compute() == 2**29 + 1
    assert jnp.ones(()).dtype == jnp.float32


def test_compute_must_give_one_number():
    class Vector(Metric):
        values: jax.Array = state(np.zeros(3, np.float32), "sum")

        def compute(self):
            return self.values

    with pytest.raises(LogArgumentError, match=r"Vector.compute: returned shape \(3,\)"):
        Vector.empty().host_compute()
