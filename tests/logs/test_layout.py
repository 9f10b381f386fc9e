"""Fetched rows give the same columns whether they are read by group or by key."""

from __future__ import annotations

import numpy as np
import pytest

from jaxlog.logs import (
    KeySpec,
    Options,
    Schema,
    decode_rows,
    layout_groups,
    pack_host,
    scalar_fields,
)

GROUPS = [
    ("mean", "float32", "batch", False, False),
    ("mean", "int32", "batch", False, True),
    ("mean", "float64", "explicit", False, True),
    ("mean", "float32", "explicit", True, True),
    ("mean", "float32", "batch", True, False),
    ("sum", "int64", "batch", False, True),
    ("min", "float32", "batch", False, False),
    ("max", "int32", "batch", False, True),
]
SIZES = np.array([4.0, 1.0, 8.0, 2.0])


def spec(name: str, group: tuple) -> KeySpec:
    fx, dtype, weighting, repeated, optional = group
    options = Options("training_step", on_step=True, on_epoch=True, reduce_fx=fx)
    fields = scalar_fields(fx, dtype, weighting=weighting, repeated=repeated, optional=optional)
    return KeySpec(name, options, fields)


@pytest.fixture
def schema() -> Schema:
    """Two of each group, far apart."""
    return Schema(
        tuple(spec(f"{i}/{k}", group) for i in range(2) for k, group in enumerate(GROUPS))
    )


@pytest.fixture
def rows(schema: Schema) -> np.ndarray:
    draw = np.random.default_rng(0)
    fields = [field for one in schema for field in one.columns]
    counts = ("units", "weight")
    return np.stack(
        [
            pack_host(
                [draw.integers(0, 3 if r.name in counts else 2**24, ()) for r in fields], fields
            )
            for _ in SIZES
        ]
    )


def test_a_group_holds_all_that_are_reduced_by_one_rule(schema: Schema) -> None:
    groups = layout_groups(schema)
    assert len(groups) == len(GROUPS)
    assert sorted(i for group in groups for i in group.places) == list(range(len(schema)))
    assert all(len(group.specs) == 2 for group in groups)


def test_neighbours_are_a_slice() -> None:
    (group,) = layout_groups(Schema(tuple(spec(name, GROUPS[0]) for name in "abc")))
    assert group.at == slice(0, 3)


def test_values_weights_and_presence_are_those_of_each_key(schema, rows) -> None:
    each = decode_rows(schema, rows)
    for group in layout_groups(schema):
        column = group.read(rows)
        for j, one in enumerate(group.specs):
            alone = each[one.name]
            np.testing.assert_array_equal(column.present()[:, j], alone.present())
            np.testing.assert_array_equal(column.step_values(SIZES)[:, j], alone.step_values(SIZES))
            for all_keys, key in (
                zip(column.means(SIZES), alone.means(SIZES), strict=True)
                if (one.options.reduce_fx == "mean")
                else ()
            ):
                np.testing.assert_array_equal(all_keys[:, j], key)


def test_shards_have_an_axis_in_front(schema, rows) -> None:
    shards = np.stack([rows, rows[::-1]])
    for group in layout_groups(schema):
        both, one = group.read(shards), group.read(rows)
        for field, state in both.state.items():
            np.testing.assert_array_equal(state[0], one.state[field])
            np.testing.assert_array_equal(state[1], one.state[field][::-1])
