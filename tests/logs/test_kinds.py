"""Fetched rows read kind by kind say what they say read key by key."""

from __future__ import annotations

import numpy as np
import pytest

from jaxlog.logs.kinds import kinds_of
from jaxlog.logs.packing import pack_host
from jaxlog.logs.roles import scalar_roles
from jaxlog.logs.schema import Entry, Options, Schema
from jaxlog.logs.tape import decode_rows

KINDS = [
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


def entry(name: str, kind: tuple) -> Entry:
    fx, dtype, weighting, repeated, optional = kind
    options = Options("training_step", on_step=True, on_epoch=True, reduce_fx=fx)
    roles = scalar_roles(fx, dtype, weighting=weighting, repeated=repeated, optional=optional)
    return Entry(name, options, roles)


@pytest.fixture
def schema() -> Schema:
    """Two of each kind, far apart."""
    return Schema(tuple(entry(f"{i}/{k}", kind) for i in range(2) for k, kind in enumerate(KINDS)))


@pytest.fixture
def rows(schema: Schema) -> np.ndarray:
    draw = np.random.default_rng(0)
    roles = [role for one in schema for role in one.columns]
    counts = ("units", "weight")
    return np.stack(
        [
            pack_host(
                [draw.integers(0, 3 if r.name in counts else 2**24, ()) for r in roles], roles
            )
            for _ in SIZES
        ]
    )


def test_a_kind_holds_all_that_are_alike(schema: Schema) -> None:
    kinds = kinds_of(schema)
    assert len(kinds) == len(KINDS)
    assert sorted(i for kind in kinds for i in kind.places) == list(range(len(schema)))
    assert all(len(kind.entries) == 2 for kind in kinds)


def test_neighbours_are_a_slice() -> None:
    (kind,) = kinds_of(Schema(tuple(entry(name, KINDS[0]) for name in "abc")))
    assert kind.at == slice(0, 3)


def test_values_weights_and_presence_are_those_of_each_key(schema, rows) -> None:
    each = decode_rows(schema, rows)
    for kind in kinds_of(schema):
        column = kind.read(rows)
        for j, one in enumerate(kind.entries):
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
    for kind in kinds_of(schema):
        both, one = kind.read(shards), kind.read(rows)
        for role, cells in both.cells.items():
            np.testing.assert_array_equal(cells[0], one.cells[role])
            np.testing.assert_array_equal(cells[1], one.cells[role][::-1])
