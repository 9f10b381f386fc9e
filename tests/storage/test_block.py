"""Blocks hold what fits together; rows that share tags become one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxlog.errors import LoggerError
from jaxlog.storage import Block, Row, blocks_of


def test_a_row_is_a_block_of_one() -> None:
    block = Block.row({"a": 1, "b": math.nan}, step=7, wall_time=2.0)
    assert block.steps.dtype == np.int64
    assert block.values.dtype == np.float64
    [(step, wall_time, metrics)] = block.rows()
    assert (step, wall_time, metrics["a"]) == (7, 2.0, 1.0)
    assert math.isnan(metrics["b"])


def test_a_row_without_a_time_has_one() -> None:
    assert Block.row({"a": 1.0}, step=0).wall_times[0] > 1e9


def test_absent_values_are_left_out_of_rows() -> None:
    present = np.array([[True, False], [False, False], [True, True]])
    block = Block(("a", "b"), np.arange(3), np.zeros(3), np.arange(6.0).reshape(3, 2), present)
    assert [row for _, _, row in block.rows()] == [{"a": 0.0}, {}, {"a": 4.0, "b": 5.0}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.zeros((2, 1))}, r"values must have shape \[2, 2\]"),
        ({"wall_times": np.zeros(3)}, r"wall_times must have shape \[2\]"),
        ({"present": np.ones(2, bool)}, r"present must have shape \[2, 2\]"),
        ({"steps": np.array([[1, 2]])}, "steps must be integers of shape"),
        ({"steps": np.array([1.0, 2.0])}, "steps must be integers"),
        ({"steps": np.array([1, -2])}, "got -2"),
        ({"steps": np.array([1, 1 << 63], np.uint64)}, "got 9223372036854775808"),
        ({"tags": ("a", "a")}, "a occurs twice"),
        ({"tags": ("a", 1)}, "tags are strings, but got 1"),
        ({"lanes": ("x",)}, "one lane a tag, but got 1 for 2 tags"),
        ({"tags": ("a", "a"), "lanes": ("x", "x")}, "a occurs twice in the tags of one lane"),
        ({"tags": ("a", "a"), "lanes": ("x", None)}, "a occurs twice in the tags of one lane"),
        ({"values": np.array([["x", "y"], ["x", "y"]])}, "values must hold float64"),
    ],
)
def test_what_does_not_fit_is_refused(change, message) -> None:
    arguments = {
        "tags": ("a", "b"),
        "steps": np.array([1, 2]),
        "wall_times": np.zeros(2),
        "values": np.zeros((2, 2)),
    }
    with pytest.raises(LoggerError, match=message):
        Block(**(arguments | change))


def test_a_lane_is_beside_the_tag() -> None:
    present = np.array([[True, False, True]])
    columns = ("a", "a", "b/x")
    block = Block(columns, [1], [0.0], [[1, 2, 3]], present, lanes=("x", "y", None))  # type: ignore[arg-type]
    assert list(block.of_lane("x").rows()) == [(1, 0.0, {"a": 1.0, "b/x": 3.0})]
    assert list(block.of_lane("y").rows()) == [(1, 0.0, {"b/x": 3.0})]
    assert block.without_lanes().tags == ("a/x", "a/y", "b/x")
    assert list(block.rows()) == [(1, 0.0, {"a/x": 1.0, "b/x": 3.0})]
    plain = Block.row({"a": 1.0}, 0)
    assert plain.without_lanes() is plain
    assert plain.of_lane("x") is plain


def test_neighbours_with_the_same_tags_become_one_block() -> None:
    block = Block.row({"a": 9.0}, 9, 0.0)
    rows = [Row.of({"a": 1}, 0, 0.0), Row.of({"a": 2}, 1, 0.5), Row.of({"b": True}, 1, 0.0), block]
    first, second, third = blocks_of(rows)
    assert (first.tags, first.steps.tolist(), first.wall_times.tolist()) == (
        ("a",),
        [0, 1],
        [0, 0.5],
    )
    assert second.values.tolist() == [[1.0]]
    assert third is block


def test_an_integer_beyond_float64_is_infinite() -> None:
    [block] = blocks_of([Row.of({"a": 10**400, "b": -(10**400)}, 0, 0.0)])
    assert block.values.tolist() == [[math.inf, -math.inf]]


def test_no_tags_make_an_empty_block() -> None:
    [block] = blocks_of([Row.of({}, 0, 0.0)])
    assert block.values.shape == (1, 0)
