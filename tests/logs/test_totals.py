"""Totals on the device against float64 and exact fractions: what 5000 steps leave of a value."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxlog.logs import (
    Logs,
    Options,
    Schema,
    contribution,
    empty_totals,
    fold_step,
    merge_totals,
    normalize_call,
    spec_of,
    total_values,
)
from jaxlog.metrics import Last

STEPS = 5000
EPS = 2.0**-24  # half a unit in the last place of float32, relative
SEED = np.random.default_rng(0)


@functools.cache
def _epoch() -> Any:
    def body(logs, row):
        value, weight, count = row
        logs = logs.log("mean", value).log("weighted", value, batch_size=weight)
        for fx in ("sum", "min", "max"):
            logs = logs.log(fx, value, reduce_fx=fx)
        logs = logs.log("count", count, reduce_fx="sum").log("last", Last.of(value))
        return logs.advance(), None

    def run(values, weights, counts):
        first = jax.tree.map(lambda x: x[0], (values, weights, counts))
        logs = body(Logs.empty(rows=4), first)[0].reset()
        return lax.scan(body, logs, (values, weights, counts))[0].compute()

    return jax.jit(run)


def oracle(values: Any, weights: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """The same in numpy float64 of the values as they were logged."""
    exact = np.asarray(values, np.float64)
    return {
        "mean": exact.mean(),
        "weighted": np.average(exact, weights=weights),
        "sum": math.fsum(exact),
        "min": exact.min(),
        "max": exact.max(),
        "count": float(counts.astype(np.int64).sum()),
        "last": exact[-1],
    }


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_an_epoch_of_5000_steps(dtype: Any, offset: float) -> None:
    values = jnp.asarray(SEED.normal(size=STEPS) + offset, dtype)
    weights = SEED.integers(1, 512, STEPS).astype(np.float32)
    counts = SEED.integers(0, 2**24, STEPS).astype(np.int32)  # sums to 2**35
    found = _epoch()(values, weights, counts)
    scale = {"mean": 1.0, "weighted": 1.0, "sum": 1.0 * STEPS} if offset == 0.0 else {}
    for name, want in oracle(values, weights, counts).items():
        # Three roundings a term at most, each relative to the term: no error grows with the steps.
        bound = 4 * EPS * max(abs(want), scale.get(name, 0.0))
        assert abs(float(found[name]) - want) <= bound, name
    assert {float(found[name]) for name in ("min", "max", "last")} == {
        float(np.asarray(values, np.float64)[i]) for i in (np.argmin(values), np.argmax(values), -1)
    }


def test_a_plain_float32_sum_would_fail_this() -> None:
    values = np.full(STEPS, 0.1, np.float32)
    plain = float(lax.scan(lambda total, x: (total + x, None), np.float32(0), values)[0])
    want = float(np.float64(np.float32(0.1)) * STEPS)
    assert abs(plain - want) > 100 * EPS * want
    ones = np.ones(STEPS, np.float32)
    found = _epoch()(jnp.asarray(values), ones, ones.astype(np.int32))
    assert float(found["sum"]) == np.float32(want)
    assert float(found["mean"]) == np.float32(0.1)


# ---- the pairs themselves -------------------------------------------------------------------

LENGTH = 24


@functools.cache
def _schema(fx: str, dtype: str, *, weighted: bool) -> Schema:
    options = Options("training_step", on_step=True, on_epoch=False, reduce_fx=fx)
    weight = 1.0 if weighted else None
    call = normalize_call("v", jnp.zeros((), dtype), options, batch_size=weight).call
    return Schema((spec_of(call, repeated=False, optional=False),))


def _fold(schema: Schema, totals: Any, value: Any, weight: Any) -> jax.Array:
    (spec,) = schema
    weight = weight if spec.field("weight") else None
    return fold_step(schema, totals, {"v": contribution(spec, value, weight)}, 1.0)


@functools.cache
def _folded(fx: str, dtype: str, *, weighted: bool = False) -> Any:
    schema = _schema(fx, dtype, weighted=weighted)

    def run(values, weights):
        def body(totals, row):
            return _fold(schema, totals, *row), None

        return lax.scan(body, jnp.asarray(empty_totals(schema)), (values, weights))[0]

    return schema, jax.jit(run)


def pairs(schema: Schema, words: Any) -> list[Fraction]:
    """The exact value of each pair."""
    floats = np.asarray(words).view(np.float32).reshape(-1, 2)
    assert len(floats) == (2 if schema.specs[0].options.reduce_fx == "mean" else 1)
    return [Fraction(float(high)) + Fraction(float(low)) for high, low in floats]


def sequences(dtype: Any, elements: Any) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(dtype, LENGTH, elements=elements)


# Neither overflow nor subnormals: XLA flushes those to zero.
FLOATS = st.floats(2.0**-60, 2.0**60, width=32) | st.floats(-(2.0**60), -(2.0**-60), width=32)
ONES = np.ones(LENGTH, np.float32)


@hypothesis.given(sequences(np.float32, FLOATS | st.just(0.0)))
@hypothesis.settings(max_examples=100)
def test_a_float_sum_carries_48_bits(values: np.ndarray) -> None:
    schema, run = _folded("sum", "float32")
    (found,) = pairs(schema, run(values, ONES))
    exact = sum(map(Fraction, values.tolist()), Fraction(0))
    size = sum(map(Fraction, np.abs(values).tolist()), Fraction(0))
    assert abs(found - exact) <= LENGTH * Fraction(2) ** -46 * size


@hypothesis.given(sequences(np.int32, st.integers(-(2**31), 2**31 - 1)))
@hypothesis.settings(max_examples=100)
def test_an_integer_sum_is_exact(values: np.ndarray) -> None:
    schema, run = _folded("sum", "int32")
    assert pairs(schema, run(values, ONES)) == [int(values.astype(np.int64).sum())]


def test_an_unsigned_sum_is_exact() -> None:
    values = np.arange(2**32 - LENGTH, 2**32, dtype=np.uint32)
    schema, run = _folded("sum", "uint32")
    assert pairs(schema, run(values, ONES)) == [int(values.astype(np.int64).sum())]


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64"])
def test_a_wide_sum_carries_48_bits(dtype: str) -> None:
    values = np.zeros(LENGTH, dtype)
    values[:3] = [2**46 + 3 * 2**17 + 5, 2**47 - 1, 2**44 + 2**20]
    with jax.enable_x64(True):
        schema, run = _folded("sum", dtype)
        found = run(values, ONES)
    assert pairs(schema, found) == [int(values.sum())]


@hypothesis.given(
    sequences(np.float32, FLOATS), sequences(np.float32, st.floats(0, 2.0**20, width=32))
)
@hypothesis.settings(max_examples=100)
def test_a_weighted_mean(values: np.ndarray, weights: np.ndarray) -> None:
    weights = np.where(weights < 2.0**-20, 0, weights).astype(np.float32)
    schema, run = _folded("mean", "float32", weighted=True)
    numerator, denominator = pairs(schema, run(values, weights))
    products = [
        Fraction(v) * Fraction(w) for v, w in zip(values.tolist(), weights.tolist(), strict=True)
    ]
    size = sum(map(abs, products), Fraction(0))
    # Each product is rounded to float32 once; their sum is not.
    assert abs(numerator - sum(products, Fraction(0))) <= Fraction(EPS) * size * Fraction(1.0001)
    exact = sum(map(Fraction, weights.tolist()), Fraction(0))
    assert abs(denominator - exact) <= LENGTH * Fraction(2) ** -46 * exact


@hypothesis.given(
    sequences(np.float32, st.floats(width=32, allow_nan=False, allow_subnormal=False))
)
@hypothesis.settings(max_examples=50)
def test_extrema_are_exact(values: np.ndarray) -> None:
    for fx, reduce in (("min", np.min), ("max", np.max)):
        schema, run = _folded(fx, "float32")
        assert float(total_values(schema, run(values, ONES))["v"]) == float(reduce(values))


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([1.0, np.inf], np.inf),
        ([np.inf, 1.0], np.inf),
        ([-np.inf, 5.0, -np.inf], -np.inf),
        ([np.inf, -np.inf], np.nan),
        ([1.0, np.nan, 2.0], np.nan),
        ([3e38, 3e38], np.inf),
        ([-0.0], 0.0),
    ],
)
def test_sums_that_are_not_finite(values: Sequence[float], want: float) -> None:
    padded = np.array([*values, *[0.0] * (LENGTH - len(values))], np.float32)
    for fx in ("sum", "mean"):
        schema, run = _folded(fx, "float32", weighted=fx == "mean")
        weights = (np.arange(LENGTH) < len(values)).astype(np.float32)
        found = float(total_values(schema, run(padded, weights))["v"])
        expected = want if fx == "sum" or not np.isfinite(want) else want / len(values)
        np.testing.assert_equal(found, expected)


@pytest.mark.parametrize("fx", ["min", "max", "sum"])
def test_nan_in_a_reduction_is_nan(fx: str) -> None:
    schema, run = _folded(fx, "float32")
    values = np.where(np.arange(LENGTH) == 3, np.nan, 1.0).astype(np.float32)
    assert np.isnan(float(total_values(schema, run(values, ONES))["v"]))


@hypothesis.given(sequences(np.int32, st.integers(-(2**31), 2**31 - 1)), st.integers(0, LENGTH))
@hypothesis.settings(max_examples=30)
def test_merged_totals_are_those_of_all_steps(values: np.ndarray, at: int) -> None:
    first = np.where(np.arange(LENGTH) < at, values, 0)
    schema, run = _folded("sum", "int32")
    merged = _merged(run(first, ONES), run(values - first, ONES))
    assert pairs(schema, merged) == pairs(schema, run(values, ONES))


@jax.jit
def _merged(a, b):
    return merge_totals(_schema("sum", "int32", weighted=False), a, b)


@pytest.mark.parametrize(("fx", "want"), [("mean", np.nan), ("sum", 0.0), ("min", np.inf)])
def test_of_no_step_at_all(fx: str, want: float) -> None:
    schema = _schema(fx, "float32", weighted=False)
    np.testing.assert_equal(float(total_values(schema, empty_totals(schema))["v"]), want)


@pytest.mark.parametrize(("fx", "want"), [("min", 2**31 - 1), ("max", -(2**31))])
def test_an_integer_extremum_of_no_step(fx: str, want: int) -> None:
    schema = _schema(fx, "int32", weighted=False)
    assert int(total_values(schema, empty_totals(schema))["v"]) == want
