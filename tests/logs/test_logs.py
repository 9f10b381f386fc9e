"""`Logs` in the explicit style: inside jit, scan, vmap and shard_map, against plain lists."""

from __future__ import annotations

import functools
import math
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from jaxlog import capture, log
from jaxlog.errors import LogArgumentError, SchemaError
from jaxlog.logs import Logs
from jaxlog.metrics import Accuracy, Mean

ROWS = 4
KEYS: dict[Any, str] = {"mean": "mean", "sum": "sum", "min": "min", "max": "max"}


def declared() -> Logs:
    """Logs of one key a reduction, of a weighted mean and of a metric; nothing logged."""
    return _logged(Logs.empty(rows=ROWS), jnp.float32(0)).reset()


def _logged(logs: Logs, x: Any) -> Logs:
    for name in KEYS:
        logs = logs.log(name, x, reduce_fx=name)
    return logs.log("weighted", x, batch_size=x).log("metric", Mean.of(x))


def _body(logs: Logs, x: Any) -> tuple[Logs, None]:
    return _logged(logs, x).advance(), None


# One program each for all tests.
step = jax.jit(lambda logs, x: _body(logs, x)[0])
compute = jax.jit(lambda logs: logs.compute())
epoch = jax.jit(lambda logs, xs: lax.scan(_body, logs, xs)[0])


def by_jit(xs: list[float]) -> Logs:
    return functools.reduce(step, map(np.float32, xs), declared())


def by_scan(xs: list[float]) -> Logs:
    return epoch(declared(), np.array(xs, np.float32))


def check(logs: Logs, xs: list[float]) -> None:
    """The logs hold exactly these steps."""
    found = {name: float(value) for name, value in compute(logs).items()}
    mean = math.fsum(xs) / len(xs) if xs else math.nan
    weighted = math.fsum(x * x for x in xs) / math.fsum(xs) if xs else math.nan
    want = {
        "mean": mean,
        "sum": math.fsum(xs),
        "min": min(xs, default=math.inf),
        "max": max(xs, default=-math.inf),
        "weighted": weighted,
        "metric": mean,
    }
    np.testing.assert_allclose([found[name] for name in want], list(want.values()), rtol=1e-6)
    assert found.keys() == want.keys()  # jit sorts the keys of a dict
    history = logs.history()
    assert list(history) == list(want)
    for values in history.values():
        assert values.tolist() == xs[-ROWS:]
        assert values.dtype == np.float64


XS = [3.0, 1.0, 4.0, 1.5, 5.0, 9.0, 2.5, 6.0, 5.5]


@pytest.mark.parametrize(
    ("run", "count"),
    [(by_jit, count) for count in (0, 1, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS, 2 * ROWS + 1)]
    + [(by_scan, count) for count in (0, ROWS - 1, 2 * ROWS + 1)],
)
def test_the_rows_are_a_ring_and_totals_go_on(run: Any, count: int) -> None:
    logs = run(XS[:count])
    assert (logs.ring_buffer.rows.shape[0], int(logs.ring_buffer.steps)) == (ROWS, count)
    check(logs, XS[:count])


def test_scan_and_jit_take_turns() -> None:
    logs = step(
        epoch(step(declared(), np.float32(3)), np.array([1, 4], np.float32)), np.float32(1.5)
    )
    check(logs, XS[:4])


def test_a_key_outlives_its_declaration() -> None:
    check(step(by_scan(XS).reset(), np.float32(2)), [2.0])
    check(by_scan(XS).reset(), [])


def test_one_row() -> None:
    logs = Logs.empty(rows=1)
    for x in (1.0, 2.0, 3.0):
        logs = logs.log("v", x).advance()
    assert logs.history()["v"].tolist() == [3.0]
    assert float(logs.compute()["v"]) == 2.0


def test_several_values_in_one_step_reduce() -> None:
    logs = Logs.empty(rows=2)
    for x in (1.0, 2.0, 6.0):
        for fx in KEYS:
            logs = logs.log(fx, x, reduce_fx=fx)
        logs = logs.log("weighted", x, batch_size=x)
    found = {name: values.tolist() for name, values in logs.advance().history().items()}
    assert found == {"mean": [3.0], "sum": [9.0], "min": [1.0], "max": [6.0], "weighted": [41 / 9]}


def test_what_a_step_leaves_out_is_nan_and_weighs_nothing() -> None:
    logs = Logs.empty(rows=3).log("a", 1.0).log("b", 2.0).advance()
    logs = logs.log("a", 5.0).advance().advance()
    history = logs.history()
    np.testing.assert_array_equal(history["a"], [1, 5, np.nan])
    np.testing.assert_array_equal(history["b"], [2, np.nan, np.nan])
    assert {name: float(value) for name, value in logs.compute().items()} == {"a": 3.0, "b": 2.0}


def test_what_is_not_advanced_does_not_count() -> None:
    logs = Logs.empty(rows=2).log("v", 1.0)
    assert logs.history()["v"].tolist() == []
    assert math.isnan(float(logs.compute()["v"]))
    assert logs.advance().history()["v"].tolist() == [1.0]


# ---- keys that come later -------------------------------------------------------------------


def test_a_new_key_widens_the_rows_there_are() -> None:
    logs = Logs.empty(rows=3)
    for i in range(4):
        logs = logs.log("a", float(i)).advance()
    logs = logs.log("b", 7, reduce_fx="max").log("c", Mean.of(jnp.float32(8))).log("a", 9.0)
    logs = logs.advance()
    for name, want in {"a": [2, 3, 9], "b": [np.nan, np.nan, 7], "c": [np.nan, np.nan, 8]}.items():
        np.testing.assert_array_equal(logs.history()[name], want)
    assert {k: float(v) for k, v in logs.compute().items()} == {"a": 3.0, "b": 7.0, "c": 8.0}


def test_a_new_key_inside_jit_is_a_new_structure() -> None:
    grow = jax.jit(lambda logs, x: logs.log("b", x).advance())
    logs = grow(Logs.empty(rows=2).log("a", 1.0).advance(), 2.0)
    np.testing.assert_array_equal(logs.history()["b"], [np.nan, 2])
    logs = grow(logs, 3.0)
    np.testing.assert_array_equal(logs.history()["b"], [2, 3])


def _new(logs: Logs) -> Logs:
    return logs.log("new", 1.0).advance()


CARRIES: dict[str, Any] = {
    "scan": lambda logs: lax.scan(lambda c, _: (_new(c), None), logs, None, length=2),
    "while_body": lambda logs: lax.while_loop(lambda c: c.ring_buffer.steps < 3, _new, logs),
    "fori_loop": lambda logs: lax.fori_loop(0, 2, lambda _, c: _new(c), logs),
    "cond": lambda logs: lax.cond(jnp.array(True), _new, lambda c: c, logs),
    "switch": lambda logs: lax.switch(jnp.array(1), [lambda c: c, _new], logs),
}


@pytest.mark.parametrize("jitted", [True, False])
@pytest.mark.parametrize("kind", CARRIES)
def test_a_new_key_inside_a_carry_says_what_to_write(kind: str, jitted: bool) -> None:
    run = jax.jit(CARRIES[kind]) if jitted else CARRIES[kind]
    match = (
        rf"logs\.log\('new', \.\.\.\) is a new key inside a {kind}.*logs = logs\.log\('new'.*reset"
    )
    with pytest.raises(SchemaError, match=match):
        run(Logs.empty(rows=2).log("v", 1.0))
    run(Logs.empty(rows=2).log("new", 1.0).reset())  # what the message says to write


def test_another_weighting_inside_a_carry() -> None:
    def body(logs, x):
        return logs.log("v", x, batch_size=2).advance(), None

    with pytest.raises(SchemaError, match=r"'v'.*another dtype or weighting inside a scan"):
        lax.scan(body, Logs.empty().log("v", 1.0), jnp.ones(2))


@pytest.mark.parametrize("options", [{"batch_size": 3}, {"reduce_fx": "sum"}, {"prog_bar": True}])
def test_a_key_logged_in_another_way(options: Any) -> None:
    with pytest.raises(SchemaError, match=r"'v'.*(another dtype or weighting|different options)"):
        Logs.empty().log("v", 1.0).log("v", 2.0, **options)


def test_a_sum_keeps_its_dtype() -> None:
    logs = Logs.empty().log("v", 1, reduce_fx="sum")
    with pytest.raises(SchemaError, match="another dtype"):
        logs.log("v", 1.5, reduce_fx="sum")
    assert Logs.empty().log("v", 1.5).log("v", 2).advance().history()["v"].tolist() == [1.75]


# ---- captured logs are not explicit ones ----------------------------------------------------


def test_captured_logs_are_not_logged_to_by_hand() -> None:
    logs = capture(lambda x: log("v", x)).init(1.0)
    with pytest.raises(SchemaError, match=r"jaxlog\.log\('v', \.\.\.\).*Logs\.empty\(\)"):
        logs.log("v", 1.0)
    with pytest.raises(SchemaError, match="by itself"):
        logs.advance()


@pytest.mark.parametrize("rows", [0, -3, 1.0, None, True, "4"])
def test_rows_that_cannot_be(rows: Any) -> None:
    with pytest.raises(LogArgumentError, match=rf"rows={rows!r}\): takes a positive int"):
        Logs.empty(rows=rows)


def test_logs_without_arguments_are_empty_ones() -> None:
    ours, empty = Logs(), Logs.empty()
    assert jax.tree.structure(ours) == jax.tree.structure(empty)
    assert ours.log("v", 2.0).advance().history()["v"].tolist() == [2.0]


# ---- pytree laws ----------------------------------------------------------------------------


def leaves_of(logs: Logs) -> list[np.ndarray]:
    return [np.array(leaf) for leaf in jax.tree.leaves(logs)]


def same(a: Logs, b: Logs) -> bool:
    structures = jax.tree.structure(a) == jax.tree.structure(b)
    return structures and all(map(np.array_equal, leaves_of(a), leaves_of(b)))


def test_flatten_and_unflatten_are_inverse() -> None:
    logs = _logged(by_scan(XS), jnp.float32(7))  # with something pending
    leaves, structure = jax.tree.flatten(logs)
    again = jax.tree.unflatten(structure, leaves)
    assert same(logs, again)
    assert again.schema == logs.schema
    check(again.advance(), [*XS, 7.0])
    assert hash(structure) == hash(jax.tree.structure(by_scan(XS)))
    assert structure != jax.tree.structure(logs.log("more", 1.0))
    assert structure != jax.tree.structure(Logs.empty(logs.schema, rows=ROWS, explicit=False))


def test_tree_map_keeps_the_kind_and_takes_any_leaf() -> None:
    logs = by_scan(XS)
    assert same(jax.tree.map(lambda x: x, logs), logs)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), logs)
    assert isinstance(shapes, Logs)
    assert jax.tree.structure(jax.eval_shape(epoch, shapes, np.ones(3, np.float32))) == (
        jax.tree.structure(logs)
    )
    assert jax.tree.leaves(jax.tree.map(lambda _: None, logs)) == []
    doubled = jax.tree.map(lambda a, b: np.stack([a, b]), logs, logs)
    assert doubled.ring_buffer.rows.shape == (2, *logs.ring_buffer.rows.shape)


@pytest.mark.parametrize(
    "change",
    [
        lambda logs: logs.log("mean", 5.0),
        lambda logs: logs.log("new", 5.0),
        lambda logs: _logged(logs, jnp.float32(5)).advance(),
        lambda logs: logs.merge(logs),
        lambda logs: logs.reset(),
        lambda logs: (logs.compute(), logs.history()),
    ],
)
def test_the_old_logs_stay_as_they_are(change: Any) -> None:
    logs = by_scan(XS[:3])
    before = leaves_of(logs)
    schema, pending, metrics = logs.schema, dict(logs.pending), dict(logs.metrics)
    change(logs)
    assert all(map(np.array_equal, before, leaves_of(logs)))
    assert (logs.schema, list(logs.pending), list(logs.metrics)) == (
        schema,
        list(pending),
        list(metrics),
    )
    check(logs, XS[:3])


def test_types_are_those_of_a_carry() -> None:
    before = declared()
    after = jax.eval_shape(step, before, np.float32(1))
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
        assert not new.weak_type


def test_repr_names_the_keys() -> None:
    assert repr(Logs.empty().log("loss", 1.0).log("acc", 2.0)) == "Logs(loss, acc)"


# ---- merge ----------------------------------------------------------------------------------


@hypothesis.given(st.integers(0, 9), st.integers(0, 9))
@hypothesis.settings(max_examples=15)
def test_merged_logs_are_those_of_both(first: int, second: int) -> None:
    ys = [x + 0.25 for x in XS]
    merged = _merge(_steps(XS[:first]), _steps(ys[:second]))
    check(merged, XS[:first] + ys[:second])
    check(_merge(merged, _steps([8.0])), [*XS[:first], *ys[:second], 8.0])


_merge = jax.jit(lambda a, b: a.merge(b))


def _steps(xs: list[float]) -> Logs:
    """`by_scan`, without a program for each length."""
    return functools.reduce(step, map(np.float32, xs), declared())


def test_merge_takes_what_is_pending_along() -> None:
    a, b = Logs.empty(rows=2).log("v", 1.0), Logs.empty(rows=2).log("v", 5.0)
    assert a.merge(b).advance().history()["v"].tolist() == [3.0]


def test_logs_of_other_keys_do_not_merge() -> None:
    with pytest.raises(SchemaError, match=r"different keys: \['a'\] and \['a', 'b'\]"):
        Logs.empty().log("a", 1.0).merge(Logs.empty().log("a", 1.0).log("b", 1.0))


@pytest.mark.parametrize("other", [{"rows": 2}, {"explicit": False}])
def test_logs_made_in_another_way_do_not_merge(other: dict[str, Any]) -> None:
    schema = Logs.empty().log("v", 1.0).schema
    options: dict[str, Any] = {"rows": 8} | other
    a, b = Logs.empty(schema, rows=8), Logs.empty(schema, **options)
    for first, second in ((a, b), (b, a)):
        with pytest.raises(SchemaError, match=r"made in different ways.*same options"):
            first.merge(second)


# ---- vmap and shard_map ---------------------------------------------------------------------


def test_vmap_keeps_logs_for_each() -> None:
    batches = np.array([XS, [x + 1 for x in XS]], np.float32)
    many = jax.jit(jax.vmap(lambda xs: lax.scan(_body, declared(), xs)[0]))(batches)
    for i, xs in enumerate(batches.tolist()):
        check(jax.tree.map(lambda x, i=i: x[i], many), xs)
    np.testing.assert_allclose(
        jax.vmap(lambda logs: logs.compute()["sum"])(many), batches.sum(1), rtol=1e-6
    )


def test_reduce_over_a_mesh_axis() -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))
    spec = PartitionSpec("d")
    xs = np.arange(1, 13, dtype=np.float32).reshape(4, 3)

    def shard(xs):
        logs = declared()
        for i in range(3):
            logs = _logged(logs, xs[0, i])
            logs = logs.log("hits", Accuracy.of(predictions=xs[0, i] > 5, labels=True)).advance()
        return logs.reduce("d").compute()

    run = jax.shard_map(shard, mesh=mesh, in_specs=spec, out_specs=PartitionSpec(), check_vma=False)
    found = {name: float(value) for name, value in jax.jit(run)(xs).items()}
    assert found == {
        "mean": xs.mean(),
        "sum": xs.sum(),
        "min": 1.0,
        "max": 12.0,
        "weighted": pytest.approx(np.average(xs, weights=xs), rel=1e-6),
        "metric": xs.mean(),
        "hits": pytest.approx(7 / 12),
    }


@pytest.mark.parametrize("check_vma", [True, False])
def test_reducing_twice_is_an_error_not_a_factor(check_vma: bool) -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))
    around = {"mesh": mesh, "in_specs": PartitionSpec("d"), "out_specs": PartitionSpec()}

    def twice(xs):
        logs = Logs.empty().log("v", xs[0], reduce_fx="sum").advance().reduce("d")
        return logs.log("v", xs[0], reduce_fx="sum").advance().reduce("d").compute()

    with pytest.raises(SchemaError, match=r"reduced over \['d'\] already.*logs.reset\(\)"):
        jax.shard_map(twice, **around, check_vma=check_vma)(np.ones(4, np.float32))


def test_logs_that_shards_share_do_not_reduce() -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))

    def shared(x):
        return Logs.empty().log("v", x, reduce_fx="sum").advance().reduce("d").compute()

    whole = PartitionSpec()
    run = jax.shard_map(shared, mesh=mesh, in_specs=whole, out_specs=whole)
    with pytest.raises(SchemaError, match="the same on every shard along 'd'"):
        run(np.float32(1))


def test_reduced_logs_and_others_do_not_merge() -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))

    def both(xs):
        logs = Logs.empty().log("v", xs[0]).advance()
        return logs.merge(logs.reduce("d")).compute()

    around = {"mesh": mesh, "in_specs": PartitionSpec("d"), "out_specs": PartitionSpec("d")}
    with pytest.raises(SchemaError, match="made in different ways"):
        jax.shard_map(both, **around)(np.ones(4, np.float32))
