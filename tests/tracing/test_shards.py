"""Logging inside shard_map and pmap: what `sync_dist` and its siblings make of the shards."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from jaxlog import capture, log
from jaxlog.errors import SchemaError
from jaxlog.metrics import Accuracy, Last

X = np.arange(16, dtype=np.float32)
SHARDS = X.reshape(4, 4)  # along the axis "a"


def mesh() -> Mesh:
    return Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("a", "b"))


def logged(body: Callable[[Any], Any], *, wrap: Any = lambda f: f, **options: Any) -> Any:
    """What `body` logs over four shards along "a", the same along "b"."""

    def run(x: Any) -> Any:
        body(x)
        return x * 2

    sharded = jax.shard_map(
        run, mesh=mesh(), in_specs=PartitionSpec("a"), out_specs=PartitionSpec("a"), **options
    )
    captured = capture(wrap(lambda x: sharded(x).sum()))
    logs, _ = jax.jit(captured)(captured.init(X), X)
    return {name: float(value) for name, value in logs.compute().items()}


CALLS: dict[str, tuple[Callable[[Any], Any], float]] = {
    "mean": (lambda x: log("v", x.mean(), sync_dist=True), X.mean()),
    "sum": (lambda x: log("v", x.sum(), sync_dist=True, reduce_fx="sum"), X.sum()),
    "min": (lambda x: log("v", x.min(), sync_dist=True, reduce_fx="min"), 0.0),
    "max": (lambda x: log("v", x.max(), sync_dist=True, reduce_fx="max"), 15.0),
    "unequal weights": (
        lambda x: log("v", x.mean(), sync_dist=True, batch_size=x[0] + 1),
        float(np.average(SHARDS.mean(1), weights=SHARDS[:, 0] + 1)),
    ),
    "first shard": (lambda x: log("v", x.mean()), SHARDS[0].mean()),
    "rank zero": (
        lambda x: log("v", x.mean(), sync_dist=True, rank_zero_only=True),
        SHARDS[0].mean(),
    ),
    "axis": (lambda x: log("v", x.mean(), sync_dist=True, sync_dist_group="a"), X.mean()),
    "axes": (lambda x: log("v", x.mean(), sync_dist=True, sync_dist_group=("a", "b")), X.mean()),
    "other axis": (
        lambda x: log("v", x.mean(), sync_dist=True, sync_dist_group="b"),
        SHARDS[0].mean(),
    ),
    "groups": (
        lambda x: log("v", x.mean(), sync_dist=True, sync_dist_group=[[0, 1, 4, 5], [2, 3, 6, 7]]),
        SHARDS[[0, 2]].mean(),
    ),
    "metric": (
        lambda x: log(
            "v",
            Accuracy.of(predictions=(x > 3).astype(jnp.int32), labels=jnp.ones(4, jnp.int32)),
            sync_dist=True,
        ),
        0.75,
    ),
    "scan": (
        lambda x: lax.scan(lambda c, v: (log("v", v, sync_dist=True), (c, None))[1], x[0], x),
        X.mean(),
    ),
    "while": (
        lambda x: lax.while_loop(
            lambda i: i < 4, lambda i: (log("v", x[i], sync_dist=True), i + 1)[1], 0
        ),
        X.mean(),
    ),
    "some shards": (
        lambda x: lax.cond(
            x[0] > 7, lambda v: log("v", v, sync_dist=True), lambda _: None, x.mean()
        ),
        SHARDS[2:].mean(),
    ),
}
WRAPS: dict[str, Any] = {
    "plain": lambda f: f,
    "grad": jax.grad,
    "checkpoint": jax.checkpoint,
    "jit": jax.jit,
}


# JAX differentiates no while loop in reverse.
CASES = [(c, w) for c in CALLS for w in WRAPS if (c, w) != ("while", "grad")]


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize(("call", "wrap"), CASES)
def test_shard_map(call: str, wrap: str, checked: bool) -> None:
    # Unchecked, JAX cannot tell that the shards along "b" repeat those along "a".
    repeats = 2 if call == "sum" and not checked else 1
    expected = repeats * CALLS[call][1]
    found = logged(CALLS[call][0], wrap=WRAPS[wrap], check_vma=checked)
    assert found["v"] == pytest.approx(expected, rel=1e-6)


def test_a_value_that_was_psummed_is_not_summed_again() -> None:
    def body(x: Any) -> None:
        log("v", lax.psum(x.sum(), "a"), sync_dist=True, reduce_fx="sum")

    assert logged(body)["v"] == X.sum()


def test_only_some_axes_are_manual() -> None:
    def body(x: Any) -> None:
        log("v", x.mean(), sync_dist=True)

    assert logged(body, axis_names={"a"})["v"] == X.mean()


@pytest.mark.parametrize("shape", [(8,), (4, 2)])
def test_pmap(shape: tuple[int, ...]) -> None:
    @functools.partial(jax.pmap, axis_name="i", devices=jax.devices()[: shape[0]])
    def step(x: Any) -> Any:
        log("mean", x.mean(), sync_dist=True)
        log("first", x.mean())
        return x

    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    captured = capture(step)
    logs, out = captured(captured.init(x), x)
    assert float(logs.compute()["mean"]) == x.mean()
    assert float(logs.compute()["first"]) == x[0].mean()
    np.testing.assert_array_equal(out, x)


def test_an_epoch_value_that_differs_between_shards_warns() -> None:
    with pytest.warns(UserWarning, match=r"'v'.*mesh axes \['a'\].*sync_dist=True"):
        found = logged(lambda x: log("v", x.mean(), on_epoch=True))
    assert found["v"] == SHARDS[0].mean()


@pytest.mark.parametrize(
    "body",
    [
        lambda x: log("v", x.mean()),  # a step value of shard 0 is what Lightning logs, too
        lambda x: log("v", lax.pmean(x.mean(), "a"), on_epoch=True),
        lambda x: log("v", x.mean(), on_epoch=True, sync_dist=True),
        lambda x: log("v", x.mean(), on_epoch=True, rank_zero_only=True),
    ],
)
def test_other_values_do_not_warn(body: Callable[[Any], Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logged(body)


@pytest.mark.parametrize("group", ["c", ("a", "c")])
def test_a_group_that_is_no_axis_is_refused(group: Any) -> None:
    with pytest.raises(SchemaError, match=r"the mesh axes here are \['a', 'b'\]"):
        logged(lambda x: log("v", x.mean(), sync_dist=True, sync_dist_group=group))


def test_groups_that_do_not_partition_the_shards_are_refused() -> None:
    with pytest.raises(SchemaError, match="each of the 8 shards once"):
        logged(lambda x: log("v", x.mean(), sync_dist=True, sync_dist_group=[[0, 1], [2, 3]]))


@pytest.mark.parametrize("is_set", [True, False])
def test_a_mesh_with_explicit_axes(is_set: bool) -> None:
    mesh = jax.make_mesh((4,), ("a",), axis_types=(jax.sharding.AxisType.Explicit,))
    spec = PartitionSpec("a")
    x = jax.device_put(X, jax.NamedSharding(mesh, spec))

    def body(x: Any) -> Any:
        log("all", x.mean(), sync_dist=True)
        log("first", x.mean())
        log("some", x.mean(), sync_dist=True, sync_dist_group=[[0, 1], [2, 3]])
        log("metric", Accuracy.of(predictions=jnp.int32(x > 3), labels=jnp.ones(4, jnp.int32)))
        log("last", Last.of(x.mean()), sync_dist=True)
        return x

    with jax.set_mesh(mesh) if is_set else contextlib.nullcontext():
        captured = capture(jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec))
        logs, _ = jax.jit(captured)(captured.init(x), x)
    assert {name: float(value) for name, value in logs.compute().items()} == {
        "all": X.mean(),
        "first": SHARDS[0].mean(),
        "some": SHARDS[:2].mean(),
        "metric": 0.0,
        "last": SHARDS[3].mean(),
    }


# ---- reduced twice ------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [lambda v: v, lambda v: v / 4, lambda v: -2.0 * v.reshape(())])
@pytest.mark.parametrize("how", ["shard_map", "pmap", "in a jit in a scan"])
def test_a_sum_of_what_is_summed_already_is_refused(how: str, scale: Any) -> None:
    def body(x):
        log("v", scale(lax.psum(x.sum(), "a")), reduce_fx="sum", sync_dist=True)
        return x

    mesh = Mesh(np.array(jax.devices()[:4]), ("a",))
    spec = PartitionSpec("a")
    around = {"mesh": mesh, "in_specs": spec, "out_specs": spec, "check_vma": False}
    if how == "pmap":
        run: Any = lambda x: jax.pmap(body, "a", devices=jax.devices()[:4])(x[:, None])  # noqa: E731
    elif how == "shard_map":
        run = jax.shard_map(body, **around)
    else:
        inner = jax.shard_map(jax.jit(body), **around)
        run = lambda x: lax.scan(lambda c, _: (inner(c), None), x, None, length=2)  # noqa: E731
    with pytest.raises(SchemaError, match=r"'v'.*a psum has reduced over devices already"):
        capture(run).init(np.ones(4, np.float32))


@pytest.mark.parametrize("reduce_fx", ["mean", "min", "max"])
def test_means_and_extrema_of_what_is_reduced_are_what_they_are(reduce_fx: Any) -> None:
    def body(x):
        log("v", lax.pmean(x.sum(), "a"), reduce_fx=reduce_fx, sync_dist=True)
        log("sum", 2 * x.sum(), reduce_fx="sum", sync_dist=True)
        return x

    mesh = Mesh(np.array(jax.devices()[:4]), ("a",))
    spec = PartitionSpec("a")
    run = jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    captured = capture(run)
    x = np.arange(4, dtype=np.float32)
    logs, _ = jax.jit(captured)(captured.init(x), x)
    assert {name: float(v) for name, v in logs.compute().items()} == {"v": 1.5, "sum": 12.0}
