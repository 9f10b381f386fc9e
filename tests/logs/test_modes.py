"""Captured steps and explicit logs under JAX's own switches: one answer in every mode."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxlog import capture, log
from jaxlog.logs import Logs
from jaxlog.metrics import Accuracy, Mean

X = np.array([0.5, 1.5, -2.0, 4.0], np.float32)
WEIGHTS = np.array([1.0, 2.0, 3.0, 2.0], np.float32)


def model(x: Any) -> Any:
    """Logs at every depth, each in its own dtype; its gradient in x is 2 x."""

    def body(carry, v):
        log("inside", v, reduce_fx="max")
        lax.cond(v > 1, lambda: log("large", v, reduce_fx="sum"), lambda: None)
        return carry + v * v, None

    total, _ = lax.scan(jax.checkpoint(body), jnp.zeros((), x.dtype), x)
    log("loss", total, on_epoch=True)
    return total


def gradients(x: Any) -> jax.Array:
    grads = jax.jit(jax.grad(model))(x)
    log("norm", jnp.sqrt((grads * grads).sum()))
    return grads


def kinds(x: Any) -> jax.Array:
    """Logs every kind of value."""
    log("half", x[0].astype(jnp.bfloat16))
    log("count", (x > 0).sum(), reduce_fx="sum")
    log("python", 3)
    log("weighted", x[1], batch_size=x.shape[0])
    log("weighted", x[3], batch_size=jnp.asarray(2))
    log("masked", x, mask=x > 0)
    log("least", x, mask=x > 0, reduce_fx="min")
    log("metric", Mean.of(x))
    log("accuracy", Accuracy.of(predictions=jnp.int32(x > 0), labels=jnp.ones(4, jnp.int32)))
    jax.vmap(lambda v: log("mapped", v, reduce_fx="sum"))(x)
    lax.while_loop(lambda i: i < 3, lambda i: (log("turns", i, reduce_fx="sum"), i + 1)[1], 0)
    return 2 * x


def step(x: Any) -> jax.Array:
    kinds(x)
    return gradients(x)


ONE: dict[str, float] = {
    "inside": 4.0, "large": 5.5, "loss": float((X.astype(np.float64) ** 2).sum()),
    "norm": float(2 * np.linalg.norm(X.astype(np.float64))), "half": 0.5, "count": 3.0,
    "python": 3.0, "weighted": (1.5 * 4 + 4.0 * 2) / 6, "masked": 2.0, "least": 0.5,
    "metric": 1.0, "accuracy": 0.75, "mapped": 4.0, "turns": 3.0,
}  # fmt: skip
SUMS = {"large", "count", "mapped", "turns"}


def check(fn: Callable[[Any], Any] = step, *, jitted: bool = True) -> Logs:
    """Two steps log what numpy says."""
    captured = capture(fn, rows=2)

    def run(logs: Logs, x: Any) -> Any:
        logs, grads = lax.scan(lambda logs, _: captured(logs, x), logs, None, length=2)
        return logs, grads[-1], logs.compute()

    logs, grads, computed = (jax.jit(run) if jitted else run)(captured.init(X), X)
    np.testing.assert_allclose(np.asarray(grads), 2 * X, rtol=1e-6)
    found = {name: float(value) for name, value in computed.items()}
    assert found == pytest.approx(
        {name: ONE[name] * (2 if name in SUMS else 1) for name in found}, rel=1e-6
    )
    for name, values in logs.history().items():
        np.testing.assert_allclose(values, [ONE[name]] * 2, rtol=1e-6, err_msg=name)
    return logs


def test_the_check_knows_every_key() -> None:
    assert {spec.name for spec in capture(step).init(X).schema} == set(ONE)


def put(logs: Logs, x: Any, weight: Any) -> Logs:
    logs = logs.log("mean", x).log("weighted", x, batch_size=weight)
    logs = logs.log("largest", x, reduce_fx="max").log("metric", Mean.of(x))
    return logs.log("masked", x, mask=x > 0).log("n", 2, reduce_fx="sum")


def explicit() -> None:
    """The explicit style in a scan, merged with another; one program."""

    def epoch(logs: Logs, xs: Any, weights: Any) -> Logs:
        return lax.scan(lambda c, row: (put(c, *row).advance(), None), logs, (xs, weights))[0]

    @jax.jit
    def run(xs: Any, weights: Any) -> Any:
        logs = put(Logs.empty(rows=3), xs[0], weights[0]).reset()
        logs = epoch(logs, xs, weights).merge(epoch(logs, xs, weights))
        return logs, logs.compute()

    logs, computed = run(X, WEIGHTS)
    weighted = np.average(X, weights=WEIGHTS)
    assert {name: float(value) for name, value in computed.items()} == pytest.approx(
        {"mean": 1, "weighted": weighted, "largest": 4, "metric": 1, "masked": 2, "n": 16}, rel=1e-6
    )
    np.testing.assert_array_equal(logs.history()["masked"], [1.5, np.nan, 4.0])


@contextlib.contextmanager
def strict() -> Iterator[None]:
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def test_strict_promotion_and_debug_nans() -> None:
    with strict(), jax.debug_nans(True):
        explicit()
        with jax.debug_infs(True):  # not above: what is pending shows the neutral inf of a minimum
            check()


def test_strict_promotion_in_64_bits() -> None:
    with strict(), jax.enable_x64(True):
        check()
        explicit()


def test_no_tracer_leaks() -> None:
    # Not `gradients`: JAX takes any effect in a scan under grad for a leak, its own callbacks too.
    with jax.checking_leaks():
        check(kinds)
        explicit()


def test_without_jit() -> None:
    with jax.disable_jit():
        check(gradients, jitted=False)


def test_logs_of_a_compiled_step_go_on_without_jit() -> None:
    captured = capture(gradients, rows=2)
    logs, _ = jax.jit(captured)(captured.init(X), X)
    with jax.disable_jit():
        logs, _ = captured(logs, X)
    assert logs.history()["inside"].tolist() == [4.0, 4.0]


def test_a_key_may_come_under_debug_nans_outside_of_jit() -> None:
    with jax.debug_nans(True):
        logs = Logs.empty(rows=2).log("a", 1.0).advance()
        logs = logs.log("metric", Mean.of(2.0)).advance()
    np.testing.assert_array_equal(logs.history()["metric"], [np.nan, 2.0])


# ---- what x64 widens ------------------------------------------------------------------------


def test_64_bits_are_kept() -> None:
    third, big = np.float64(1) / 3, 2**53 - 1

    def step(x, n):
        for fx in ("mean", "sum", "min", "max"):
            log(fx, x, reduce_fx=fx)
            log(f"{fx} of mask", jnp.stack([x, 2 * x]), mask=jnp.array([True, False]), reduce_fx=fx)
            log(f"{fx} of int", n, reduce_fx=fx)
        lax.scan(lambda c, v: (c, log("scan", v)), 0, jnp.stack([x, x]))
        log("weighted", x, batch_size=n)

    with jax.enable_x64(True):
        captured = capture(step)
        logs, _ = jax.jit(captured)(captured.init(third, np.int64(big)), third, np.int64(big))
        history = logs.history()
    assert {name: values.tolist() for name, values in history.items()} == {
        name: [float(big) if "int" in name else third] for name in history
    }


def test_a_step_of_32_bits_is_the_same_under_x64() -> None:
    with jax.enable_x64(True):
        wide = capture(step).init(X)
    narrow = capture(step).init(X)
    for spec in narrow.schema:
        ours = {field.name: field.dtype for field in wide.schema.find(spec.name).fields}  # pyright: ignore[reportOptionalMemberAccess]
        if spec.name not in {"python", "count", "turns"}:  # x64 makes an int of these 64 bits wide
            assert ours == {field.name: field.dtype for field in spec.fields}


# ---- what the switches still find -----------------------------------------------------------


def _nan(x: Any) -> jax.Array:
    log("v", jnp.log(x).sum())
    return jnp.log(x)


def test_debug_nans_finds_the_users_nan() -> None:
    captured = capture(_nan)
    with jax.debug_nans(True):
        logs = captured.init(X)
        with pytest.raises(FloatingPointError, match="nan"):
            jax.block_until_ready(jax.jit(captured)(logs, -abs(X)))
        logs, _ = jax.jit(captured)(logs, abs(X))
    assert logs.history()["v"].tolist() == [pytest.approx(np.log(abs(X)).sum(), rel=1e-6)]


def test_a_logged_nan_is_no_nan_of_the_program() -> None:
    captured = capture(lambda x: log("v", jnp.log(x[0])))
    with jax.debug_nans(True):
        logs, _ = jax.jit(captured)(captured.init(X), -abs(X))
        assert np.isnan(logs.history()["v"]).tolist() == [True]


def test_tracer_leaks_of_the_user_are_found() -> None:
    kept: list[Any] = []

    def step(x):
        kept.append(x * 2)
        log("v", x.sum())

    captured = capture(step)
    with jax.checking_leaks(), pytest.raises(Exception, match="Leaked trace"):
        jax.jit(captured)(captured.init(X), X)
    kept.clear()
