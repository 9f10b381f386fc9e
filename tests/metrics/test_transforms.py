"""Eager, jit, vmap, scan and shard_map give one answer, with leaves that keep dtype and shape."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxlog.errors import LogArgumentError
from jaxlog.metrics import Last, Mean, Metric, state

BATCHES = np.array([[1.5, -2.0, 0.25], [4.0, 0.5, -7.5], [2.0, 2.0, 0.0], [-1.0, 9.0, 3.0]])
XS = jnp.asarray(BATCHES, jnp.float32)


class Concat(Metric):
    """A user's own merge, associative but not commutative: decimal digits side by side."""

    digits: jax.Array = state(0.0, "sum")
    scale: jax.Array = state(0.0, "sum")  # log10 of the next digit's place

    @classmethod
    def of(cls, x: jax.Array) -> Self:
        return cls(digits=x[0], scale=1.0)  # pyright: ignore[reportArgumentType]

    def merge(self, other: Self) -> Self:
        shifted = self.digits * jnp.round(10.0**other.scale)
        return type(self)(digits=shifted + other.digits, scale=self.scale + other.scale)

    def compute(self) -> Any:
        return self.digits


def update(case, metric: Metric, x: jax.Array) -> Metric:
    return metric.merge(case.of(x))


def structure(metric: Any) -> Any:
    avals = [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(metric)]
    return jax.tree.structure(metric), avals


def assert_answer(case, metric: Metric) -> None:
    assert structure(metric) == structure(case.empty())
    number = metric.compute()
    assert number.shape == ()
    np.testing.assert_allclose(float(number), case.oracle(BATCHES.reshape(-1)), rtol=1e-6)


def test_eager(case) -> None:
    metric = case.empty()
    for x in XS:
        metric = update(case, metric, x)
    assert_answer(case, metric)


def test_jit(case) -> None:
    traces = []

    @jax.jit
    def step(metric: Metric, x: jax.Array) -> Metric:
        traces.append(x)
        return update(case, metric, x)

    metric = case.empty()
    for x in XS:
        metric = step(metric, x)
    assert_answer(case, metric)
    assert len(traces) == 1  # strongly typed from the start: no second compilation


def test_scan_carry(case) -> None:
    scanned = jax.jit(
        lambda xs: jax.lax.scan(lambda m, x: (update(case, m, x), None), case.empty(), xs)
    )
    assert_answer(case, scanned(XS)[0])


def test_vmap_then_reduce_axes(case) -> None:
    mapped = jax.vmap(case.of)(XS)
    assert_answer(case, mapped.reduce_axes(1))
    assert_answer(case, jax.jit(lambda m: m.reduce_axes(1))(mapped))
    np.testing.assert_allclose(
        mapped.to_host().reduce_axes(1).host_compute(), case.oracle(BATCHES.reshape(-1)), rtol=1e-6
    )


def test_nested_vmap(case) -> None:
    mapped = jax.vmap(jax.vmap(case.of))(XS.reshape(2, 2, 3))
    assert_answer(case, mapped.reduce_axes(2))
    assert_answer(case, mapped.reduce_axes(1).reduce_axes(1))
    assert mapped.reduce_axes(0) is mapped


@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map(case, check_vma: bool) -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    reduced = jax.jit(
        jax.shard_map(
            lambda x: update(case, case.empty(), x[0]).reduce("data"),
            mesh=mesh,
            in_specs=PartitionSpec("data"),
            out_specs=PartitionSpec(),
            check_vma=check_vma,
        )
    )(jax.device_put(XS, jax.sharding.NamedSharding(mesh, PartitionSpec("data"))))
    assert_answer(case, reduced)


def test_two_mesh_axes_and_local_vmap(case) -> None:
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("a", "b"))
    reduced = jax.shard_map(
        lambda x: jax.vmap(case.of)(x).reduce_axes(1).reduce(("a", "b")),
        mesh=mesh,
        in_specs=PartitionSpec(("a", "b")),
        out_specs=PartitionSpec(),
    )(XS)
    assert_answer(case, reduced)


def test_vmapped_axis_name(case) -> None:
    mapped = jax.vmap(lambda x: case.of(x).reduce("i"), axis_name="i")(XS)
    assert_answer(case, jax.tree.map(lambda leaf: leaf[-1], mapped))


def test_where(case) -> None:
    metric = case.of(XS[0])
    kept, dropped = metric.where(jnp.array(True)), jax.jit(metric.where)(jnp.array(False))
    for got, want in ((kept, metric), (dropped, case.empty())):
        assert structure(got) == structure(want)
        jax.tree.map(np.testing.assert_array_equal, got, want)


def test_where_under_mapped_axes_drops_rows(case) -> None:
    mapped = jax.vmap(case.of)(jnp.concatenate([XS, jnp.full_like(XS, 1e6)]))
    kept = mapped.where(jnp.arange(8) < 4)
    assert_answer(case, kept.reduce_axes(1))
    host = mapped.to_host().where(np.arange(8) < 4)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(host))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, np.asarray(b)), host, kept.to_host())


def test_reducing_no_rows_is_empty(case) -> None:
    none = jax.tree.map(lambda leaf: leaf[:0], jax.vmap(case.of)(XS))
    jax.tree.map(np.testing.assert_array_equal, none.reduce_axes(1), case.empty())


def test_dtypes_stay_in_x64_mode(case) -> None:
    want = structure(case.empty())
    with jax.enable_x64(True):
        metric = case.empty().merge(case.of(jnp.asarray(BATCHES[0], jnp.float32)))
        assert structure(metric) == structure(case.empty()) == want
        carried, _ = jax.lax.scan(lambda m, x: (update(case, m, x), None), case.empty(), XS)
        assert_answer(case, carried)


def test_empty_can_be_donated(case) -> None:
    empty = case.empty()
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(empty)]
    assert len(set(pointers)) == len(pointers)
    step = jax.jit(lambda m, x: update(case, m, x), donate_argnums=0)
    for x in XS:
        empty = step(empty, x)
    assert_answer(case, empty)


def test_a_numpy_leaf_is_copied_so_that_donation_spares_the_caller() -> None:
    mine = np.zeros((), np.float32)
    metric = Mean(total=mine, weight=mine)  # pyright: ignore[reportArgumentType]
    jax.jit(lambda m: jax.tree.map(lambda x: x + 1, m), donate_argnums=0)(metric)
    np.testing.assert_array_equal(mine, 0)


def test_an_own_merge_folds_in_order() -> None:
    digits = jnp.arange(1.0, 5.0)[:, None]
    mapped = jax.vmap(Concat.of)(digits)
    assert float(mapped.reduce_axes(1).compute()) == 1234.0
    # A second mapped axis stays mapped while the first is folded.
    square = jax.vmap(jax.vmap(Concat.of))(digits.reshape(2, 2, 1))
    assert square.reduce_axes(1).compute().tolist() == [13.0, 24.0]
    assert float(square.reduce_axes(2).compute()) == 1234.0

    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    spec = PartitionSpec("data")
    folded = jax.shard_map(
        lambda x: Concat.of(x[0]).reduce("data"),
        mesh=mesh,
        in_specs=spec,
        out_specs=PartitionSpec(),
    )(digits)
    assert float(folded.compute()) == 1234.0


def test_last_is_the_last_present_shard() -> None:
    mapped = jax.vmap(Last.of)(jnp.arange(4.0)).where(jnp.array([True, True, False, False]))
    assert float(mapped.reduce_axes(1).compute()) == 1.0


def test_reduce_axes_names_the_mapped_axes() -> None:
    with pytest.raises(LogArgumentError, match=r"num_leading=2.*1 mapped axes.*reduce_axes\(1\)"):
        jax.vmap(Mean.of)(XS).reduce_axes(2)


def test_pmap(case):
    reduced = jax.pmap(lambda x: case.of(x).reduce("d"), axis_name="d")(BATCHES.astype(np.float32))
    assert_answer(case, jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[0]), reduced))
