"""Where a value can be logged in a traced step, and what is then logged, computed in plain numpy.

Two tables share one list of reductions:

- `PLACEMENTS`: a function of `x`, float32 of shape (4,), that calls `emit` somewhere, and an oracle
  that lists the values of those calls.
- `WRAPPERS`: every transform as a wrapper of a function of one number, and an oracle that lists
  what it calls the function with. Wrappers nest: `outer(inner(f))` calls `f` with what `inner`
  makes of each thing that `outer` makes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AxisType, PartitionSpec

from jaxlog import log
from jaxlog.metrics import Accuracy, Last, Mean, Metric, state

# ---- reductions -----------------------------------------------------------------------------

Emitted = tuple[float, float]  # what one call of emit logs: value, weight
Parts = list[tuple[float, float]]  # what one reduction counts of it: value, weight
MASK_ABOVE = 2.1


class Pair(Metric):
    """A vector state that adds up beside one that keeps the greatest."""

    sums: jax.Array = state(np.zeros(3), reduce="sum")
    peaks: jax.Array = state(np.full(2, -np.inf), reduce="max")

    @classmethod
    def of(cls, v: Any) -> Pair:
        return cls(sums=jnp.stack([v, v * v, jnp.ones_like(v)]), peaks=jnp.stack([v, -v]))

    def compute(self) -> Any:
        return self.sums[0] + 2 * self.sums[1] + 3 * self.sums[2] + self.peaks.sum()


@dataclasses.dataclass(frozen=True)
class Reduction:
    """One way to log a value.

    Attributes:
        log: `(name, value, weight, **options)` logs it.
        counts: what the calls of a step count.
        reduce: what is counted as one value, in float64; nan if nothing is.
    """

    log: Callable[..., None]
    counts: Callable[[Sequence[Emitted]], Parts]
    reduce: Callable[[Parts], float]


def _mean(parts: Parts) -> float:
    weight = math.fsum(w for _, w in parts)
    return math.fsum(v * w for v, w in parts) / weight if weight else math.nan


def _fold(fold: Callable[[list[float]], float], nothing: float) -> Callable[[Parts], float]:
    return lambda parts: fold([v for v, _ in parts]) if parts else nothing


def _pair(values: list[float]) -> float:
    sums = math.fsum(values) + 2 * math.fsum(v * v for v in values) + 3 * len(values)
    return sums + max(values) - min(values)


_SUM, _MAX, _MIN = _fold(math.fsum, 0.0), _fold(max, -math.inf), _fold(min, math.inf)
REDUCTIONS: dict[str, Reduction] = {}


def reduction(
    counts: Callable[[Sequence[Emitted]], Parts], reduce: Callable[[Parts], float]
) -> Callable[[Callable[..., None]], None]:
    def add(log_it: Callable[..., None]) -> None:
        REDUCTIONS[log_it.__name__.replace("_", " ").strip()] = Reduction(log_it, counts, reduce)

    return add


def _ones(calls: Sequence[Emitted]) -> Parts:
    return [(v, 1.0) for v, _ in calls]


def _shown(calls: Sequence[Emitted]) -> Parts:
    return [(v, 1.0) for v, _ in calls if v > MASK_ABOVE]


def _array(calls: Sequence[Emitted]) -> Parts:
    each = [(u, kept) for v, _ in calls for u, kept in ((v, v > MASK_ABOVE), (2 * v, True))]
    return [(u, 1.0) for u, kept in each if kept]


@reduction(_ones, _mean)
def mean(name: str, value: Any, weight: Any, **options: Any) -> None:
    del weight
    log(name, value, **options)


@reduction(lambda calls: [(v, 3.0) for v, _ in calls], _mean)
def weighted(name: str, value: Any, weight: Any, **options: Any) -> None:
    del weight
    log(name, value, batch_size=3, **options)


@reduction(list, _mean)
def traced_weight(name: str, value: Any, weight: Any, **options: Any) -> None:
    log(name, value, batch_size=weight, **options)


@reduction(list, _SUM)
def sum_(name: str, value: Any, weight: Any, **options: Any) -> None:
    del weight
    log(name, value, reduce_fx="sum", **options)


@reduction(list, _MIN)
def min_(name: str, value: Any, weight: Any, **options: Any) -> None:
    del weight
    log(name, value, reduce_fx="min", **options)


@reduction(list, _MAX)
def max_(name: str, value: Any, weight: Any, **options: Any) -> None:
    del weight
    log(name, value, reduce_fx="max", **options)


@reduction(lambda calls: [(float(round(4 * v)), 1.0) for v, _ in calls], _SUM)
def count(name: str, value: Any, weight: Any, **options: Any) -> None:
    del weight
    log(name, jnp.round(4 * value).astype(jnp.int32), reduce_fx="sum", **options)


@reduction(_shown, _mean)
def masked(name: str, value: Any, weight: Any, **options: Any) -> None:
    del weight
    log(name, value, mask=value > MASK_ABOVE, **options)


@reduction(_shown, _MAX)
def masked_max(name: str, value: Any, weight: Any, **options: Any) -> None:
    del weight
    log(name, value, mask=value > MASK_ABOVE, reduce_fx="max", **options)


@reduction(_array, _mean)
def masked_array(name: str, value: Any, weight: Any, **options: Any) -> None:
    del weight
    kept = jnp.stack([value > MASK_ABOVE, value > -100, value > 100])
    array = jnp.stack([value, 2 * value, jnp.full_like(value, jnp.nan)])
    log(name, array, mask=kept, **options)


@reduction(
    lambda calls: [(float(u > MASK_ABOVE), 1.0) for v, _ in calls for u in (v, 2 * v)], _mean
)
def accuracy(name: str, value: Any, weight: Any, **options: Any) -> None:
    del weight
    right = (jnp.stack([value, 2 * value]) > MASK_ABOVE).astype(jnp.int32)
    log(name, Accuracy.of(predictions=right, labels=jnp.ones_like(right)), **options)


@reduction(_ones, _mean)
def lazy(name: str, value: Any, weight: Any, **options: Any) -> None:
    del weight
    log(name, lambda: jnp.sin(value) * 0 + value, **options)


@reduction(lambda calls: [pair for v, w in calls for pair in ((v, w), (2 * v, 1.0))], _mean)
def mean_metric(name: str, value: Any, weight: Any, **options: Any) -> None:
    weights = jnp.stack([weight, jnp.ones_like(weight)])
    log(name, Mean.of(jnp.stack([value, 2 * value]), weights=weights), **options)


@reduction(list, _fold(lambda values: values[-1], math.nan))
def last(name: str, value: Any, weight: Any, **options: Any) -> None:
    del weight
    log(name, Last.of(value), **options)


@reduction(list, _fold(_pair, math.nan))
def vector(name: str, value: Any, weight: Any, **options: Any) -> None:
    del weight
    log(name, Pair.of(value), **options)


# The order of calls, and so the last one, is not part of the oracles of PLACEMENTS.
PLACED = [name for name in REDUCTIONS if name not in {"last", "vector"}]
PAIRED = ["mean", "traced weight", "sum", "min", "max", "last", "vector"]


def emit(
    value: Any,
    weight: Any = None,
    *,
    prefix: str = "",
    reductions: Iterable[str] = PLACED,
    **options: Any,
) -> None:
    """Logs one value once under each of the reductions."""
    value = jnp.asarray(value)
    weight = value * value + 1 if weight is None else jnp.asarray(weight)
    for name in reductions:
        REDUCTIONS[name].log(prefix + name, value, weight, **options)


def emitted(values: Any) -> list[Emitted]:
    """The calls of `emit` with these values and the weight that it gives them."""
    return [(float(v), float(v) ** 2 + 1) for v in np.ravel(values)]


# ---- every transform as a wrapper -------------------------------------------------------------

Fn = Callable[[Any], Any]  # a float32 number to a float32 number
BOUND = 2.0


@dataclasses.dataclass(frozen=True)
class Wrapper:
    """A transform.

    Attributes:
        wrap: the wrapped function;
        calls: what it calls the function with, given its own argument.
        batches: whether it maps the function, so that a branch inside decides for each by running
            both (as JAX documents): then everything is logged.
        branches: whether the function is in a branch.
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


# ---- places in a step -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where `emit` is called.

    Attributes:
        name: its name in the table.
        run: the traced step.
        oracle: what it emits, given the same `x` in float64.
    """

    name: str
    run: Callable[[Any], Any]
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
