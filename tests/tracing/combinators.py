"""Every transform as a wrapper of a function of one number, beside what it calls it with.

Wrappers nest: `outer(inner(f))` calls `f` with what `inner` makes of each thing that `outer` makes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from jaxlog import log
from jaxlog.metrics import Last, Metric, state

Fn = Callable[[Any], Any]  # a float32 number to a float32 number
BOUND = 2.0


class Pair(Metric):
    """A vector state that adds up beside one that keeps the greatest."""

    sums: jax.Array = state(np.zeros(3), reduce="sum")
    peaks: jax.Array = state(np.full(2, -np.inf), reduce="max")

    @classmethod
    def of(cls, v: Any) -> Pair:
        return cls(sums=jnp.stack([v, v * v, jnp.ones_like(v)]), peaks=jnp.stack([v, -v]))

    def compute(self) -> Any:
        return self.sums[0] + 2 * self.sums[1] + 3 * self.sums[2] + self.peaks.sum()


def emit(v: Any, prefix: str) -> None:
    """Logs one value under every reduction there is."""
    every = functools.partial(log, sync_dist=True)
    every(f"{prefix}/mean", v)
    every(f"{prefix}/weighted", v, batch_size=v * v + 1)
    every(f"{prefix}/sum", v, reduce_fx="sum")
    every(f"{prefix}/min", v, reduce_fx="min")
    every(f"{prefix}/max", v, reduce_fx="max")
    every(f"{prefix}/last", Last.of(v))
    every(f"{prefix}/vector", Pair.of(v))


def _pair(values: np.ndarray) -> float:
    sums = values.sum() + 2 * (values**2).sum() + 3 * len(values)
    return float(sums + values.max() + (-values).max())


REDUCTIONS: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda v: float(v.mean()),
    "weighted": lambda v: float(np.average(v, weights=v**2 + 1)),
    "sum": lambda v: float(v.sum()),
    "min": lambda v: float(v.min()),
    "max": lambda v: float(v.max()),
    "last": lambda v: float(v[-1]),
    "vector": _pair,
}


@dataclasses.dataclass(frozen=True)
class Wrapper:
    """A transform.

    Attributes:
        wrap: the wrapped function; None stands for one that JAX cannot make here.
        calls: what it calls the function with, given its own argument.
        batches: whether it maps the function, so that a branch inside decides for each by running
            both (as JAX documents): then everything is logged.
        branches: whether the function stands in a branch.
    """

    wrap: Callable[[Fn], Fn]
    calls: Callable[[float], Sequence[float]]
    batches: bool = False
    branches: bool = False


WRAPPERS: dict[str, Wrapper] = {}


def wrapper(
    name: str, calls: Callable[[float], Sequence[float]] = lambda v: [v], **flags: bool
) -> Callable[[Any], Any]:
    def add(wrap: Callable[[Fn], Fn]) -> Callable[[Fn], Fn]:
        WRAPPERS[name] = Wrapper(wrap, calls, **flags)
        return wrap

    return add


TIMES = np.array([1, 2, 3], np.float32)


@wrapper("jit")
def _(f: Fn) -> Fn:
    return jax.jit(f)


@wrapper("jit called twice", lambda v: [v, 2 * v])
def _(f: Fn) -> Fn:
    inner = jax.jit(f)
    return lambda v: inner(v) + inner(2 * v)


@wrapper("scan", lambda v: [v, 2 * v, 3 * v])
def _(f: Fn) -> Fn:
    return lambda v: lax.scan(lambda c, x: (c + f(x), None), jnp.float32(0), v * TIMES)[0]


@wrapper("reverse scan", lambda v: [3 * v, 2 * v, v])
def _(f: Fn) -> Fn:
    def run(v: Any) -> Any:
        return lax.scan(lambda c, x: (c, f(x)), 0, v * TIMES, reverse=True)[1].sum()

    return run


@wrapper("fori_loop", lambda v: [v, 2 * v])
def _(f: Fn) -> Fn:
    return lambda v: lax.fori_loop(1, 3, lambda i, c: c + f(v * i), jnp.float32(0))


@wrapper("while_loop", lambda v: [v, 2 * v])
def _(f: Fn) -> Fn:
    def run(v: Any) -> Any:
        def body(state: Any) -> Any:
            i, total = state
            return i + 1, total + f(v * i)

        return lax.while_loop(lambda state: state[0] < 3, body, (1, jnp.float32(0)))[1]

    return run


@wrapper("cond", lambda v: [v] if v > BOUND else [], branches=True)
def _(f: Fn) -> Fn:
    return lambda v: lax.cond(v > BOUND, f, jnp.cos, v)


@wrapper("switch", lambda v: [v] if v > BOUND else [], branches=True)
def _(f: Fn) -> Fn:
    return lambda v: lax.switch((v > BOUND).astype(jnp.int32), [jnp.cos, f], v)


@wrapper("vmap", lambda v: [v, 2 * v], batches=True)
def _(f: Fn) -> Fn:
    return lambda v: jax.vmap(f)(v * TIMES[:2]).sum()


@wrapper("vmap with axis_name", lambda v: [v, 2 * v], batches=True)
def _(f: Fn) -> Fn:
    def each(v: Any) -> Any:
        return f(v) + lax.pmean(v, "lanes")

    return lambda v: jax.vmap(each, axis_name="lanes")(v * TIMES[:2]).sum()


@wrapper("grad")
def _(f: Fn) -> Fn:
    return jax.grad(f)


@wrapper("value_and_grad")
def _(f: Fn) -> Fn:
    return lambda v: sum(jax.value_and_grad(f)(v))


@wrapper("jacrev")
def _(f: Fn) -> Fn:
    return jax.jacrev(f)


@wrapper("jacfwd")
def _(f: Fn) -> Fn:
    return jax.jacfwd(f)


@wrapper("hessian")
def _(f: Fn) -> Fn:
    return jax.hessian(f)


@wrapper("vjp")
def _(f: Fn) -> Fn:
    def run(v: Any) -> Any:
        out, pull = jax.vjp(f, v)
        return out + pull(jnp.ones_like(out))[0]

    return run


@wrapper("jvp")
def _(f: Fn) -> Fn:
    return lambda v: sum(jax.jvp(f, (v,), (jnp.ones_like(v),)))


@wrapper("linearize")
def _(f: Fn) -> Fn:
    def run(v: Any) -> Any:
        out, linear = jax.linearize(f, v)
        return out + linear(jnp.ones_like(v))

    return run


@wrapper("checkpoint")
def _(f: Fn) -> Fn:
    return jax.checkpoint(f)


@wrapper("checkpoint under a policy")
def _(f: Fn) -> Fn:
    return jax.checkpoint(f, policy=jax.checkpoint_policies.everything_saveable)


@wrapper("custom_jvp")
def _(f: Fn) -> Fn:
    run = jax.custom_jvp(f)
    run.defjvp(lambda primals, tangents: jax.jvp(f, primals, tangents))
    return run


@wrapper("custom_vjp")
def _(f: Fn) -> Fn:
    run = jax.custom_vjp(f)
    run.defvjp(lambda v: (f(v), v), lambda v, cotangent: (cotangent * jnp.cos(v),))
    return run


def _sharded(axes: dict[str, int], *, check: bool = True, manual: Any = None) -> Any:
    count = int(np.prod(list(axes.values())))
    manual = tuple(manual or axes)

    def wrap(f: Fn) -> Fn:
        mesh = jax.make_mesh(
            tuple(axes.values()),
            tuple(axes),
            axis_types=(AxisType.Auto,) * len(axes),
            devices=jax.devices()[:count],
        )

        def shard(v: Any) -> Any:
            return lax.psum(f(v[0]), manual)

        run = jax.shard_map(
            shard,
            mesh=mesh,
            in_specs=PartitionSpec(manual),
            out_specs=PartitionSpec(),
            axis_names=set(manual),
            check_vma=check,
        )
        size = int(np.prod([axes[axis] for axis in manual]))
        return lambda v: run(v * np.arange(1, size + 1, dtype=np.float32))

    return wrap


# All on the same four devices, so that one program holds them all.
FOUR = [1, 2, 3, 4]
wrapper("shard_map", lambda v: [v * i for i in FOUR])(_sharded({"a": 4}))
wrapper("shard_map, unchecked", lambda v: [v * i for i in FOUR])(_sharded({"a": 4}, check=False))
wrapper("shard_map of two axes", lambda v: [v * i for i in FOUR])(_sharded({"a": 2, "b": 2}))
wrapper("shard_map of one axis of two", lambda v: [v, 2 * v])(
    _sharded({"a": 2, "b": 2}, manual=("a",))
)


@wrapper("pmap", lambda v: [v * i for i in FOUR])
def _(f: Fn) -> Fn:
    run = jax.pmap(f, devices=jax.devices()[:4])
    return lambda v: run(v * np.array(FOUR, np.float32)).sum()
