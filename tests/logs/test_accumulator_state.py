"""The accumulator state of a step is a monoid: each call contributes, in any order."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlog.logs import (
    KeySpec,
    Options,
    contribution,
    fold_axes,
    merge,
    merge_steps,
    neutral,
    normalize_call,
    spec_of,
)
from jaxlog.metrics import Mean

VALUES = np.array([3.0, -1.0, 2.5, 8.0], np.float32)
WEIGHTS = [2.0, None, 0.0, 5.0]  # None weighs by batch size


def spec(fx: str, *, weights: Any = (None,), value: Any = 0.0) -> KeySpec:
    options = Options("training_step", on_step=True, on_epoch=False, reduce_fx=fx)
    calls = [normalize_call("v", value, options, batch_size=weight).call for weight in weights]
    specs = [spec_of(call, repeated=True, optional=True) for call in calls]
    return specs[0].join(specs[-1])


def numbers(state: dict[str, Any]) -> dict[str, float]:
    return {field: float(value) for field, value in state.items()}


def test_weights_of_both_kinds_go_to_separate_fields() -> None:
    mixed = spec("mean", weights=(None, 1.0))
    state = neutral(mixed)
    for value, weight in zip(VALUES, WEIGHTS, strict=True):
        given = None if weight is None else jnp.float32(weight)
        state = merge(mixed, state, contribution(mixed, jnp.float32(value), given))
    assert numbers(state) == {"total": -1, "units": 1, "wtotal": 3 * 2 + 8 * 5, "weight": 7}


@pytest.mark.parametrize(("fx", "want"), [("sum", 9.5), ("min", -1.0), ("max", 8.0)])
@pytest.mark.parametrize("hidden", [None, 0, 3])
def test_any_order_gives_one_answer(fx: str, want: float, hidden: int | None) -> None:
    one = spec(fx)
    kept = [v for i, v in enumerate(VALUES.tolist()) if i != hidden]
    want = {"sum": math.fsum, "min": min, "max": max}[fx](kept)
    calls = [
        contribution(one, jnp.float32(value), mask=jnp.asarray(i != hidden))
        for i, value in enumerate(VALUES)
    ]
    for order in itertools.permutations(calls):
        left = merge(one, merge(one, merge(one, order[0], order[1]), order[2]), order[3])
        right = merge(one, order[0], merge(one, order[1], merge(one, order[2], order[3])))
        assert numbers(left) == numbers(right) == {fx: want, "units": len(kept)}


@pytest.mark.parametrize("fx", ["mean", "sum", "min", "max"])
@pytest.mark.parametrize("value", [2.5, np.inf, -np.inf, 2**31 - 1, -(2**31)])
def test_neutral_changes_nothing(fx: str, value: float) -> None:
    one = spec(fx, value=value)
    state = contribution(one, normalize_call("v", value, one.options).value)
    for merged in (merge(one, neutral(one), state), merge(one, state, neutral(one))):
        assert numbers(merged) == numbers(state)
        assert [str(x.dtype) for x in merged.values()] == [field.dtype for field in one.fields]


@pytest.mark.parametrize("axes", [0, 1, 2])
def test_mapped_axes_fold_like_calls(axes: int) -> None:
    shape = {0: (), 1: (4,), 2: (2, 2)}[axes]
    values = jnp.asarray(VALUES[: math.prod(shape)]).reshape(shape)
    exact = np.asarray(values, np.float64)
    want = {"mean": exact.sum(), "sum": exact.sum(), "min": exact.min(), "max": exact.max()}
    for fx, number in want.items():
        one = spec(fx)
        state = numbers(fold_axes(one, contribution(one, values), axes))
        assert state == {"total" if fx == "mean" else fx: number, "units": exact.size}


def test_mapped_metrics_fold_like_calls() -> None:
    mapped = jax.vmap(Mean.of)(jnp.asarray(VALUES))
    call = normalize_call("v", Mean.of(1.0), spec("mean").options).call
    one = spec_of(call, repeated=True, optional=True)
    state = fold_axes(one, contribution(one, mapped), 1)
    assert (float(state["metric"].compute()), int(state["units"])) == (VALUES.mean(), 4)
    again = merge(one, neutral(one), state)
    assert float(again["metric"].compute()) == VALUES.mean()


def test_steps_merge_name_by_name() -> None:
    specs = {"a": spec("sum"), "b": spec("max")}
    a = {"a": contribution(specs["a"], jnp.float32(1))}
    both = a | {"b": contribution(specs["b"], jnp.float32(5))}
    merged = merge_steps(specs, a, both)
    assert {name: numbers(state) for name, state in merged.items()} == {
        "a": {"sum": 2, "units": 2}, "b": {"max": 5, "units": 1},
    }  # fmt: skip
