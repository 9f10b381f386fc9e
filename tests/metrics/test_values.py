"""Mean, Sum, Min, Max and Last: empty values, dtypes, weights, masks and refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlog.errors import LogArgumentError
from jaxlog.metrics import Last, Max, Mean, Min, Sum

ALL = [Mean, Sum, Min, Max, Last]


@pytest.mark.parametrize(
    ("metric", "want"),
    [
        (Mean.empty(), np.nan),
        (Sum.empty(), 0.0),
        (Sum.empty(dtype="int32"), 0.0),
        (Min.empty(), np.inf),
        (Max.empty(), -np.inf),
        (Min.empty(dtype="int32"), np.inf),
        (Max.empty(dtype="int32"), -np.inf),
        (Last.empty(), np.nan),
    ],
    ids=repr,
)
def test_what_an_empty_metric_computes(metric, want):
    np.testing.assert_equal(float(metric.compute()), want)
    np.testing.assert_equal(metric.host_compute(), want)
    assert metric.compute().shape == ()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_floats_accumulate_in_float32(dtype):
    ones = jnp.ones(4096, dtype)  # bfloat16 would stop at 256, float16 counts to 2048 only
    assert float(Sum.of(ones).compute()) == 4096.0
    assert Sum.of(ones).total.dtype == jnp.float32
    assert float(Mean.of(ones).total) == 4096.0
    for metric in (Min, Max):
        assert metric.of(ones).value.dtype == jnp.float32


@pytest.mark.parametrize("dtype", [jnp.bool_, jnp.int8, jnp.uint8, jnp.int32])
def test_whole_numbers_stay_int32(dtype):
    values = jnp.ones(300).astype(dtype)
    assert (Sum.of(values).total.dtype, int(Sum.of(values).compute())) == (jnp.int32, 300)
    assert Max.of(values).value.dtype == Last.of(values[0]).value.dtype == jnp.int32
    assert float(Mean.of(values).compute()) == 1.0


def test_wide_integers_keep_a_dtype_that_holds_them():
    assert int(Sum.of(jnp.array(2**32 - 1, jnp.uint32)).compute()) == 2**32 - 1
    with jax.enable_x64(True):
        assert int(Sum.of(jnp.array(2**40)).compute()) == 2**40


def test_update_keeps_the_dtype_of_the_metric():
    metric = Sum.empty().update(jnp.array([1, 2]))
    assert metric.total.dtype == jnp.float32
    assert Min.empty(dtype="int32").update(3).update(jnp.int8(2)).value.dtype == jnp.int32
    with pytest.raises(LogArgumentError, match=r"values has dtype float32.*keeps int32"):
        Sum.empty(dtype="int32").update(0.5)


@pytest.mark.parametrize("dtype", ["int64", "bool", "nonsense", "complex64"])
def test_a_dtype_that_cannot_be_held_is_refused(dtype):
    with pytest.raises(LogArgumentError, match=f"dtype='{dtype}'"):
        Sum.empty(dtype=dtype)


def test_weights_and_masks_take_leading_axes():
    values = jnp.array([[1.0, 3.0], [5.0, jnp.nan]])
    by_row = Mean.of(values, mask=jnp.array([True, False]))
    assert float(by_row.compute()) == 2.0
    each = Mean.of(values, mask=jnp.array([[True, False], [True, False]]))
    assert float(each.compute()) == 3.0
    weighted = Mean.of(jnp.array([[1.0, 3.0], [5.0, 5.0]]), weights=jnp.array([3.0, 1.0]))
    assert float(weighted.compute()) == 2.75
    assert float(Mean.of(jnp.float32(4.0), weights=32).weight) == 32.0
    nowhere = Mean.of(values, weights=jnp.full((2, 2), jnp.nan), mask=jnp.zeros((2, 2), bool))
    assert (float(nowhere.total), float(nowhere.weight)) == (0.0, 0.0)


@pytest.mark.parametrize("metric", [Mean, Sum, Min, Max])
def test_nan_counts_unless_masked(metric):
    assert np.isnan(metric.of(jnp.array([1.0, jnp.nan])).compute())
    assert np.isnan(metric.of(jnp.nan).merge(metric.of(1.0)).compute())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Mean.of("seven"), r"Mean.of: values got str"),
        (lambda: Mean.of(None), r"Mean.of: values got NoneType"),
        (lambda: Sum.of(jnp.array(1j)), r"Sum.of: values has dtype complex64.*jnp.abs"),
        (lambda: Mean.of(jnp.ones(3), weights=jnp.ones(2)), r"weights has shape \(2,\).*\(3,\)"),
        (lambda: Mean.of(jnp.ones((2, 3)), mask=jnp.ones(3, bool)), r"broadcast_to\(mask, values"),
        (
            lambda: Max.of(jnp.ones(3), mask=jnp.ones(3)),
            r"Max.of: mask has dtype float32.*mask > 0",
        ),
        (lambda: Last.of(jnp.ones(3)), r"Last.of: value has shape \(3,\).*value\[-1\]"),
        (lambda: Sum.of(2**40), r"Sum.of: values"),
        (lambda: Sum.of(np.array([2**40])), r"beyond int32.*jax_enable_x64"),
        (lambda: Sum.of(1).merge(Mean.of(1.0)), r"merge: Sum got a Mean.*Sum.of"),
        (lambda: Sum.of(1).merge(Sum.of(1.0)), r"'int32'.*'float32'.*same configuration"),
        (lambda: Sum.of(1).host_merge(Sum.of(1.0)), r"same configuration"),
        (lambda: Last.of(1).merge(3), r"merge: Last got a int"),
        (lambda: Mean.empty(dtype="int32"), r"Mean.empty: got dtype.*are: none"),
    ],
)
def test_bad_arguments_say_what_to_write(call, message):
    with pytest.raises(LogArgumentError, match=message):
        call()
