"""The ring buffer as the host reads it: rows in order, values and weights of steps in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlog.logs import (
    Field,
    KeySpec,
    LeafSpec,
    Options,
    RingBuffer,
    Schema,
    blank_row,
    decode_rows,
    merge_ring_buffers,
    pack_host,
    pack_state,
    push_row,
    scalar_fields,
)
from jaxlog.metrics import Mean

_push = jax.jit(push_row)
_merge = jax.jit(merge_ring_buffers)


def ring_of(steps: Sequence[int], rows: int = 4) -> RingBuffer:
    ring_buffer = RingBuffer.empty(rows, 2)
    for step in steps:
        ring_buffer = _push(ring_buffer, jnp.array([step, -step], jnp.int32))
    return ring_buffer


def kept(ring_buffer: RingBuffer) -> list[list[int]]:
    return ring_buffer.fetch().tolist()


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 11])
def test_the_latest_rows_oldest_first(count: int) -> None:
    assert kept(ring_of(range(count))) == [[i, -i] for i in range(count)][-4:]


@hypothesis.given(st.integers(0, 10), st.integers(0, 10), st.integers(0, 3))
@hypothesis.settings(max_examples=60)
def test_merged_ring_buffers_go_on(first: int, second: int, more: int) -> None:
    merged = _merge(ring_of(range(first)), ring_of(range(100, 100 + second)))
    for step in range(200, 200 + more):
        merged = _push(merged, jnp.array([step, -step], jnp.int32))
    steps = [*range(first), *range(100, 100 + second), *range(200, 200 + more)]
    assert kept(merged) == [[i, -i] for i in steps][-4:]
    assert int(merged.steps) == len(steps)


# ---- columns against the definition of a step's value ---------------------------------------


def spec(fx: str, fields: Sequence[Field], **options: Any) -> KeySpec:
    given = Options("training_step", on_step=True, on_epoch=False, reduce_fx=fx, **options)
    return KeySpec("v", given, tuple(fields))


def column_of(fx: str, dtype: str, steps: Sequence[Mapping[str, float]], **kind: Any) -> Any:
    """The decoded column of steps given as field name to value."""
    fields = scalar_fields(fx, dtype, **({"weighting": "batch", "repeated": False} | kind))
    schema = Schema((spec(fx, fields),))
    rows = [
        pack_host([np.asarray(step[r.name], r.dtype) for r in fields], fields) for step in steps
    ]
    return decode_rows(schema, np.stack(rows))["v"]


def test_a_value_logged_once() -> None:
    column = column_of("mean", "int32", [{"raw": 2**24 + 1}, {"raw": -3}], optional=False)
    assert column.step_values().tolist() == [2**24 + 1, -3]
    assert column.present().tolist() == [True, True]
    assert column.weights(np.array([8, 3])).tolist() == [8, 3]
    numerators, denominators = column.means(np.array([8, 3]))
    assert (numerators.tolist(), denominators.tolist()) == ([8 * (2**24 + 1), -9], [8, 3])


def test_a_value_that_steps_leave_out() -> None:
    steps = [{"raw": 0, "units": 0}, {"raw": 5, "units": 1}]
    column = column_of("mean", "float32", steps, optional=True)
    np.testing.assert_array_equal(column.step_values(), [np.nan, 5])
    assert column.weights(np.array([8, 3])).tolist() == [0, 3]


def test_several_values_weigh_like_one_batch() -> None:
    steps = [{"total": 12, "units": 3}, {"total": 0, "units": 0}, {"total": math.inf, "units": 1}]
    column = column_of("mean", "float32", steps, repeated=True, optional=False)
    np.testing.assert_array_equal(column.step_values(), [4, np.nan, np.inf])
    np.testing.assert_array_equal(column.means(np.array([2, 2, 2]))[0], [8, 0, np.inf])
    assert column.weights(np.array([2, 5, 7])).tolist() == [2, 0, 7]


def test_explicit_weights() -> None:
    once = column_of(
        "mean", "float32", [{"raw": 3, "weight": 2}, {"raw": np.inf, "weight": 0}],
        weighting="explicit", optional=False,
    )  # fmt: skip
    np.testing.assert_array_equal(once.step_values(), [3, np.nan])
    assert [part.tolist() for part in once.means(np.array([9, 9]))] == [[6, 0], [2, 0]]
    often = column_of(
        "mean", "float32", [{"wtotal": 10, "weight": 4}], weighting="explicit", repeated=True,
        optional=False,
    )  # fmt: skip
    assert often.step_values().tolist() == [2.5]


def test_weights_by_batch_and_of_ones_own_in_one_step() -> None:
    parts = [
        scalar_fields("mean", "float32", weighting=weighting, repeated=True, optional=True)
        for weighting in ("batch", "explicit")
    ]
    schema = Schema((spec("mean", [*parts[0], *parts[1]]),))
    state = np.array([[12, 3, 10, 5], [0, 0, 10, 5], [12, 3, 0, 0]])
    fields = schema.specs[0].fields
    assert [field.name for field in fields] == ["total", "units", "wtotal", "weight"]
    column = decode_rows(schema, np.stack([pack_host(list(row), fields) for row in state]))["v"]
    sizes = np.array([8, 8, 8])
    assert column.step_values(sizes).tolist() == [(4 * 8 + 10) / 13, 2, 4]
    assert column.step_values().tolist() == [(4 + 10) / 6, 2, 4]
    assert column.weights(sizes).tolist() == [13, 5, 8]


@pytest.mark.parametrize("fx", ["sum", "min", "max"])
def test_other_reductions_are_their_field(fx: str) -> None:
    steps = [{fx: 2**31 - 1, "units": 2}, {fx: 7, "units": 0}]
    column = column_of(fx, "int32", steps, optional=True)
    np.testing.assert_array_equal(column.step_values(), [2**31 - 1, np.nan])
    assert column.weights(np.array([8, 3])).tolist() == [8, 3]  # the host's weight, not a mean's
    always = column_of(fx, "int32", [{fx: 7}], optional=False)
    assert (always.present().tolist(), always.step_values().tolist()) == ([True], [7])


def test_take_chooses_steps() -> None:
    column = column_of("sum", "float32", [{"sum": i} for i in range(4)], optional=False)
    assert column.take(np.array([3, 1])).step_values().tolist() == [3, 1]
    assert column.take(np.array([True, False, False, True])).step_values().tolist() == [0, 3]


# ---- metrics --------------------------------------------------------------------------------


def metric_schema(*, on_step: bool, optional: bool) -> Schema:
    example = Mean.of(jnp.ones(2))
    leaves, structure = jax.tree.flatten(example)
    options = Options("training_step", on_step=on_step, on_epoch=True)
    specs = tuple(LeafSpec(leaf.shape, str(leaf.dtype)) for leaf in leaves)
    fields = (Field("units", "int32"),) if optional else ()
    return Schema((KeySpec("v", options, fields, structure, specs),))


@pytest.mark.parametrize("optional", [True, False])
def test_a_metric_has_its_value_in_the_ring_buffer(optional: bool) -> None:
    schema = metric_schema(on_step=True, optional=optional)
    state = {"metric": Mean.of(jnp.array([1.0, 2.0])), "units": jnp.int32(1)}
    column = decode_rows(schema, np.asarray(pack_state(schema, {"v": state}))[None])["v"]
    assert (column.has_steps, column.step_values().tolist()) == (True, [1.5])
    assert column.weights(np.array([4])).tolist() == [4]


@pytest.mark.parametrize("optional", [True, False])
def test_a_metric_without_step_values(optional: bool) -> None:
    schema = metric_schema(on_step=False, optional=optional)
    row = pack_state(schema, {"v": {"metric": Mean.of(jnp.ones(2)), "units": jnp.int32(1)}})
    column = decode_rows(schema, np.asarray(row)[None])["v"]
    assert not column.has_steps
    assert list(column.state) == (["units"] if optional else [])


def test_a_blank_row_is_one_that_nobody_logged() -> None:
    specs = (
        spec(
            "mean",
            scalar_fields("mean", "float32", weighting="batch", repeated=True, optional=True),
        ),
        spec("min", scalar_fields("min", "int32", weighting="batch", repeated=True, optional=True)),
        metric_schema(on_step=True, optional=True).specs[0],
    )
    for one in specs:
        column = decode_rows(Schema((one,)), blank_row([one])[None])["v"]
        assert column.present().tolist() == [False]
        assert np.isnan(column.step_values()).tolist() == [True]
    assert blank_row(specs).shape == (6,)
    assert blank_row([]).shape == (0,)
