"""`log_gradient`: the norm of the cotangent, wherever the backward pass runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from jaxlog import capture, log_gradient
from jaxlog.errors import LogArgumentError

X = np.arange(1, 5, dtype=np.float32)
NORM = float(np.linalg.norm(6 * X))  # d/dy sum(y**2) at y = 3x


def tap(x: Any) -> Any:
    return log_gradient("g", x, sync_dist=True)


def loss(x: Any) -> Any:
    return (tap(x * 3) ** 2).sum()


def square(x: Any) -> Any:
    return tap(x * 3) ** 2


def product(x: Any) -> Any:
    return lax.scan(lambda c, a: (tap(c * a), None), jnp.float32(1), x)[0]


def ball(x: Any) -> Any:
    mesh = Mesh(np.array(jax.devices()[:4]), ("a",))
    spec = PartitionSpec("a")
    return jax.shard_map(lambda x: loss(x)[None], mesh=mesh, in_specs=spec, out_specs=spec)(x).sum()


# In a product of all x, the cotangent of each partial product is that of all later factors.
LATER = float(np.mean([24.0, 12.0, 4.0, 1.0]))
CASES: dict[str, tuple[Callable[[Any], Any], float]] = {
    "grad": (jax.grad(loss), NORM),
    "value_and_grad": (jax.value_and_grad(loss), NORM),
    "vjp": (lambda x: jax.vjp(loss, x)[1](jnp.float32(1)), NORM),
    "jacrev": (jax.jacrev(lambda x: tap(x) * 2), 2.0),
    "hessian": (jax.hessian(loss), NORM),
    "linearize": (
        lambda x: jax.linear_transpose(jax.linearize(loss, x)[1], x)(jnp.float32(1)),
        NORM,
    ),
    "jit": (jax.grad(jax.jit(loss)), NORM),
    "checkpoint": (jax.grad(jax.checkpoint(loss)), NORM),
    "cond": (jax.grad(lambda x: lax.cond(x[0] > 0, loss, jnp.sum, x)), NORM),
    "vmap(grad)": (jax.vmap(jax.grad(square)), float((6 * X).mean())),
    "grad(vmap)": (jax.grad(lambda x: jax.vmap(square)(x).sum()), float((6 * X).mean())),
    "grad(scan)": (jax.grad(product), LATER),
    "grad(scan(checkpoint))": (
        jax.grad(
            lambda x: lax.scan(jax.checkpoint(lambda c, a: (tap(c * a), None)), jnp.float32(1), x)[
                0
            ]
        ),
        LATER,
    ),
    "grad(shard_map)": (jax.grad(ball), float((6 * X).mean())),
}


def logged(fn: Callable[..., Any]) -> tuple[dict[str, float], Any]:
    captured = capture(fn)
    logs, out = jax.jit(captured)(captured.init(X), X)
    return {name: float(value) for name, value in logs.compute().items()}, out


@pytest.mark.parametrize("case", CASES)
def test_the_norm_and_the_gradient(case: str) -> None:
    fn, expected = CASES[case]
    values, out = logged(fn)
    assert values == {"g": pytest.approx(expected, rel=1e-6)}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), out, fn(X))


@pytest.mark.parametrize("fn", [loss, jax.jacfwd(loss), lambda x: jax.jvp(loss, (x,), (x,))])
def test_no_backward_pass_logs_nothing(fn: Callable[[Any], Any]) -> None:
    values, out = logged(fn)
    assert values == {}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), out, fn(X))


def test_a_tree_is_one_vector_of_its_floating_leaves() -> None:
    def fn(x: Any) -> Any:
        tree = log_gradient("g", {"a": x, "b": 2 * x, "count": jnp.arange(3)}, batch_size=2)
        return (2 * tree["a"] + tree["b"]).sum()

    values, out = logged(jax.grad(fn))
    assert values == {"g": pytest.approx(np.sqrt(4 * 4 + 4 * 1))}
    np.testing.assert_array_equal(out, np.full(4, 4.0))


def test_bfloat16_norms_are_taken_in_float32() -> None:
    def fn(x: Any) -> Any:
        return (log_gradient("g", x.astype(jnp.bfloat16)) * 300).astype(jnp.float32).sum()

    assert logged(jax.grad(fn))[0] == {"g": pytest.approx(600.0, rel=1e-2)}


def test_outside_of_capture_it_leaves_no_trace() -> None:
    plain = jax.make_jaxpr(jax.grad(lambda x: ((x * 3) ** 2).sum()))(X)
    assert str(jax.make_jaxpr(jax.grad(loss))(X)) == str(plain)


def test_integers_and_masks_are_refused() -> None:
    with pytest.raises(LogArgumentError, match="no floating leaf"):
        log_gradient("g", jnp.arange(3))
    with pytest.raises(LogArgumentError, match="mask"):
        log_gradient("g", X, mask=True)  # pyright: ignore[reportCallIssue]
    with pytest.raises(LogArgumentError, match="reduce_fx='median'"):
        log_gradient("g", X, reduce_fx="median")  # pyright: ignore[reportArgumentType]
