"""One table from calls to the rows that are written: reduced as a float64 oracle reduces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlog.logs import Options
from jaxlog.windows import Columns, Key, Table

ORACLES = {
    "mean": lambda values, weights: float(np.average(values, weights=weights)),
    "sum": lambda values, _: float(np.sum(values)),
    "min": lambda values, _: float(np.min(values)),
    "max": lambda values, _: float(np.max(values)),
}


def key(name: str, *, lane: str | None = None, **options: Any) -> Key:
    given = {"on_step": True, "on_epoch": False, **options}
    return Key(name, Options("training_step", **given), lane=lane)


def table(keys: list[Key], values: Any, weights: Any = None) -> Table:
    array = np.array(values, float).reshape(-1, len(keys))
    weighted = None if weights is None else np.array(weights, float).reshape(array.shape)
    return Table(Columns.of_steps(keys), array, ~np.isnan(array), weighted)


calls = st.lists(
    st.tuples(
        st.integers(0, 4),  # row
        st.floats(-1e6, 1e6, width=32),  # value
        st.integers(1, 100),  # weight
    ),
    min_size=1,
    max_size=30,
)


@pytest.mark.parametrize("reduction", ORACLES)
@given(calls=calls, cut=st.integers(0, 30))
def test_calls_of_a_row_are_reduced_in_any_number_of_pieces(reduction: str, calls, cut) -> None:
    calls.sort(key=lambda call: call[0])
    keys = [key("x", reduce_fx=reduction)]
    parts = [part for part in (calls[:cut], calls[cut:]) if part]
    rows = Table.join(
        [
            table(keys, [v for _, v, _ in part], [w for _, _, w in part]).in_rows(
                np.array([row for row, _, _ in part]), 5
            )
            for part in parts
        ],
        5,
    )
    for row in range(5):
        here = [(value, weight) for at, value, weight in calls if at == row]
        assert rows.present[row, 0] == bool(here)
        if here:
            expected = ORACLES[reduction](*map(np.array, zip(*here, strict=True)))
            np.testing.assert_allclose(rows.values[row, 0], expected, rtol=1e-9, atol=1e-6)


def test_without_weights_the_last_call_of_a_row_stays() -> None:
    rows = table([key("a"), key("b")], [[1, 10], [2, np.nan], [3, 30]]).in_rows(
        np.array([0, 0, 1]), 2
    )
    np.testing.assert_array_equal(rows.values, [[2, 10], [3, 30]])


def test_a_call_a_row_is_taken_as_it_is() -> None:
    calls = table([key("a")], [[1], [2]])
    assert calls.in_rows(np.arange(2), 2) is calls


def test_a_weight_of_nothing_is_no_mean() -> None:
    rows = table([key("a")], [[1], [2]], [[0], [0]]).in_rows(np.array([0, 0]), 1)
    assert np.isnan(rows.values[0, 0])


def test_join_keeps_lanes_apart_and_joins_equal_keys() -> None:
    left = table([key("a"), key("b", lane="slow")], [[1, 2]])
    right = table([key("b", lane="fast"), key("a")], [[3, 4]])
    joined = Table.join([left, right], 1)
    assert [(k.name, k.lane) for k in joined.columns.keys] == [
        ("a", None), ("b", "slow"), ("b", "fast"),
    ]  # fmt: skip
    np.testing.assert_array_equal(joined.values, [[4, 2, 3]])


def test_the_latest_value_of_each_key_among_the_chosen_rows() -> None:
    rows = table([key("a"), key("b"), key("c")], [[1, 10, np.nan], [2, np.nan, np.nan], [3, 30, 5]])
    values, has_any = rows.latest(np.array([True, True, False]))
    np.testing.assert_array_equal(has_any, [True, True, False])
    np.testing.assert_array_equal(values[has_any], [2, 10])
    values, _ = rows.latest()
    np.testing.assert_array_equal(values, [3, 30, 5])


def test_a_block_carries_lanes_beside_tags_and_the_epoch_in_none() -> None:
    rows = table([key("a", lane="slow"), key("a", lane="fast")], [[1, 2], [np.nan, 4]])
    block = rows.block(np.ones(2, bool), np.array([7, 8]), np.array([0.5, 0.6]), epoch=3.0)
    assert block is not None
    assert (block.tags, block.lanes) == (("a", "a", "epoch"), ("slow", "fast", None))
    np.testing.assert_array_equal(block.steps, [7, 8])
    np.testing.assert_array_equal(block.values[0], [1, 2, 3])
    assert block.present is not None
    np.testing.assert_array_equal(block.present, [[True, True, True], [False, True, True]])


def test_a_row_that_logged_nothing_is_not_written() -> None:
    rows = table([key("a")], [[np.nan], [1]])
    block = rows.block(np.ones(2, bool), np.arange(2), np.zeros(2), epoch=None)
    assert block is not None
    assert block.steps.tolist() == [1]
    assert rows.block(np.array([True, False]), np.arange(2), np.zeros(2), epoch=None) is None
