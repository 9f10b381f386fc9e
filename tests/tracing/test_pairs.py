"""Each value is counted once in every transform inside every transform, against numpy."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
import pytest

from jaxlog import capture, log_gradient
from jaxlog.logs import Column, Schema, StepState
from tests.tracing.placements import BOUND, PAIRED, REDUCTIONS, WRAPPERS, Fn, emit, emitted

STEPS = (1.5, 2.25)
# jaxlib 0.8 aborts on a program with two meshes.
TWO_MESHES_ABORT = jaxlib.version.__version_info__ < (0, 9)
TWO_AXES = ("shard_map of two axes", "shard_map of one axis of two")


def plain(v: Any) -> Any:
    return jnp.sin(v) * v


def logging(prefix: str) -> Fn:
    def f(v: Any) -> Any:
        emit(v, prefix=f"{prefix}/", reductions=PAIRED, sync_dist=True)
        return plain(v)

    return f


def pair(outer: str, inner: str, f: Fn) -> Fn:
    return WRAPPERS[outer].wrap(WRAPPERS[inner].wrap(f))


@functools.cache
def possible(outer: str, inner: str) -> bool:
    """Whether JAX makes this of a function that logs nothing."""
    try:
        jax.make_jaxpr(pair(outer, inner, plain))(jnp.float32(STEPS[0]))
    except Exception:  # noqa: BLE001 - whatever JAX says no with
        return False
    return True


def calls(outer: str, inner: str, v: float) -> np.ndarray:
    """What the innermost function is called with."""
    around, within = WRAPPERS[outer], WRAPPERS[inner]
    found = []
    for u in around.calls(v):
        runs_both = around.batches and within.branches
        found += [u] if runs_both else list(within.calls(u))
    return np.array(found, np.float64)


@functools.cache
def seen(outer: str) -> list[dict[str, float]]:
    """What each step logs under `outer`, with many inner transforms in one program."""

    def program(inners: list[str]) -> Fn:
        return lambda v: [pair(outer, inner, logging(inner))(v) for inner in inners]

    return _logged(program, [inner for inner in WRAPPERS if possible(outer, inner)])


def _logged(program: Callable[[list[str]], Fn], inners: list[str]) -> list[dict[str, float]]:
    """What each step logs, with as many inner transforms in one program as jaxlib allows."""
    two_axes = [inner for inner in inners if inner in TWO_AXES and TWO_MESHES_ABORT]
    found: list[dict[str, float]] = [{} for _ in STEPS]
    for chosen in ([inner for inner in inners if inner not in two_axes], two_axes):
        if not chosen:
            continue
        captured = capture(program(chosen))
        traced = captured.trace((jnp.float32(STEPS[0]),), {})
        step = jax.jit(lambda v, c=captured, t=traced: c.run(t.schema, t._replace(arrays=[v]))[0])
        for values, v in zip(found, STEPS, strict=True):
            values.update(_values(traced.schema, jax.device_get(step(jnp.float32(v)))))
    return found


def _values(schema: Schema, state: StepState) -> dict[str, float]:
    values = {}
    for spec in schema:
        fields = {
            field: np.array([x]) for field, x in state[spec.name].items() if field != "metric"
        }
        column = Column(spec, fields)
        if fields and not column.present()[0]:
            values[spec.name] = math.nan
        elif spec.metric is not None:
            values[spec.name] = state[spec.name]["metric"].host_compute()
        else:
            values[spec.name] = float(column.step_values()[0])
    return values


# JAX runs a while loop once more to linearize it, and jax.debug.print in it prints twice.
TWICE = {("linearize", "while_loop")}
PAIRS = [(outer, inner) for outer in WRAPPERS for inner in WRAPPERS]


def grouped(pairs: list[tuple[str, str]]) -> list[Any]:
    """Pairs of one outer transform share programs, and so a process."""
    return [pytest.param(*pair, marks=pytest.mark.xdist_group(pair[0])) for pair in pairs]


@pytest.mark.parametrize(("outer", "inner"), grouped(PAIRS))
def test_counts_each_value_once(outer: str, inner: str) -> None:
    if not possible(outer, inner):
        pytest.skip(f"JAX makes no {outer} of {inner}")
    for v, values in zip(STEPS, seen(outer), strict=True):
        inputs = np.repeat(calls(outer, inner, v), 2 if (outer, inner) in TWICE else 1)
        for name in PAIRED:
            found, counted = values[f"{inner}/{name}"], REDUCTIONS[name].counts(emitted(inputs))
            wanted = REDUCTIONS[name].reduce(counted) if counted else math.nan
            assert found == pytest.approx(wanted, rel=3e-6, nan_ok=True), (name, v)


# ---- log_gradient -------------------------------------------------------------------------------

FORWARD = {"while_loop", "jvp", "jacfwd", "linearize"}  # no cotangent comes by
DERIVATIVES = {"grad", "value_and_grad", "jacrev", "hessian", "vjp"}
KEPT = [name for name in WRAPPERS if name not in FORWARD | DERIVATIVES]
GRADIENTS = [(outer, inner) for outer in KEPT for inner in KEPT]


def tapped(prefix: str) -> Fn:
    return lambda v: plain(log_gradient(prefix, v, sync_dist=True))


def slopes(outer: str, inner: str, v: float) -> np.ndarray:
    """The cotangent at each call: the results are added up, so it is the slope of `plain`."""
    if "custom_vjp" in (outer, inner):
        return np.zeros(0)  # its rule stands in for the function's own backward pass
    inputs = calls(outer, inner, v)
    slope = np.abs(np.cos(inputs) * inputs + np.sin(inputs))
    runs_both = WRAPPERS[outer].batches and WRAPPERS[inner].branches
    return np.where(runs_both & (inputs <= BOUND), 0, slope)


@functools.cache
def seen_gradients(outer: str) -> list[dict[str, float]]:
    inners = [i for i in KEPT if possible(outer, i) and differentiable(outer, i)]

    def program(inners: list[str]) -> Fn:
        return jax.grad(
            lambda v: sum(jnp.sum(pair(outer, inner, tapped(inner))(v)) for inner in inners)
        )

    return _logged(program, inners)


@functools.cache
def differentiable(outer: str, inner: str) -> bool:
    try:
        jax.make_jaxpr(jax.grad(pair(outer, inner, plain)))(jnp.float32(STEPS[0]))
    except Exception:  # noqa: BLE001 - whatever JAX says no with
        return False
    return True


@pytest.mark.parametrize(("outer", "inner"), grouped(GRADIENTS))
def test_a_gradient_is_logged_once_a_call(outer: str, inner: str) -> None:
    if not (possible(outer, inner) and differentiable(outer, inner)):
        pytest.skip(f"JAX takes no gradient of {outer} of {inner}")
    for v, values in zip(STEPS, seen_gradients(outer), strict=True):
        found = slopes(outer, inner, v)
        wanted = found.mean() if len(found) else math.nan
        assert values.get(inner, math.nan) == pytest.approx(wanted, rel=3e-6, nan_ok=True), v


# ---- how many -----------------------------------------------------------------------------------


def test_number_of_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    made = sum(possible(outer, inner) for outer, inner in PAIRS)
    with capsys.disabled():
        sys.stdout.write(f" [{made} of {len(PAIRS)} pairs x {len(PAIRED)} reductions]")
    assert len(PAIRS) == len(WRAPPERS) ** 2 == 729
    assert made > 600
