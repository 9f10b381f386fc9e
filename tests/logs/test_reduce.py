"""The table of reductions and the weighted mean: laws, and device and host against float64."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxlog.errors import SchemaError
from jaxlog.logs import (
    REDUCTIONS,
    Column,
    Field,
    KeySpec,
    Options,
    contributing_devices,
    contributing_shards,
    mean_terms,
    scalar_fields,
)

# The definition of each reduction, over the last axis of a float64 array.
ORACLE: dict[str, Any] = {"mean": np.sum, "sum": np.sum, "min": np.min, "max": np.max}
DTYPES = ["float32", "bfloat16", "int32", "uint32"]
COUNT = 6

few = hypothesis.settings(max_examples=25, deadline=None)
# Quarters of small integers add without rounding in every dtype of the table.
small = hnp.arrays(np.float64, (COUNT,), elements=st.integers(0, 8).map(float))
names = pytest.mark.parametrize("name", list(REDUCTIONS))


def test_the_table_holds_what_log_takes() -> None:
    assert set(REDUCTIONS) == set(ORACLE)
    assert [name for name, row in REDUCTIONS.items() if row.weighted] == ["mean"]
    assert [name for name, row in REDUCTIONS.items() if row.adds] == ["mean", "sum"]
    assert all(name == row.name for name, row in REDUCTIONS.items())


@names
@pytest.mark.parametrize("dtype", [*DTYPES, "float64", "int64", "uint64"])
def test_the_identity_changes_nothing(name: str, dtype: str) -> None:
    row = REDUCTIONS[name]
    nothing = np.full((3,), row.identity(jnp.dtype(dtype)), jnp.dtype(dtype))
    is_integer = jnp.issubdtype(nothing.dtype, np.integer)
    ends: Any = np.iinfo(dtype) if is_integer else jnp.finfo(dtype)
    values = np.array([ends.min, 1, ends.max], jnp.dtype(dtype))
    for combined in (row.combine(nothing, values), row.combine(values, nothing)):
        assert combined.dtype == values.dtype
        np.testing.assert_array_equal(combined, values)


@few
@names
@pytest.mark.parametrize("dtype", DTYPES)
@hypothesis.given(values=small)
def test_device_host_and_oracle_agree(name: str, dtype: str, values: np.ndarray) -> None:
    row, want = REDUCTIONS[name], ORACLE[name](values)
    host, device = values.astype(jnp.dtype(dtype)), jnp.asarray(values, dtype)
    for found in (row.fold(host), row.fold(device), functools.reduce(row.combine, host)):
        assert found.dtype == jnp.dtype(dtype)
        assert float(found) == want
    assert isinstance(row.fold(device), jax.Array)
    assert not isinstance(row.fold(host), jax.Array)


@few
@names
@hypothesis.given(values=small, cut=st.integers(0, COUNT), first=st.permutations(range(COUNT)))
def test_any_order_and_any_cut_give_one_answer(
    name: str, values: np.ndarray, cut: int, first: list[int]
) -> None:
    row = REDUCTIONS[name]
    values = values[first]
    halves = row.combine(row.fold(values[:cut]), row.fold(values[cut:]))  # one may be empty
    assert float(halves) == ORACLE[name](values)
    a, b, c = values[:3]
    assert row.combine(row.combine(a, b), c) == row.combine(a, row.combine(b, c))


@names
@pytest.mark.parametrize("xp", [np, jnp])
@pytest.mark.parametrize(("shape", "axis"), [((0,), None), ((2, 0), 1), ((0, 2), (0,))])
def test_no_values_fold_to_the_identity(name: str, xp: Any, shape: Any, axis: Any) -> None:
    row = REDUCTIONS[name]
    for dtype in ("float32", "int32"):
        found = np.asarray(row.fold(xp.zeros(shape, dtype), axis))
        assert found.dtype == dtype
        assert (found == row.identity(dtype)).all()


@names
@pytest.mark.parametrize("axis", [None, 0, (0, 1), (0, 2)])
def test_axes_fold(name: str, axis: Any) -> None:
    values = np.arange(24.0).reshape(2, 3, 4) % 7
    want = ORACLE[name](values, axis=axis)
    for array in (values, jnp.asarray(values, jnp.float32)):
        np.testing.assert_array_equal(REDUCTIONS[name].fold(array, axis), want)


@names
def test_mesh_axes_fold(name: str) -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), ("a",))
    values = np.array([3.0, 1.0, 4.0, 2.0], np.float32)
    fold = jax.shard_map(
        lambda x: REDUCTIONS[name].collective(x, "a"),
        mesh=mesh,
        in_specs=PartitionSpec("a"),
        out_specs=PartitionSpec(),
    )
    assert jax.jit(fold)(values).tolist() == [ORACLE[name](values)]


@names
def test_rows_that_share_an_index_fold(name: str) -> None:
    row = REDUCTIONS[name]
    found = np.full(3, row.identity(np.float64))
    row.ufunc.at(found, np.array([0, 2, 0, 2]), np.array([3.0, -1.0, 5.0, -2.0]))
    want = [ORACLE[name]([3.0, 5.0]), row.limit, ORACLE[name]([-1.0, -2.0])]
    assert found.tolist() == want


def test_nan_is_kept() -> None:
    values = np.array([1.0, np.nan, 2.0])
    for row in REDUCTIONS.values():
        assert np.isnan(row.fold(values))
        assert np.isnan(row.fold(jnp.asarray(values)))
        assert np.isnan(row.combine(values[0], values[1]))


# ---- the weighted mean ----------------------------------------------------------------------

LAYOUTS: dict[str, tuple[Field, ...]] = {
    f"{weighting}, repeated={repeated}, optional={optional}": scalar_fields(
        "mean", "float32", weighting=weighting, repeated=repeated, optional=optional
    )
    for weighting in ("batch", "explicit")
    for repeated in (True, False)
    for optional in (True, False)
}
LAYOUTS["both"] = (
    *scalar_fields("mean", "float32", weighting="batch", repeated=True, optional=True),
    *scalar_fields("mean", "float32", weighting="explicit", repeated=True, optional=True),
)
layouts = pytest.mark.parametrize("layout", LAYOUTS)
SHARDS, STEPS = 4, 3
states = st.lists(
    hnp.arrays(np.float32, (SHARDS, STEPS), elements=st.integers(0, 3).map(float)),
    min_size=4,
    max_size=4,
)
SIZES = np.array([8.0, 2.0, 4.0])


def column_of(layout: str, drawn: list[np.ndarray]) -> Column:
    options = Options("training_step", on_step=True, on_epoch=True)
    fields = LAYOUTS[layout]
    state = {f.name: x.astype(f.dtype) for f, x in zip(fields, drawn, strict=False)}
    if "units" in state and "raw" in state:
        state["units"] = np.minimum(state["units"], 1)
    for value, count in (("raw", "units"), ("raw", "weight"), ("total", "units"),
                         ("wtotal", "weight")):  # fmt: skip
        if value in state and count in state:  # what was not logged is 0 on the device
            state[value] = np.where(state[count] > 0, state[value], 0)
    return Column(KeySpec("v", options, fields), state)


def oracle(state: Mapping[str, np.ndarray], sizes: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sum and weights by the definition, in float64, from the fields as stored."""
    wide = {name: x.astype(np.float64) for name, x in state.items()}
    zero = np.zeros(np.broadcast_shapes(next(iter(wide.values())).shape, np.shape(sizes)))
    num, den = zero.copy(), zero.copy()
    if "weight" in wide:
        num += wide["wtotal"] if "wtotal" in wide else wide["raw"] * wide["weight"]
        den += wide["weight"]
    if "units" in wide or "weight" not in wide:
        units = wide.get("units", zero + 1)
        size = np.where(units > 0, sizes, 0)
        value = wide.get("total", wide.get("raw", zero))
        num += value / np.maximum(units, 1) * size
        den += size
    return num, den


@few
@layouts
@hypothesis.given(drawn=states)
def test_the_terms_are_the_definition_on_host_and_device(
    layout: str, drawn: list[np.ndarray]
) -> None:
    state = column_of(layout, drawn).state
    want = oracle(state, SIZES)
    if layout.startswith("explicit, repeated=False, optional"):
        assert "units" not in state
    for xp, dtype in ((np, np.float64), (jnp, np.float32)):
        num, den = xp.zeros((SHARDS, STEPS), dtype), xp.zeros((SHARDS, STEPS), dtype)
        cast = {name: xp.asarray(x, dtype) for name, x in state.items()}
        for term in mean_terms(cast, xp.asarray(SIZES, dtype)[None], xp):
            value = term.value if term.count is None else term.value / term.count
            num += value if term.factor is None else value * term.factor
            den += term.weight
        np.testing.assert_allclose(num, want[0], rtol=1e-6)
        np.testing.assert_array_equal(den, want[1])


@few
@layouts
@hypothesis.given(drawn=states, chosen=st.lists(st.booleans(), min_size=SHARDS, max_size=SHARDS))
def test_shards_reduce_to_the_calls_of_all(
    layout: str, drawn: list[np.ndarray], chosen: list[bool]
) -> None:
    hypothesis.assume(any(chosen))
    column = column_of(layout, drawn)
    one = column.reduce_shards(np.array(chosen))
    present = column.present()[chosen].any(axis=0)
    np.testing.assert_array_equal(one.present(), present)
    # All calls of a step that weigh by batch size have the weight of one batch together.
    summed = {name: x[chosen].astype(np.float64) for name, x in column.state.items()}
    general: dict[str, np.ndarray] = {}
    if "weight" in summed:
        weighted = summed.get("wtotal", summed.get("raw", 0.0) * summed["weight"])
        general = {"wtotal": weighted.sum(axis=0), "weight": summed["weight"].sum(axis=0)}
    if "total" in summed or "weight" not in summed:
        value = summed["total"] if "total" in summed else summed["raw"]
        units = summed.get("units", np.ones(value.shape))
        general |= {"total": value.sum(axis=0), "units": units.sum(axis=0)}
    for found, want in zip(one.means(SIZES), oracle(general, SIZES), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-12)


@pytest.mark.parametrize("fx", ["sum", "min", "max"])
def test_shards_that_logged_nothing_do_not_count(fx: str) -> None:
    options = Options("training_step", on_step=True, on_epoch=True, reduce_fx=fx)
    fields = scalar_fields(fx, "int32", weighting="batch", repeated=True, optional=True)
    state = {
        fx: np.array([[3, 7], [9, 7], [5, 7]], np.int32),
        "units": np.array([[1, 0], [0, 0], [2, 0]], np.int32),
    }
    one = Column(KeySpec("v", options, fields), state).reduce_shards(np.ones(3, bool))
    assert one.present().tolist() == [True, False]
    assert one.step_values()[0] == ORACLE[fx]([3.0, 5.0])


# ---- which shards count ---------------------------------------------------------------------

MESH = {"a": 2, "b": 2}


def counting(varying: frozenset[str] | None = None, **options: Any) -> list[list[bool]]:
    given = Options("training_step", on_step=True, on_epoch=False, **options)
    return contributing_shards("v", given, MESH, varying).tolist()


FIRST, ALL = [[True, False], [False, False]], [[True, True], [True, True]]


@pytest.mark.parametrize(
    ("varying", "options", "want"),
    [
        (None, {}, FIRST),
        (None, {"sync_dist": True, "rank_zero_only": True}, FIRST),
        (None, {"sync_dist": True}, ALL),
        ({"a", "b"}, {"sync_dist": True}, ALL),
        ({"a"}, {"sync_dist": True}, [[True, False], [True, False]]),
        ({"b"}, {"sync_dist": True}, [[True, True], [False, False]]),
        (set(), {"sync_dist": True}, FIRST),
        (None, {"sync_dist": True, "sync_dist_group": "a"}, [[True, False], [True, False]]),
        ({"b"}, {"sync_dist": True, "sync_dist_group": "a"}, FIRST),
        (None, {"sync_dist": True, "sync_dist_group": ("a", "b")}, ALL),
        (None, {"sync_dist": True, "sync_dist_group": ((1, 2), (3, 0))},
         [[True, False], [False, True]]),
    ],
)  # fmt: skip
def test_which_shards_count(varying: Any, options: Any, want: list[list[bool]]) -> None:
    assert counting(None if varying is None else frozenset(varying), **options) == want


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("c", r"the mesh axes here are \['a', 'b'\], and \['c'\] is not among them"),
        (("a", "c"), r"\['c'\] is not among them"),
        ((0, 1), r"\[0, 1\] is not among them"),
        (((0, 1), (2,)), "hold each of the 4 shards once"),
        (((0, 1), (1, 2, 3)), "hold each of the 4 shards once"),
        ((("a",), 0), "hold each of the 4 shards once"),
    ],
)
def test_a_group_that_fits_no_mesh(group: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=f"log\\('v', .*{message}"):
        counting(sync_dist=True, sync_dist_group=group)


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, [True, False, False]),
        ({"sync_dist": True}, [True, True, True]),
        ({"sync_dist": True, "sync_dist_group": "batch"}, [True, True, True]),
        ({"sync_dist": True, "sync_dist_group": ((1,), (0, 2))}, [True, False, True]),
    ],
)
def test_which_devices_of_a_pmap_count(options: Any, want: list[bool]) -> None:
    given = Options("training_step", on_step=True, on_epoch=False, **options)
    assert contributing_devices("v", given, 3).tolist() == want
