"""Every place in a traced step where a value can be logged, beside the values that JAX reaches.

A placement is a function of `x`, float32 of shape (4,), that calls `emit` somewhere, and an oracle
in plain numpy that lists the values of those calls, in float64.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxlog import log
from jaxlog.metrics import Accuracy, Mean

MASK_ABOVE = 2.1


def emit(value: Any, weight: Any = None) -> None:
    """Logs one value under every reduction there is."""
    value = jnp.asarray(value)
    weight = value * value + 1 if weight is None else jnp.asarray(weight)
    both, nan = jnp.stack([value, 2 * value]), jnp.full_like(value, jnp.nan)
    kept = jnp.stack([value > MASK_ABOVE, value > -100, value > 100])
    log("mean", value)
    log("weighted", value, batch_size=3)
    log("traced weight", value, batch_size=weight)
    log("sum", value, reduce_fx="sum")
    log("min", value, reduce_fx="min")
    log("max", value, reduce_fx="max")
    log("count", jnp.round(4 * value).astype(jnp.int32), reduce_fx="sum")
    log("masked", value, mask=value > MASK_ABOVE)
    log("masked max", value, mask=value > MASK_ABOVE, reduce_fx="max")
    log("masked array", jnp.stack([value, 2 * value, nan]), mask=kept)
    right = (both > MASK_ABOVE).astype(jnp.int32)
    log("Accuracy", Accuracy.of(predictions=right, labels=jnp.ones_like(right)))
    log("lazy", lambda: jnp.sin(value) * 0 + value)
    log("Mean", Mean.of(both, weights=jnp.stack([weight, jnp.ones_like(weight)])))


Emitted = tuple[float, float]  # value, weight


def emitted(values: Any) -> list[Emitted]:
    """Calls that take the weight of their value."""
    return [(float(v), float(v) ** 2 + 1) for v in np.ravel(values)]


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where `emit` is called.

    Attributes:
        name: its name in the table.
        run: the traced step.
        oracle: what it emits, given the same `x` in float64.
    """

    name: str
    run: Callable[[jax.Array], Any]
    oracle: Callable[[np.ndarray], list[Emitted]]


PLACEMENTS: dict[str, Placement] = {}


def place(name: str, oracle: Callable[[np.ndarray], Any]) -> Callable[[Any], Any]:
    def add(run: Any) -> Any:
        assert name not in PLACEMENTS

        def calls(x: np.ndarray) -> list[Emitted]:
            out = oracle(x)
            pairs = isinstance(out, list) and out and isinstance(out[0], tuple)
            return out if pairs else emitted(out)

        PLACEMENTS[name] = Placement(name, run, calls)
        return run

    return add


def square(v: Any) -> jax.Array:
    """A loss that logs its input."""
    emit(v)
    return jnp.sin(v) * v


def summed(x: jax.Array) -> jax.Array:
    """A loss of the whole vector that logs it once."""
    emit(x.sum())
    return jnp.sum(jnp.sin(x) * x)


# ---- straight lines -------------------------------------------------------------------------


@place("top level", lambda x: x[0])
def _(x):
    return square(x[0])


@place("twice", lambda x: x[:2])
def _(x):
    return square(x[0]) + square(x[1])


@place("under named_scope", lambda x: x[0])
def _(x):
    with jax.named_scope("scope"):
        return square(x[0])


@place("a constant", lambda _: 2.5)
def _(x):
    emit(2.5)
    return x


@place("a value of one element", lambda x: x[0])
def _(x):
    return jax.jit(lambda v: square(v.reshape(())))(x[:1])


# ---- jit ------------------------------------------------------------------------------------

cached = jax.jit(square)  # one for the whole module: its cache outlives every trace
twice_cached = jax.jit(lambda v: cached(v) + cached(2 * v))


@place("inner jit", lambda x: x[0])
def _(x):
    return jax.jit(square)(x[0])


@place("inner jit called twice, cached", lambda x: x[:2])
def _(x):
    return cached(x[0]) + cached(x[1])


@place("jit in jit", lambda x: [x[0], 2 * x[0], x[1], 2 * x[1]])
def _(x):
    return twice_cached(x[0]) + twice_cached(x[1])


@place("inline jit", lambda x: x[0])
def _(x):
    return jax.jit(square, inline=True)(x[0])


# ---- loops ----------------------------------------------------------------------------------


def step(carry: Any, v: jax.Array) -> Any:
    carry = carry + v
    emit(carry)
    return carry, jnp.sin(carry)


def scan_of(body: Any, x: jax.Array, **options: Any) -> jax.Array:
    return lax.scan(body, jnp.float32(0), x, **options)[1].sum()


@place("scan", np.cumsum)
def _(x):
    return scan_of(step, x)


@place("reverse scan", lambda x: np.cumsum(x[::-1]))
def _(x):
    return scan_of(step, x, reverse=True)


@place("unrolled scan", np.cumsum)
def _(x):
    return scan_of(step, x, unroll=2)


@place("scan of length 1", lambda x: x[0])
def _(x):
    return scan_of(step, x[:1])


@place("scan of length 0", lambda _: [])
def _(x):
    return scan_of(step, x[:0])


@place("scan of a jit", np.cumsum)
def _(x):
    return scan_of(jax.jit(step), x)


@place("nested scan", lambda x: np.concatenate([np.cumsum(v * x) for v in x]))
def _(x):
    return scan_of(lambda carry, v: (carry, scan_of(step, v * x)), x)


@place("scan with constants and no xs", lambda x: [x[0] * i + x[1] for i in range(3)])
def _(x):
    def body(i, _):
        emit(x[0] * i + x[1])
        return i + 1, x

    return lax.scan(body, jnp.float32(0), None, length=3)


@place("lax.map", lambda x: x)
def _(x):
    return lax.map(square, x)


@place("lax.map in batches", lambda x: x)
def _(x):
    return lax.map(square, x, batch_size=3)


@place("fori_loop", lambda x: x * np.arange(4))
def _(x):
    return lax.fori_loop(0, 4, lambda i, total: total + square(x[i] * i), jnp.float32(0))


@place("fori_loop with traced bounds", lambda x: x[: 2 + int(x[0] > 2)])
def _(x):
    stop = 2 + (x[0] > 2).astype(jnp.int32)
    return lax.fori_loop(0, stop, lambda i, total: total + square(x[i]), jnp.float32(0))


@place("fori_loop of no rounds", lambda x: x[: int(x[0] > 2)])
def _(x):
    stop = (x[0] > 2).astype(jnp.int32)
    return lax.fori_loop(0, stop, lambda i, total: total + square(x[i]), jnp.float32(0))


def halve(bound: float) -> Callable[[jax.Array], jax.Array]:
    def body(v: jax.Array) -> jax.Array:
        emit(v)
        return v / 2

    return lambda v: lax.while_loop(lambda v: v > bound, body, v)


def halves(v: float, bound: float) -> list[float]:
    out = []
    while v > bound:
        out.append(v)
        v /= 2
    return out


@place("while_loop", lambda x: halves(x[3], 0.7))
def _(x):
    return halve(0.7)(x[3])


@place("while_loop with constants", lambda x: halves(x[3], x[0] / 2))
def _(x):
    def body(v):
        emit(v)
        return v * (x[0] / (2 * x[0]))

    return lax.while_loop(lambda v: v > x[0] / 2, body, x[3])


@place("while_loop in scan", lambda x: [u for v in x for u in halves(v, 0.7)])
def _(x):
    return scan_of(lambda carry, v: (carry, halve(0.7)(v)), x)


# ---- branches -------------------------------------------------------------------------------


def branch_of(predicate: Any, v: jax.Array) -> jax.Array:
    return lax.cond(predicate, square, jnp.cos, v)


@place("cond, as the step says", lambda x: x[1:2] if x[0] > 2 else [])
def _(x):
    return branch_of(x[0] > 2, x[1])


@place("cond, always", lambda x: x[1])
def _(x):
    return branch_of(x[0] > -100, x[1])


@place("cond, never", lambda _: [])
def _(x):
    return branch_of(x[0] > 100, x[1])


@place("cond and outside of it", lambda x: x[1:3] if x[0] > 2 else x[2])
def _(x):
    return branch_of(x[0] > 2, x[1]) + square(x[2])


@place("cond, both branches", lambda x: x[1] if x[0] > 2 else -x[1])
def _(x):
    return lax.cond(x[0] > 2, square, lambda v: square(-v), x[1])


@place("switch", lambda x: {2: [x[1]], 3: [x[2], x[3]]}.get(int(x[0]), []))
def _(x):
    branches = [jnp.sum, lambda x: square(x[1]), lambda x: square(x[2]) + square(x[3])]
    return lax.switch(x[0].astype(jnp.int32) - 1, branches, x)


@place("cond in scan", lambda x: x[x > 2])
def _(x):
    return scan_of(lambda carry, v: (carry, branch_of(v > 2, v)), x)


@place("scan in cond", lambda x: np.cumsum(x) if x[0] > 2 else [])
def _(x):
    return lax.cond(x[0] > 2, lambda x: scan_of(step, x), jnp.sum, x)


@place("cond in cond", lambda x: x[2] if x[0] > 2 and x[1] > 3 else [])
def _(x):
    return lax.cond(x[0] > 2, lambda x: branch_of(x[1] > 3, x[2]), jnp.sum, x)


@place("platform_dependent", lambda x: x[0])
def _(x):
    return lax.platform_dependent(x[0], default=square, rocm=jnp.cos)


# ---- vmap -----------------------------------------------------------------------------------


@place("vmap", lambda x: x)
def _(x):
    return jax.vmap(square)(x)


@place("vmap of vmap", lambda x: np.outer(x, x))
def _(x):
    return jax.vmap(lambda a: jax.vmap(lambda b: square(a * b))(x))(x)


@place("vmap over axis 1", lambda x: x.reshape(2, 2).sum(0))
def _(x):
    return jax.vmap(lambda column: square(column.sum()), in_axes=1)(x.reshape(2, 2))


@place("vmap of a batched value under an unbatched weight", lambda x: [(v, x[1]) for v in x])
def _(x):
    return jax.vmap(lambda v: emit(v, x[1]))(x)


@place("vmap of a jit", lambda x: x)
def _(x):
    return jax.vmap(cached)(x)


@place("vmap of scan", lambda x: np.cumsum(np.outer(x, x), axis=1))
def _(x):
    return jax.vmap(lambda v: scan_of(step, v * x))(x)


@place("scan of vmap", lambda x: np.outer(x, x))
def _(x):
    return scan_of(lambda carry, v: (carry, jax.vmap(square)(v * x)), x)


@place("vmap of an unbatched cond", lambda x: 2 * x if x[0] > 2 else [])
def _(x):
    return jax.vmap(lambda v: branch_of(x[0] > 2, 2 * v))(x)


# JAX turns it into a select, as jax.debug.print documents: each lane runs both branches.
@place("vmap of a batched cond", lambda x: x)
def _(x):
    return jax.vmap(lambda v: branch_of(v > 2, v))(x)


# The same of loops: all lanes go round until the last is done, those done with what they ended on.
@place("vmap of a batched while_loop", lambda x: [v for lane in x for v in rounds(lane, x)])
def _(x):
    return jax.vmap(halve(0.7))(x)


def rounds(lane: float, lanes: np.ndarray) -> list[float]:
    of_lane, most = halves(lane, 0.7), max(len(halves(v, 0.7)) for v in lanes)
    end = lane / 2 ** len(of_lane)
    return [*of_lane, *[end] * (most - len(of_lane))]


@place("vmap of vmap of a batched while_loop", lambda x: [v for u in x for v in rounds(u, x)] * 2)
def _(x):
    pairs = jnp.stack([x, x])
    return jax.vmap(jax.vmap(halve(0.7)))(pairs)


@place("vmap of a while_loop under one verdict", lambda x: [v * 2**i for i in (0, 1) for v in x])
def _(x):
    def body(state):
        i, v = state
        emit(v)
        return i + 1, 2 * v

    return jax.vmap(lambda v: lax.while_loop(lambda s: s[0] < 2, body, (0, v)))(x)


@place("vmap with a collective", lambda x: x.mean())
def _(x):
    return jax.vmap(lambda v: square(lax.pmean(v, "i")), axis_name="i")(x)


# ---- derivatives ----------------------------------------------------------------------------


@place("grad", lambda x: x.sum())
def _(x):
    return jax.grad(summed)(x)


@place("value_and_grad", lambda x: x.sum())
def _(x):
    return jax.value_and_grad(summed)(x)


@place("grad of grad", lambda x: x[0])
def _(x):
    return jax.grad(jax.grad(square))(x[0])


@place("vmap of grad", lambda x: x)
def _(x):
    return jax.vmap(jax.grad(square))(x)


@place("grad of vmap", lambda x: x)
def _(x):
    return jax.grad(lambda x: jax.vmap(square)(x).sum())(x)


@place("jvp", lambda x: x.sum())
def _(x):
    return jax.jvp(summed, (x,), (x,))


@place("jacrev", lambda x: x.sum())
def _(x):
    return jax.jacrev(lambda x: summed(x) * x)(x)


@place("jacfwd", lambda x: x.sum())
def _(x):
    return jax.jacfwd(lambda x: summed(x) * x)(x)


@place("hessian", lambda x: x.sum())
def _(x):
    return jax.hessian(summed)(x)


@place("vjp", lambda x: x.sum())
def _(x):
    out, pullback = jax.vjp(summed, x)
    return pullback(out), pullback(2 * out)


@place("linearize", lambda x: x.sum())
def _(x):
    out, tangent = jax.linearize(summed, x)
    return out, tangent(x), tangent(2 * x)


@place("grad of a jit", lambda x: x[:2])
def _(x):
    return jax.grad(lambda x: cached(x[0]) + cached(x[1]))(x)


@place("grad of scan", np.cumsum)
def _(x):
    return jax.grad(lambda x: scan_of(step, x))(x)


@place("grad of fori_loop", lambda x: x * np.arange(4))
def _(x):
    def loss(x):
        return lax.fori_loop(0, 4, lambda i, total: total + square(x[i] * i), jnp.float32(0))

    return jax.grad(loss)(x)


@place("jvp of while_loop", lambda x: halves(x[3], 0.7))
def _(x):
    return jax.jvp(halve(0.7), (x[3],), (x[3],))


@place("grad of cond", lambda x: x[1] if x[0] > 2 else [])
def _(x):
    return jax.grad(lambda x: branch_of(x[0] > 2, x[1]))(x)


@place("a tangent", lambda x: np.cos(x[0]) * x[1])
def _(x):
    emit(jax.jvp(jnp.sin, (x[0],), (x[1],))[1])
    return x


@place("logged beside the gradient", lambda x: [x[0], 3 * x[0] ** 2])
def _(x):
    def loss(v):
        emit(v)
        return v**3

    emit(jax.grad(loss)(x[0]))
    return x


# ---- checkpoint -----------------------------------------------------------------------------


@place("checkpoint", lambda x: x.sum())
def _(x):
    return jax.checkpoint(summed)(x)


@place("grad of checkpoint", lambda x: x.sum())
def _(x):
    return jax.grad(jax.checkpoint(summed))(x)


@place("grad of checkpoint of checkpoint", lambda x: x.sum())
def _(x):
    return jax.grad(jax.checkpoint(lambda x: jax.checkpoint(summed)(2 * x) / 2))(x / 2)


def scan_of_checkpoints(x: jax.Array, **options: Any) -> jax.Array:
    return scan_of(jax.checkpoint(step, **options), x)


@place("grad of scan of checkpoint", np.cumsum)
def _(x):
    return jax.grad(scan_of_checkpoints)(x)


@place("grad of scan of unprotected checkpoint", np.cumsum)
def _(x):
    return jax.grad(functools.partial(scan_of_checkpoints, prevent_cse=False))(x)


@place("vmap of grad of scan of checkpoint", lambda x: np.cumsum(np.outer(x, x), axis=1))
def _(x):
    return jax.vmap(jax.grad(scan_of_checkpoints))(jnp.outer(x, x))


@place("grad of checkpoint of scan", np.cumsum)
def _(x):
    return jax.grad(jax.checkpoint(lambda x: scan_of(step, x)))(x)


def named(x: jax.Array) -> jax.Array:
    y = checkpoint_name(jnp.sin(x).sum(), "kept")
    emit(y)
    return jnp.sin(y) * y


@place("grad of checkpoint under a named policy", lambda x: np.sin(x).sum())
def _(x):
    policy = jax.checkpoint_policies.save_only_these_names("kept")
    return jax.grad(jax.checkpoint(named, policy=policy))(x)


@place("grad of checkpoint that saves all", lambda x: np.sin(x).sum())
def _(x):
    policy = jax.checkpoint_policies.everything_saveable
    return jax.grad(jax.checkpoint(named, policy=policy))(x)


# ---- custom derivatives ---------------------------------------------------------------------


@jax.custom_jvp
def jvp_primal(v: jax.Array) -> jax.Array:
    return square(v)


jvp_primal.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), 2 * tangents[0]))


@jax.custom_jvp
def jvp_rule(v: jax.Array) -> jax.Array:
    return jnp.sin(v)


@jvp_rule.defjvp
def _(primals: Any, tangents: Any) -> Any:
    emit(2 * primals[0])
    return jnp.sin(primals[0]), 2 * tangents[0]


@jax.custom_vjp
def vjp_all(v: jax.Array) -> jax.Array:
    emit(v)
    return jnp.sin(v)


def _forward(v: jax.Array) -> Any:
    emit(2 * v)
    return jnp.sin(v), v


def _backward(v: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    emit(v + 4 * g)
    return (g * jnp.cos(v),)


vjp_all.defvjp(_forward, _backward)


@place("primal of custom_jvp", lambda x: x[0])
def _(x):
    return jvp_primal(x[0])


@place("primal of custom_jvp, its rule silent", lambda _: [])
def _(x):
    return jax.lax.cond(x[0] > 100, jvp_primal, jax.grad(jvp_primal), x[0])


@place("rule of custom_jvp", lambda x: 2 * x[0])
def _(x):
    return jax.grad(jvp_rule)(x[0])


@place("rule of custom_jvp in scan", lambda x: 2 * x)
def _(x):
    return jax.grad(lambda x: scan_of(lambda carry, v: (carry, jvp_rule(v)), x))(x)


@place("rule of custom_jvp, mapped", lambda x: 2 * x)
def _(x):
    return jax.vmap(jax.grad(jvp_rule))(x)


@place("primal of custom_vjp", lambda x: x[0])
def _(x):
    return vjp_all(x[0])


@place("fwd and bwd of custom_vjp", lambda x: [2 * x[0], x[0] + 8])
def _(x):
    return jax.grad(lambda v: 2 * vjp_all(v))(x[0])


def _both(x: np.ndarray) -> np.ndarray:
    return np.concatenate([2 * x, x + 8])


@place("fwd and bwd of custom_vjp, mapped", _both)
def _(x):
    return jax.vmap(jax.grad(lambda v: 2 * vjp_all(v)))(x)


@place("fwd and bwd of custom_vjp in scan", _both)
def _(x):
    return jax.grad(lambda x: scan_of(lambda carry, v: (carry, 2 * vjp_all(v)), x))(x)


@place("fwd and bwd of custom_vjp in scan of checkpoint", _both)
def _(x):
    def body(carry, v):
        return carry, 2 * vjp_all(v)

    return jax.grad(lambda x: scan_of(jax.checkpoint(body), x))(x)


@place("primal of custom_vjp in scan", lambda x: x)
def _(x):
    return scan_of(lambda carry, v: (carry, vjp_all(v)), x)


@place("fwd and bwd of custom_vjp in jit in checkpoint", lambda x: [2 * x[0], x[0] + 8])
def _(x):
    return jax.grad(jax.checkpoint(jax.jit(lambda v: 2 * vjp_all(v))))(x[0])
